"""A batch in parts has the gradients of the whole, and less memory is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synicix_core.training.batches import cut
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.optimization import Optimization
from synicix_core.training.precision import Precision
from synicix_core.training.run import run_task
from synicix_core.training.schedules import LearningRate
from synicix_core.training.spec import Component, TaskState
from tests.training.toys import Net, Recorder, nn_spec, toy_registry, toy_spec

REGISTRY = toy_registry()
CPU = torch.device("cpu")


def stepped(parts: int, criterion: Any, **options: Any) -> tuple[nn.Module, LossSums]:
    """A model after two steps, in double precision, where rounding is all that may differ."""
    torch.manual_seed(1)
    precision = options.pop("precision", Precision("fp32", CPU))
    model = Net((6,), (3,), dropout=0.0, penalty=0.3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rate = LearningRate(optimizer, None, {}, max_epoch=1, steps_per_epoch=2)
    limits = {"clip_norm": None, "clip_value": None, "skip_nonfinite": False, **options}
    optimization = Optimization(model, criterion, optimizer, rate, precision, CPU, parts=parts, **limits)
    sums = LossSums(criterion)
    for size in (10, 7):
        optimization.step([(torch.randn(size, 6).double(), torch.randn(size, 3).double())], sums)
    assert optimization.skipped_steps == 0
    return model, sums


@pytest.mark.parametrize("parts", [2, 3, 4, 50])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"skip_nonfinite": True}])
def test_the_step_is_that_of_the_whole_batch(parts: int, reduction: str, options: dict[str, Any]) -> None:
    whole, sums = stepped(1, nn.MSELoss(reduction=reduction), **options)
    split, sums_of_parts = stepped(parts, nn.MSELoss(reduction=reduction), **options)
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert sums_of_parts.means() == pytest.approx(sums.means(), rel=1e-9)


def test_scaled_gradients_are_unscaled_once() -> None:
    def scaler() -> Precision:
        return Precision("fp32", CPU, torch.amp.GradScaler("cpu", init_scale=1024.0))

    whole, _ = stepped(1, nn.MSELoss(), clip_norm=0.1)
    split, _ = stepped(3, nn.MSELoss(), clip_norm=0.1, precision=scaler())
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_batches_are_cut_along_the_first_axis_whatever_their_nesting() -> None:
    batch = (
        {"a": torch.arange(10).reshape(5, 2), "scale": torch.tensor(2.0), "name": list("abcde")},
        [torch.arange(5)],
    )
    pieces = cut(batch, 2)
    assert [piece[1][0].tolist() for piece in pieces] == [[0, 1, 2], [3, 4]]
    assert [piece[0]["name"] for piece in pieces] == [["a", "b", "c"], ["d", "e"]]
    assert pieces[1][0]["a"].tolist() == [[6, 7], [8, 9]] and pieces[1][0]["scale"] == 2
    assert [len(piece[0]) for piece in cut((torch.zeros(3), torch.zeros(3)), 10)] == [1, 1, 1]
    uneven = (torch.zeros(7, 2), torch.zeros(3))  # nodes and graphs, say
    assert cut(uneven, 2) == [uneven]


def test_a_task_whose_batches_do_not_fit_trains_in_parts(tmp_path: Path) -> None:
    tight = Component("model", "toys/Tight", {"fits": 3})
    state = TaskState()
    with pytest.raises(torch.OutOfMemoryError):
        run_task(nn_spec(tmp_path / "whole", model=tight), REGISTRY, Recorder(), state=state)
    assert state.can_split
    outcome = run_task(nn_spec(tmp_path / "parts", model=tight, micro_batches=4), REGISTRY, Recorder())
    assert outcome.provenance["micro_batches"] == 4
    assert outcome.notes == (
        "trained in 4 micro-batches per batch, because a whole one did not fit into memory; dropout saw one part at a time",
    )
    roomy = Component("model", "toys/Tight", {"fits": 10, "dropout": 0.0})
    tight = Component("model", "toys/Tight", {"fits": 3, "dropout": 0.0})
    whole = run_task(nn_spec(tmp_path / "a", model=roomy), REGISTRY, Recorder())
    parts = run_task(nn_spec(tmp_path / "b", model=tight, micro_batches=4), REGISTRY, Recorder())
    assert whole.provenance["micro_batches"] == 1
    assert parts.training_epoch_loss_history == pytest.approx(whole.training_epoch_loss_history, rel=1e-4)
    assert parts.regularization_loss_history == pytest.approx(whole.regularization_loss_history, rel=1e-4)
    assert parts.metrics["test"] == pytest.approx(whole.metrics["test"], rel=1e-3)


def test_a_trainer_that_does_not_ask_is_known_not_to_split(tmp_path: Path) -> None:
    state = TaskState()
    spec = toy_spec(tmp_path, trainer=Component("trainer", "toys/OldTrainer"), micro_batches=4)
    outcome = run_task(spec, REGISTRY, Recorder(), state=state)
    assert not state.can_split and outcome.provenance["micro_batches"] == 1
