"""`results`: best first in the metric's own direction, with the columns that differ."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys

import pytest

from synicix_core.cli import results_text
from synicix_core.cli.config_columns import Columns
from synicix_core.cli.where import Condition, split_conditions
from synicix_core.errors import ConfigurationError
from synicix_core.tables import overview_results
from synicix_core.tables.overview_configs import noise_ceilings
from tests.cli.conftest import as_program, finish
from tests.rows import insert_tasks
from tests.saved import LINE_BEFORE

CORRELATION = {"metrics": ["correlation", "loss"]}
METRICS = {"test": {"correlation": 0.5, "loss": 1.25}, "train": {"correlation": 0.75, "loss": 1.0}}


def seeds_of(pipeline, tasks):
    rows = (pipeline.TrainingTask * pipeline.TrainingConfig).to_dicts()
    return {row["seed"]: row["training_task_md5_hash"] for row in rows if row["training_task_md5_hash"] in tasks}


@pytest.fixture
def sweep(pipeline):
    """Two models with three seeds each; scores are correlations."""
    trainings = [{**CORRELATION, "seed": seed, "optimizer_class_params": {"lr": 0.01}} for seed in range(3)]
    models = [{"model_class_params": {"penalty": 0.5}}, {"model_class_params": {"penalty": 0.25, "bias": False}}]
    tasks = insert_tasks(pipeline, trainings=trainings, models=models)
    rows = (pipeline.TrainingTask * pipeline.TrainingConfig * pipeline.ModelConfig).to_dicts()
    scores = {
        row["training_task_md5_hash"]: row["seed"] / 10 + (0.5 if row["model_class_params"]["penalty"] == 0.5 else 0.0)
        for row in rows
    }
    finish(pipeline, scores, scores=METRICS)
    assert set(tasks) == set(scores)
    return scores


@pytest.mark.database
def test_rows_are_sorted_best_first_with_what_differs(sweep, run):
    lines = run("results").stdout.splitlines()
    assert lines[0] == "6 results, score correlation (more is better) on the test tier."
    said = " ".join(lines[1 : lines.index("")])
    for text in ("model = Line", "lr = 0.01", "dataset = line.txt", "status = completed", "batch_size = 8"):
        assert text in said
    header = lines[lines.index("") + 1].split()
    assert header == ["task", "bias", "penalty", "seed", "correlation", "epochs", "time"]
    rows = [line.split() for line in lines[lines.index("") + 2 :]]
    assert [row[4] for row in rows] == ["0.7", "0.6", "0.5", "0.2", "0.1", "0"]
    assert [row[0] for row in rows] == [task[:8] for task in sorted(sweep, key=lambda task: -sweep[task])]
    assert rows[0][1:4] == ["-", "0.5", "2"] and rows[-1][1:4] == ["no", "0.25", "0"]


@pytest.mark.database
def test_less_is_better_for_a_loss_and_no_score_comes_last(pipeline, run_json):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    finish(pipeline, dict(zip(tasks, (0.5, None, 0.25), strict=True)))
    (listing,) = run_json("results")["listings"]
    assert listing["metric"] == "loss" and not listing["higher_is_better"]
    assert [row["score"] for row in listing["results"]] == [0.25, 0.5, None]


@pytest.mark.database
def test_different_scores_are_not_mixed(pipeline, run, run_json):
    tasks = insert_tasks(pipeline, trainings=[{"seed": 0}, CORRELATION])
    finish(pipeline, dict.fromkeys(tasks, 0.5))
    assert [listing["metric"] for listing in run_json("results")["listings"]] == ["correlation", "loss"]
    text = run("results").stdout
    assert "2 different scores" in text and "score correlation" in text and "score loss" in text


@pytest.mark.database
def test_json_has_everything(sweep, run_json):
    (listing,) = run_json("results", "--limit", "1")["listings"]
    assert set(listing) == {"metric", "provider", "higher_is_better", "note", "total", "same_in_all", "results"}
    assert (listing["total"], listing["provider"], listing["note"]) == (6, "synicix-core/correlation", None)
    (row,) = listing["results"]
    result = {"task", "score", "status", "epochs", "best_epoch", "seconds", "finished_at"}
    assert set(row) == result | {"of_ceiling", "noise_ceiling", "scores", "config"}
    assert row["scores"] == METRICS and row["seconds"] == 1.5 and row["finished_at"].endswith("Z")
    assert row["config"]["model.penalty"] == 0.5 and row["config"]["model"] == "toy-lab/Line"


@pytest.mark.database
def test_where_chooses_by_columns_and_by_sql(sweep, run, run_json):
    def scores(*conditions):
        options = [part for condition in conditions for part in ("--where", condition)]
        return [row["score"] for listing in run_json("results", *options)["listings"] for row in listing["results"]]

    assert scores("penalty=0.5") == [0.7, 0.6, 0.5]
    assert scores("penalty=0.5", "seed>=1") == [0.7, 0.6]
    assert scores("model.bias = false", "seed!=1") == [0.2, 0.0]
    assert scores("score > 0.55") == [0.7, 0.6]
    assert scores("model=Line", "seed=2") == scores("model=toy-lab/Line", "seed=2") == [0.7, 0.2]
    assert scores("dataset~LINE", "seed=0") == [0.5, 0.0]
    assert scores("seed in (0, 1) AND batch_size = 8") == [0.6, 0.5, 0.1, 0.0]
    assert scores("dataset_file_name LIKE 'l%.txt'", "seed=1") == [0.6, 0.1]
    assert scores("model=Nobody") == []
    assert "There are no results yet, or none that meet" in run("results", "--where", "seed=9").stdout
    error = run("results", "--where", "penalti=1", code=2).stderr
    assert "the condition 'penalti=1'" in error and "results --columns" in error


@pytest.mark.database
def test_sort_by_any_column_both_ways(sweep, run, run_json):
    def tasks(*options):
        return [row["config"]["seed"] for row in run_json("results", *options)["listings"][0]["results"]]

    assert tasks("--sort", "seed") == [0, 0, 1, 1, 2, 2]
    assert tasks("--sort", "-seed") == [2, 2, 1, 1, 0, 0]
    worst_first = run_json("results", "--sort", "-score")["listings"][0]["results"]
    assert [row["score"] for row in worst_first] == [0.0, 0.1, 0.2, 0.5, 0.6, 0.7]
    assert "Did you mean seed" in run("results", "--sort", "sead", code=2).stderr


@pytest.mark.database
def test_groups_have_the_mean_and_its_standard_error(sweep, run, run_json):
    (listing,) = run_json("results", "--over", "seed")["listings"]
    assert listing["grouped_by"] == ["model.bias", "model.penalty"]
    first, second = listing["groups"]
    assert first["values"] == {"model.penalty": 0.5, "model.bias": None} and first["n"] == 3
    assert first["mean"] == pytest.approx(0.6) and second["mean"] == pytest.approx(0.1)
    assert first["sem"] == pytest.approx(0.1 / math.sqrt(3))
    assert first["best"] == 0.7 and first["best_task"] == max(sweep, key=lambda task: sweep[task])
    text = run("results", "--over", "seed").stdout
    assert "Mean over seed." in text and "0.6 ± 0.058" in text
    by_model = run_json("results", "--group-by", "model")["listings"][0]["groups"]
    assert [group["n"] for group in by_model] == [6]
    assert "Mean over bias, penalty, seed." in run("results", "--group-by", "dataset,model").stdout
    assert "not both" in run("results", "--over", "seed", "--group-by", "model", code=2).stderr
    assert "there is no column 'modle'" in run("results", "--group-by", "modle", code=2).stderr


@pytest.mark.database
def test_limit_says_how_many_more(sweep, run):
    text = run("results", "--limit", "2").stdout
    assert text.splitlines()[-1] == "4 more; show all with --limit 0"
    assert "more; show all" not in run("results", "--limit", "0").stdout
    assert "more; show all" not in run("results").stdout


@pytest.mark.database
def test_csv_is_complete_and_exact(pipeline, run, tmp_path):
    tasks = insert_tasks(pipeline, trainings=[CORRELATION, {**CORRELATION, "seed": 1}])
    finish(pipeline, {tasks[0]: 0.1 + 0.2, tasks[1]: None}, scores=METRICS)
    rows = list(csv.DictReader(io.StringIO(run("results", "--csv", "-", "--limit", "1").stdout)))
    assert [row["score"] for row in rows] == ["0.30000000000000004", ""]
    assert rows[0]["task"] == tasks[0] and rows[0]["test loss"] == "1.25" and rows[0]["model"] == "toy-lab/Line"
    assert "2 rows written" in run("results", "--csv", str(tmp_path / "out.csv")).stdout
    assert list(csv.DictReader((tmp_path / "out.csv").open())) == rows
    assert "cannot be written" in run("results", "--csv", str(tmp_path / "no" / "out.csv"), code=2).stderr
    groups = list(csv.DictReader(io.StringIO(run("results", "--over", "seed", "--csv", "-").stdout)))
    assert groups == [
        {
            "metric": "correlation",
            "n": "1",
            "mean": "0.30000000000000004",
            "sem": "",
            "of_ceiling": "",
            "best": "0.30000000000000004",
            "best_task": tasks[0],
        }
    ]


@pytest.mark.database
def test_columns_lists_what_can_be_named(sweep, run, run_json):
    found = {item["column"]: item for item in run_json("results", "--columns")["columns"]}
    example = found["model.penalty"].pop("example")
    assert found["model.penalty"] == {"column": "model.penalty", "short": "penalty", "values": 2}
    assert example in (0.25, 0.5)
    assert found["score"]["values"] is None
    assert "model.penalty" in run("results", "--columns").stdout


@pytest.mark.database
def test_the_noise_ceiling_of_a_dataset_gives_a_percentage(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline, trainings=[CORRELATION])
    md5 = pipeline.DatasetConfig().fetch1("dataset_config_md5_hash")
    stated = {"noise_ceiling": {"correlation": 0.8, "loss": None}}
    pipeline.DatasetConfig().update1({"dataset_config_md5_hash": md5, "additional_model_params": stated})
    assert noise_ceilings(pipeline.tables, [md5]) == {md5: {"correlation": 0.8}}
    finish(pipeline, {task: 0.72})
    (row,) = run_json("results")["listings"][0]["results"]
    assert row["noise_ceiling"] == 0.8 and row["of_ceiling"] == pytest.approx(0.9)
    text = run("results").stdout
    assert "of ceiling" in text and "90.0%" in text
    assert "90.0%" in run("results", "--group-by", "model").stdout


@pytest.mark.database
def test_no_results_say_what_to_do(pipeline, run, run_json):
    assert "synicix-run populate" in run("results").stdout
    assert run_json("results") == {"listings": []}


@pytest.mark.database
def test_a_metric_whose_plugin_is_gone_is_sorted_downward_and_said(pipeline, sweep, run, monkeypatch):
    row = pipeline.TrainingConfig().to_dicts()[0]
    metrics = [{"provider": "gone-kit/rmse", "params": {}}]
    pipeline.TrainingConfig().update1({"training_config_md5_hash": row["training_config_md5_hash"], "metrics": metrics})
    text = run("results").stdout
    assert (
        "score rmse" in text and "is not known, so the highest comes first" in text and "pip install gone-kit" in text
    )


@pytest.mark.database
def test_a_closed_pipe_is_no_error(sweep, project):
    assert json.loads(as_program("results", "--json").stdout)["listings"]
    shell = f"{sys.executable} -m synicix_core.cli results --csv - | true"
    piped = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert piped.stderr == ""


@pytest.fixture
def small_pages(monkeypatch):
    """Pages and single tables of two rows, so that five results are many."""
    monkeypatch.setattr(overview_results, "PAGE", 2)
    monkeypatch.setattr(results_text, "_ONE_TABLE", 2)


@pytest.mark.database
def test_many_results_are_written_page_by_page(sweep, small_pages, run, run_json):
    ordered = sorted(sweep, key=lambda task: -sweep[task])
    lines = run("results").stdout.splitlines()
    assert lines[0] == "6 results, score correlation (more is better) on the test tier."
    head = lines.index("")
    table = lines[head + 1 :]
    assert table[0].split() == ["task", "bias", "penalty", "seed", "correlation", "status", "epochs", "time"]
    assert [line.split()[0] for line in table[1:]] == [task[:8] for task in ordered]
    # All pages are of one width, and numbers stand below each other.
    assert len({len(line) for line in table}) == 1
    (listing,) = run_json("results")["listings"]
    assert [row["task"] for row in listing["results"]] == ordered and listing["results"][0]["scores"] == METRICS
    assert listing["same_in_all"]["batch_size"] == 8 and "seed" not in listing["same_in_all"]
    rows = list(csv.DictReader(io.StringIO(run("results", "--csv", "-").stdout)))
    assert [row["task"] for row in rows] == ordered and rows[0]["train loss"] == "1.0"
    (listing,) = run_json("results", "--group-by", "penalty")["listings"]
    assert [group["tasks"] for group in listing["groups"]] == [ordered[:3], ordered[3:]]


@pytest.mark.database
def test_a_page_for_a_terminal_is_not_read_further(sweep, small_pages, run, monkeypatch):
    read = []
    original = overview_results.execute

    def counted(connection, sql, params=()):
        cursor = original(connection, sql, params)
        read.append(cursor.rowcount)
        return cursor

    monkeypatch.setattr(overview_results, "execute", counted)
    assert run("results", "--limit", "1").stdout.splitlines()[-1] == "5 more; show all with --limit 0"
    assert read == [1, 1]


@pytest.mark.database
def test_results_can_be_grouped_by_their_own_columns(sweep, run_json):
    (listing,) = run_json("results", "--group-by", "status,seed")["listings"]
    assert listing["grouped_by"] == ["status", "seed"]
    assert [(group["values"]["seed"], group["n"]) for group in listing["groups"]] == [(2, 2), (1, 2), (0, 2)]
    assert all(len(group["tasks"]) == 2 for group in listing["groups"])
    limited = run_json("results", "--over", "seed", "--limit", "1")["listings"][0]
    assert limited["total"] == 6 and len(limited["groups"]) == 1
    assert limited["same_in_all"]["model.penalty"] == 0.5 and "seed" not in limited["same_in_all"]


@pytest.mark.database
def test_a_config_without_a_result_is_no_difference(pipeline, sweep, run, run_json):
    insert_tasks(
        pipeline, trainings=[{**CORRELATION, "seed": 9, "batch_size": 4, "optimizer_class_params": {"lr": 0.5}}]
    )
    (listing,) = run_json("results", "--over", "seed")["listings"]
    assert listing["grouped_by"] == ["model.bias", "model.penalty"] and listing["same_in_all"]["batch_size"] == 8
    assert "Mean over seed." in run("results", "--over", "seed").stdout
    columns = {item["column"]: item["values"] for item in run_json("results", "--columns")["columns"]}
    assert (columns["seed"], columns["batch_size"]) == (3, 1)


@pytest.mark.database
def test_sorting_by_a_column_that_not_all_have(sweep, run_json):
    def biases(*options):
        return [row["config"].get("model.bias") for row in run_json("results", *options)["listings"][0]["results"]]

    assert biases("--sort", "bias") == biases("--sort=-bias") == [False] * 3 + [None] * 3
    assert biases("--sort", "-bias", "--limit", "4") == [False] * 3 + [None]


@pytest.mark.database
def test_a_time_can_be_a_condition(sweep, run, run_json):
    assert run_json("results", "--where", "finished_at>2020-01-31")["listings"][0]["total"] == 6
    assert run_json("results", "--where", "finished_at<2020-01-31")["listings"] == []
    assert "finished_at is compared with a time" in run("results", "--where", "finished_at<soon", code=2).stderr


@pytest.mark.database
def test_stale_results_and_what_changed(pipeline, run, run_json):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(4)])
    points = {**LINE_BEFORE, "kind": "dataset", "provider": "toy-lab/Points"}
    gone = {**LINE_BEFORE, "provider": "gone-lab/Net"}
    finish(pipeline, {tasks[0]: 0.5}, provenance={"providers": [LINE_BEFORE]}, code_sha256="a" * 64)
    finish(pipeline, {tasks[1]: 0.25}, provenance={"providers": [LINE_BEFORE, points]}, code_sha256="b" * 64)
    finish(pipeline, {tasks[2]: 0.125}, provenance={"providers": [gone]}, code_sha256="c" * 64)
    found = run_json("results", "--stale")
    (listing,) = found["listings"]
    assert [(row["task"], row["changed"]) for row in listing["results"]] == [
        (tasks[1], ["toy-lab/Line", "toy-lab/Points"]),
        (tasks[0], ["toy-lab/Line"]),
    ]
    assert len(found["stale"]) == 2 and found["unknown"] == ["model gone-lab/Net"]
    assert "changed" not in run_json("results")["listings"][0]["results"][0]
    result = run("results", "--stale")
    assert "2 results" in result.stdout and "toy-lab/Line toy-lab/Points" in result.stdout
    assert result.stderr == "These cannot be compared here: model gone-lab/Net.\n"
    assert "changed = toy-lab/Line" in " ".join(run("results", "--stale", "--where", "score=0.5").stdout.split())
    rows = list(csv.DictReader(io.StringIO(run("results", "--stale", "--csv", "-").stdout)))
    assert [row["changed"] for row in rows] == ["toy-lab/Line toy-lab/Points", "toy-lab/Line"]


@pytest.mark.database
def test_nothing_stale_lists_nothing(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline)
    finish(pipeline, {task: 0.5}, provenance={"providers": []})
    assert run_json("results", "--stale") == {"listings": [], "stale": [], "unknown": []}
    assert "No result is stale." in run("results", "--stale").stdout


def test_short_names_are_given_only_where_they_are_unambiguous():
    columns = Columns(["seed", "trainer.score", "model.seed", "optimizer.lr", "model.width", "model.lr", "model"])
    assert {name: columns.short(name) for name in columns.full} == {
        "model": "model",
        "model.lr": "model.lr",
        "model.seed": "model.seed",
        "model.width": "width",
        "trainer.score": "trainer.score",
        "optimizer.lr": "optimizer.lr",
        "seed": "seed",
    }
    assert columns.full[0] == "model" and columns.full[-1] == "seed"
    assert columns.find("width") == "model.width" and columns.find("seed") == "seed" and columns.find("nothing") is None
    assert columns.find("of-ceiling") == "of_ceiling"
    with pytest.raises(ConfigurationError, match=r"model\.lr, optimizer\.lr"):
        columns.find("lr")


@pytest.mark.parametrize(
    ("sign", "value", "found", "holds"),
    [
        ("=", 1, 1, True), ("=", 1, 1.0, True), ("=", 1, True, False), ("=", True, True, True), ("=", "a", "kit/a", True),
        ("=", 64, "64", True), ("=", None, None, True), ("!=", 1, None, True), ("<", 2, 1, True), ("<", 2, "x", False),
        (">", 2, None, False), ("~", "REC", "recording1.h5", True), ("~", 6, 64, True), ("=", [1, 2], [1, 2], True),
    ],
)  # fmt: skip
def test_conditions(sign, value, found, holds):
    assert Condition("column", sign, value).holds(found) is holds


def test_what_names_no_column_is_left_to_the_database():
    columns = Columns(["seed", "dataset"])
    conditions, sql = split_conditions(["seed = 1", "dataset=a b.h5", "batch_size > 3", "seed in (1, 2)"], columns)
    assert conditions == [Condition("seed", "=", 1), Condition("dataset", "=", "a b.h5")]
    assert sql == ["batch_size > 3", "seed in (1, 2)"]
