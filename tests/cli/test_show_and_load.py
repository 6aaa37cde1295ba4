"""`show` and `load`."""

from __future__ import annotations

import shutil

import pytest

from synicix_core.tables.housekeeping import result_files
from synicix_core.tables.queue import Problem
from synicix_core.tables.result_histories import HISTORIES
from tests.cli.conftest import claim_task, fail, finish
from tests.rows import insert_tasks
from tests.saved import LINE_BEFORE, store_dir

pytestmark = pytest.mark.database


def test_show_has_everything_about_a_result(pipeline, run, run_json):
    (task,) = insert_tasks(
        pipeline,
        trainings=[{"metrics": ["correlation", "loss"], "seed": 11}],
        models=[{"model_class_params": {"penalty": 0.5}}],
    )
    pipeline.DatasetConfig().update1(
        {**pipeline.DatasetConfig().keys()[0], "additional_model_params": {"noise_ceiling": {"correlation": 0.8}}}
    )
    finish(
        pipeline,
        {task: 0.5},
        scores={"test": {"correlation": 0.4, "loss": 1.0}, "train": {"correlation": None, "loss": 0.5}},
    )
    text = run("show", task[:6]).stdout
    for part in (
        f"task {task}: finished", "line.txt (Points)", "toy-lab/Line (penalty = 0.5)", "seed 11", "batch size 8",
        "completed after 3 epochs, best epoch 2", "50.0% of the ceiling 0.8", "1  finished on node7:41, cpu", "host node7",
        "model toy-lab/Line 1.0 no source file", "model.pt", "0" * 64, "█▃▁", "█▁▂",
    ):  # fmt: skip
        assert part in text, part
    score = next(line for line in text.splitlines() if line.endswith("<- score"))
    assert score.split()[:3] == ["correlation", "-", "0.4"]
    assert text.index("correlation  ") < text.index("loss  ")
    found = run_json("show", task)
    assert found["state"] == "finished" and found["model"]["model_class_params"] == {"penalty": 0.5}
    assert found["result"]["training_epoch_loss_history"] == [1.0, 0.6, 0.4]
    assert found["noise_ceiling"] == {"correlation": 0.8} and found["model_file"].endswith("models/model.pt")
    assert found["dataset"]["additional_model_params"] == {"noise_ceiling": {"correlation": 0.8}}


def test_show_prints_the_rest_where_a_history_is_missing(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline)
    finish(pipeline, {task: 0.5})
    store = store_dir(pipeline)
    whole = run_json("show", task)
    assert whole["missing_histories"] == {} and whole["store"] == str(store.parents[1])
    [row] = (pipeline.TrainingResult & {"training_task_md5_hash": task}).to_dicts()
    assert [*row] == [*whole["result"]]
    name = "training_epoch_loss_history"
    path = _paths(pipeline, task)[HISTORIES.index(name)]
    saved = (store.parents[1] / path).read_bytes()
    (store.parents[1] / path).unlink()
    text = run("show", task).stdout
    assert f"learning curves: missing, {name}\n" in text and f"the history {path}: there is no such file" in text
    assert f"external_training_result is {store.parents[1]}. Copy the files there" in text
    assert "validation █▁▂" in text and "train " not in text.partition("<- score")[2].partition("file ")[0]
    assert f"file      {pipeline.settings.model_save_dir}" in text and "provenance" in text
    found = run_json("show", task)
    assert found["missing_histories"] == {name: f"the history {path}: there is no such file in the store"}
    assert found["result"][name] is None and found["result"]["validation_epoch_loss_history"] == [1.1, 0.5, 0.6]
    run("show", task, "--timing")
    assert "0.5" in run("results").stdout
    # Another file in its place is no better.
    (store.parents[1] / path).write_bytes(saved[:-1])
    assert "is another file: its hash differs" in run("show", task).stdout
    store.parents[1].rename(store.parents[1].with_name("unplugged"))
    text = run("show", task).stdout
    assert all(name in text for name in HISTORIES) and "provenance" in text


def _paths(pipeline, task):
    (row,) = [row for row in result_files(pipeline.tables) if row.task == task]
    return row.histories


def test_load_does_not_ask_for_histories(pipeline, project, run):
    (task,) = insert_tasks(pipeline)
    run("populate", "--fuse", "off")
    shutil.rmtree(store_dir(pipeline))
    assert "parameters" in run("load", task).stdout


def test_show_has_the_traceback_of_a_failed_task(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline)
    fail(pipeline, task, "ValueError: bad", 'Traceback:\n  File "net.py", line 3')
    text = run("show", task).stdout
    assert "error" in text.splitlines()[0] and "1  failed on node8:42, cuda:0" in text
    assert "ValueError: bad" in text and 'File "net.py", line 3' in text
    assert run_json("show", task)["attempts"][0]["error"] == "ValueError: bad"


def test_show_says_when_a_task_is_due(pipeline, run):
    (task,) = insert_tasks(pipeline)
    assert run("show", task).stdout.splitlines()[0] == f"task {task}: pending"
    claim = pipeline.queue.claim("a" * 32, "node7", 1, "cpu")
    pipeline.queue.retry_later(claim, Problem("it died", kind="died"), 3600.0)
    assert "scheduled, due in" in run("show", task).stdout.splitlines()[0]


def test_show_says_that_a_result_is_stale_and_why(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline)
    gone = {**LINE_BEFORE, "provider": "gone-lab/Net"}
    finish(pipeline, {task: 0.5}, provenance={"providers": [LINE_BEFORE, gone]})
    text = run("show", task).stdout
    assert text.splitlines()[0] == f"task {task}: finished, stale"
    assert "the source file of the model toy-lab/Line has changed" in text
    assert "cannot be compared with the code installed here: model gone-lab/Net." in text
    found = run_json("show", task)
    assert len(found["stale"]) == 1 and found["not_compared"] == ["model gone-lab/Net"]


def test_show_names_the_checkpoint_of_a_released_task(pipeline, project, run, run_json):
    (task,) = insert_tasks(pipeline)
    assert run_json("show", task)["checkpoint_file"] is None
    pipeline.queue.release(claim_task(pipeline, task), f"{task}.1.checkpoint")
    assert run_json("show", task)["checkpoint_file"] is None, "somebody removed it"
    # The file counts, also of a worker that was killed and could tell nothing.
    (pipeline.settings.model_save_dir / f"{task}.1.checkpoint").touch()
    assert f"{task}.1.checkpoint: the next attempt goes on from it" in run("show", task).stdout
    assert run_json("show", task)["checkpoint_file"].endswith(f"models/{task}.1.checkpoint")
    finish(pipeline, {task: 0.5})
    assert run_json("show", task)["checkpoint_file"] is None and run_json("show", task)["stale"] == []


def test_load_wants_a_result_and_an_intact_file(pipeline, project, run):
    (task,) = insert_tasks(pipeline)
    assert "has no result yet" in run("load", task, code=2).stderr
    finish(pipeline, {task: 0.5})
    assert "model.pt" in run("load", task, code=1).stderr
    (project / "models" / "model.pt").write_bytes(b"changed")
    assert "sha256" in run("load", task, code=1).stderr
