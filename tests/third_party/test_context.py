"""A third party's trainer that accepts `context` is stopped and goes on as if nothing had happened."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synicix_core import builtin
from synicix_core.registry import Registry
from synicix_core.training.contract import TrainingContext, TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskSpec
from tests.factories import Distribution, EntryPoint
from tests.third_party.fresh_environment import PLUGINS


class Observer:
    """Asks the trainer to stop when `epochs` are done, and remembers what it was told."""

    def __init__(self, epochs: int | None = None) -> None:
        self.epochs = epochs
        self.told: list[int] = []
        self.checkpoints: list[int] = []

    def stop_requested(self) -> bool:
        return self.epochs is not None and len(self.told) >= self.epochs

    def epoch_finished(self, **fields: Any) -> None:
        self.told.append(fields["epoch"])

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        assert Path(path).is_file()
        self.checkpoints.append(epoch)

    def checkpoint_failed(self, message: str) -> None:
        raise AssertionError(message)

    def progress(self) -> None:
        """Take note."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(PLUGINS / "lab_kit")
    hooks = importlib.import_module("lab_kit.hooks")
    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    made = Registry([core, EntryPoint(Distribution("lab-kit", "1.2.0"), "lab", "lab_kit.hooks", hooks)])
    assert made.problems == ()
    return made


@pytest.fixture
def spec(tmp_path: Path) -> TaskSpec:
    generator = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for tier, count in (("train", 40), ("validation", 12), ("test", 12)):
        arrays[f"{tier}_inputs"] = generator.normal(size=(count, 4))
        arrays[f"{tier}_targets"] = generator.normal(size=(count, 2))
    np.savez(tmp_path / "lab.npz", **arrays)
    return TaskSpec(
        task="0" * 32,
        attempt=1,
        dataset=Component("dataset", "lab-kit/NpzDataset"),
        dataset_path=str(tmp_path / "lab.npz"),
        samplers={"train": None, "validation": None, "test": None},
        input_shape=[4],
        output_shape=[2],
        additional_model_params={"n_neurons": 2, "unused": 1},
        model=Component("model", "lab-kit/Readout", {"l2": 0.01}),
        trainer=Component("trainer", "lab-kit/CheckpointTrainer", {"precision": "fp32"}),
        optimizer=Component("optimizer", "synicix-core/Adam", {"lr": 0.05}),
        criterion=Component("criterion", "synicix-core/MSELoss"),
        metrics=(Component("metric", "synicix-core/loss"),),
        batch_size=8,
        epoch_limit=5,
        seed=11,
        device="cpu",
        num_workers=0,
        model_save_path=str(tmp_path / "whole.pt"),
        checkpoint_path=str(tmp_path / "whole.checkpoint"),
    )


def test_stopped_and_gone_on_equals_uninterrupted(registry: Registry, spec: TaskSpec, tmp_path: Path) -> None:
    whole = run_task(spec, registry, Observer())
    halves = replace(
        spec, model_save_path=str(tmp_path / "halves.pt"), checkpoint_path=str(tmp_path / "halves.checkpoint")
    )
    first, second = Observer(epochs=2), Observer()
    with pytest.raises(TrainingInterrupted):
        run_task(halves, registry, first)
    gone_on = run_task(replace(halves, attempt=2), registry, second)

    assert (first.told, second.told) == ([1, 2], [3, 4, 5])
    assert (first.checkpoints, second.checkpoints) == ([1, 2], [3, 4, 5])
    assert gone_on.provenance["resumed_from_epoch"] == 2
    assert gone_on.training_epoch_loss_history == whole.training_epoch_loss_history
    assert gone_on.validation_epoch_loss_history == whole.validation_epoch_loss_history
    assert gone_on.regularization_loss_history == whole.regularization_loss_history
    assert gone_on.model_class_params_history == whole.model_class_params_history
    assert (gone_on.best_epoch, gone_on.test_score) == (whole.best_epoch, whole.test_score)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mixed_precision_comes_from_the_context(registry: Registry, spec: TaskSpec, precision: str) -> None:
    trainer = replace(spec.trainer, params={"precision": precision})
    outcome = run_task(replace(spec, trainer=trainer), registry, Observer())
    assert outcome.provenance["precision"] == precision
    assert outcome.status == "completed"


def test_a_trainer_without_context_can_be_stopped_too(registry: Registry, spec: TaskSpec) -> None:
    class Impatient(Observer):
        def stop_requested(self) -> bool:
            return True

    with pytest.raises(TrainingInterrupted):
        run_task(replace(spec, trainer=Component("trainer", "lab-kit/PlainTrainer")), registry, Impatient())


def test_the_trainer_was_given_what_the_protocol_promises(
    registry: Registry, spec: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    target = registry.resolve("trainer", "CheckpointTrainer").load()
    original = target.train

    def train(self: Any) -> None:
        given.append(self.context)
        original(self)

    monkeypatch.setattr(target, "train", train)
    run_task(spec, registry, Observer())
    assert isinstance(given[0], TrainingContext)
    assert (given[0].seed, list(given[0].metrics)) == (11, ["loss"])
