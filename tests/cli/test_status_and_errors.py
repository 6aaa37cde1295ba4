"""`status`, `errors` and `retry`."""

from __future__ import annotations

import pytest

from synicix_core.tables.queue import Problem
from tests.cli.conftest import claim_task, fail, finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database


@pytest.fixture
def tasks(pipeline):
    return insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)])


def test_an_empty_project_says_what_to_do(pipeline, run, run_json):
    assert "synicix-run add" in run("status").stdout
    assert run_json("status") == {
        "tasks": 0,
        "states": {"pending": 0, "scheduled": 0, "running": 0, "finished": 0, "error": 0, "paused": 0},
        "workers": [],
        "finished_last_hour": 0,
        "mean_seconds": None,
        "eta_seconds": None,
    }


def test_every_task_is_in_one_state(pipeline, tasks, run, run_json):
    finish(pipeline, {tasks[0]: 0.5})
    fail(pipeline, tasks[1], "ValueError: no")
    held = claim_task(pipeline, tasks[2])
    pipeline.queue.heartbeat(held, {"epoch": 1, "train_loss": 0.25, "validation_loss": 0.5})
    pipeline.queue.retry_later(claim_task(pipeline, tasks[3]), Problem("it died", kind="died"), 3600.0)
    # A task that is not in the queue yet is pending all the same.
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[4]}).delete_quick()
    found = run_json("status")
    assert found["states"] == {"pending": 2, "scheduled": 1, "running": 1, "finished": 1, "error": 1, "paused": 0}
    assert found["tasks"] == 6 and found["finished_last_hour"] == 1
    (worker,) = found["workers"]
    assert worker["task"] == tasks[2] and worker["host"] == "node8" and worker["device"] == "cuda:0" and worker["alive"]
    assert (worker["epoch"], worker["epoch_limit"], worker["train_loss"]) == (1, 2, 0.25)
    assert 0 <= worker["heartbeat_age"] < 60 and worker["dataset"] == "line.txt" and worker["model"] == "toy-lab/Line"
    # Three tasks are left beside the running one; the finished attempt took next to nothing.
    assert 0 <= found["eta_seconds"] < 60

    text = run("status").stdout
    assert "6 tasks: 2 pending, 1 to be tried again later, 1 running, 1 finished, 1 ended in error" in text
    assert tasks[2][:8] in text and "node8:42" in text and "1/2" in text and "0.25" in text
    assert "synicix-run errors" in text and "synicix-run populate" not in text


def test_a_paused_task_is_counted_as_such(pipeline, tasks, run, run_json):
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[0]}).delete_quick()
    pipeline.TrainingResult.jobs.insert1({"training_task_md5_hash": tasks[0], "status": "ignore", "priority": 5})
    assert run_json("status")["states"]["paused"] == 1
    assert "5 pending" in run("status").stdout and "1 paused" in run("status").stdout
    assert run_json("show", tasks[0])["state"] == "paused"


def test_jobs_of_no_task_and_of_finished_tasks_are_not_counted(pipeline, tasks, run_json):
    finish(pipeline, {tasks[0]: 0.5})
    jobs = pipeline.TrainingResult.jobs
    for task, status in ((tasks[0], "error"), ("f" * 32, "error")):
        jobs.insert1({"training_task_md5_hash": task, "status": status, "priority": 5})
    states = run_json("status")["states"]
    assert states == {"pending": 5, "scheduled": 0, "running": 0, "finished": 1, "error": 0, "paused": 0}


def test_a_worker_without_heartbeat_is_said_to_be_lost(pipeline, tasks, run, run_json):
    held = claim_task(pipeline, tasks[0])
    pipeline.TrainingAttempt().update1({**held.key, "attempt": 1, "heartbeat_at": "2020-01-01 00:00:00"})
    assert "no heartbeat from node8" in run("status").stdout
    found = run_json("status")
    assert not found["workers"][0]["alive"] and found["eta_seconds"] is None


