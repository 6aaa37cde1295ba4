"""The losses against their formulas, their optima, and half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from synicix_neurodata.losses import CorrelationLoss, PoissonLoss

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


@pytest.mark.parametrize("rate", [0.0, 1e-7, 1.0, 300.0, 6e4])
def test_the_magnitudes_of_float16_give_torchs_loss_in_double_precision(rate):
    rates = torch.full((256, 32), rate, dtype=torch.float16)
    counts = torch.arange(256 * 32).reshape(256, 32).remainder(2000).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = PoissonLoss()(rates, counts)
        theirs = torch.nn.PoissonNLLLoss(log_input=False, eps=1e-8)(rates.double(), counts.double())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_model_under_autocast_learns_from_either_loss():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 5, generator=generator)
    targets = torch.poisson(torch.exp(x @ torch.randn(5, 3, generator=generator) * 0.3), generator=generator)
    for criterion in (PoissonLoss(), CorrelationLoss()):
        layer = torch.nn.Linear(5, 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = torch.nn.functional.softplus(layer(x))
            assert output.dtype == torch.bfloat16
            loss = criterion(output, targets)
        loss.backward()
        assert loss.dtype == torch.float32
        assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().sum() > 0


def movie(batch=6, neurons=4, frames=9):
    generator = torch.Generator().manual_seed(2)
    rate = torch.rand(batch, neurons, frames, generator=generator) * 5
    return rate, torch.poisson(rate, generator=generator)


@pytest.mark.parametrize("loss", [PoissonLoss, CorrelationLoss])
def test_frames_at_the_beginning_can_be_left_out(loss):
    rate, count = movie()
    skipping = loss(skip_frames=3)(rate, count)
    torch.testing.assert_close(skipping, loss()(rate[..., 3:], count[..., 3:]))
    assert not torch.isclose(skipping, loss()(rate, count))
    spoilt = rate.clone()
    spoilt[..., :3] = float("nan")
    torch.testing.assert_close(loss(skip_frames=3)(spoilt, count), skipping)
    with pytest.raises(ValueError, match=r"skip_frames = 3 needs \(batch, neurons, frames\).*\(16, 7\)"):
        loss(skip_frames=3)(*example())
    with pytest.raises(ValueError, match="skip_frames = 9 leaves none of the 9 frames"):
        loss(skip_frames=9)(rate, count)
    with pytest.raises(ParamsError, match="skip_frames"):
        loss(skip_frames=-1)


def test_the_population_loss_of_a_movie_sums_over_neurons_and_frames():
    rate, count = movie(neurons=4, frames=9)
    torch.testing.assert_close(PoissonLoss(per_neuron=False)(rate, count), 36 * PoissonLoss()(rate, count))


def test_correlation_loss_is_minus_the_mean_of_pearsons():
    rate, count = example(batch=40)
    expected = [stats.pearsonr(rate[:, n], count[:, n]).statistic for n in range(7)]
    assert CorrelationLoss()(rate, count).item() == pytest.approx(-np.mean(expected), abs=1e-6)
    torch.testing.assert_close(CorrelationLoss()(3 + 2 * count, count), torch.tensor(-1.0))
    torch.testing.assert_close(CorrelationLoss()(-count, count), torch.tensor(1.0))


def test_correlation_loss_takes_the_frames_as_further_observations():
    rate, count = movie()
    flat = [values.movedim(1, 2).reshape(-1, 4) for values in (rate, count)]
    torch.testing.assert_close(CorrelationLoss()(rate, count), CorrelationLoss()(*flat))


def test_eps_is_added_to_each_standard_deviation():
    rate, count = (values.double() for values in example(batch=40))
    covariance = ((rate - rate.mean(0)) * (count - count.mean(0))).mean(0)
    eps = 0.7
    expected = covariance / ((rate.std(0, correction=0) + eps) * (count.std(0, correction=0) + eps))
    torch.testing.assert_close(CorrelationLoss(eps=eps)(rate, count), -expected.mean())
    with pytest.raises(ParamsError, match="eps"):
        CorrelationLoss(eps=0.0)


def test_the_gradient_of_the_correlation_is_right():
    rate, count = (values.double() for values in example(batch=12, neurons=3))
    assert torch.autograd.gradcheck(lambda x: CorrelationLoss()(x, count), rate.requires_grad_())


@pytest.mark.parametrize("silent", ["output", "target", "both", "tiny", "batch of one"])
def test_neurons_that_do_not_vary_count_as_zero_and_do_no_harm(silent):
    rate, count = example()
    alone = CorrelationLoss()(rate[:, 1:], count[:, 1:])
    if silent in ("output", "both"):
        rate[:, 0] = 0.1
    if silent in ("target", "both"):
        count[:, 0] = 0.0
    if silent == "tiny":
        rate[:, 0] *= 1e-30  # varies, but its square is zero in float32
    if silent == "batch of one":
        rate, count, alone = rate[:1], count[:1], torch.zeros(())
    rate.requires_grad_()
    loss = CorrelationLoss()(rate, count)
    loss.backward()
    torch.testing.assert_close(loss.detach(), alone * 6 / 7)
    assert rate.grad.isfinite().all()
    assert not rate.grad[:, 0].any()
    assert rate.grad[:, 1:].any() or silent == "batch of one"


def test_what_is_not_a_number_stays_one():
    rate, count = example()
    rate[3, 2] = float("nan")
    assert CorrelationLoss()(rate, count).isnan()
    assert PoissonLoss()(rate, count).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_correlations_of_half_precision_are_computed_in_float32(dtype):
    rate, count = (300 * values.to(dtype) for values in example())
    loss = CorrelationLoss()(rate, count)  # squares beyond float16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CorrelationLoss()(rate.float(), count.float()))


@pytest.mark.parametrize("shape", [(8,), (8, 1, 2, 2)])
def test_a_correlation_needs_neurons(shape):
    with pytest.raises(ValueError, match=r"expected .*neurons"):
        CorrelationLoss()(torch.ones(shape), torch.ones(shape))


def test_a_correlation_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"CorrelationLoss: output has shape \(4, 1\), target \(4, 2\)"):
        CorrelationLoss()(torch.ones(4, 1), torch.ones(4, 2))
