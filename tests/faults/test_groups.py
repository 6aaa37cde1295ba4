"""Groups that something happens to: each task ends as it would by itself, and one of them does not cost the others."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synicix_core.tables.queue_control import cancel
from tests.faults.lab import EPOCHS, STEPS, Lab, Worker, reference, trained
from tests.runner.test_groups import KIT

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
SIZE = 3


@pytest.fixture
def start(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    """Start a worker that trains groups of three, in turn."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([KIT, os.environ["PYTHONPATH"]]))
    kit = {"GROUP_KIT_SIZE": str(SIZE), "GROUP_KIT_LOG": str(tmp_path / "groups.jsonl")}
    return lambda *arguments, **environment: lab.start(*arguments, **kit, **environment)


def groups(tmp_path: Path) -> list[list[str]]:
    lines = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    return [line["group"] for line in lines if "group" in line]


def wait_until_all_are_under_way(lab: Lab, tasks: list[str], *, epochs: int = 2) -> None:
    """Wait until each task of the first group has a checkpoint of some epochs."""

    def under_way() -> bool:
        rows = (lab.pipeline.TrainingAttempt & [{MD5: task} for task in tasks]).to_dicts()
        return len(rows) == len(tasks) and all((row["epoch"] or 0) >= epochs for row in rows)

    lab.wait_until(under_way)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_releases_every_member_with_its_own_checkpoint(
    lab: Lab, start: Callable[..., Worker], tmp_path: Path, number: int
) -> None:
    tasks = lab.insert(0, 1, 2)
    worker = start()
    wait_until_all_are_under_way(lab, tasks)
    worker.signal(number)
    assert worker.end() == 75
    assert len(groups(tmp_path)) == 1
    for task in tasks:
        (attempt,) = lab.attempts(task)
        assert (attempt["state"], attempt["error"], attempt["error_kind"]) == ("released", None, None)
        assert attempt["checkpoint_path"] == f"{task}.1.checkpoint"
        assert 2 <= attempt["epoch"] < EPOCHS
    assert len(lab.pipeline.TrainingResult.jobs.pending) == SIZE
    # They go on as a group, and one by one.
    assert start("--max-tasks", "2").end() == 0
    assert start("--fuse", "off").end() == 0
    assert [len(group) for group in groups(tmp_path)] == [3, 2]
    for task in tasks:
        lab.check_states(task, ["released", "finished"])
        result = (lab.pipeline.TrainingResult & {MD5: task}).fetch1()
        assert result["provenance"]["resumed_from_epoch"] >= 2
    lab.check(tasks)
    assert lab.steps() == STEPS * sum((lab.pipeline.TrainingResult & {MD5: task}).fetch1("epochs") for task in tasks)


@pytest.mark.parametrize("disaster", ["kill", "segfault", "hang"])
def test_an_executor_that_dies_costs_no_member_an_attempt(
    lab: Lab, start: Callable[..., Worker], tmp_path: Path, disaster: str
) -> None:
    tasks = lab.insert(0, 1, 2)
    stall = {"SYNICIX_WORKER_STALL_TIMEOUT_SECONDS": "8"} if disaster == "hang" else {}
    worker = start(SYNICIX_WORKER_MAX_ATTEMPTS="1", **stall)
    wait_until_all_are_under_way(lab, tasks)
    lab.ask_for(disaster)
    assert worker.end() == 0
    assert len(groups(tmp_path)) == 1, "they are trained by themselves then"
    for task in tasks:
        first, _ = lab.attempts(task)
        assert (first["state"], first["error_kind"]) == ("released", "group")
        reason = "the executor hung" if disaster == "hang" else "the executor died"
        assert f"{SIZE} tasks were trained together: " in first["error"] and reason in first["error"]
        assert (lab.pipeline.TrainingResult & {MD5: task}).fetch1()["provenance"]["resumed_from_epoch"] >= 2
    lab.check(tasks)
    assert "are trained one by one from now on" in worker.said


