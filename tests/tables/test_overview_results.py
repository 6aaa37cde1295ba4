"""Results are sorted, chosen and grouped by the database, and read in pages that lose and repeat nothing."""

from __future__ import annotations

import math
import statistics

import pytest

from synicix_core.errors import ConfigurationError
from synicix_core.tables import overview_results
from synicix_core.tables.config_numbers import join_numbers
from synicix_core.tables.overview_groups import Grouping, best_tasks, read_groups
from synicix_core.tables.overview_results import Order, Selection, count_results, read_pages, used_configs
from synicix_core.tables.result_columns import Comparison
from tests.cli.conftest import finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

SCORES = [0.25, None, 0.5, 0.1 + 0.2, 0.5, 0.125, None, 0.5, 0.75]


@pytest.fixture
def results(pipeline, monkeypatch):
    """Nine results of three models and three seeds, some with equal scores and two without, and pages of two."""
    monkeypatch.setattr(overview_results, "PAGE", 2)
    monkeypatch.setattr(overview_results, "_SORTED_PAGE", 2)
    trainings = [{"seed": seed} for seed in range(3)]
    models = [{"model_class_params": {"penalty": penalty}} for penalty in (0.0, 0.5, 1.0)]
    tasks = sorted(insert_tasks(pipeline, trainings=trainings, models=models))
    for index, (task, score) in enumerate(zip(tasks, SCORES, strict=True)):
        more = {
            "epochs": index % 3 + 1,
            "best_epoch": None if index % 2 else 1,
            "status": ("diverged", "completed")[index % 2],
        }
        finish(pipeline, {task: score}, **more, code_sha256=str(index % 2) * 64)
    return dict(zip(tasks, SCORES, strict=True))


def read(pipeline, order, selection=None, **options):
    pages = list(read_pages(pipeline.tables, selection or Selection(), order, **options))
    assert all(0 < len(page) <= 2 for page in pages)
    return [row for page in pages for row in page]


@pytest.mark.parametrize("downward", [False, True])
@pytest.mark.parametrize(
    "column", ["task", "score", "of_ceiling", "status", "epochs", "best_epoch", "seconds", "finished_at"]
)
def test_pages_are_in_order_and_complete(pipeline, results, column, downward):
    ceilings = dict.fromkeys(pipeline.DatasetConfig().to_arrays("dataset_config_md5_hash"), 0.5)
    rows = read(pipeline, Order(column, downward), Selection(ceilings=ceilings))
    assert sorted(row.task for row in rows) == sorted(results)

    def value(row):
        return row.score if column == "of_ceiling" else getattr(row, column)

    found = [value(row) for row in rows]
    values = [value for value in found if value is not None]
    assert values == sorted(values, reverse=downward) and found == values + [None] * (len(found) - len(values))
    equal = [row.task for row in rows if value(row) == found[0]]
    assert equal == sorted(equal, reverse=downward)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pages_in_an_order_of_configs(pipeline, results, monkeypatch, share):
    monkeypatch.setattr(overview_results, "_SHARE", share)
    keys = pipeline.ModelConfig().to_arrays("model_config_md5_hash")
    places = {md5: place for place, md5 in zip((1, 0, 1), sorted(keys), strict=True)}
    rows = read(pipeline, Order(kind="model", places=places))
    assert [(places[row.model], row.task) for row in rows] == sorted((places[row.model], row.task) for row in rows)
    assert len(rows) == 9


def test_a_limit_ends_the_reading(pipeline, results):
    best = read(pipeline, Order("score", True), limit=3)
    assert [row.score for row in best] == [0.75, 0.5, 0.5]
    assert len(read(pipeline, Order("score", True), limit=8)) == 8
    with_scores = read(pipeline, Order("score", True), limit=1, with_scores=True)
    assert with_scores[0].scores["test"] == {"loss": 0.5} and best[0].scores == {}


def test_a_result_that_comes_between_two_pages_disturbs_none(pipeline, results):
    pages = read_pages(pipeline.tables, Selection(), Order("score", True))
    first = [row.task for row in next(pages)]
    (best,) = [task for task, score in results.items() if score == 0.75]
    (pipeline.TrainingResult & {"training_task_md5_hash": best}).delete_quick()
    rest = [row.task for page in pages for row in page]
    assert sorted(first + rest) == sorted(results)


