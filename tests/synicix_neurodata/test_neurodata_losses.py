"""PoissonLoss against its formula, its optimum, and half precision."""

from __future__ import annotations

import pytest
import torch
from synicix_neurodata.losses import PoissonLoss

from synicix_core.errors import ParamsError


def example(batch=16, neurons=7):
    generator = torch.Generator().manual_seed(0)
    rate = torch.rand(batch, neurons, generator=generator) * 5
    return rate, torch.poisson(rate, generator=generator)


@pytest.mark.parametrize("bias", [1e-8, 0.1])
def test_the_formula_and_torchs_own(bias):
    rate, count = example()
    expected = (rate - count * torch.log(rate + bias)).mean()
    torch.testing.assert_close(PoissonLoss(bias=bias)(rate, count), expected)
    torch.testing.assert_close(torch.nn.PoissonNLLLoss(log_input=False, eps=bias)(rate, count), expected)


def test_summed_over_neurons_it_is_still_averaged_over_the_batch():
    rate, count = example(batch=16, neurons=7)
    per_neuron, population = PoissonLoss(), PoissonLoss(per_neuron=False)
    torch.testing.assert_close(population(rate, count), 7 * per_neuron(rate, count))
    torch.testing.assert_close(population(rate.repeat(3, 1), count.repeat(3, 1)), population(rate, count))


def test_the_true_rate_costs_least():
    count = torch.tensor([[0.0, 1.0, 4.0]])
    rate = torch.tensor([[1e-6, 1.0, 4.0]])
    best = PoissonLoss()(rate, count)
    for factor in (0.8, 1.25):
        assert PoissonLoss()(rate * factor, count) > best


def test_a_rate_of_zero_costs_much_but_not_infinitely_much_and_can_be_left():
    rate = torch.zeros(1, 1, requires_grad=True)
    loss = PoissonLoss()(rate, torch.ones(1, 1))
    loss.backward()
    assert 18 < loss.item() < 19
    assert rate.grad.isfinite().all()
    assert rate.grad.item() < 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(dtype):
    rate, count = torch.zeros(4096, 64, dtype=dtype), torch.full((4096, 64), 200.0, dtype=dtype)
    loss = PoissonLoss(per_neuron=False)(rate, count)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, PoissonLoss(per_neuron=False)(rate.float(), count.float()))
    assert loss.isfinite()


def test_double_precision_is_kept():
    rate, count = example()
    assert PoissonLoss()(rate.double(), count).dtype == torch.float64


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        PoissonLoss()(torch.ones(4, 1), torch.ones(4))


@pytest.mark.parametrize("bias", [0.0, -1.0, float("nan")])
def test_a_bias_that_is_none_is_refused(bias):
    with pytest.raises(ParamsError, match="bias"):
        PoissonLoss(bias=bias)
