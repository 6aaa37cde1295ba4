"""Killed at any point and gone on with equals uninterrupted, bit for bit, on the CPU."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.training import checkpoints
from synicix_core.training.checkpoints import Checkpoints
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.load import score_tier
from synicix_core.training.loaders import make_loader
from synicix_core.training.precision import Precision
from synicix_core.training.random_state import capture, generators_of, restore
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from synicix_core.training.torch_state import restored_torch_state
from synicix_core.training.training_batches import TrainingBatches
from tests.training.toys import Linear, Recorder, nn_spec, toy_registry

REGISTRY = toy_registry()
SHUFFLED_AND_NOISY = Component("dataset", "toys/Linear", {"augment": True})


@pytest.fixture(autouse=True)
def _torch_restored() -> Iterator[None]:
    with restored_torch_state():
        yield


def numbers(outcome: TaskOutcome) -> dict[str, Any]:
    """Everything that must be equal, the digest of the weights file included."""
    wire = outcome.to_wire()
    for name in ("train_seconds", "provenance", "notes"):
        wire.pop(name)
    return wire


def attempt(spec: TaskSpec, number: int) -> TaskSpec:
    """Return the specification of one attempt, with files of its own, as the pipeline makes it."""
    folder = Path(spec.model_save_path).parent
    return dataclasses.replace(
        spec,
        attempt=number,
        model_save_path=str(folder / f"{number}.pt"),
        checkpoint_path=str(folder / f"{number}.checkpoint"),
        resume_from=tuple(str(folder / f"{earlier}.checkpoint") for earlier in range(number - 1, 0, -1)),
    )


class Killed(BaseException):
    """Stands for SIGKILL inside this process."""


def train_and_kill(spec: TaskSpec, calls: int | None) -> TaskOutcome | None:
    """Train, and die at the n-th call of a Python function, wherever that is; None if it died."""
    left = calls
    died = False

    def profile(frame: Any, event: str, _argument: Any) -> None:
        nonlocal left, died
        if event == "call" and left is not None:
            left -= 1
            # A generator that is thrown away is called once more, and Python swallows what is raised then.
            if left < 0 and not frame.f_code.co_flags & inspect.CO_GENERATOR and frame.f_code.co_name != "__del__":
                sys.setprofile(None)
                died = True
                raise Killed

    sys.setprofile(profile)
    try:
        return run_task(spec, REGISTRY, Recorder())
    except BaseException:
        # torch makes an error of its own of what is raised while it writes a file.
        if not died:
            raise
        return None
    finally:
        sys.setprofile(None)


def count_calls(spec: TaskSpec) -> int:
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        run_task(spec, REGISTRY, Recorder())
    finally:
        sys.setprofile(None)
    return count


def scaled(requested: str, device: torch.device) -> Precision:
    """Take the place of fp16, which the CPU has not: autocast, and a scaler that overflows and grows again."""
    return Precision("bf16", device, torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=3))


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "constant rate": ({}, {}),
    "onecycle, clipped norm, SGD with momentum": (
        {"scheduler": "onecycle", "gradient_clip_norm": 0.5},
        {"optimizer": Component("optimizer", "synicix-core/SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True})},
    ),
    "plateau and early stopping, AdamW": (
        {
            "scheduler": "plateau",
            "scheduler_params": {"patience": 0, "threshold": 0.5, "watch": "validation"},
            "early_stopping_patience": 2,
            "early_stopping_min_delta": 0.3,
            "early_stopping_metric": "correlation",
        },
        {"optimizer": Component("optimizer", "synicix-core/AdamW", {"lr": 0.02, "amsgrad": True}), "epoch_limit": 12},
    ),
    "cosine after a warm-up": ({"scheduler": "cosine", "warmup_epochs": 1.5}, {}),
    "cosine_restarts": ({"scheduler": "cosine_restarts", "scheduler_params": {"T_0": 2}, "warmup_steps": 3}, {}),
    "exponential": ({"scheduler": "exponential", "scheduler_params": {"gamma": 0.5}}, {}),
    "linear": ({"scheduler": "linear", "warmup_steps": 7}, {}),
    "multistep": ({"scheduler": "multistep", "scheduler_params": {"milestones": [1, 3]}}, {}),
    "polynomial": ({"scheduler": "polynomial"}, {}),
    "step": ({"scheduler": "step", "scheduler_params": {"step_size": 2}}, {}),
    "bf16": ({"precision": "bf16"}, {}),
    "scaled gradients, clipped values": ({"gradient_clip_value": 0.01}, {}),
    "micro-batches": ({"gradient_clip_norm": 0.5}, {"micro_batches": 3}),
    "steps that are skipped": (
        {"nan_policy": "skip"},
        {"dataset": Component("dataset", "toys/Poisoned", {"augment": True})},
    ),
    "divergence in the middle of an epoch": (
        {"early_stopping_patience": 0},
        {
            "dataset": Component("dataset", "toys/Linear", {"sizes": {"train": 160}}),
            "model": Component("model", "toys/Exploding", {"after": 200}),
            "batch_size": 2,
        },
    ),
    "batch normalization and hidden buffers": ({}, {"model": Component("model", "toys/Remembering")}),
    "a batch sampler with a generator": (
        {},
        {"samplers": {"train": Component("sampler", "toys/Pairs"), "validation": None, "test": None}},
    ),
    "a sampler that draws as it goes": (
        {},
        {"samplers": {"train": Component("sampler", "toys/Lazy"), "validation": None, "test": None}},
    ),
}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, seed: int
) -> None:
    params, changes = CASES[case]
    if case.startswith("scaled"):
        monkeypatch.setattr("synicix_core.training.nn_trainer.resolve_precision", scaled)
    changes = {"dataset": SHUFFLED_AND_NOISY, "epoch_limit": 5, "seed": 10 + seed, **changes}
    # Uninterrupted, and without a checkpoint.
    whole = run_task(nn_spec(tmp_path / "whole", params, **changes), REGISTRY, Recorder())
    calls = count_calls(nn_spec(tmp_path / "counted", params, **changes))

    chance = random.Random(f"{case} {seed}")
    monkeypatch.setattr(Checkpoints, "due", lambda *_: chance.random() < 0.3)
    spec = nn_spec(tmp_path / "killed", params, **changes)
    kills = 0
    for number in range(1, 7):
        # Somewhere in the way that is left, more or less; the last attempt is left alone.
        point = chance.randrange(calls // 2) if number < 6 else None
        outcome = train_and_kill(attempt(spec, number), point)
        if outcome is not None:
            break
        kills += 1
    assert outcome is not None and kills >= 1
    assert numbers(outcome) == numbers(whole)
    left = {path.name for path in (tmp_path / "killed" / "models").iterdir()}
    assert {name for name in left if not name.endswith(".checkpoint")} == {f"{number}.pt"}


@pytest.mark.parametrize("stop_at", [1, 3, 6, 7, 13, 18, 25, 26, 28, 31])
def test_stopped_and_gone_on_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    params = {"scheduler": "onecycle", "early_stopping_metric": "correlation", "gradient_clip_norm": 1.0}
    spec = nn_spec(tmp_path / "whole", params, dataset=SHUFFLED_AND_NOISY, epoch_limit=5)
    whole = run_task(spec, REGISTRY, Recorder())
    halves = nn_spec(tmp_path / "halves", params, dataset=SHUFFLED_AND_NOISY, epoch_limit=5)

    observer = Recorder(stop_at=stop_at)
    with pytest.raises(TrainingInterrupted):
        run_task(halves, REGISTRY, observer)
    assert {path.name for path in Path(halves.model_save_path).parent.iterdir()} <= {"checkpoint"}
    torch.manual_seed(1234)
    resumed = run_task(halves, REGISTRY, Recorder())

    assert numbers(resumed) == numbers(whole)
    assert resumed.provenance["resumed_from_epoch"] == (len(observer.epochs) if observer.checkpoints else None)


def test_a_stop_in_a_long_validation_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synicix_core.training.training_run._LONG_VALIDATION", 0.0)
    monkeypatch.setattr("synicix_core.training.tier_pass._MERGED_BYTES", {"cpu": 1})
    changes: dict[str, Any] = {"dataset": SHUFFLED_AND_NOISY, "epoch_limit": 3, "batch_size": 4}
    whole = run_task(nn_spec(tmp_path / "whole", **changes), REGISTRY, Recorder())
    # Twelve training steps, five validation batches and the end of the epoch ask: this is a validation batch.
    observer = Recorder(stop_at=18 + 12 + 3)
    with pytest.raises(TrainingInterrupted):
        run_task(nn_spec(tmp_path / "halves", **changes), REGISTRY, observer)
    assert len(observer.epochs) == 1 and len(observer.checkpoints) == 1
    again = Recorder()
    assert numbers(run_task(nn_spec(tmp_path / "halves", **changes), REGISTRY, again)) == numbers(whole)
    assert [event["epoch"] for event in again.epochs] == [2, 3]


def test_a_stop_while_skipping_keeps_the_checkpoint(tmp_path: Path) -> None:
    spec = nn_spec(tmp_path, dataset=SHUFFLED_AND_NOISY)
    with pytest.raises(TrainingInterrupted):
        run_task(spec, REGISTRY, Recorder(stop_at=4))
    before = Path(spec.checkpoint_path).read_bytes()
    observer = Recorder(stop_at=2)
    with pytest.raises(TrainingInterrupted):
        run_task(spec, REGISTRY, observer)
    assert observer.checkpoints == [] and Path(spec.checkpoint_path).read_bytes() == before


def test_long_epochs_are_saved_in_their_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_WRITING_COSTS", 0)
    observer = Recorder()
    run_task(nn_spec(tmp_path, epoch_limit=1, checkpoint_seconds=0.0), REGISTRY, observer)
    assert [epoch for _, epoch in observer.checkpoints] == [0, 0, 0, 0, 0, 1]


def batches_of(loader: Any, generators: dict[str, Any], epochs: int) -> list[torch.Tensor]:
    reader = TrainingBatches(loader, generators, keep_place=True)
    return [x for epoch in range(epochs) for x, _ in reader.epoch(epoch, 0, lambda: None)]


@pytest.mark.slow
def test_data_loading_processes_go_on_with_the_same_examples_however_many_they_are() -> None:
    def made(processes: int) -> tuple[Any, dict[str, Any]]:
        dataset = Linear("", "train", augment=True)
        loader = make_loader(dataset, "train", seed=1, batch_size=10, num_workers=processes)
        return loader, {str(i): g for i, g in enumerate(generators_of(loader))}

    loader, generators = made(2)
    whole = batches_of(loader, generators, 2)
    assert not torch.equal(torch.cat(whole[:5]).sort(0)[0], torch.cat(whole[5:]).sort(0)[0])  # new noise each epoch

    loader, generators = made(1)
    reader = TrainingBatches(loader, generators, keep_place=True)
    first = [x for x, _ in reader.epoch(0, 0, lambda: None)]
    second = reader.epoch(1, 0, lambda: None)
    first += [next(second)[0] for _ in range(2)]
    place, state = reader.state_dict(), capture(generators)

    loader, generators = made(2)
    restore(state, generators)
    reader = TrainingBatches(loader, generators, keep_place=True)
    reader.load_state_dict(place)
    rest = [x for x, _ in reader.epoch(1, 2, lambda: None)]
    assert torch.equal(torch.cat(first + rest), torch.cat(whole))


@pytest.mark.slow
def test_with_data_loading_processes_stopped_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_without(spec: TaskSpec, *arguments: Any, **options: Any) -> Any:
        return score_tier(
            dataclasses.replace(spec, num_workers=0), *arguments, **options
        )  # starting them takes seconds

    monkeypatch.setattr("synicix_core.training.task_run.score_tier", score_without)
    changes: dict[str, Any] = {"dataset": SHUFFLED_AND_NOISY, "epoch_limit": 3, "num_workers": 2}
    whole = run_task(nn_spec(tmp_path / "whole", **changes), REGISTRY, Recorder())
    halves = nn_spec(tmp_path / "halves", **changes)
    with pytest.raises(TrainingInterrupted):
        run_task(halves, REGISTRY, Recorder(stop_at=9))
    assert numbers(run_task(halves, REGISTRY, Recorder())) == numbers(whole)


@pytest.mark.slow
def test_a_process_that_is_killed_five_times_ends_as_one_that_was_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.killed_run", str(tmp_path), "5", "1"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == told["whole"]
    first, *later = told["found"]
    assert first is None and None not in later
    assert later == sorted(later) and later[0] < later[-1]
