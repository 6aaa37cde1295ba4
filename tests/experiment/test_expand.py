"""expand: grids multiply, draws are crossed with them, rules are a union, and order does not matter."""

import itertools
import json
import math
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synicix_core.errors import ParamsError
from synicix_core.experiment import MAX_CONFIGS, expand, read_experiment

TRAINING = '[[training]]\ncriterion = "C"\n'


@pytest.fixture
def datasets(tmp_path):
    root = tmp_path / "datasets"
    root.mkdir()
    for name in ("b.h5", "a.h5"):
        (root / name).touch()
    return root


def plan_of(datasets, text, **options):
    path = datasets.parent / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return expand(read_experiment(path), datasets, **options)


def test_rows_have_the_columns_of_the_tables(datasets):
    plan = plan_of(
        datasets,
        """
        [[dataset]]
        files = "a.h5"
        provider = "lab-plugin/D@2"
        test_sampler = "SequentialSampler"
        [[model]]
        provider = "M"
        params = { a = 1 }
        [[training]]
        criterion = { provider = "C", params = { b = 2.0 } }
        trainer = { params = { c = 3 } }
        """,
    )
    assert plan.datasets[0].row == {
        "dataset_file_name": "a.h5",
        "dataset_type": "D",
        "dataset_provider": "lab-plugin/D@2",
        "dataset_class_params": {},
        "test_sampler_provider": "SequentialSampler",
        "test_sampler_class_params": {},
    }
    assert plan.models[0].row == {"model_provider": "M", "model_class_params": {"a": 1}}
    assert plan.trainings[0].row == {
        "criterion_provider": "C",
        "criterion_class_params": {"b": 2.0},
        "trainer_class_params": {"c": 3},
    }


def test_every_column_of_a_training(datasets):
    text = TRAINING + 'optimizer = "O"\ntrainer = "T"\nmetrics = "r2"\nbatch_size = 8\nepoch_limit = 9\nseed = 10\n'
    (config,) = plan_of(datasets, text).trainings
    assert config.row == {
        "criterion_provider": "C",
        "criterion_class_params": {},
        "optimizer_provider": "O",
        "optimizer_class_params": {},
        "trainer_provider": "T",
        "trainer_class_params": {},
        "metrics": [{"provider": "r2", "params": {}}],
        "batch_size": 8,
        "epoch_limit": 9,
        "seed": 10,
    }


def test_files_are_crossed_with_the_grid(datasets):
    plan = plan_of(
        datasets,
        '[[dataset]]\nname = "v1"\nfiles = ["b.h5", "a.h5"]\nprovider = "D"\ntype = "t"\n'
        '[dataset.grid]\n"params.mode" = ["x", "y"]\n',
    )
    assert [config.choices for config in plan.datasets] == [
        (("files", file), ("params.mode", mode)) for file in ("a.h5", "b.h5") for mode in ("x", "y")
    ]
    assert {(config.label, config.origin) for config in plan.datasets} == {("v1", "sweep.toml [[dataset]] #1 'v1'")}
    assert {config.row["dataset_type"] for config in plan.datasets} == {"t"}


def test_a_grid_replaces_what_the_table_says(datasets):
    (one, two) = plan_of(datasets, TRAINING + "seed = 7\n[training.grid]\nseed = [0, 1]\n").trainings
    assert (one.row["seed"], two.row["seed"]) == (0, 1)


def test_a_path_below_a_swept_component_is_set_in_each_of_its_values(datasets):
    plan = plan_of(
        datasets,
        TRAINING + '[training.grid]\n"optimizer.params.lr" = [1, 2]\n'
        'optimizer = ["A", { provider = "B", params = { m = 3 } }]\n',
    )
    rows = [(config.row["optimizer_provider"], config.row["optimizer_class_params"]) for config in plan.trainings]
    assert rows == [("A", {"lr": 1}), ("A", {"lr": 2}), ("B", {"m": 3, "lr": 1}), ("B", {"m": 3, "lr": 2})]


