"""ConvolutionalEncoder: a convolutional core that all neurons share, and a readout of each neuron."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import Tensor

from synicix_core.errors import ParamsError
from synicix_neurodata.models.core import ConvolutionalCore
from synicix_neurodata.models.encoder import Encoder
from synicix_neurodata.models.output import OutputNonlinearity
from synicix_neurodata.models.readouts import FactorizedReadout, GaussianReadout
from synicix_neurodata.models.shapes import (
    Shapes,
    choice_mistakes,
    read_shapes,
    size_mistakes,
    strength_mistakes,
)

__all__ = ["ConvolutionalEncoder"]

Readout = Literal["factorized", "gaussian", "full-gaussian"]

_TEMPORAL_KERNEL = 5
"""Frames that a layer sees of a movie, unless said otherwise."""


class ConvolutionalEncoder(Encoder):
    """Convolutional core and a readout of each neuron; returns ``(output, regularization_loss)``.

    The penalty is ``l1_loss_lamda * L1 + laplace_loss_lamda * roughness + group_loss_lamda * group norm``: the L1 norm of
    a neuron's readout, averaged over neurons; ``sum (laplacian w)**2 / sum w**2`` over the filters of the first layer;
    and the L2 norm of the filter from one channel to another, averaged over all pairs in the later layers. None of them
    grows with the batch, nor with the number of neurons, so their balance against a loss that is averaged over both, as
    `PoissonLoss` is, stays what it was.

    Parameters
    ----------
    input_shape : tuple of int, or dict of str to tuple of int
        Images ``(C, H, W)`` or movies ``(C, T, H, W)``. In a dict, that is ``stimulus``; every other entry, (columns,) or
        (columns, T), multiplies the rates by `output.BehaviorGain`.
    output_shape : tuple of int
        ``(neurons,)``, or ``(neurons, T)`` for movies.
    hidden_channels : int
        Channels of every layer.
    num_layers : int
        Convolutional layers, at least 1.
    input_kernel, hidden_kernel : int
        Height and width in pixels of the filters of the first layer and of the later ones. The first layer makes the map
        smaller by ``input_kernel - 1``; the later ones keep its size.
    temporal_kernel : int, optional
        Frames of a movie that each layer sees, the present one and those before; 5 where it is left out. The model sees
        ``num_layers * (temporal_kernel - 1)`` frames back. Images have none.
    readout : str
        ``"factorized"`` (a spatial mask and a weight of each channel for each neuron), ``"gaussian"`` (a place in the map,
        searched with a round spread, and a weight of each channel) or ``"full-gaussian"`` (a spread of any shape). The
        Gaussian ones have few weights for each neuron and are for large maps; on a GPU their gradient has no
        deterministic algorithm.
    batch_norm : bool
        Whether each layer ends in batch normalisation.
    depth_separable : bool
        Whether the later layers filter each channel by itself and then mix the channels, which costs less.
    l1_loss_lamda, laplace_loss_lamda, group_loss_lamda : float
        Strength of the penalties, not negative. They are buffers that the ``state_dict`` leaves out, so models that
        differ in nothing else can be stacked and trained together under ``torch.func.vmap``.
    output_nonlinearity : str
        ``"auto"`` is ``"elu+1"`` where `nonnegative_output` holds, else ``"identity"``.
    nonnegative_output : bool
        Whether the targets are never negative (spike counts, rates). Datasets say so in
        ``get_additional_model_params()``.

    Attributes
    ----------
    core : ConvolutionalCore
    readout : FactorizedReadout or GaussianReadout
        Biases begin at zero, where elu+1 and exp are a rate of 1.
    regularized : bool
        Whether there is a penalty at all. Models that are stacked must agree on it.

    Raises
    ------
    ParamsError
        If a shape or a parameter makes no sense; it tells all mistakes.
    """

    l1_loss_lamda: Tensor
    laplace_loss_lamda: Tensor
    group_loss_lamda: Tensor

    def __init__(
        self,
        input_shape: Any,
        output_shape: Sequence[int],
        hidden_channels: int = 16,
        num_layers: int = 2,
        input_kernel: int = 7,
        hidden_kernel: int = 3,
        temporal_kernel: int | None = None,
        readout: Readout = "factorized",
        batch_norm: bool = True,
        depth_separable: bool = False,
        l1_loss_lamda: float = 0.005,
        laplace_loss_lamda: float = 0.1,
        group_loss_lamda: float = 0.0,
        output_nonlinearity: OutputNonlinearity = "auto",
        nonnegative_output: bool = False,
    ) -> None:
        shapes, mistakes = read_shapes(input_shape, output_shape)
        strengths = {
            "l1_loss_lamda": l1_loss_lamda,
            "laplace_loss_lamda": laplace_loss_lamda,
            "group_loss_lamda": group_loss_lamda,
        }
        wrong_sizes = list(
            size_mistakes(
                hidden_channels=hidden_channels,
                num_layers=num_layers,
                input_kernel=input_kernel,
                hidden_kernel=hidden_kernel,
                **({} if temporal_kernel is None else {"temporal_kernel": temporal_kernel}),
            )
        )
        mistakes += wrong_sizes
        if shapes is not None and not wrong_sizes:
            mistakes += _kernel_mistakes(shapes, num_layers, input_kernel, hidden_kernel, temporal_kernel)
        mistakes += [
            *choice_mistakes("readout", readout, Readout),
            *strength_mistakes(**strengths),
            *choice_mistakes("output_nonlinearity", output_nonlinearity, OutputNonlinearity),
        ]
        if mistakes or shapes is None:
            raise ParamsError("ConvolutionalEncoder cannot be built", mistakes)
        if output_nonlinearity == "auto":
            output_nonlinearity = "elu+1" if nonnegative_output else "identity"
        super().__init__(shapes, output_nonlinearity, strengths)
        if temporal_kernel is None:
            temporal_kernel = 1 if shapes.frames is None else min(_TEMPORAL_KERNEL, shapes.frames)
        self.core = ConvolutionalCore(
            shapes.channels,
            hidden_channels,
            num_layers,
            input_kernel,
            hidden_kernel,
            temporal_kernel,
            batch_norm,
            depth_separable,
        )
        height, width = _map_size(shapes, input_kernel)
        self.readout: FactorizedReadout | GaussianReadout = (
            FactorizedReadout(hidden_channels, height, width, shapes.neurons)
            if readout == "factorized"
            else GaussianReadout(hidden_channels, shapes.neurons, full=readout == "full-gaussian")
        )

    def drive(self, stimulus: Tensor) -> Tensor:
        """Read out the features that the core finds; images pass as movies of one frame."""
        if self.shapes.frames is None:
            frame: Tensor = self.readout(self.core(stimulus.unsqueeze(2)))
            return frame.squeeze(2)
        drive: Tensor = self.readout(self.core(stimulus))
        return drive

    def penalty(self) -> Tensor:
        """Return the penalties of readout and core."""
        return (
            self.l1_loss_lamda * self.readout.l1()
            + self.laplace_loss_lamda * self.core.roughness()
            + self.group_loss_lamda * self.core.group_norm()
        )


def _map_size(shapes: Shapes, input_kernel: int) -> tuple[int, int]:
    return shapes.height - input_kernel + 1, shapes.width - input_kernel + 1


def _kernel_mistakes(
    shapes: Shapes, num_layers: int, input_kernel: int, hidden_kernel: int, temporal_kernel: int | None
) -> Iterator[tuple[str, str]]:
    height, width = _map_size(shapes, input_kernel)
    if min(height, width) < 1:
        yield "input_kernel", f"expected at most the {shapes.height} x {shapes.width} pixels, got {input_kernel}"
    elif num_layers > 1 and hidden_kernel > min(height, width):
        size = f"{height} x {width}"
        yield "hidden_kernel", f"expected at most the {size} pixels that the first layer leaves, got {hidden_kernel}"
    if temporal_kernel is None:
        return
    if shapes.frames is None:
        yield "temporal_kernel", f"images have no frames, so there can be none, got {temporal_kernel}"
    elif temporal_kernel > shapes.frames:
        yield "temporal_kernel", f"expected at most the {shapes.frames} frames of a movie, got {temporal_kernel}"
