"""The written-out penalty against the same one derived by autograd, wherever a trainer may put it."""

from __future__ import annotations

import copy

import pytest
import torch
from synicix_mlp import penalty as penalty_module
from synicix_mlp.model import SimpleMLP
from synicix_mlp.penalty import elastic_net

SHAPES = [(5, 4), (3, 5), (7,)]
STRENGTHS = [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7), (0.0, 0.0)]


@pytest.fixture(params=["joined", "one by one"])
def treatment(request, monkeypatch):
    """Treat small weights as large ones are, too."""
    if request.param == "one by one":
        monkeypatch.setattr(penalty_module, "_JOINED", {"cpu": 0})


def make_weights(dtype, stack=()):
    torch.manual_seed(0)
    weights = [torch.randn(*stack, *shape, dtype=dtype) for shape in SHAPES]
    weights[0].flatten()[0] = 0.0
    return [weight.requires_grad_() for weight in weights]


def derived(weights, l1, l2):
    return sum(l1 * weight.abs().sum() + l2 * weight.square().sum() for weight in weights)


def strengths(l1, l2, dtype=torch.float64):
    return torch.tensor(l1, dtype=dtype), torch.tensor(l2, dtype=dtype)


@pytest.mark.usefixtures("treatment")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("l1", "l2"), STRENGTHS)
def test_value_and_gradient_are_those_that_autograd_derives(l1, l2, dtype):
    weights = make_weights(dtype)
    penalty = elastic_net(weights, *strengths(l1, l2, dtype))
    expected = derived(weights, l1, l2)
    assert penalty.dtype == dtype
    assert penalty.shape == ()
    torch.testing.assert_close(penalty, expected)
    found = torch.autograd.grad(3 * penalty, weights)
    torch.testing.assert_close(found, torch.autograd.grad(3 * expected, weights))


@pytest.mark.usefixtures("treatment")
def test_the_gradient_is_added_to_what_the_weights_have_and_can_be_had_twice():
    weights = make_weights(torch.float64)
    l1, l2 = strengths(0.3, 0.7)
    objective = elastic_net(weights, l1, l2) + sum(weight.pow(3).sum() for weight in weights)
    objective.backward(retain_graph=True)
    once = [weight.grad.clone() for weight in weights]
    objective.backward()
    expected = torch.autograd.grad(derived(weights, l1, l2) + sum(weight.pow(3).sum() for weight in weights), weights)
    torch.testing.assert_close(once, list(expected))
    torch.testing.assert_close([weight.grad for weight in weights], [2 * gradient for gradient in expected])


@pytest.mark.usefixtures("treatment")
def test_without_gradients_there_is_a_value_and_no_graph():
    weights = make_weights(torch.float64)
    with torch.no_grad():
        penalty = elastic_net(weights, *strengths(0.3, 0.7))
    torch.testing.assert_close(penalty, derived(weights, 0.3, 0.7).detach())
    assert not penalty.requires_grad


def test_large_weights_refuse_a_second_derivative_instead_of_giving_a_wrong_one(monkeypatch):
    monkeypatch.setattr(penalty_module, "_JOINED", {"cpu": 0})
    weights = make_weights(torch.float64)
    first = torch.autograd.grad(elastic_net(weights, *strengths(0.3, 0.7)) ** 2, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


@pytest.mark.usefixtures("treatment")
@pytest.mark.parametrize("how", ["vmap, then backward", "vmap of grad"])
def test_stacked_weights_have_their_own_strengths(how):
    stacked = make_weights(torch.float64, (len(STRENGTHS),))
    l1, l2 = (torch.tensor(column, dtype=torch.float64) for column in zip(*STRENGTHS, strict=True))
    if how == "vmap of grad":
        found = torch.func.vmap(torch.func.grad(elastic_net))(stacked, l1, l2)
    else:
        penalties = torch.func.vmap(elastic_net)(stacked, l1, l2)
        torch.testing.assert_close(
            penalties,
            torch.stack([derived([w[k] for w in stacked], *STRENGTHS[k]) for k in range(len(STRENGTHS))]),
        )
        penalties.sum().backward()
        found = [weight.grad for weight in stacked]
    for k, (one_l1, one_l2) in enumerate(STRENGTHS):
        alone = [weight[k].detach().requires_grad_() for weight in stacked]
        expected = torch.autograd.grad(derived(alone, one_l1, one_l2), alone)
        torch.testing.assert_close([gradient[k] for gradient in found], list(expected))


def test_who_else_is_in_the_stack_changes_no_bit():
    stacked = make_weights(torch.float32, (4,))
    l1, l2 = torch.rand(4), torch.rand(4)
    penalties, gradients = [], []
    for chosen in ([0, 1, 2, 3], [0], [3, 0]):
        weights = [weight[chosen].detach().requires_grad_() for weight in stacked]
        result = torch.func.vmap(elastic_net)(weights, l1[chosen], l2[chosen])
        place = chosen.index(0)
        penalties.append(result[place].detach())
        gradients.append([gradient[place] for gradient in torch.autograd.grad(result.sum(), weights)])
    for penalty, gradient in zip(penalties[1:], gradients[1:], strict=True):
        torch.testing.assert_close(penalty, penalties[0], rtol=0, atol=0)
        torch.testing.assert_close(gradient, gradients[0], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("treatment")
@pytest.mark.parametrize("stacked", [False, True])
def test_it_compiles_whole(stacked):
    torch._dynamo.reset()
    weights = make_weights(torch.float64, (2,) if stacked else ())
    l1 = torch.tensor([0.3, 0.1] if stacked else 0.3, dtype=torch.float64)
    l2 = torch.tensor([0.0, 0.7] if stacked else 0.7, dtype=torch.float64)

    def penalty(weights, l1, l2):
        return torch.func.vmap(elastic_net)(weights, l1, l2).sum() if stacked else elastic_net(weights, l1, l2)

    # The compiler's own part that finds graph breaks; making C++ of the graph takes half a minute and adds nothing here.
    found = torch.compile(penalty, fullgraph=True, backend="aot_eager")(weights, l1, l2)
    expected = penalty(weights, l1, l2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights))


@pytest.mark.usefixtures("treatment")
def test_under_bf16_autocast_it_is_that_of_float32():
    model = SimpleMLP((4,), (3,), num_hidden_layers=2, hidden_size=5, l1_loss_lamda=0.3, l2_loss_lamda=0.7)
    other = copy.deepcopy(model)
    x = torch.randn(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, penalty = model(x)
    penalty.backward()
    _, expected = other(x)
    expected.backward()
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, expected, rtol=0, atol=0)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)