def test_rows_share_nothing_that_can_be_changed(datasets):
    text = (
        '[[model]]\nprovider = "M"\nparams = { a = [1] }\n[model.grid]\n"params.b" = [[1], [2]]\n"params.c" = [1, 2]\n'
    )
    plan = plan_of(datasets, text)
    for value in plan.models[0].row["model_class_params"].values():
        if isinstance(value, list):
            value.append("changed")
    assert "changed" not in str([config.row for config in plan.models[1:]])


def test_draws_that_coincide_make_one_config(datasets):
    text = '[[model]]\nprovider = "M"\n[model.random]\nsamples = 50\n"params.a" = { choice = [1, 1.0, true] }\n'
    values = [config.row["model_class_params"]["a"] for config in plan_of(datasets, text).models]
    assert sorted(map(repr, values)) == ["1", "1.0", "True"]


def test_too_many_configs_are_refused_before_one_is_made(datasets):
    axis = str(list(range(100)))
    text = '[[model]]\nname = "m"\nprovider = "M"\n[model.grid]\n' + "".join(
        f"params.p{i} = {axis}\n" for i in range(9)
    )
    with pytest.raises(
        ParamsError, match=rf"\[\[model\]\] 'm': makes 1{',000' * 6} configs, more than {MAX_CONFIGS:,}"
    ):
        plan_of(datasets, text)


def test_missing_files_of_all_tables_come_at_once(datasets):
    text = '[[dataset]]\nname = "d"\nfiles = "x*"\nprovider = "D"\n[[dataset]]\nfiles = ["../y"]\nprovider = "D"\n'
    with pytest.raises(ParamsError) as caught:
        plan_of(datasets, text)
    (first, second) = caught.value.mistakes
    assert first[0] == "sweep.toml, [[dataset]] 'd', files"
    assert "holds a.h5, b.h5" in first[1]
    assert second[0] == "sweep.toml, [[dataset]] #2, files"


def test_links_are_followed_where_the_settings_say_so(datasets):
    (datasets.parent / "out.h5").touch()
    (datasets / "link.h5").symlink_to(datasets.parent / "out.h5")
    text = '[[dataset]]\nfiles = "link.h5"\nprovider = "D"\n'
    with pytest.raises(ParamsError, match="leads out"):
        plan_of(datasets, text)
    assert len(plan_of(datasets, text, follow_symlinks=True).datasets) == 1


THREE = "".join(
    f'[[{kind}]]\nname = "{name}"\n{keys}\n'
    for kind, keys in (
        ("dataset", 'files = "*.h5"\nprovider = "D"'),
        ("model", 'provider = "M"'),
        ("training", 'criterion = "C"'),
    )
    for name in ("p", "q")
)


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ("", 16),
        ("[[task]]\n", 16),
        ('[[task]]\nmodel = "p"\n', 8),
        ('[[task]]\nmodel = ["p", "q"]\ndataset = "q"\n', 8),
        ('[[task]]\nmodel = "p"\n[[task]]\nmodel = "p"\ntraining = "*"\n', 8),
        ('[[task]]\nmodel = "p"\n[[task]]\ntraining = "p"\n', 12),
        ('[[task]]\nmodel = "p"\ndataset = "p"\ntraining = "p"\n', 2),
    ],
)
def test_rules_are_a_union(datasets, rules, count):
    plan = plan_of(datasets, THREE + rules)
    combinations = list(plan.combinations())
    assert plan.task_count == len(combinations) == len(set(combinations)) == count


def test_a_rule_means_the_tables_that_it_names(datasets):
    plan = plan_of(datasets, THREE + '[[task]]\nmodel = "q"\ndataset = "p"\ntraining = "q"\n')
    labels = {
        (plan.datasets[d].label, plan.models[m].label, plan.trainings[t].label) for d, m, t in plan.combinations()
    }
    assert labels == {("p", "q", "q")}
    assert plan.notes == tuple(
        f"no [[task]] names [[{kind}]] #{number} {name!r}"
        for kind, number, name in (("dataset", 2, "q"), ("model", 1, "p"), ("training", 1, "p"))
    )


