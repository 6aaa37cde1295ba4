"""check: each distinct combination is built and run once, and a broken one does not hide the others."""

import json

import pytest

from synicix_core.errors import ParamsError
from synicix_core.experiment import check, expand, read_experiment
from tests.experiment.fake_pipeline import FakePipeline

SWEEP = """
[[dataset]]
name = "v1"
files = "a.h5"
provider = "Data"
[[model]]
name = "net"
provider = "Net"
[model.grid]
"params.hidden_size" = [4, 8]
[[training]]
name = "adam"
criterion = "Loss"
batch_size = 4
[training.grid]
seed = [0, 1, 2]
"optimizer.params.lr" = [0.1, 0.2]
"""


@pytest.fixture
def pipeline(tmp_path):
    dataset_dir = tmp_path / "datasets"
    dataset_dir.mkdir()
    (dataset_dir / "a.h5").write_text("a")
    return FakePipeline(dataset_dir)


def plan_of(pipeline, text):
    path = pipeline.dataset_dir.parent / "sweep.toml"
    path.write_text(text)
    return expand(read_experiment(path), pipeline.dataset_dir)


def test_combinations_that_differ_in_the_seed_alone_are_checked_once(pipeline):
    seen = []
    results = check(pipeline, plan_of(pipeline, SWEEP), device="cpu", observe=lambda *event: seen.append(event))
    assert [(result.model, result.training, result.tasks, result.ok) for result in results] == [
        (f"Net(hidden_size={size})", f"Adam(lr={lr}) Loss NNTrainer batch_size=4", 3, True)
        for size in (4, 8)
        for lr in (0.1, 0.2)
    ]
    assert seen == [(result, 4) for result in results]
    assert results[0].dataset == "a.h5 Data"
    assert results[0].origins == (
        "sweep.toml [[dataset]] #1 'v1'",
        "sweep.toml [[model]] #1 'net'",
        "sweep.toml [[training]] #1 'adam'",
    )
    assert [result.report.parameters for result in results[::2]] == [3 * 4 + 4 + 4 * 2 + 2, 3 * 8 + 8 + 8 * 2 + 2]
    assert all(result.seconds > 0 for result in results)


def test_nothing_is_inserted_or_written(pipeline):
    check(pipeline, plan_of(pipeline, SWEEP), device="cpu")
    assert pipeline.counts() == [0, 0, 0, 0]
    assert sorted(path.name for path in pipeline.dataset_dir.parent.iterdir()) == ["datasets", "sweep.toml"]


def test_a_combination_that_fails_says_why_and_the_others_go_on(pipeline):
    text = SWEEP.replace(
        "[[model]]", '[[model]]\nprovider = "Broken"\n[model.grid]\n"params.leave" = [false, true]\n[[model]]'
    )
    results = check(pipeline, plan_of(pipeline, text.replace("[0.1, 0.2]", "[0.1]")), device="cpu")
    assert [result.ok for result in results] == [False, False, True, True]
    assert "mat1 and mat2 do not fit" in results[0].reason
    assert "sys.exit(3)" in results[1].reason
    assert "failed" in str(results[0])
    assert str(results[2]).endswith("): ok")
    assert json.loads(json.dumps([result.to_dict() for result in results]))[0]["ok"] is False


def test_a_dataset_file_that_has_gone_is_a_failure_of_its_combinations(pipeline, monkeypatch):
    plan = plan_of(pipeline, SWEEP)
    complete = pipeline.DatasetConfig.complete

    def then_remove(row):
        done = complete(row)
        (pipeline.dataset_dir / "a.h5").unlink()
        return done

    monkeypatch.setattr(pipeline.DatasetConfig, "complete", then_remove)
    results = check(pipeline, plan, device="cpu")
    assert {result.ok for result in results} == {False}
    assert "there is no dataset file 'a.h5'" in results[0].reason


def test_a_configured_sampler_is_used(pipeline):
    text = SWEEP.replace('"Data"\n', '"Data"\ntrain_sampler = "SequentialSampler"\n')
    assert all(result.ok for result in check(pipeline, plan_of(pipeline, text), device="cpu"))


def test_rows_that_are_wrong_are_told_as_by_add(pipeline):
    with pytest.raises(ParamsError, match=r"\[\[model\]\] 'net', params.hiden: .*did you mean 'hidden_size'"):
        check(pipeline, plan_of(pipeline, SWEEP.replace("params.hidden_size", "params.hiden")), device="cpu")