def test_a_member_that_kills_executors_ends_in_an_error_and_the_others_do_not(
    lab: Lab, start: Callable[..., Worker]
) -> None:
    tasks = lab.insert(0, 1, 2)
    worker = start(SYNICIX_WORKER_MAX_ATTEMPTS="2")
    wait_until_all_are_under_way(lab, tasks)
    lab.ask_for("kill")
    for task in tasks:
        lab.wait_until(lambda task=task: len(lab.attempts(task)) >= 1 and lab.states(task)[0] == "released")
    lab.wait_until(lambda: any(lab.states(task)[1:] == ["running"] for task in tasks))
    bad = next(task for task in tasks if lab.states(task)[1:] == ["running"])
    lab.wait_for_steps(2)
    lab.ask_for("kill")
    lab.wait_until(lambda: "failed" in lab.states(bad))
    lab.wait_until(lambda: any(lab.states(task)[-1] == "running" for task in tasks))
    assert worker.end() == 0
    for task in tasks:
        assert lab.states(task) == ["released", "failed", "finished"] if task == bad else ["released", "finished"]
    lab.check(tasks)


def test_a_killed_worker_s_group_goes_on_one_by_one(lab: Lab, start: Callable[..., Worker], tmp_path: Path) -> None:
    tasks = lab.insert(0, 1, 2)
    victim = start()
    wait_until_all_are_under_way(lab, tasks)
    victim.kill()
    assert start().end() == 0
    assert len(groups(tmp_path)) == 1
    for task in tasks:
        lab.check_states(task, ["lost", "finished"])
        assert (lab.pipeline.TrainingResult & {MD5: task}).fetch1()["provenance"]["resumed_from_epoch"] >= 2
    lab.check(tasks)


def test_a_member_that_is_cancelled_or_deleted_leaves_the_others_alone(
    lab: Lab, start: Callable[..., Worker], tmp_path: Path
) -> None:
    tasks = lab.insert(0, 1, 2)
    worker = start()
    wait_until_all_are_under_way(lab, tasks)
    cancel(lab.pipeline.tables, [tasks[0]])
    (lab.pipeline.TrainingTask & {MD5: tasks[1]}).delete(prompt=False)
    steps = lab.steps()
    assert worker.end() == 0
    # Both stopped long before their end.
    assert lab.steps() - steps < 2 * STEPS * EPOCHS
    assert len(groups(tmp_path)) == 1
    lab.check_states(tasks[0], ["failed"])
    lab.check_states(tasks[2], ["finished"])
    assert len(lab.pipeline.TrainingResult()) == 1
    assert "stopped: the task was cancelled" in worker.said and "the task was deleted" in worker.said
    assert not trained(lab.pipeline, tasks[2]).differences(reference(lab.pipeline, tasks[2]))
    lab.check_queue(tasks)
    assert {path.stem for path in lab.pipeline.settings.model_save_dir.glob("*.pt")} == {f"{tasks[2]}.1"}


def test_a_frozen_worker_writes_no_result_of_a_group_that_others_have(lab: Lab, start: Callable[..., Worker]) -> None:
    tasks = lab.insert(0, 1, 2)
    lease = {"SYNICIX_WORKER_LEASE_SECONDS": "3"}
    frozen = start(**lease)
    wait_until_all_are_under_way(lab, tasks)
    frozen.signal(signal.SIGSTOP)  # its executor trains on, and ends
    assert start("--wait", "--max-tasks", str(SIZE), **lease).end() == 0
    frozen.signal(signal.SIGCONT)
    assert frozen.end() == 0
    for task in tasks:
        lab.check_states(task, ["lost", "finished"])
        assert (lab.pipeline.TrainingResult & {MD5: task}).fetch1("by_attempt") == 2
    lab.check(tasks)


def test_an_outage_of_the_database_does_not_stop_a_group(lab: Lab, start: Callable[..., Worker], wire: Any) -> None:
    tasks = lab.insert(0, 1, 2)
    worker = start(**wire.variables)
    wait_until_all_are_under_way(lab, tasks)
    with wire.silent():
        lab.wait_for_steps(2 * STEPS)
        wire.cut()
    assert worker.end() == 0
    for task in tasks:
        lab.check_states(task, ["finished"])
    lab.check(tasks)