def test_a_file_without_all_kinds_makes_no_task_and_says_so(datasets):
    plan = plan_of(datasets, TRAINING)
    assert (plan.task_count, len(plan.trainings)) == (0, 1)
    assert plan.notes == ("the file has no [[dataset]] and no [[model]], so it makes no task",)


def test_a_million_tasks_are_counted_without_being_listed(datasets):
    numbers = list(range(1000))
    text = (
        '[[dataset]]\nfiles = "a.h5"\nprovider = "D"\n[[model]]\nprovider = "M"\n'
        f"[model.grid]\nparams.a = {numbers}\n{TRAINING}[training.grid]\nseed = {numbers}\n"
    )
    started = time.process_time()
    assert plan_of(datasets, text).task_count == 1_000_000
    assert time.process_time() - started < 5


def test_a_hundred_thousand_tasks_expand_in_seconds(datasets):
    text = (
        '[[dataset]]\nfiles = "a.h5"\nprovider = "D"\n[[model]]\nprovider = "M"\n[model.random]\nsamples = 10_000\n'
        f'"params.a" = {{ uniform = [0, 1] }}\n{TRAINING}[training.grid]\nseed = {list(range(10))}\n'
    )
    started = time.process_time()
    plan = plan_of(datasets, text)
    assert sum(1 for _ in plan.combinations()) == plan.task_count > 99_000
    assert time.process_time() - started < 10


VALUE = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
)
AXES = st.dictionaries(
    st.sampled_from(["params.a", "params.b", "params.c.d", "provider"]),
    st.lists(VALUE, min_size=1, max_size=4, unique_by=lambda value: (type(value).__name__, str(value), value == 0)),
    min_size=1,
)


def model_toml(axes, draws=(), samples=3):
    axes = {path: ["M", "N"] if path == "provider" else values for path, values in axes}
    lines = [f'"{path}" = {json.dumps(values)}' for path, values in axes.items()]
    text = "\n".join(['[[model]]\nprovider = "M"\n[model.grid]', *lines, ""])
    if draws:
        lines = [f'"params.{name}" = {{ uniform = [0, {bound}] }}' for name, bound in draws]
        text += "\n".join(["[model.random]", *lines, f"samples = {samples}", "seed = 5", ""])
    return text


def rows(plan):
    return [config.row for config in plan.models]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(AXES, st.integers(0, 4), st.randoms(use_true_random=False))
def test_sweeps_have_the_product_of_their_values_in_any_order_of_keys(datasets, axes, samples, random):
    draws = [("x", 1), ("y", 2), ("z", 3)] if samples else []
    plan = plan_of(datasets, model_toml(axes.items(), draws, samples))
    sizes = [
        2 if path == "provider" else len({repr(value + 0.0 if isinstance(value, float) else value) for value in values})
        for path, values in axes.items()
    ]
    assert len(plan.models) == math.prod(sizes) * (samples or 1) == plan.models[0].table.combinations

    assert len({json.dumps(row, sort_keys=True) for row in rows(plan)}) == len(plan.models)

    shuffled = list(axes.items())
    random.shuffle(shuffled)
    random.shuffle(draws)
    again = plan_of(datasets, model_toml(shuffled, draws, samples))
    assert json.dumps(rows(again), sort_keys=True) == json.dumps(rows(plan), sort_keys=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(AXES)
def test_every_combination_is_there(datasets, axes):
    plan = plan_of(datasets, model_toml(axes.items()))
    axes = {path: ["M", "N"] if path == "provider" else values for path, values in sorted(axes.items())}
    expected = [tuple(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    assert [repr(config.choices) for config in plan.models] == [repr(choices) for choices in expected]
