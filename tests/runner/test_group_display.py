"""What happens to several tasks of a group alike is told once; results and failures are each task's own."""

from __future__ import annotations

import io
from typing import Any

import pytest

from synicix_core.runner import group_display
from synicix_core.runner.group_display import GroupDisplay
from synicix_core.runner.group_words import several
from synicix_core.runner.lines import Lines

CONFIGS = {"model_provider": "toy-lab/Line", "dataset_file_name": "line.txt", "epoch_limit": 10}
TASKS = [letter * 32 for letter in "abcde"]
SAVED = "it is pending again, with a checkpoint"
NONE = "it is pending again; it has no checkpoint, so it starts again from the beginning"


class Told:
    """A group of five in a pipe."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.display = GroupDisplay(Lines(self.stream))
        self.display.group_started(dict.fromkeys(TASKS, CONFIGS), 7)
        self.claimed = self.said()

    def said(self) -> list[str]:
        said = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return said

    def released(self, tasks: list[str], why: str) -> None:
        for task in tasks:
            self.display.task_ended(task, "released", why)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_group_is_claimed_in_one_line(told: Told) -> None:
    named = "(aaaaaaaa, bbbbbbbb, cccccccc, …)"
    assert told.claimed == [f"5 tasks are claimed as a group {named}: Line on line.txt, 7 pending"]


@pytest.mark.parametrize(
    ("epochs", "at"),
    [([12] * 5, "after epoch 12"), ([0] * 5, "in their first epoch"), ([3, 4, 3, 12, 5], "after epochs 3 to 12")],
)
def test_a_group_that_is_stopped_is_saved_in_one_line(told: Told, epochs: list[int], at: str) -> None:
    for task, epoch in zip(TASKS, epochs, strict=True):
        told.display.checkpoint_saved(task, epoch)
    told.released(TASKS, SAVED)
    assert told.said() == [], "others may follow"
    told.display.close()
    assert told.said() == [
        f"5 tasks (aaaaaaaa, bbbbbbbb, cccccccc, …) are saved {at} and will go on from there: they are pending again."
    ]


def test_different_ends_are_told_apart(told: Told) -> None:
    told.released(TASKS[:2], SAVED)  # of an earlier attempt: how far that came nobody said
    told.released(TASKS[2:4], NONE)
    told.display.task_ended(TASKS[4], "stopped", "the task was cancelled")
    told.display.message("The database is back.")
    assert told.said() == [
        "2 tasks (aaaaaaaa, bbbbbbbb): released: they are pending again, with checkpoints",
        "2 tasks (cccccccc, dddddddd): released: they are pending again; they have no checkpoint, so they start again "
        "from the beginning",
        "eeeeeeee: stopped: the task was cancelled",
        "The database is back.",
    ]


def test_results_failures_and_other_tasks_are_told_at_once(told: Told) -> None:
    told.released([TASKS[0]], SAVED)
    told.display.task_ended(TASKS[1], "failed", "ValueError: bad")
    result: dict[str, Any] = {"status": "completed", "epochs": 10, "test_score": None, "train_seconds": 1.5}
    told.display.task_finished(TASKS[2], result, 2.0)
    told.display.task_ended("f" * 32, "released", SAVED)
    assert told.said() == [
        f"aaaaaaaa: released: {SAVED}",
        "bbbbbbbb: failed: ValueError: bad",
        "cccccccc: completed after 10 epochs, score none, 1.5 s",
        f"ffffffff: released: {SAVED}",
    ]


def test_while_training_goes_on_nobody_waits_long(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in TASKS[:2]:
        told.display.task_ended(task, "stopped", "the task was paused")
    told.display.epoch_finished(TASKS[2], {"epoch": 1})
    assert told.said() == []
    monkeypatch.setattr(group_display, "_GATHER_SECONDS", 0.0)
    told.display.epoch_finished(TASKS[2], {"epoch": 2})
    assert told.said() == ["2 tasks (aaaaaaaa, bbbbbbbb): stopped: the tasks were paused"]


def test_several_tasks_are_named_by_the_first() -> None:
    assert [several(TASKS[:number]) for number in (1, 2, 5)] == [
        "aaaaaaaa",
        "aaaaaaaa and 1 other",
        "aaaaaaaa and 4 others",
    ]
