"""`queue`: what comes next, and how people change that."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import as_program, claim_task, fail, finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

CODE = {"code_sha256": "0" * 64}


@pytest.fixture
def tasks(pipeline):
    return sorted(insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)]))


def status(pipeline, task):
    return (pipeline.TrainingResult.jobs & {"training_task_md5_hash": task}).fetch1("status")


def test_the_queue_by_priority_and_what_comes_next(pipeline, tasks, run, run_json):
    run("queue", "priority", "1", tasks[3])
    run("queue", "pause", tasks[4])
    fail(pipeline, tasks[5], "ValueError: no")
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[0]}).delete_quick()
    found = run_json("queue", "list", "--limit", "2")
    assert found["states"] == {"pending": 3, "scheduled": 0, "running": 0, "error": 1, "paused": 1}
    assert found["not_queued"] == 1
    assert [(row["priority"], row["pending"]) for row in found["priorities"]] == [(1, 1), (5, 2)]
    assert len(found["next"]) == 2 and found["next"][0]["task"] == tasks[3]
    assert (found["next"][0]["dataset"], found["next"][0]["model"]) == ("line.txt", "toy-lab/Line")
    text = run("queue").stdout
    assert text == run("queue", "list").stdout
    assert "1 task not queued yet. To queue, run: synicix-run queue refresh" in text
    assert tasks[3][:8] in text and "paused" in text and "ignore" not in text
    assert json.loads(run("queue", "--json").stdout)["states"]["paused"] == 1


def test_an_empty_queue(pipeline, run):
    assert run("queue").stdout == "Nothing is queued.\n"
    assert run("queue", "pause", "--all").stdout == "No task was paused.\n"


def test_refresh_queues_and_takes_back(pipeline, tasks, run, run_json):
    held = claim_task(pipeline, tasks[1])
    pipeline.TrainingAttempt().update1({**held.key, "attempt": 1, "heartbeat_at": "2020-01-01 00:00:00"})
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[0]}).delete_quick()
    text = run("queue", "refresh").stdout
    assert "1 task queued, 1 claim taken back." in text
    assert f"{tasks[1][:8]}: the worker on node8 is lost, no heartbeat" in text and "it is pending again." in text
    assert run_json("queue", "refresh") == {"queued": 0, "taken_back": []}
    assert status(pipeline, tasks[0]) == status(pipeline, tasks[1]) == "pending"


def test_pause_and_resume(pipeline, tasks, run, run_json):
    claim_task(pipeline, tasks[0])
    finish(pipeline, {tasks[1]: 0.5}, **CODE)
    text = run("queue", "pause", tasks[0], tasks[1], tasks[2][:12], tasks[2]).stdout
    assert "2 tasks paused; 1 of them was running: its worker stops it at the next heartbeat." in text
    assert "1 task has a result; left alone." in text and "synicix-run queue resume" in text
    assert run_json("queue", "pause", "--where", "seed>=0") == {
        "paused": 3,
        "were_running": 0,
        "left_alone": {"finished": 1, "paused": 2},
    }
    assert run("queue", "resume", tasks[2]).stdout.startswith("1 task resumed.\n")
    assert run_json("queue", "resume", "--all")["resumed"] == 4
    assert run("queue", "resume", "--all").stdout == "No task was resumed.\n5 tasks are pending; left alone.\n"


def test_several_running_tasks_are_said(pipeline, tasks, run):
    claim_task(pipeline, tasks[0])
    claim_task(pipeline, tasks[1])
    text = run("queue", "pause", "--all").stdout
    assert "6 tasks paused; 2 of them were running: their workers stop them at the next heartbeat." in text


def test_a_task_that_is_not_queued_yet_can_be_paused(pipeline, tasks, run):
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[0]}).delete_quick()
    run("queue", "pause", tasks[0])
    assert status(pipeline, tasks[0]) == "ignore"


def test_cancel_asks_first(pipeline, tasks, run, run_json, monkeypatch):
    claim_task(pipeline, tasks[0])
    refused = run("queue", "cancel", "--all", code=2).stderr
    assert "6 tasks would be cancelled, 1 of them running: nobody is there to be asked." in refused
    assert "If that is meant, add --yes." in refused
    assert status(pipeline, tasks[0]) == "reserved" and status(pipeline, tasks[1]) == "pending"
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    text = run("queue", "cancel", tasks[0], tasks[1], "--yes").stdout
    assert "2 tasks cancelled; 1 of them was running" in text and "retry --kind cancelled" in text
    assert run("queue", "cancel", tasks[0]).stdout == "No task was cancelled.\n1 task ended in an error; left alone.\n"
    (group,) = run_json("errors", "--kind", "cancelled")["errors"]
    assert (group["message"], group["count"], group["kind"]) == ("cancelled by alice", 2, "cancelled")
    assert run_json("retry", "--kind", "cancelled")["retried"] == 2
    assert run_json("queue")["states"]["pending"] == 6


def test_priority_takes_negative_numbers(pipeline, tasks, run, run_json):
    assert run("queue", "priority", "-5", tasks[0]).stdout == "1 task now of priority -5.\n"
    assert run_json("queue", "priority", "127", "--all") == {"changed": 6, "were_running": 0, "left_alone": {}}
    assert [row["priority"] for row in run_json("queue")["priorities"]] == [127]


@pytest.mark.parametrize("priority", ["-129", "128", "high", "1.5"])
def test_a_priority_that_does_not_fit(pipeline, tasks, run, run_json, priority):
    assert "is not a whole number from -128 to 127" in run("queue", "priority", priority, "--all", code=2).stderr
    assert [row["priority"] for row in run_json("queue")["priorities"]] == [5]


@pytest.mark.parametrize("command", [("pause",), ("resume",), ("cancel", "--yes"), ("priority", "3")])
@pytest.mark.parametrize(
    "choice", [(), ("--all", "--where", "seed=1"), ("abcd", "--all"), ("abcd", "--where", "seed=1")]
)
def test_tasks_are_chosen_in_one_way(run, command, choice):
    assert "Name tasks, or give --where CONDITION or --all." in run("queue", *command, *choice, code=2).stderr


def test_a_wrong_name_or_condition_changes_nothing(pipeline, tasks, run, run_json):
    assert "there is no such task" in run("queue", "pause", tasks[0], "0" * 32, code=2).stderr
    assert "nor SQL" in run("queue", "cancel", "--yes", "--where", "sed = = 1", code=2).stderr
    assert run_json("queue")["states"]["pending"] == 6


def test_retry_says_that_a_task_is_paused(pipeline, tasks, run):
    run("queue", "pause", tasks[0])
    assert f"{tasks[0][:8]} is not retried: it is paused" in run("retry", tasks[0]).stdout


def test_queue_help_shows_its_commands():
    done = as_program("queue", "--help")
    assert done.returncode == 0 and "priority" in done.stdout and "--limit" not in done.stdout
