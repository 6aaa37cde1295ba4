"""`status`, `errors` and `retry`."""

from __future__ import annotations

import pytest

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
        "states": {"pending": 0, "scheduled": 0, "running": 0, "finished": 0, "error": 0, "ignored": 0},
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
    pipeline.queue.retry_later(claim_task(pipeline, tasks[3]), "it died", "", 3600.0)
    # A task that is not in the queue yet is pending all the same.
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[4]}).delete_quick()
    found = run_json("status")
    assert found["states"] == {"pending": 2, "scheduled": 1, "running": 1, "finished": 1, "error": 1, "ignored": 0}
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


def test_errors_are_grouped_by_their_first_line(pipeline, tasks, run, run_json):
    for task in tasks[:4]:
        fail(pipeline, task, "ValueError: bad lr\nThis happened in Adam.", "Traceback: line 1")
    fail(pipeline, tasks[4], "OSError: 100% full")
    found = run_json("errors")
    assert found["tasks"] == 5
    assert [(group["message"], group["count"]) for group in found["errors"]] == [
        ("ValueError: bad lr", 4),
        ("OSError: 100% full", 1),
    ]
    assert found["errors"][0]["tasks"] == sorted(tasks[:4])
    text = run("errors").stdout
    assert "5 tasks ended in an error." in text and "4 tasks: ValueError: bad lr" in text and "retry --like" in text


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
    finish(pipeline, {tasks[0]: 0.5})
    pipeline.queue.retry_later(claim_task(pipeline, tasks[1]), "it died", "", 3600.0)
    text = run("retry", tasks[0], tasks[1], tasks[2]).stdout
    assert f"{tasks[0][:8]} is not retried: it is finished" in text
    assert f"{tasks[1][:8]} is not retried: it is tried again in" in text
    assert f"{tasks[2][:8]} is not retried: it is pending" in text
    assert "No task was retried." in text


@pytest.mark.parametrize("arguments", [(), ("--all", "--like", "x"), ("abcd", "--all")])
def test_retry_wants_one_way_to_choose(run, arguments):
    assert "Name tasks, or give --like TEXT or --all." in run("retry", *arguments, code=2).stderr


def test_a_task_that_is_not_there(pipeline, tasks, run):
    assert "there is no such task" in run("retry", "0" * 32, code=2).stderr
    assert "does not name a task" in run("retry", "xyz", code=2).stderr
