"""ConvolutionalCore: features of the stimulus that all neurons share."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from synicix_neurodata.models.penalties import laplacian

__all__ = ["ConvolutionalCore"]


class ConvolutionalCore(nn.Module):
    """Convolutional layers over the frames of a stimulus, causal in time.

    Each layer is a spatial convolution, for movies one over time, batch normalisation, and ELU. The first spatial
    convolution uses whole pixels only and so makes the map smaller; the others keep its size. In time, frames before the
    first are zero. An image is a movie of one frame.

    Parameters
    ----------
    channels : int
        Of the stimulus.
    hidden_channels : int
        Of every layer.
    num_layers : int
        At least 1.
    input_kernel, hidden_kernel : int
        Height and width of the first layer's filters, and of the others'.
    temporal_kernel : int
        Frames that a layer sees: the present one and those before. With 1 there is no convolution over time.
    batch_norm : bool
        Whether there is batch normalisation; without, convolutions have biases.
    depth_separable : bool
        Whether layers after the first filter each channel by itself and then mix the channels.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        num_layers: int,
        input_kernel: int,
        hidden_kernel: int,
        temporal_kernel: int,
        batch_norm: bool,
        depth_separable: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(before, after, kernel, temporal_kernel, padded, batch_norm, depth_separable and padded)
            for (before, after), kernel, padded in zip(
                pairwise([channels] + [hidden_channels] * num_layers),
                [input_kernel] + [hidden_kernel] * (num_layers - 1),
                [False] + [True] * (num_layers - 1),
                strict=True,
            )
        )

    def forward(self, stimulus: Tensor) -> Tensor:
        """Return features (batch, T, hidden_channels, h, w) of a stimulus (batch, channels, T, H, W)."""
        frames = stimulus.shape[2]
        # Frame after frame along the batch axis, where convolutions over images are fastest.
        x = stimulus.transpose(1, 2).flatten(0, 1)
        for layer in self._layers:
            x = layer(x, frames)
        return x.reshape(stimulus.shape[0], frames, *x.shape[1:])

    def roughness(self) -> Tensor:
        """Return ``sum (laplacian w)**2 / sum w**2`` over the filters of the first layer; their scale does not count."""
        filters = self._layers[0].space.weight
        return laplacian(filters).square().sum() / filters.square().sum().clamp(min=1e-12)

    def group_norm(self) -> Tensor:
        """Return the L2 norm of the filter from one channel to another, averaged over all pairs in layers after the first.

        Zero where there is one layer only. A depth-separable layer is judged by the filters that it amounts to.
        """
        norms = [layer.pair_norms().mean() for layer in self._layers[1:]]
        return torch.stack(norms).mean() if norms else self._layers[0].space.weight.new_zeros(())

    @property
    def _layers(self) -> list[_Layer]:
        return cast("list[_Layer]", list(self.layers))


class _Layer(nn.Module):
    """One layer over frames (batch * T, channels, h, w); `space` is only half of it where there is a `mix`."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        temporal_kernel: int,
        padded: bool,
        batch_norm: bool,
        separable: bool,
    ) -> None:
        super().__init__()
        # Whichever convolution is the last has the bias that batch normalisation would make idle.
        bias, timeless = not batch_norm, temporal_kernel == 1
        self.space = nn.Conv2d(
            before,
            before if separable else after,
            kernel,
            padding="same" if padded else "valid",
            groups=before if separable else 1,
            bias=bias and timeless and not separable,
        )
        self.mix = nn.Conv2d(before, after, 1, bias=bias and timeless) if separable else None
        self.time = None if timeless else nn.Conv2d(after, after, (temporal_kernel, 1), bias=bias)
        self.norm = nn.BatchNorm2d(after) if batch_norm else None

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.space(x)
        if self.mix is not None:
            x = self.mix(x)
        if self.time is not None:
            height, width = x.shape[-2:]
            # Time by pixels makes it a convolution over images, four times as fast as one in three axes.
            clips = x.reshape(-1, frames, x.shape[1], height * width).transpose(1, 2)
            past = self.time.kernel_size[0] - 1
            clips = self.time(nn.functional.pad(clips, (0, 0, past, 0)))
            x = clips.transpose(1, 2).reshape(-1, clips.shape[1], height, width)
        if self.norm is not None:
            x = self.norm(x)
        return nn.functional.elu(x)

    def pair_norms(self) -> Tensor:
        """Return the L2 norm of each spatial filter, (after, before); vector_norm has a gradient at zero, sqrt none."""
        norms: Tensor = torch.linalg.vector_norm(self.space.weight.flatten(2), dim=2)
        return norms if self.mix is None else self.mix.weight.flatten(1).abs() * norms[:, 0]
