"""The moving average of the weights is torch's, travels with checkpoints, and leaves buffers and learning alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synicix_core.training.averaging import Average
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.training.test_nn_trainer import data, loader, trainer
from tests.training.toys import Net, Recorder, Remembering, nn_spec, toy_registry

REGISTRY = toy_registry()


def run(spec: TaskSpec, observer: Recorder | None = None) -> TaskOutcome:
    return run_task(spec, REGISTRY, observer or Recorder())


def moved(model: nn.Module) -> None:
    """Stand for a step of learning."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_the_average_that_torch_computes(decay: float) -> None:
    torch.manual_seed(0)
    model = Net((6,), (3,)).double()
    ours = Average(model, decay)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    # Torch's begins with the first weights that it is told; ours with those before the first step.
    theirs.update_parameters(model)
    for _ in range(20):
        moved(model)
        ours.update()
        theirs.update_parameters(model)
    for one, other in zip(ours.values, theirs.module.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


def test_the_kept_weights_are_the_average_and_the_others_go_on_learning(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = trainer(tmp_path)
    plain.train()
    torch.manual_seed(1)
    averaged = trainer(tmp_path, ema_decay=0.9)
    averaged.train()
    assert averaged.training_epoch_loss_history == plain.training_epoch_loss_history
    assert averaged.validation_epoch_loss_history != plain.validation_epoch_loss_history
    averaged.load_best_performing_model()
    assert averaged.validate() == min(averaged.validation_epoch_loss_history)


def test_the_weights_that_learn_are_back_after_it_was_in_place() -> None:
    model = Net((6,), (3,))
    average = Average(model, 0.9)
    moved(model)
    before = [weight.detach().clone() for weight in model.parameters()]
    held = [value.clone() for value in average.values]
    with pytest.raises(KeyError), average.in_place():
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), held, strict=True))
        raise KeyError
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(average.values, held, strict=True))


def test_frozen_weights_and_buffers_are_left_alone() -> None:
    model = Remembering((6,), (3,))
    model.layers[0].weight.requires_grad_(False)
    average = Average(model, 0.5)
    moved(model)
    model.norm.running_mean.fill_(7.0)
    frozen = model.layers[0].weight.clone()
    average.update()
    with average.in_place():
        assert torch.equal(model.layers[0].weight, frozen)
        assert (model.norm.running_mean == 7.0).all()


def test_batch_normalization_is_measured_with_its_running_statistics(tmp_path: Path) -> None:
    made = trainer(tmp_path, model_class=Remembering, model_class_params=SHAPES, ema_decay=0.5)
    made.train()
    made.load_best_performing_model()
    assert made.validate() == min(made.validation_epoch_loss_history)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert int(saved["norm.num_batches_tracked"]) == 4 * made.best_epoch


SHAPES: dict[str, Any] = {"input_shape": (6,), "output_shape": (3,)}


@pytest.mark.parametrize("model", ["Net", "Remembering"])
@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_killed_and_gone_on_with_is_the_same_average(tmp_path: Path, model: str, stop_at: int) -> None:
    chosen = Component("model", f"toys/{model}")
    whole = run(nn_spec(tmp_path / "whole", {"ema_decay": 0.8}, model=chosen))
    parts = nn_spec(tmp_path / "parts", {"ema_decay": 0.8}, model=chosen)
    with pytest.raises(TrainingInterrupted):
        run(parts, Recorder(stop_at=stop_at))
    gone_on = run(parts)
    assert gone_on.provenance["resumed_from_epoch"] is not None
    assert gone_on.model_sha256 == whole.model_sha256
    assert gone_on.validation_epoch_loss_history == whole.validation_epoch_loss_history


def test_it_follows_steps_that_were_made_and_not_those_that_were_left_out(tmp_path: Path) -> None:
    x, y = data(16).tensors
    poisoned = torch.utils.data.TensorDataset(x, y * float("nan"))
    made = trainer(tmp_path, train=loader(poisoned), ema_decay=0.5, nan_policy="skip", max_epoch=1)
    average = made.run.optimization.average
    assert average is not None
    before = [value.clone() for value in average.values]
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(1.0)
    made.run.train_epoch()
    assert made.run.optimization.skipped_steps == 1
    assert all(torch.equal(one, other) for one, other in zip(average.values, before, strict=True))