@pytest.mark.parametrize(
    ("sign", "column", "value", "holds"),
    [
        ("=", "score", 0.1 + 0.2, lambda row: row.score == 0.1 + 0.2),
        ("!=", "score", 0.5, lambda row: row.score != 0.5),
        ("=", "score", None, lambda row: row.score is None),
        ("!=", "score", None, lambda row: row.score is not None),
        ("<", "score", None, lambda _: False),
        ("<", "score", math.inf, lambda row: row.score is not None),
        (">", "score", "text", lambda _: False),
        ("!=", "score", "text", lambda _: True),
        ("<=", "score", 0.25, lambda row: row.score is not None and row.score <= 0.25),
        ("=", "score", True, lambda _: False),
        (">", "of_ceiling", 0.9, lambda row: row.score is not None and row.score / 0.5 > 0.9),
        ("=", "status", "diverged", lambda row: row.status == "diverged"),
        ("=", "status", "unheard of", lambda _: False),
        ("~", "status", "VERG", lambda row: row.status == "diverged"),
        ("~", "status", "_", lambda _: False),
        (">=", "epochs", 2, lambda row: row.epochs >= 2),
        ("<", "finished_at", "2020-01-01", lambda _: False),
        (">", "finished_at", "2020-01-01T00:00:00+02:00", lambda _: True),
    ],
)
def test_the_database_compares_as_people_mean_it(pipeline, results, sign, column, value, holds):
    ceilings = dict.fromkeys(pipeline.DatasetConfig().to_arrays("dataset_config_md5_hash"), 0.5)
    everything = read(pipeline, Order("task"))
    selection = Selection(comparisons=(Comparison(column, sign, value),), ceilings=ceilings)
    wanted = [row.task for row in everything if holds(row)]
    assert [row.task for row in read(pipeline, Order("task"), selection)] == wanted
    assert count_results(pipeline.tables, selection) == len(wanted)


def test_a_time_is_compared_with_a_time():
    with pytest.raises(ConfigurationError, match="finished_at is compared with a time, not with 'yesterday'"):
        Comparison("finished_at", ">", "yesterday").sql()


def test_a_selection_is_met_by_all_that_reads_it(pipeline, results):
    rows = read(pipeline, Order("task"))
    models = frozenset({rows[0].model, rows[1].model})
    restriction = pipeline.restriction(["seed < 2 AND model_provider LIKE '%%Line'"])
    selection = Selection(restriction=restriction, codes=frozenset({"0" * 64})).among("model", models)
    seeds = {row["training_config_md5_hash"]: row["seed"] for row in pipeline.TrainingConfig().to_dicts()}
    wanted = [row for row in rows if row.model in models and seeds[row.training] < 2 and row.code == "0" * 64]
    assert read(pipeline, Order("task"), selection) == wanted
    assert count_results(pipeline.tables, selection) == len(wanted)
    assert used_configs(pipeline.tables, selection) == {
        kind: frozenset(getattr(row, kind) for row in wanted) for kind in ("dataset", "model", "training")
    }
    assert count_results(pipeline.tables, selection.among("model", frozenset())) == 0
    assert count_results(pipeline.tables, Selection()) == 9


@pytest.mark.parametrize("highest", [False, True])
def test_groups_are_what_their_results_make_them(pipeline, results, highest):
    rows = read(pipeline, Order("task"))
    models = sorted({row.model for row in rows})
    trainings = sorted({row.training for row in rows})
    classes = {"model": {models[0]: 0, models[1]: 1, models[2]: 0}}
    watched = {"training": [{md5: place for place, md5 in enumerate(trainings)}, dict.fromkeys(trainings, 7)]}
    ceilings = {rows[0].dataset: 0.5}
    grouping = Grouping(classes, ("status",), watched)
    selection = Selection(ceilings=ceilings)
    found = {group.key: group for group in read_groups(pipeline.tables, selection, grouping, highest=highest)}
    best = best_tasks(pipeline.tables, selection, grouping, list(found.values()), highest=highest)
    members = {}
    for row in rows:
        members.setdefault((classes["model"][row.model], row.status), []).append(row)
    assert set(found) == set(members)
    for key, held in members.items():
        scores = [row.score for row in held if row.score is not None]
        group = found[key]
        assert (group.results, group.scores) == (len(held), len(scores))
        assert group.mean == (pytest.approx(statistics.fmean(scores)) if scores else None)
        assert group.variance == (pytest.approx(statistics.variance(scores)) if len(scores) > 1 else None)
        assert group.of_ceiling == (pytest.approx(statistics.fmean(scores) / 0.5) if scores else None)
        places = [watched["training"][0][row.training] for row in held]
        assert group.spans == ((min(places), max(places)), (7, 7))
        ordered = read(pipeline, Order("score", highest))
        first = next((row for row in ordered if row in held and row.score is not None), None)
        assert (group.best, best.get(key)) == ((first.score, first.task) if first else (None, None))


def test_one_group_of_everything(pipeline, results):
    (group,) = read_groups(pipeline.tables, Selection(), Grouping({}), highest=True)
    assert group.key == () and group.results == 9 and group.best == 0.75 and group.of_ceiling is None
    assert best_tasks(pipeline.tables, Selection(), Grouping({}), [group], highest=True)[()] in results


def test_numbers_of_many_configs_can_be_joined(pipeline, results):
    models = {f"{index:032x}": float(index) for index in range(5000)} | dict.fromkeys(["none"], None)
    sql, args = join_numbers(
        pipeline.connection.adapter, "LEFT JOIN", "n", "m.model_config_md5_hash", {"place": models}
    )
    source = f"SELECT COUNT(*), COUNT(n.place) FROM {pipeline.ModelConfig.full_table_name} m {sql}"
    assert tuple(pipeline.connection.query(source, args).fetchone()) == (3, 0)
