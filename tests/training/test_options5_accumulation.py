"""Several batches to a step are one large batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.optimization import Optimization
from synicix_core.training.precision import Precision
from synicix_core.training.run import run_task
from synicix_core.training.schedules import LearningRate
from synicix_core.training.spec import TaskOutcome, TaskSpec
from tests.training.test_nn_trainer import data, loader, trainer
from tests.training.toys import Net, Recorder, nn_spec, toy_registry

REGISTRY = toy_registry()
CPU = torch.device("cpu")
SIZES = ([10, 10, 10], [10, 7], [4], [10, 1, 5])


def run(spec: TaskSpec, observer: Recorder | None = None) -> TaskOutcome:
    return run_task(spec, REGISTRY, observer or Recorder())


def trained(joined: bool, criterion: nn.Module, **limits: Any) -> tuple[nn.Module, LossSums]:
    """A model in double precision after a step for each of `SIZES`, from its batches or from one that joins them."""
    torch.manual_seed(1)
    model = Net((6,), (3,), dropout=0.0, penalty=0.3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rate = LearningRate(optimizer, None, {}, max_epoch=1, steps_per_epoch=len(SIZES))
    options = {"clip_norm": None, "clip_value": None, "skip_nonfinite": False} | limits
    optimization = Optimization(model, criterion, optimizer, rate, Precision("fp32", CPU), CPU, **options)
    sums = LossSums(criterion)
    for sizes in SIZES:
        batches = [[torch.randn(size, 6).double(), torch.randn(size, 3).double()] for size in sizes]
        if joined:
            batches = [[torch.cat([batch[place] for batch in batches]) for place in (0, 1)]]
        optimization.step(batches, sums)
    return model, sums


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("limits", [{}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"clip_norm": 0.1, "parts": 3}])
def test_weights_are_those_of_one_large_batch(reduction: str, limits: dict[str, Any]) -> None:
    accumulated, _ = trained(False, nn.MSELoss(reduction=reduction), **limits)
    joined, _ = trained(True, nn.MSELoss(reduction=reduction), **limits)
    for one, other in zip(accumulated.parameters(), joined.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_losses_and_penalties_are_those_of_one_large_batch() -> None:
    _, accumulated = trained(False, nn.MSELoss())
    _, joined = trained(True, nn.MSELoss())
    assert accumulated.means() == pytest.approx(joined.means(), rel=1e-12)


def test_the_last_window_of_an_epoch_may_be_smaller(tmp_path: Path) -> None:
    steps = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            steps.append(1)
            return super().step(closure)

    made = trainer(
        tmp_path, train=loader(data(50), size=10), accumulate_batches=2, optimizer_class=Watched, max_epoch=2
    )
    made.train()
    assert len(steps) == 2 * 3


def test_a_schedule_counts_steps_and_not_batches(tmp_path: Path) -> None:
    made = trainer(tmp_path, train=loader(data(50), size=10), accumulate_batches=2, scheduler="linear", max_epoch=2)
    made.train()
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert made.run.optimization.learning_rate.state_dict()["steps"] == 6


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5, 7])
def test_killed_and_gone_on_with_is_the_same(tmp_path: Path, stop_at: int) -> None:
    options = {"accumulate_batches": 3, "gradient_clip_norm": 0.5}
    whole = run(nn_spec(tmp_path / "whole", options))
    parts = nn_spec(tmp_path / "parts", options)
    with pytest.raises(TrainingInterrupted):
        run(parts, Recorder(stop_at=stop_at))
    gone_on = run(parts)
    assert gone_on.provenance["resumed_from_epoch"] is not None
    assert gone_on.model_sha256 == whole.model_sha256
    assert gone_on.training_epoch_loss_history == whole.training_epoch_loss_history
