"""SimpleMLP: shapes, penalties, output nonlinearities, and what later training modes rely on."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synicix_mlp.model import SimpleMLP
from torch import nn

from synicix_core.errors import ParamsError

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]


@settings(deadline=None, max_examples=30)
@given(input_shape=shapes, output_shape=shapes, layers=st.integers(0, 3), batch=st.integers(0, 3))
def test_any_shape_goes_in_and_any_shape_comes_out(input_shape, output_shape, layers, batch):
    model = SimpleMLP(input_shape, output_shape, num_hidden_layers=layers, hidden_size=5)
    output, penalty = model(torch.randn(batch, *input_shape))
    assert output.shape == (batch, *output_shape)
    assert penalty.shape == ()
    assert len(weights(model)) == layers + 1


def test_every_input_feature_reaches_the_output():
    model = SimpleMLP((2, 3, 4), (5,), num_hidden_layers=2, activation="tanh")
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    model(x)[0].sum().backward()
    assert (x.grad != 0).all()


def test_named_inputs_are_used_in_the_order_of_their_names_whatever_order_the_database_returns():
    shape = {"stimulus": (1, 4, 6), "behavior": (3,), "pupil_center": (2,)}
    torch.manual_seed(0)
    model = SimpleMLP(shape, (7,))
    torch.manual_seed(0)
    reordered = SimpleMLP(dict(sorted(shape.items(), reverse=True)), (7,))
    batch = {name: torch.randn(2, *part) for name, part in shape.items()}
    torch.testing.assert_close(model(batch)[0], reordered(dict(reversed(batch.items())))[0], rtol=0, atol=0)
    torch.manual_seed(0)
    flat = SimpleMLP((29,), (7,))
    joined = torch.cat([batch["behavior"], batch["pupil_center"], batch["stimulus"].flatten(1)], dim=1)
    torch.testing.assert_close(model(batch)[0], flat(joined)[0])


@pytest.mark.parametrize("container", [tuple, list])
def test_positional_inputs(container):
    model = SimpleMLP(container([(2, 2), (3,), {"x": (4,)}]), (1,), num_hidden_layers=0)
    parts = [torch.randn(5, 2, 2), torch.randn(5, 3), {"x": torch.randn(5, 4)}]
    output, _ = model(container(parts))
    joined = torch.cat([parts[0].flatten(1), parts[1], parts[2]["x"]], dim=1)
    torch.testing.assert_close(output, model.readout(joined))
    with pytest.raises(ValueError, match="longer than argument"):
        model(container(parts[:2]))


def test_integer_and_double_inputs_are_cast():
    model = SimpleMLP((3,), (2,))
    x = torch.tensor([[1, 2, 3]], dtype=torch.uint8)
    torch.testing.assert_close(model(x)[0], model(x.double())[0])


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_the_penalty_is_its_closed_form_with_its_gradient_and_leaves_biases_free(l1, l2):
    model = SimpleMLP((4,), (3,), num_hidden_layers=2, hidden_size=5, l1_loss_lamda=l1, l2_loss_lamda=l2)
    _, penalty = model(torch.randn(2, 4))
    expected = sum(l1 * w.abs().sum() + l2 * (w**2).sum() for w in weights(model))
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    for weight in weights(model):
        torch.testing.assert_close(weight.grad, l1 * weight.sign() + 2 * l2 * weight)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.grad is None


def test_without_penalty_nothing_of_it_is_in_the_graph():
    model = SimpleMLP((4,), (3,))
    _, penalty = model(torch.randn(2, 4))
    assert not model.regularized
    assert penalty.item() == 0.0
    assert not penalty.requires_grad


def test_the_strengths_are_buffers_that_the_state_dict_leaves_out():
    model = SimpleMLP((4,), (3,), l1_loss_lamda=0.25)
    assert set(dict(model.named_buffers())) == {"l1_loss_lamda", "l2_loss_lamda"}
    assert not any("lamda" in name for name in model.state_dict())
    SimpleMLP((4,), (3,)).load_state_dict(model.state_dict())


def test_models_that_differ_in_their_strengths_train_stacked_as_they_train_alone():
    models = [SimpleMLP((4,), (3,), l1_loss_lamda=l1, l2_loss_lamda=l2) for l1, l2 in [(0.1, 0.0), (0.0, 0.2)]]
    params, buffers = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    x = torch.randn(6, 4)

    def loss(params, buffers):
        output, penalty = torch.func.functional_call(skeleton, (params, buffers), (x,))
        return output.square().mean() + penalty

    gradients = torch.func.vmap(torch.func.grad(loss))(params, buffers)
    for position, model in enumerate(models):
        output, penalty = model(x)
        (output.square().mean() + penalty).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][position], parameter.grad)


@pytest.mark.parametrize(
    ("nonlinearity", "nonnegative", "expected"),
    [
        ("auto", False, lambda z: z),
        ("auto", True, lambda z: torch.where(z > 0, z + 1, z.exp())),
        ("identity", True, lambda z: z),
        ("elu+1", False, lambda z: torch.where(z > 0, z + 1, z.exp())),
        ("softplus", False, lambda z: (1 + z.exp()).log()),
        ("exp", False, torch.exp),
    ],
)
def test_output_nonlinearities(nonlinearity, nonnegative, expected):
    model = SimpleMLP((4,), (3,), num_hidden_layers=0, output_nonlinearity=nonlinearity, nonnegative_output=nonnegative)
    x = torch.randn(50, 4)
    torch.testing.assert_close(model(x)[0], expected(model.readout(x)))


def test_counts_get_an_output_that_is_never_negative_even_far_out():
    model = SimpleMLP((1,), (1,), num_hidden_layers=0, nonnegative_output=True)
    output, _ = model(torch.linspace(-1e4, 1e4, 1001)[:, None])
    assert (output >= 0).all()
    assert output.isfinite().all()


def test_under_autocast_the_output_and_the_penalty_stay_in_float32():
    model = SimpleMLP((4,), (3,), l2_loss_lamda=0.1, nonnegative_output=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, penalty = model(torch.randn(2, 4))
    assert (output.dtype, penalty.dtype) == (torch.float32, torch.float32)


def test_dropout_acts_in_training_only():
    model = SimpleMLP((20,), (3,), hidden_size=50, dropout=0.5)
    x = torch.randn(4, 20)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"])
def test_activations_make_it_nonlinear(activation):
    model = SimpleMLP((2,), (1,), activation=activation)
    a, b = torch.randn(2, 1, 2)
    origin = model(torch.zeros(1, 2))[0]
    assert not torch.allclose(model(a + b)[0] - origin, model(a)[0] + model(b)[0] - 2 * origin, atol=1e-6)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ParamsError) as caught:
        SimpleMLP(
            {"x": (0, 2)}, {"y": (1,)}, -1, 0, -0.1, math.nan, activation="rleu", dropout=1.0, output_nonlinearity="elu"
        )
    paths = [path for path, _ in caught.value.mistakes]
    assert paths == [
        "input_shape.x",
        "output_shape",
        "num_hidden_layers",
        "hidden_size",
        "l1_loss_lamda",
        "l2_loss_lamda",
        "dropout",
        "activation",
        "output_nonlinearity",
    ]
    assert "leaky_relu" in str(caught.value)


@pytest.mark.parametrize("shape", ["12", 3, {}, None, ((2,), "x")])
def test_an_input_shape_that_is_none_is_refused(shape):
    with pytest.raises(ParamsError, match="input_shape"):
        SimpleMLP(shape, (1,))
