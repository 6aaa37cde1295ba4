"""Evaluation in merged batches, and with channels last, gives the numbers of evaluation batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from synicix_core.training import tier_pass
from synicix_core.training.tier_pass import run_tier
from tests.training.test_nn_trainer import data, loader, trainer
from tests.training.toys import Net

CPU = torch.device("cpu")


class Counting(Net):
    """Notes how many examples pass at a time; more than `fits` are too many."""

    def __init__(self, fits: int = 10**6, error: type[BaseException] = torch.OutOfMemoryError) -> None:
        torch.manual_seed(0)
        super().__init__((6,), (3,), dropout=0.0)
        self.fits = fits
        self.error = error
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> Any:
        if len(x) > self.fits:
            raise self.error("out of memory")
        self.sizes.append(len(x))
        return super().forward(x)


def measured(model: nn.Module, batches: Any, **options: Any) -> tier_pass.TierPass:
    return run_tier(model, batches, CPU, criterion=nn.MSELoss(), collect=True, **options)


def test_small_batches_pass_the_model_together() -> None:
    model = Counting()
    measured(model, loader(data(50), size=8))
    assert model.sizes == [50]


def test_no_more_than_fit_pass_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tier_pass._MERGED_BYTES, "cpu", 8 * 9 * 4 * 3)
    model = Counting()
    measured(model, loader(data(50), size=8))
    assert model.sizes == [24, 24, 2]


def test_the_batches_of_a_batch_sampler_stay_as_they_are() -> None:
    dataset = data(20)
    model = Counting()
    measured(model, DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 8, drop_last=False)))
    assert model.sizes == [8, 8, 4]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_merged_batches_that_do_not_fit_pass_in_their_usual_size(error: type[BaseException]) -> None:
    whole, tight = Counting(), Counting(fits=8, error=error)
    expected = measured(whole, loader(data(50), size=8))
    found = measured(tight, loader(data(50), size=8))
    assert whole.sizes == [50] and max(tight.sizes) <= 8
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    torch.testing.assert_close(found.outputs, expected.outputs)
    assert torch.equal(found.targets, expected.targets)


def test_a_usual_batch_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        measured(Counting(fits=7), loader(data(50), size=8))


def test_an_error_of_another_kind_is_not_tried_again() -> None:
    model = Counting(fits=8, error=ValueError)
    with pytest.raises(ValueError, match="out of memory"):
        measured(model, loader(data(50), size=8))
    assert model.sizes == []


class Images(nn.Module):
    """Notes the layout of its input."""

    def __init__(self, **_shapes: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))
        self.last: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.append(x.is_contiguous(memory_format=torch.channels_last))
        output: torch.Tensor = self.layers(x)
        return output


def images(path: Path, **options: Any) -> Any:
    torch.manual_seed(2)
    x = torch.randn(20, 3, 6, 6)
    dataset = TensorDataset(x, x.mean((2, 3)))
    made = trainer(
        path, train=loader(dataset), validation=loader(dataset), test=loader(dataset), model_class=Images, **options
    )
    made.train()
    return made


def test_channels_last_gives_the_same_numbers(tmp_path: Path) -> None:
    usual, last = images(tmp_path), images(tmp_path, channels_last=True)
    assert not any(usual.model.last)
    assert all(last.model.last)
    assert last.model.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert last.training_epoch_loss_history == pytest.approx(usual.training_epoch_loss_history, rel=1e-5)
    assert last.validation_epoch_loss_history == pytest.approx(usual.validation_epoch_loss_history, rel=1e-5)


def test_channels_last_leaves_other_inputs_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    usual = trainer(tmp_path)
    usual.train()
    torch.manual_seed(1)
    last = trainer(tmp_path, channels_last=True)
    last.train()
    assert last.training_epoch_loss_history == usual.training_epoch_loss_history
