"""Checkpoint files: whole or refused, the last good one kept, and a disk that refuses costs no training."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.errors import CheckpointError
from synicix_core.training import checkpoints
from synicix_core.training.checkpoints import CheckpointPlan, Checkpoints
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.saved_files import load_checksummed, load_plain, save_checksummed
from synicix_core.training.spec import TaskSpec, TaskState
from tests.training.test_resume import Killed, attempt, numbers
from tests.training.toys import Recorder, nn_spec, toy_registry

REGISTRY = toy_registry()
VALUE = {"a": torch.arange(5000.0), "b": [1, None, "x"], "c": {"d": (2.5, True)}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checksummed(VALUE, tmp_path / "file")
    return tmp_path / "file"


def test_what_is_saved_is_read_back_and_nothing_else_is_left(saved: Path) -> None:
    found = load_checksummed(saved)
    assert torch.equal(found["a"], VALUE["a"]) and (found["b"], found["c"]) == (VALUE["b"], VALUE["c"])
    assert saved.read_bytes().startswith(b"SYNICIXC")
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("keep", [0, 7, 51, 52, 53, 0.5, -1])
def test_a_file_that_was_cut_short_is_refused(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"cannot be read.*cut short"):
        load_checksummed(saved)


@pytest.mark.parametrize("place", [0, 9, 15, 30, 60, 0.5, -1])
def test_a_bit_that_flipped_is_found(saved: Path, place: float) -> None:
    data = bytearray(saved.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 4
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checksummed(saved)


def test_a_longer_file_a_foreign_one_and_none_are_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="bytes are there"):
        load_checksummed(saved)
    torch.save(VALUE, saved)
    with pytest.raises(CheckpointError, match="does not begin as a checkpoint"):
        load_checksummed(saved)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checksummed(saved.with_name("other"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    save_checksummed({"a": torch.nn.Linear(1, 1)}, tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checksummed(tmp_path / "file")


def content(epochs: int, **state: Any) -> dict[str, Any]:
    return {"epochs": epochs, "state": state}


class TestFiles:
    def plan(self, folder: Path, number: int, **changes: Any) -> Checkpoints:
        earlier = tuple(folder / str(other) for other in range(number - 1, 0, -1))
        return Checkpoints(CheckpointPlan("t", folder / str(number), earlier, **changes))

    def test_the_latest_one_that_is_whole_is_read(self, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            Checkpoints(CheckpointPlan("t", tmp_path / str(number))).write(content(number))
        assert self.plan(tmp_path, 4).read() == {"format": 2, "task": "t", "code": "", **content(3)}
        (tmp_path / "3").write_bytes(b"torn")
        (tmp_path / "2").unlink()
        files = self.plan(tmp_path, 4)
        found = files.read()
        assert found is not None and found["epochs"] == 1
        assert len(files.notes) == 1 and files.notes[0].startswith("the checkpoint 3 could not be read: it ")
        files.write(content(5))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["4"]

    def test_without_a_good_one_training_starts_over_and_that_is_said(self, tmp_path: Path) -> None:
        assert self.plan(tmp_path, 2).read() is None
        assert self.plan(tmp_path, 2).notes == []
        (tmp_path / "1").write_bytes(b"torn")
        files = self.plan(tmp_path, 2)
        assert files.read() is None
        assert files.notes[1] == "no checkpoint could be used, so training started over"
        assert (tmp_path / "1").exists()

    def test_earlier_files_stay_until_one_of_its_own_is_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.plan(tmp_path, 1).write(content(1))
        files = self.plan(tmp_path, 2)

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            refusal = files.write(content(2))
        assert refusal is not None and "No space left" in refusal.why
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        assert files.write(content(2)) is None
        assert [path.name for path in tmp_path.iterdir()] == ["2"]

    def test_other_code_is_passed_over_and_another_task_is_refused(self, tmp_path: Path) -> None:
        self.plan(tmp_path, 1, code="old").write(content(1))
        files = self.plan(tmp_path, 2, code="new")
        assert files.read() is None and "by other code" in files.notes[0]
        with pytest.raises(CheckpointError, match="another task"):
            Checkpoints(CheckpointPlan("u", tmp_path / "1")).read()

    def test_a_disk_that_does_not_answer_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan(tmp_path, 1).write(content(1))

        def hiccup(*_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("hashlib.file_digest", hiccup)
        with pytest.raises(CheckpointError, match="Input/output"):
            self.plan(tmp_path, 2).read()

    def test_when_one_is_due(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
        files = self.plan(tmp_path, 1, seconds=30.0)
        now += 29
        assert not files.due(5)
        now += 1
        assert files.due(5)

        def slow(*_: Any) -> None:
            nonlocal now
            now += 2.0

        monkeypatch.setattr(checkpoints, "save_checksummed", slow)
        files.write(content(5))
        now = 1000.0 + 399  # two of two seconds each are one percent of 400
        assert not files.due(50)
        now += 1
        assert files.due(50)
        files.write(content(6))
        now = 1000.0 + 600
        assert files.due(50)

    def test_epochs_count_whatever_writing_costs(self, tmp_path: Path) -> None:
        files = self.plan(tmp_path, 1, seconds=1e9, epochs=2)
        assert not files.due(1) and files.due(2)
        files.write(content(2))
        assert not files.due(3) and files.due(4)


def refusing(monkeypatch: pytest.MonkeyPatch, *, from_call: int) -> None:
    """Let the disk be full from the n-th checkpoint on."""
    calls = 0
    real = checkpoints.save_checksummed

    def save(value: Any, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls >= from_call:
            raise CheckpointError("the file cannot be written", why="full") from OSError(errno.ENOSPC, "full")
        real(value, path)

    monkeypatch.setattr(checkpoints, "save_checksummed", save)
    monkeypatch.setattr(checkpoints, "_WRITING_COSTS", 0)


def test_a_full_disk_costs_no_training_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_task(nn_spec(tmp_path / "whole"), REGISTRY, Recorder())
    refusing(monkeypatch, from_call=3)
    observer, state = Recorder(), TaskState()
    spec = nn_spec(tmp_path / "full", checkpoint_seconds=0.0)
    outcome = run_task(spec, REGISTRY, observer, state=state)
    assert numbers(outcome) == numbers(whole)
    assert len(observer.checkpoints) == 2 and len(observer.failed_checkpoints) == 1
    assert "the file cannot be written: full" in observer.failed_checkpoints[0]
    assert [note for note in outcome.notes if "could not be written (full); training went on" in note] != []
    assert len(outcome.notes) == 1 and Path(spec.checkpoint_path).exists()


@pytest.mark.parametrize("from_call", [1, 2])
def test_a_stop_on_a_full_disk_is_a_stop_with_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_call: int
) -> None:
    refusing(monkeypatch, from_call=from_call)
    state = TaskState()
    spec = nn_spec(tmp_path, checkpoint_epochs=1, epoch_limit=9)
    with pytest.raises(TrainingInterrupted):
        run_task(spec, REGISTRY, Recorder(stop_at=9), state=state)
    assert state == TaskState(epochs=1, can_checkpoint=True, can_split=True)
    assert Path(spec.checkpoint_path).exists() == (from_call == 2)


def test_attempts_hand_over_their_checkpoints(tmp_path: Path) -> None:
    spec = nn_spec(tmp_path, epoch_limit=3)
    whole = run_task(dataclasses.replace(spec, model_save_path=str(tmp_path / "whole.pt")), REGISTRY, Recorder())

    def stopped(number: int, stop_at: int) -> tuple[TaskSpec, TaskState]:
        made, state = attempt(spec, number), TaskState()
        with pytest.raises(TrainingInterrupted):
            run_task(made, REGISTRY, Recorder(stop_at=stop_at), state=state)
        return made, state

    first, _ = stopped(1, 4)
    # Asked at four batches that are passed over, one step, two validation batches, the end of the epoch, three steps.
    second, state = stopped(2, 11)
    assert state.epochs == 1
    assert not Path(first.checkpoint_path).exists() and Path(second.checkpoint_path).exists()
    # A third one that is stopped before it saved anything leaves the second one's.
    third, state = stopped(3, 2)
    assert state.epochs == 1 and Path(second.checkpoint_path).exists() and not Path(third.checkpoint_path).exists()
    damaged = bytearray(Path(second.checkpoint_path).read_bytes())
    damaged[-100] ^= 1
    Path(third.checkpoint_path).write_bytes(damaged)
    last = run_task(attempt(spec, 4), REGISTRY, Recorder())
    assert numbers(last) == numbers(whole)
    assert last.provenance["resumed_from_epoch"] == 1
    assert last.notes == (
        "the checkpoint 3.checkpoint could not be read: it was damaged: its sha256 is not the one that was written",
    )


def test_a_model_has_its_name_only_when_it_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = nn_spec(tmp_path)
    folder = Path(spec.model_save_path).parent
    seen: list[set[str]] = []

    def look(*_: Any, **__: Any) -> Any:
        seen.append({path.name for path in folder.iterdir()})
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("synicix_core.training.task_run.score_tier", look)
        with pytest.raises(Killed):
            run_task(spec, REGISTRY, Recorder())
    assert seen == [{".model.partial.pt"}]
    assert list(folder.iterdir()) == []
    outcome = run_task(spec, REGISTRY, Recorder())
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
    assert load_plain(spec.model_save_path).keys() and outcome.epochs == 4
