"""A profile of the first steps: a whole file with named ranges, the same numbers, and no harm when it cannot be written."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synicix_core.training import training_profile
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskSpec
from synicix_core.training.training_profile import RECORDED_BATCHES, RECORDED_STEPS
from tests.training.toys import Recorder, nn_spec, toy_registry, toy_spec

REGISTRY = toy_registry()
LONG = {"early_stopping_patience": None}
LONG_VALIDATION = Component("dataset", "toys/Linear", {"sizes": {"validation": 300}})


class Listener(Recorder):
    """Keeps what people are told."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__(stop_at)
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def profiled(spec: TaskSpec, path: Path) -> tuple[dict[str, Any], str]:
    """Train, and return the trace and what was said."""
    listener = Listener()
    run_task(dataclasses.replace(spec, profile=str(path)), REGISTRY, listener)
    (note,) = listener.notes
    return json.loads(path.read_text()), note


def ranges(trace: dict[str, Any]) -> Counter[str]:
    return Counter(event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation")


def test_steps_and_a_validation_are_in_the_trace_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "new" / "task.trace.json"
    trace, note = profiled(nn_spec(tmp_path, LONG, epoch_limit=20), path)
    found = ranges(trace)
    assert found["forward"] == found["backward"] == RECORDED_STEPS, "that an epoch is read to its end is no step"
    assert found["data"] >= RECORDED_STEPS and found["optimizer"] >= RECORDED_STEPS and found["evaluation"] >= 1
    assert any(event["name"] == "aten::addmm" for event in trace["traceEvents"])
    assert f"50 steps and a validation is in {path}; open it at https://ui.perfetto.dev." in note
    assert "A recorded step took" in note and list(path.parent.iterdir()) == [path]


def test_an_epoch_longer_than_the_profile_still_shows_its_validation(tmp_path: Path) -> None:
    dataset = Component("dataset", "toys/Linear", {"sizes": {"train": 1000}})
    trace, note = profiled(nn_spec(tmp_path, LONG, dataset=dataset, epoch_limit=1), tmp_path / "t.json")
    found = ranges(trace)
    assert found["forward"] == RECORDED_STEPS, "and none of the other 45"
    assert found["evaluation"] >= 1 and "50 steps and a validation" in note
    # One time for both recordings: the validation comes after all steps.
    times = {
        name: [event["ts"] for event in trace["traceEvents"] if event.get("name") == name and "ts" in event]
        for name in ("forward", "evaluation")
    }
    assert max(times["forward"]) < min(times["evaluation"]) < max(times["forward"]) + 60e6


def test_a_long_validation_is_recorded_in_part(tmp_path: Path) -> None:
    spec = nn_spec(tmp_path, LONG, epoch_limit=12, batch_size=8, dataset=LONG_VALIDATION)
    spec = dataclasses.replace(spec, samplers={**spec.samplers, "validation": Component("sampler", "toys/Pairs")})
    trace, _ = profiled(dataclasses.replace(spec, epoch_limit=2), tmp_path / "t.json")
    assert RECORDED_BATCHES <= ranges(trace)["evaluation"] <= RECORDED_BATCHES + 1


def test_a_profile_changes_no_number(tmp_path: Path) -> None:
    spec = nn_spec(tmp_path, LONG, epoch_limit=20, dataset=Component("dataset", "toys/Linear", {"augment": True}))
    plain = run_task(spec, REGISTRY, Recorder())
    recorded = run_task(dataclasses.replace(spec, profile=str(tmp_path / "t.json")), REGISTRY, Recorder())
    for name in ("model_sha256", "metrics", "training_epoch_loss_history", "validation_epoch_loss_history"):
        assert getattr(plain, name) == getattr(recorded, name)
    assert recorded.provenance["timing"]["profiled"] and not plain.provenance["timing"]["profiled"]


def test_a_trainer_that_says_nothing_is_profiled_by_what_its_loaders_know(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, trainer=Component("trainer", "toys/OldTrainer"), epoch_limit=20)
    trace, note = profiled(spec, tmp_path / "t.json")
    assert (
        ranges(trace)["training"] >= RECORDED_STEPS
        and ranges(trace)["data"] >= RECORDED_STEPS
        and "50 steps is in" in note
    )


def test_a_training_that_is_over_too_soon_says_so(tmp_path: Path) -> None:
    listener = Listener()
    spec = nn_spec(tmp_path, epoch_limit=1, batch_size=48, profile=str(tmp_path / "t.json"))
    run_task(spec, REGISTRY, listener)
    assert "no profile was written: the training was over after" in listener.notes[0]
    assert not (tmp_path / "t.json").exists()


def test_a_directory_that_cannot_be_made_costs_the_profile_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    listener, path = Listener(), tmp_path / "file" / "t.json"
    outcome = run_task(nn_spec(tmp_path, LONG, epoch_limit=20, profile=str(path)), REGISTRY, listener)
    (note,) = listener.notes
    assert f"no profile was written to {path}: " in note and "Training went on without it." in note
    assert outcome.epochs == 20


def test_a_full_disk_leaves_no_half_written_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: Any, **__: Any) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_profile.Path, "write_text", full)
    listener, folder = Listener(), tmp_path / "profiles"
    spec = nn_spec(tmp_path, LONG, epoch_limit=20, profile=str(folder / "t.json"))
    outcome = run_task(spec, REGISTRY, listener)
    assert len(listener.notes) == 1 and "No space left on device" in listener.notes[0]
    assert list(folder.iterdir()) == [] and outcome.epochs == 20


def test_a_profiler_that_does_not_start_is_no_error_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("another profiler is active")

    monkeypatch.setattr(training_profile, "profile", broken)
    listener = Listener()
    outcome = run_task(nn_spec(tmp_path, LONG, epoch_limit=20, profile=str(tmp_path / "t.json")), REGISTRY, listener)
    assert "another profiler is active" in listener.notes[0] and outcome.epochs == 20


def test_an_observer_that_takes_no_notes_is_let_alone(tmp_path: Path) -> None:
    run_task(nn_spec(tmp_path, LONG, epoch_limit=20, profile=str(tmp_path / "t.json")), REGISTRY, Recorder())
    assert (tmp_path / "t.json").exists()


def test_a_training_that_is_stopped_leaves_what_was_recorded(tmp_path: Path) -> None:
    from synicix_core.training.contract import TrainingInterrupted

    listener = Listener(stop_at=30)
    spec = nn_spec(tmp_path, LONG, epoch_limit=20, profile=str(tmp_path / "t.json"))
    with pytest.raises(TrainingInterrupted):
        run_task(spec, REGISTRY, listener)
    assert ranges(json.loads((tmp_path / "t.json").read_text()))["forward"] > 5 and len(listener.notes) == 1