def test_nobody_at_work_says_what_to_do(pipeline, tasks, run):
    assert "Nobody is training. To start, run: synicix-run populate" in run("status").stdout
    finish(pipeline, dict.fromkeys(tasks, 0.5))
    assert "To see the results, run: synicix-run results" in run("status").stdout


def test_errors_are_grouped_by_cause(pipeline, tasks, run, run_json):
    for number, task in enumerate(tasks[:4]):
        problem = Problem(
            f"ValueError: bad lr {number}\nThis happened while Adam was at work.",
            "Traceback: line 1",
            "error",
            "12345678",
        )
        pipeline.queue.fail(claim_task(pipeline, task), problem)
    # Where nobody classified the error, its first line is the cause.
    fail(pipeline, tasks[4], "OSError: 100% full\nmore")
    found = run_json("errors")
    assert found["tasks"] == 5
    first, second = found["errors"]
    shown = min(tasks[:4])
    assert (first["message"], first["count"]) == (f"ValueError: bad lr {tasks.index(shown)}", 4)
    assert (first["kind"], first["cause"], first["hosts"], first["host_count"]) == ("error", "12345678", ["node8"], 1)
    assert first["tasks"] == sorted(tasks[:4]) and first["last_at"].endswith("Z") and 0 <= first["seconds_ago"] < 60
    assert (second["message"], second["count"], len(second["cause"])) == ("OSError: 100% full", 1, 8)
    text = run("errors").stdout
    assert "5 tasks ended in an error." in text and "4 tasks: ValueError: bad lr" in text
    assert "error in the code that was trained, kind error, cause 12345678, on node8, last" in text
    assert "retry --cause 12345678" in text
    assert run_json("retry", "--cause", second["cause"])["retried"] == 1
    assert run_json("retry", "--cause", "12345678")["retried"] == 4
    assert "Run: synicix-run errors" in run("retry", "--cause", "12345678", code=2).stderr


def test_errors_and_retry_of_one_kind_or_condition(pipeline, tasks, run, run_json):
    for task, kind in zip(tasks, ("died", "died", "out_of_memory", "data"), strict=False):
        pipeline.queue.fail(claim_task(pipeline, task), Problem(f"it {kind}", kind=kind, cause=f"{len(kind):08x}"))
    assert [(group["kind"], group["count"]) for group in run_json("errors", "--kind", "died")["errors"]] == [
        ("died", 2)
    ]
    assert run("errors", "--kind", "lost").stdout == "No such error.\n"
    (seed,) = (pipeline.TrainingTask * pipeline.TrainingConfig & {"training_task_md5_hash": tasks[0]}).to_arrays("seed")
    assert run_json("errors", "--where", f"seed={seed}")["errors"][0]["tasks"] == [tasks[0]]
    assert run_json("retry", "--kind", "died", "--where", f"seed={seed}")["retried"] == 1
    assert run_json("retry", "--where", f"seed={seed}")["retried"] == 0
    assert run_json("retry", "--where", "seed>=0")["retried"] == 3
    assert "is not one of" in run("errors", "--kind", "sad", code=2).stderr
    assert "--stack names one task" in run("errors", "--stack", tasks[0], "--kind", "died", code=2).stderr


def test_more_tasks_than_examples_are_counted(pipeline, run):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(7)])
    for task in tasks:
        fail(pipeline, task, "ValueError: bad lr")
    assert "and 2 more" in run("errors").stdout


def test_no_errors(pipeline, tasks, run, run_json):
    assert run("errors").stdout == "No task ended in an error.\n"
    assert run_json("errors") == {"tasks": 0, "errors": []}


def test_the_stack_of_the_last_failed_attempt(pipeline, tasks, run, run_json):
    fail(pipeline, tasks[0], "first", "Traceback: of the first")
    pipeline.queue.retry([tasks[0]])
    fail(pipeline, tasks[0], "second", "Traceback: of the second")
    text = run("errors", "--stack", tasks[0][:8]).stdout
    assert "Traceback: of the second" in text and "attempt 2 on node8" in text and "of the first" not in text
    assert run_json("errors", "--stack", tasks[0])["error_stack"] == "Traceback: of the second"
    fail(pipeline, tasks[1], "the executor died")
    assert "It has no traceback." in run("errors", "--stack", tasks[1]).stdout
    assert "ended in an error" in run("errors", "--stack", tasks[2], code=2).stderr


