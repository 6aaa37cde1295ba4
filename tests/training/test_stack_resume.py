"""A group that is stopped or killed goes on as a group, or each of its tasks alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.spec import TaskOutcome, TaskSpec
from tests.training.stack_toys import REGISTRY, furthest, stack_spec, train_together, with_model
from tests.training.toys import Recorder


class _StopAfter(Recorder):
    """Asks to stop after so many epochs, or after so many steps of the first epoch, which a shared counter counts."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def stop_requested(self) -> bool:
        return len(self.epochs) >= self._epochs


def group(folder: Path, **changes: Any) -> list[TaskSpec]:
    return [
        with_model(stack_spec(folder, k, **({"epoch_limit": 5} | changes)), "Perceptron", dropout=0.2) for k in range(3)
    ]


def again(specs: list[TaskSpec]) -> list[TaskSpec]:
    """Return the next attempts."""
    return [
        dataclasses.replace(
            spec, attempt=2, checkpoint_path=f"{spec.checkpoint_path}.2", resume_from=(spec.checkpoint_path,)
        )
        for spec in specs
    ]


def finished(found: list[Any]) -> list[TaskOutcome]:
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return found


def test_stopped_between_epochs_and_gone_on_with_as_a_group(tmp_path: Path) -> None:
    whole, halves = group(tmp_path / "whole"), group(tmp_path / "halves")
    finished(train_together(whole))
    ends = train_together(halves, [_StopAfter(2) for _ in halves])
    assert all(isinstance(end, TrainingInterrupted) for end in ends)
    found = finished(train_together(again(halves)))
    assert [furthest(one, other) for one, other in zip(whole, halves, strict=True)] == [0.0] * 3
    assert [item.provenance["resumed_from_epoch"] for item in found] == [2] * 3


@pytest.mark.parametrize("step", [1, 4, 7])
def test_stopped_in_the_middle_of_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr("synicix_core.training.stack._LISTEN_SECONDS", 0.0)
    whole, halves = group(tmp_path / "whole"), group(tmp_path / "halves")
    finished(train_together(whole))
    # Each is asked before the epoch is read, and after each step: an epoch has seven.
    ends = train_together(halves, [Recorder(stop_at=8 + step) for _ in halves])
    assert all(isinstance(end, TrainingInterrupted) for end in ends)
    finished(train_together(again(halves)))
    assert [furthest(one, other) for one, other in zip(whole, halves, strict=True)] == [0.0] * 3


def test_gone_on_with_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synicix_core.training.stack._LISTEN_SECONDS", 0.0)
    whole, halves = group(tmp_path / "whole"), group(tmp_path / "halves")
    for spec in whole:
        run_task(spec, REGISTRY, Recorder())
    train_together(halves, [Recorder(stop_at=11) for _ in halves])
    for one, other in zip(whole, again(halves), strict=True):
        outcome = run_task(other, REGISTRY, Recorder())
        assert furthest(one, other) < 1e-12
        assert outcome.provenance["fused"]["until_epoch"] == 1  # it left the group within its second epoch


def test_one_by_one_gone_on_with_as_a_group(tmp_path: Path) -> None:
    whole, halves = group(tmp_path / "whole"), group(tmp_path / "halves")
    for spec in whole:
        run_task(spec, REGISTRY, Recorder())
    for number, spec in enumerate(halves):  # each at another step, one of them not begun at all
        if number:
            with pytest.raises(TrainingInterrupted):
                run_task(spec, REGISTRY, Recorder(stop_at=9 + 3 * number))
    finished(train_together(again(halves)))
    assert max(furthest(one, other) for one, other in zip(whole, halves, strict=True)) < 1e-12


def test_one_that_is_stopped_leaves_the_others_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synicix_core.training.stack._LISTEN_SECONDS", 0.0)
    whole, halves = group(tmp_path / "whole"), group(tmp_path / "halves")
    finished(train_together(whole))
    ends = train_together(halves, [Recorder(), Recorder(stop_at=12), Recorder()])
    assert isinstance(ends[1], TrainingInterrupted)
    assert [furthest(whole[k], halves[k]) for k in (0, 2)] == [0.0, 0.0]
    assert Path(halves[1].checkpoint_path).exists() and not Path(halves[1].model_save_path).exists()
    finished(train_together(again(halves[1:2])))
    assert furthest(whole[1], halves[1]) == 0.0


def test_a_checkpoint_holds_one_task_only(tmp_path: Path) -> None:
    many, lone = group(tmp_path / "many"), stack_spec(tmp_path / "lone", epoch_limit=5)
    lone = with_model(lone, "Perceptron", dropout=0.2)
    train_together(many, [_StopAfter(2) for _ in many])
    with pytest.raises(TrainingInterrupted):
        run_task(lone, REGISTRY, _StopAfter(2))
    sizes = {Path(spec.checkpoint_path).stat().st_size for spec in many}
    assert len(sizes) == 1 and max(sizes) <= Path(lone.checkpoint_path).stat().st_size


def test_time_is_shared_among_the_tasks(tmp_path: Path) -> None:
    found = finished(train_together(group(tmp_path)))
    alone = run_task(group(tmp_path / "alone")[0], REGISTRY, Recorder())
    assert 0 < sum(item.train_seconds for item in found) < 20 * alone.train_seconds


def test_a_result_tells_of_the_group_that_its_task_left(tmp_path: Path) -> None:
    specs = group(tmp_path)
    train_together(specs, [_StopAfter(2) for _ in specs])
    alone = run_task(again(specs)[0], REGISTRY, Recorder()).provenance["fused"]
    assert (alone["tasks"], alone["until_epoch"]) == (3, 2)
    for item in finished(train_together(again(specs)[1:])):
        assert item.provenance["fused"]["tasks"] == 2 and "until_epoch" not in item.provenance["fused"]
