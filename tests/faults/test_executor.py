"""The executor dies, hangs or runs out of memory, and its disk is full; one supervisor goes through all of it."""

from __future__ import annotations

import pytest

from tests.faults.lab import STEPS, Lab

pytestmark = pytest.mark.database


@pytest.mark.parametrize(
    ("disaster", "kind", "reason"),
    [
        ("segfault", "died", "SIGSEGV"),
        ("kill", "died", "SIGKILL"),
        ("hang", "hung", "no progress for 20 s"),
    ],
)
def test_an_executor_that_dies_or_hangs_is_replaced_and_its_task_goes_on(
    standing: Lab, mark: int, disaster: str, kind: str, reason: str
) -> None:
    (task,) = standing.insert(mark=mark)
    standing.wait_for_steps(3 * STEPS)
    standing.ask_for(disaster)
    standing.wait_for_end([task])
    first, second = standing.attempts(task)
    assert (first["state"], second["state"]) == ("failed", "finished")
    assert first["error_kind"] == kind
    assert reason in first["error"]
    result = (standing.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    assert result["provenance"]["resumed_from_epoch"] >= 1
    standing.check([task])


def test_an_executor_killed_for_memory_has_another_try_in_smaller_parts(standing: Lab, mark: int) -> None:
    standing.ask_for("kill")
    with standing.fault("memory-kills"):
        (task,) = standing.insert(mark=mark)
        standing.wait_for_end([task])
    first, second = standing.attempts(task)
    assert (first["state"], second["state"]) == ("failed", "finished")
    assert (first["error_kind"], first["error_cause"]) == ("out_of_memory", "killed")
    standing.check([task], micro_batches=4)


def test_a_batch_that_does_not_fit_is_trained_in_parts(standing: Lab, mark: int) -> None:
    (task,) = standing.insert(mark=mark, model={"most": 4})
    standing.wait_for_end([task])
    standing.check_states(task, ["failed", "finished"])
    assert standing.attempts(task)[0]["error_kind"] == "out_of_memory"
    standing.check([task], micro_batches=4)


def test_what_does_not_fit_in_parts_either_is_an_error(standing: Lab, mark: int) -> None:
    (task,) = standing.insert(mark=mark, model={"most": 1})
    standing.wait_for_end([task])
    standing.check_states(task, ["failed", "failed"])
    standing.check([task], failed={task: "out of memory"})


def test_a_disk_that_is_full_for_checkpoints_costs_only_them(standing: Lab, mark: int) -> None:
    with standing.fault("full-checkpoint"):
        (task,) = standing.insert(mark=mark)
        standing.wait_for_end([task])
    standing.check_states(task, ["finished"])
    result = (standing.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    assert any("a checkpoint could not be written" in note for note in result["provenance"]["notes"])
    standing.check([task])


def test_a_disk_that_is_full_for_a_model_is_tried_again(standing: Lab, mark: int) -> None:
    with standing.fault("full-model"):
        (task,) = standing.insert(mark=mark)
        standing.wait_for_state(task, 1, "failed")
    standing.wait_for_end([task])
    *failed, last = standing.attempts(task)
    assert {attempt["error_kind"] for attempt in failed} == {"transient"}
    assert last["state"] == "finished"
    standing.check([task])


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_torn_checkpoint_is_passed_over(standing: Lab, mark: int, damage: str) -> None:
    (task,) = standing.insert(mark=mark)
    file = standing.pipeline.settings.model_save_dir / f"{task}.1.checkpoint"
    standing.wait_until(file.exists)
    standing.ask_for("kill")
    standing.wait_for_state(task, 1, "failed")
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    file.write_bytes({"cut": whole[: len(whole) // 2], "changed": bytes(changed), "empty": b""}[damage])
    standing.wait_for_end([task])
    standing.check_states(task, ["failed", "finished"])
    result = (standing.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    assert result["provenance"]["resumed_from_epoch"] is None
    assert any(file.name in note for note in result["provenance"]["notes"])
    standing.check([task])


def test_an_older_checkpoint_serves_where_the_latest_is_torn(standing: Lab, mark: int) -> None:
    (task,) = standing.insert(mark=mark)
    folder = standing.pipeline.settings.model_save_dir
    first, second = (folder / f"{task}.{attempt}.checkpoint" for attempt in (1, 2))
    standing.wait_for_steps(2 * STEPS)
    standing.wait_until(first.exists)
    standing.ask_for("kill")
    standing.wait_for_state(task, 1, "failed")
    older = first.read_bytes()
    standing.wait_until(second.exists)
    standing.ask_for("kill")
    standing.wait_for_state(task, 2, "failed")
    first.write_bytes(older)
    second.write_bytes(second.read_bytes()[:-1])
    standing.wait_for_end([task])
    standing.check_states(task, ["failed", "failed", "finished"])
    result = (standing.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    assert result["provenance"]["resumed_from_epoch"] >= 1
    standing.check([task])


def test_an_observer_that_raises_harms_no_task(standing: Lab, mark: int) -> None:
    said = standing.workers[-1].said
    (task,) = standing.insert(mark=mark)
    standing.wait_for_end([task])
    standing.check([task])
    assert standing.workers[-1].said.count("the observer is broken") == said.count("the observer is broken") + 1