def test_retry_by_name_by_text_and_all(pipeline, tasks, run, run_json):
    fail(pipeline, tasks[0], "ValueError: 100% bad")
    fail(pipeline, tasks[1], "ValueError: 100x bad")
    fail(pipeline, tasks[2], "OSError: full")
    assert "1 task pending again." in run("retry", tasks[2][:10]).stdout
    assert run_json("retry", "--like", "VALUEERROR: 100% B") == {"retried": 1, "not_in_error": []}
    assert run_json("status")["states"]["error"] == 1
    assert run_json("retry", "--all")["retried"] == 1
    assert run_json("status")["states"]["pending"] == 6
    assert run("retry", "--all").stdout == "No task was retried.\n"


def test_retry_says_why_a_task_is_not_retried(pipeline, tasks, run):
    finish(pipeline, {tasks[0]: 0.5}, code_sha256="0" * 64)
    pipeline.queue.retry_later(claim_task(pipeline, tasks[1]), Problem("it died", kind="died"), 3600.0)
    text = run("retry", tasks[0], tasks[1], tasks[2]).stdout
    assert f"{tasks[0][:8]} is not retried: it is finished" in text
    assert f"{tasks[1][:8]} is not retried: it is tried again in" in text
    assert f"{tasks[2][:8]} is not retried: it is pending" in text
    assert "No task was retried." in text


@pytest.mark.parametrize(
    "arguments",
    [(), ("--all", "--like", "x"), ("abcd", "--all"), ("--kind", "died", "--stale"), ("abcd", "--where", "x")],
)
def test_retry_wants_one_way_to_choose(run, arguments):
    assert "Name tasks, or give one of --all" in run("retry", *arguments, code=2).stderr


def test_retry_of_stale_results(pipeline, tasks, run, run_json):
    line = {"kind": "model", "provider": "toy-lab/Line", "distribution": "toy-lab", "version": "1.0", "sha256": "old"}
    gone = {**line, "provider": "gone-lab/Net"}
    finish(pipeline, dict.fromkeys(tasks[:3], 0.5), code_sha256="1" * 64, provenance={"providers": [line]})
    finish(pipeline, {tasks[3]: 0.5}, code_sha256="2" * 64, provenance={"providers": [gone]})
    refused = run("retry", "--stale", code=2).stderr
    assert (
        "3 results would be deleted and trained anew: nobody is there to be asked. If that is meant, add --yes."
        in refused
    )
    assert (
        "The source file of the model toy-lab/Line has changed" in refused
        and "gone-lab/Net cannot be compared" in refused
    )
    assert len(pipeline.TrainingResult()) == 4
    (seed,) = (pipeline.TrainingTask * pipeline.TrainingConfig & {"training_task_md5_hash": tasks[0]}).to_arrays("seed")
    found = run_json("retry", "--stale", "--yes", "--where", f"seed={seed}")
    assert found["retried"] == 1 and "toy-lab/Line" in found["reasons"][0] and "gone-lab/Net" in found["unknown"][0]
    assert run_json("status")["states"]["finished"] == 3
    text = run("retry", "--stale", "--yes").stdout
    assert "2 tasks pending again." in text and "synicix-run gc" in text
    states = run_json("status")["states"]
    assert (states["finished"], states["pending"]) == (1, 5)
    assert run("retry", "--stale").stdout == "No task was retried.\n"
    assert claim_task(pipeline, tasks[0]).attempt == 2


def test_a_task_that_is_not_there(pipeline, tasks, run):
    assert "there is no such task" in run("retry", "0" * 32, code=2).stderr
    assert "does not name a task" in run("retry", "xyz", code=2).stderr
