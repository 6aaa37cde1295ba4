"""SimpleMLP: a multi-layer perceptron for inputs and outputs of any shape, with L1 and L2 penalties."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synicix_core.errors import ParamsError
from synicix_mlp.penalty import elastic_net

__all__ = ["SimpleMLP"]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"]
OutputNonlinearity = Literal["auto", "identity", "elu+1", "softplus", "exp"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class SimpleMLP(nn.Module):
    """Multi-layer perceptron that flattens its input and returns ``(output, regularization_loss)``.

    The penalty is ``l1_loss_lamda * sum |w| + l2_loss_lamda * sum w**2`` over the weights of all linear layers; biases
    are free.

    Parameters
    ----------
    input_shape : tuple of int, dict or tuple of shapes
        Shape of one example without the batch axis; nested where the dataset gives several inputs. Named inputs are
        concatenated in the order of their names.
    output_shape : tuple of int
        Shape of one output; ``()`` for a scalar.
    num_hidden_layers : int
        0 makes the model linear up to its output nonlinearity.
    hidden_size : int
        Units of each hidden layer.
    l1_loss_lamda, l2_loss_lamda : float
        Strength of the penalties, not negative. They are buffers that the ``state_dict`` leaves out, so models that
        differ in nothing else can be stacked and trained together under ``torch.func.vmap``.
    activation : str
        Nonlinearity of the hidden layers.
    dropout : float
        Probability with which a hidden unit is dropped in training, 0 <= dropout < 1.
    output_nonlinearity : str
        ``"auto"`` is ``"elu+1"`` where `nonnegative_output` holds, else ``"identity"``.
    nonnegative_output : bool
        Whether the targets are never negative (spike counts, rates). Datasets say so in
        ``get_additional_model_params()``.

    Attributes
    ----------
    regularized : bool
        Whether there is a penalty at all. Decided once, from both strengths: without one, nothing of it is computed.
        Models that are stacked must agree on it.

    Raises
    ------
    ParamsError
        If a shape or a parameter makes no sense; it tells all mistakes.
    """

    l1_loss_lamda: Tensor
    l2_loss_lamda: Tensor

    def __init__(
        self,
        input_shape: Any,
        output_shape: Sequence[int],
        num_hidden_layers: int = 1,
        hidden_size: int = 256,
        l1_loss_lamda: float = 0.0,
        l2_loss_lamda: float = 0.0,
        activation: Activation = "relu",
        dropout: float = 0.0,
        output_nonlinearity: OutputNonlinearity = "auto",
        nonnegative_output: bool = False,
    ) -> None:
        super().__init__()
        mistakes = [
            *_shape_mistakes(input_shape, "input_shape"),
            *_output_shape_mistakes(output_shape),
            *_value_mistakes(num_hidden_layers, hidden_size, l1_loss_lamda, l2_loss_lamda, dropout),
            *_choice_mistakes("activation", activation, Activation),
            *_choice_mistakes("output_nonlinearity", output_nonlinearity, OutputNonlinearity),
        ]
        if mistakes:
            raise ParamsError("SimpleMLP cannot be built", mistakes)
        self.input_shape = input_shape
        self.output_shape = tuple(output_shape)
        if output_nonlinearity == "auto":
            output_nonlinearity = "elu+1" if nonnegative_output else "identity"
        self.output_nonlinearity: str = output_nonlinearity
        self.regularized = bool(l1_loss_lamda or l2_loss_lamda)
        self.register_buffer("l1_loss_lamda", torch.tensor(float(l1_loss_lamda)), persistent=False)
        self.register_buffer("l2_loss_lamda", torch.tensor(float(l2_loss_lamda)), persistent=False)

        layers: list[nn.Module] = []
        width = _size(input_shape)
        for _ in range(num_hidden_layers):
            layers += [nn.Linear(width, hidden_size), _ACTIVATIONS[activation]()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = hidden_size
        self.hidden = nn.Sequential(*layers)
        self.readout = nn.Linear(width, math.prod(self.output_shape))

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        """Predict one batch.

        Parameters
        ----------
        x : Tensor, dict or sequence of Tensor
            First axis batch, otherwise nested and shaped as `input_shape`; any dtype.

        Returns
        -------
        output : Tensor, (batch, *output_shape)
            In float32 at least, also under autocast, so that small rates keep their digits.
        regularization_loss : Tensor, ()
        """
        dtype = self.readout.weight.dtype
        parts = [part if part.dtype is dtype else part.to(dtype) for part in _flattened(x, self.input_shape)]
        out: Tensor = self.readout(self.hidden(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)))
        if out.dtype in (torch.float16, torch.bfloat16):
            out = out.float()
        out = _nonlinear(out, self.output_nonlinearity)
        if len(self.output_shape) != 1:
            out = out.reshape(out.shape[0], *self.output_shape)
        return out, self._penalty() if self.regularized else out.new_zeros(())

    def _penalty(self) -> Tensor:
        weights = [layer.weight for layer in self.hidden if isinstance(layer, nn.Linear)]
        return elastic_net([*weights, self.readout.weight], self.l1_loss_lamda, self.l2_loss_lamda)


def _flattened(x: Any, shape: Any) -> Iterator[Tensor]:
    """Yield every input as (batch, features), in an order that depends on names and positions only."""
    if isinstance(shape, Mapping):
        for name in sorted(shape):
            yield from _flattened(x[name], shape[name])
    elif _is_shape(shape):
        yield x if len(shape) == 1 else x.reshape(x.shape[0], math.prod(shape))
    else:
        for part, part_shape in zip(x, shape, strict=True):
            yield from _flattened(part, part_shape)


def _nonlinear(out: Tensor, name: str) -> Tensor:
    if name == "elu+1":
        return nn.functional.elu(out) + 1
    if name == "softplus":
        return nn.functional.softplus(out)
    return out.exp() if name == "exp" else out


def _size(shape: Any) -> int:
    if isinstance(shape, Mapping):
        return sum(_size(part) for part in shape.values())
    return math.prod(shape) if _is_shape(shape) else sum(_size(part) for part in shape)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, Sequence) and all(isinstance(size, int) for size in shape)


def _shape_mistakes(shape: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(shape, Mapping) and shape:
        for name, part in shape.items():
            yield from _shape_mistakes(part, f"{path}.{name}")
    elif _is_shape(shape):
        if any(size < 1 for size in shape):
            yield path, f"every axis has at least one element, got {tuple(shape)}"
    elif isinstance(shape, Sequence) and not isinstance(shape, str):
        for position, part in enumerate(shape):
            yield from _shape_mistakes(part, f"{path}[{position}]")
    else:
        yield path, f"expected a shape, or a dict or tuple of shapes, got {shape!r}"


def _output_shape_mistakes(shape: Any) -> Iterator[tuple[str, str]]:
    if not _is_shape(shape):
        yield "output_shape", f"expected one shape (a tuple of integers), got {shape!r}; SimpleMLP has one output"
    else:
        yield from _shape_mistakes(shape, "output_shape")


def _value_mistakes(
    num_hidden_layers: int, hidden_size: int, l1_loss_lamda: float, l2_loss_lamda: float, dropout: float
) -> Iterator[tuple[str, str]]:
    if num_hidden_layers < 0:
        yield "num_hidden_layers", f"expected 0 or more, got {num_hidden_layers}"
    if hidden_size < 1:
        yield "hidden_size", f"expected 1 or more, got {hidden_size}"
    for name, value in (("l1_loss_lamda", l1_loss_lamda), ("l2_loss_lamda", l2_loss_lamda)):
        if not (value >= 0 and math.isfinite(value)):
            yield name, f"expected a finite number of 0 or more, got {value}"
    if not 0 <= dropout < 1:
        yield "dropout", f"expected 0 <= dropout < 1, got {dropout}"


def _choice_mistakes(name: str, value: str, choices: Any) -> Iterator[tuple[str, str]]:
    if value not in choices.__args__:
        yield name, f"expected one of {', '.join(choices.__args__)}, got {value!r}"
