"""Simulated movies, and what the cells of a population answer to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.population import CONTRAST, GREY, Population, natural_images, softplus

__all__ = ["KERNEL", "clip_rates", "natural_clip"]

_FRAME_MEMORY = 0.85
"""Correlation of one frame with the next."""

KERNEL = np.array([0.0, 0.3, 0.6, 0.5, 0.1, -0.2, -0.25, -0.1])
"""Weight of the present frame, of the one before, …: the biphasic temporal filter of every cell, 8 frames long."""


def natural_clip(rng: np.random.Generator, frames: int, image_shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw a movie whose frames are natural-like images that turn into one another slowly.

    Every frame is Gaussian with the 1/f amplitude spectrum of `natural_images`; from frame to frame each pixel is a
    first-order autoregression.

    Returns
    -------
    ndarray of float32, (frames, H, W)
        0-255.
    """
    fresh = natural_images([rng] * frames, image_shape)[:, 0] - np.float32(GREY)
    clip = np.empty_like(fresh)
    clip[0] = fresh[0]
    for frame in range(1, frames):
        clip[frame] = _FRAME_MEMORY * clip[frame - 1] + np.sqrt(1 - _FRAME_MEMORY**2) * fresh[frame]
    return np.clip(clip + GREY, 0, 255).astype(np.float32)


def clip_rates(population: Population, clip: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the expected count of each frame at mean gain, (frames, neurons), for a clip (frames, H, W) of 0-255.

    The filtered frames are convolved with `KERNEL`, causally; before the clip the screen was grey. So whoever sees the
    clip from its first frame knows everything that drives the cells.
    """
    contrast = (clip.astype(np.float64) - GREY) / CONTRAST
    filtered = np.einsum("thw,qnhw->qtn", contrast, population.filters, optimize=True)
    drive = np.zeros_like(filtered)
    for lag, weight in enumerate(_unit_kernel()[: len(clip)]):
        drive[:, lag:] += weight * filtered[:, : len(clip) - lag]
    even, odd = drive
    return population.scale * softplus(np.where(population.complex_cells, (even**2 + odd**2) / 2 - 1, even))


def _unit_kernel() -> NDArray[np.float64]:
    """Return the kernel scaled so that its output has unit variance on frames that have it."""
    lags = np.abs(np.subtract.outer(np.arange(len(KERNEL)), np.arange(len(KERNEL))))
    return np.asarray(KERNEL / np.sqrt(KERNEL @ _FRAME_MEMORY**lags @ KERNEL))
