"""LinearNonlinear: one linear filter for each neuron, then a nonlinearity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synicix_core.errors import ParamsError
from synicix_neurodata.models.encoder import Encoder
from synicix_neurodata.models.output import OutputNonlinearity
from synicix_neurodata.models.penalties import laplacian
from synicix_neurodata.models.shapes import (
    Shapes,
    choice_mistakes,
    read_shapes,
    size_mistakes,
    strength_mistakes,
)

__all__ = ["LinearNonlinear"]


class LinearNonlinear(Encoder):
    """Linear filter and nonlinearity of each neuron; returns ``(output, regularization_loss)``.

    With a filter w of a neuron, its penalty is ``l1_loss_lamda * sum |w| + l2_loss_lamda * sum w**2 +
    laplace_loss_lamda * sum (laplacian w)**2``, the Laplacian being that over height and width. The model's is the mean
    over the neurons: against a loss that is averaged over neurons, as `PoissonLoss` is, each neuron is then fitted as it
    would be alone, whatever the number of neurons and the size of a batch.

    Filters begin at zero, so a fit does not depend on the seed but through the order of the trials.

    Parameters
    ----------
    input_shape : tuple of int, or dict of str to tuple of int
        Images ``(C, H, W)`` or movies ``(C, T, H, W)``. In a dict, that is ``stimulus``; every other entry, (columns,) or
        (columns, T), multiplies the rates by `output.BehaviorGain`.
    output_shape : tuple of int
        ``(neurons,)``, or ``(neurons, T)`` for movies.
    l1_loss_lamda, l2_loss_lamda, laplace_loss_lamda : float
        Strength of the penalties, not negative. They are buffers that the ``state_dict`` leaves out, so models that
        differ in nothing else can be stacked and trained together under ``torch.func.vmap``.
    history : int
        Frames of a movie that a filter sees: the one of the response and those before; at most T. 1 for images. Frames
        before the first are zero.
    output_nonlinearity : str
        ``"auto"`` is ``"softplus"`` where `nonnegative_output` holds, else ``"identity"``.
    nonnegative_output : bool
        Whether the targets are never negative (spike counts, rates). Datasets say so in
        ``get_additional_model_params()``.

    Attributes
    ----------
    filters : Parameter, (neurons, C, H, W) or (neurons, C, history, H, W)
        The last frame of a history is that of the response.
    bias : Parameter, (neurons,)
    regularized : bool
        Whether there is a penalty at all. Models that are stacked must agree on it.

    Raises
    ------
    ParamsError
        If a shape or a parameter makes no sense; it tells all mistakes.
    """

    l1_loss_lamda: Tensor
    l2_loss_lamda: Tensor
    laplace_loss_lamda: Tensor

    def __init__(
        self,
        input_shape: Any,
        output_shape: Sequence[int],
        l1_loss_lamda: float = 0.0,
        l2_loss_lamda: float = 0.0,
        laplace_loss_lamda: float = 0.0,
        history: int = 1,
        output_nonlinearity: OutputNonlinearity = "auto",
        nonnegative_output: bool = False,
    ) -> None:
        shapes, mistakes = read_shapes(input_shape, output_shape)
        strengths = {
            "l1_loss_lamda": l1_loss_lamda,
            "l2_loss_lamda": l2_loss_lamda,
            "laplace_loss_lamda": laplace_loss_lamda,
        }
        mistakes += [
            *strength_mistakes(**strengths),
            *_history_mistakes(history, shapes),
            *choice_mistakes("output_nonlinearity", output_nonlinearity, OutputNonlinearity),
        ]
        if mistakes or shapes is None:
            raise ParamsError("LinearNonlinear cannot be built", mistakes)
        if output_nonlinearity == "auto":
            output_nonlinearity = "softplus" if nonnegative_output else "identity"
        super().__init__(shapes, output_nonlinearity, strengths)
        frames = () if shapes.frames is None else (history,)
        self.filters = nn.Parameter(torch.zeros(shapes.neurons, shapes.channels, *frames, shapes.height, shapes.width))
        self.bias = nn.Parameter(torch.zeros(shapes.neurons))

    def drive(self, stimulus: Tensor) -> Tensor:
        """Filter the stimulus and add the bias."""
        return self._filtered_images(stimulus) if self.shapes.frames is None else self._filtered_movies(stimulus)

    def penalty(self) -> Tensor:
        """Return the penalties of the filters, averaged over neurons."""
        each = (
            self.l1_loss_lamda * self.filters.abs()
            + self.l2_loss_lamda * self.filters.square()
            + self.laplace_loss_lamda * laplacian(self.filters).square()
        )
        return each.sum() / self.shapes.neurons

    def _filtered_images(self, stimulus: Tensor) -> Tensor:
        return nn.functional.linear(stimulus.flatten(1), self.filters.flatten(1), self.bias)

    def _filtered_movies(self, stimulus: Tensor) -> Tensor:
        """Convolve (batch, C, T, H, W) over time; every pixel of every channel is a channel of that convolution."""
        pixels = stimulus.movedim(2, -1).flatten(1, 3)
        filters = self.filters.movedim(2, -1).flatten(1, 3)
        history = filters.shape[-1]
        return nn.functional.conv1d(nn.functional.pad(pixels, (history - 1, 0)), filters, self.bias)


def _history_mistakes(history: int, shapes: Shapes | None) -> list[tuple[str, str]]:
    mistakes = list(size_mistakes(history=history))
    if not mistakes and shapes is not None and history > (shapes.frames or 1):
        why = "1 for images" if shapes.frames is None else f"at most the {shapes.frames} frames of a movie"
        mistakes.append(("history", f"expected {why}, got {history}"))
    return mistakes
