"""The core's metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from synicix_core.errors import SynicixError
from synicix_core.training.contract import Metric
from synicix_core.training.metrics import R2, Accuracy, Correlation, Loss


def value(metric: object, outputs: object, targets: object) -> float:
    return Metric("m", metric, True)(outputs, targets)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 5), st.sampled_from([1e-12, 1.0, 1e12]))
def test_correlation_is_pearsons(seed: int, samples: int, units: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, units, generator=generator) * scale
    y = 0.3 * x / scale + torch.randn(samples, units, generator=generator)
    expected = [stats.pearsonr(x[:, u].numpy(), y[:, u].numpy()).statistic for u in range(units)]
    assert Correlation()(x, y).numpy() == pytest.approx(expected, abs=1e-6)
    assert value(Correlation(), x, y) == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_unit_that_does_not_vary_counts_as_zero_and_nan_shows() -> None:
    x = torch.randn(10, 2)
    y = x.clone()
    y[:, 1] = 0.1
    assert Correlation()(x, y).tolist() == pytest.approx([1.0, 0.0])
    assert R2()(x, y).tolist() == pytest.approx([1.0, 0.0])
    x[3, 0] = float("nan")
    assert np.isnan(value(Correlation(), x, y))


def test_units_are_all_axes_but_the_first() -> None:
    x = torch.randn(10, 2, 3)
    assert Correlation()(x, x).shape == (6,)
    assert value(Correlation(), torch.randn(9), torch.randn(9)) <= 1


def test_r2_against_its_definition() -> None:
    y = torch.randn(30, 2).double()
    x = y + 0.5 * torch.randn(30, 2)
    expected = 1 - ((y - x) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    assert R2()(x, y).numpy() == pytest.approx(expected.numpy())


def test_accuracy_of_classes_and_of_decisions() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [0.0, 1.0]])
    assert value(Accuracy(), scores, torch.tensor([0, 1, 1, 1])) == 0.75
    assert value(Accuracy(), torch.tensor([0.2, 0.7]), torch.tensor([0.0, 1.0])) == 1.0
    assert value(Accuracy(threshold=0.0), torch.tensor([0.2, 0.7]), torch.tensor([0.0, 1.0])) == 0.5
    assert value(Accuracy(), torch.full((4, 2), float("nan")), torch.tensor([0, 1, 1, 1])) == 0.0


def test_shapes_and_nestings_that_do_not_fit_are_said() -> None:
    with pytest.raises(SynicixError, match=r"'correlation'.*\(4, 2\).*\(4, 3\)"):
        Correlation()(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(SynicixError, match=r"'r2'.*takes one tensor"):
        R2()({"a": torch.zeros(4)}, torch.zeros(4))


def test_the_loss_metric_is_per_sample_in_float32() -> None:
    x, y = torch.randn(11, 4), torch.randn(11, 4)
    assert value(Loss(nn.MSELoss()), x, y) == pytest.approx(float(((x - y) ** 2).mean()))
    assert value(Loss(nn.MSELoss(reduction="sum")), x, y) == pytest.approx(float(((x - y) ** 2).sum()) / 11)
    half = value(Loss(nn.MSELoss()), x.bfloat16(), y)
    assert half == pytest.approx(float(((x.bfloat16().float() - y) ** 2).mean()))
    assert value(Loss(nn.CrossEntropyLoss()), torch.zeros(5, 2), torch.ones(5, dtype=torch.int64)) == pytest.approx(
        float(np.log(2))
    )
