"""A simulated patch of visual cortex: natural-like images, Gabor cells, and a running mouse.

One pixel stands for about 3 degrees of visual angle, so that the cells have the receptive fields of mouse V1: Gabors of
a standard deviation of 4-9 degrees and 0.02-0.05 cycles per degree. Counts are those of one presentation of half a
second or so: 2 of them are 4 spikes per second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTRAST", "GREY", "Population", "behavior", "draw_population", "natural_images", "softplus", "spectrum"]

GREY = 127.5
"""Mean pixel, on the scale 0-255 of the layout."""

CONTRAST = 40.0
"""Standard deviation of a pixel on that scale; 3.2 of them fit between the mean and either end."""

_SLOPE, _THRESHOLD = 1.5, -0.5
"""Rate of a cell = scale * log(1 + exp(slope * drive + threshold)), drive of unit variance."""

_RATE_SPREAD = 0.4
"""Standard deviation of the logarithm of the cells' mean counts."""

_TRIAL_MEMORY = 0.95
"""Correlation of the arousal of one trial with that of the next."""


@dataclass(frozen=True, eq=False)
class Population:
    """Cells that turn images and arousal into expected counts.

    Attributes
    ----------
    filters : ndarray of float64, (2, neurons, H, W)
        Gabors in quadrature, scaled so that each one's response to natural-like images has unit variance. A simple cell
        uses the first only.
    complex_cells : ndarray of bool, (neurons,)
        Which cells respond to the energy of both filters instead.
    scale : ndarray of float64, (neurons,)
        Factor that gives each cell its mean count.
    arousal_slope : ndarray of float64, (neurons,)
        How strongly arousal multiplies the rate.
    """

    filters: NDArray[np.float64]
    complex_cells: NDArray[np.bool_]
    scale: NDArray[np.float64]
    arousal_slope: NDArray[np.float64]

    def stimulus_rates(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the expected counts at mean gain, (trials, neurons), for images (trials, 1, H, W) of 0-255."""
        contrast = (images[:, 0].astype(np.float64) - GREY) / CONTRAST
        even, odd = np.einsum("thw,qnhw->qtn", contrast, self.filters, optimize=True)
        # The energy of two independent unit normals is exponential: its mean and its variance are 1.
        drive = np.where(self.complex_cells, (even**2 + odd**2) / 2 - 1, even)
        return self.scale * softplus(drive)

    def gain(self, arousal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factor on the rates, (..., neurons), for arousal (...); its mean over arousal is 1."""
        return np.asarray(np.exp(arousal[..., None] * self.arousal_slope - self.arousal_slope**2 / 2))


def draw_population(
    rng: np.random.Generator,
    neurons: int,
    image_shape: tuple[int, int],
    *,
    complex_fraction: float,
    behavior_gain: float,
    mean_rate: float,
) -> Population:
    """Draw cells at random.

    Parameters
    ----------
    rng : numpy.random.Generator
    neurons : int
    image_shape : (int, int)
        Height and width in pixels.
    complex_fraction : float
        Share of energy cells, rounded to whole cells.
    behavior_gain : float
        Mean over the cells of the slope of the log rate against arousal; the cells' own lie within half of it.
    mean_rate : float
        Mean expected count of the population; the cells' own are log-normal around it.
    """
    height, width = image_shape
    center_y = rng.uniform(0.25, 0.75, neurons) * height
    center_x = rng.uniform(0.25, 0.75, neurons) * width
    size = rng.uniform(1.5, 3.0, neurons)
    orientation = rng.uniform(0, np.pi, neurons)
    frequency = rng.uniform(0.06, 0.16, neurons)
    phase = rng.uniform(0, 2 * np.pi, neurons)
    complex_cells = rng.permutation(neurons) < round(complex_fraction * neurons)
    # Even and odd filters are independent over natural-like images, as the energy model wants; other phases are not.
    phase[complex_cells] = 0

    y, x = np.mgrid[:height, :width]
    dy, dx = y - center_y[:, None, None], x - center_x[:, None, None]
    along = dx * np.cos(orientation)[:, None, None] + dy * np.sin(orientation)[:, None, None]
    envelope = np.exp(-(dx**2 + dy**2) / (2 * size[:, None, None] ** 2))
    angle = 2 * np.pi * frequency[:, None, None] * along + phase[:, None, None]
    filters = np.stack([envelope * np.cos(angle), envelope * np.sin(angle)])
    filters /= np.sqrt(_response_variance(filters))[..., None, None]

    rates = mean_rate * np.exp(_RATE_SPREAD * rng.standard_normal(neurons) - _RATE_SPREAD**2 / 2)
    slopes = behavior_gain * rng.uniform(0.5, 1.5, neurons)
    return Population(filters, complex_cells, rates / _mean_softplus(complex_cells), slopes)


def natural_images(rngs: list[np.random.Generator], image_shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw one image from each generator: Gaussian, with the 1/f amplitude spectrum of natural scenes.

    Returns
    -------
    ndarray of float32, (images, 1, H, W)
        0-255.
    """
    height, width = image_shape
    noise = np.stack([rng.standard_normal((2 * height, 2 * width)) for rng in rngs])
    # Drawn on a torus of twice the size and cut out, so that opposite edges do not match.
    drawn = np.fft.ifft2(np.fft.fft2(noise) * spectrum(2 * height, 2 * width)).real[:, :height, :width]
    return np.clip(GREY + CONTRAST * drawn, 0, 255).astype(np.float32)[:, None]


def softplus(drive: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rate, before scaling, for a drive of unit variance."""
    return np.logaddexp(0, _SLOPE * drive + _THRESHOLD)


def spectrum(height: int, width: int) -> NDArray[np.float64]:
    """Return the amplitudes of natural-like images, (height, width): 1/f, no mean, pixels of unit variance."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf
    amplitude = 1 / frequency
    return np.asarray(amplitude / np.sqrt((amplitude**2).mean()))


def behavior(rng: np.random.Generator, trials: int) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Draw what the mouse does in successive trials.

    Returns
    -------
    arousal : ndarray, (trials,)
        Drives the gain; standard normal, slow. Running speed is a function of it.
    recorded : dict
        ``behavior`` (trials, 3): pupil dilation (px), its change since the trial before, running speed (cm/s);
        ``pupil_center`` (trials, 2): horizontal and vertical (px), which drive nothing.
    """
    arousal, other, eye_x, eye_y = _slow_noise(rng, (4, trials))
    dilation = 60 + 10 * (0.8 * arousal + 0.6 * other)
    speed = 5 * np.exp(0.6 * arousal)
    change = np.diff(dilation, prepend=dilation[:1])
    return arousal, {
        "behavior": np.stack([dilation, change, speed], axis=1),
        "pupil_center": np.stack([80 + 3 * eye_x, 60 + 2 * eye_y], axis=1),
    }


def _slow_noise(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    noise = rng.standard_normal(shape)
    for trial in range(1, shape[1]):
        noise[:, trial] = _TRIAL_MEMORY * noise[:, trial - 1] + np.sqrt(1 - _TRIAL_MEMORY**2) * noise[:, trial]
    return noise


def _response_variance(filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of each filter's response to natural-like images, from their spectrum."""
    height, width = 2 * filters.shape[-2], 2 * filters.shape[-1]
    power = np.abs(np.fft.fft2(filters, s=(height, width))) ** 2
    return np.asarray((power * spectrum(height, width) ** 2).mean(axis=(-2, -1)))


def _mean_softplus(complex_cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the cells' nonlinearity over images: normal drive, or exponential less one."""
    normal, normal_weights = np.polynomial.hermite_e.hermegauss(40)
    energy, energy_weights = np.polynomial.laguerre.laggauss(40)
    simple = float(softplus(normal) @ normal_weights / normal_weights.sum())
    return np.where(complex_cells, float(softplus(energy - 1) @ energy_weights), simple)
