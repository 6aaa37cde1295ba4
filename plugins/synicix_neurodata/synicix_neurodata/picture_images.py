"""The panels of the picture that show images: stimuli and receptive fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.access import Access
from synicix_neurodata.inspection import Inspection
from synicix_neurodata.picture_style import FAINT, heading, rows_without_gaps
from synicix_neurodata.receptive_fields import receptive_fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

__all__ = ["IMAGES", "draw_receptive_fields", "draw_stimuli"]

IMAGES = 8
"""Of a row."""

_CANDIDATES = 32
"""Of so many of the most reliable neurons those with the clearest receptive fields are shown."""


def draw_stimuli(figure: SubFigure, inspection: Inspection) -> None:
    """Show example images of the training tier, or frames of its longest movie."""
    recording, rows = inspection.recording, rows_without_gaps(inspection, "stimulus")
    if "stimulus" not in recording.shapes or not len(rows):
        _nothing(figure, "Stimuli", "The recording has no stimulus.")
        return
    with Access(recording) as access:
        if recording.frames is None:
            chosen = np.unique(np.linspace(0, len(rows) - 1, IMAGES).astype(int))
            images = access.trials("stimulus", rows[chosen])
            labels = [f"trial {row}" for row in rows[chosen]]
            title, told = "Stimuli", f"{len(labels)} trials of the training tier"
        else:
            row = int(rows[np.argmax(recording.frames[rows])])
            length = int(recording.frames[row])
            frames = np.unique(np.linspace(0, length - 1, min(IMAGES, length)).astype(int))
            images = np.stack([access.clip("stimulus", row, int(at), int(at) + 1)[:, 0] for at in frames])
            rate = recording.frame_rate
            labels = [f"frame {at}" if rate is None else f"{at / rate:.2f} s" for at in frames]
            title, told = "Stimulus", f"{len(labels)} frames of the movie in trial {row}"
    heading(figure, title, told)
    low, high = float(images.min()), float(images.max())
    for axes, image, label in zip(_strip(figure), images, labels, strict=False):
        _image(axes, image, low, high)
        axes.set_xlabel(label, fontsize=8, color=FAINT)
        axes.set_visible(True)


def _image(axes: Axes, image: NDArray[Any], low: float, high: float) -> None:
    if len(image) == 3:
        shown = (np.moveaxis(image, 0, -1).astype(float) - low) / max(high - low, 1e-12)
        axes.imshow(shown.clip(0, 1), interpolation="nearest")
    else:
        # Of two channels, such as green and ultraviolet, the mean.
        axes.imshow(image.mean(axis=0), cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def _strip(figure: SubFigure) -> list[Axes]:
    """Return axes for small images in a row, invisible until something is drawn."""
    strip = list(figure.subplots(1, IMAGES, squeeze=False)[0])
    for axes in strip:
        axes.set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return strip


def draw_receptive_fields(figure: SubFigure, inspection: Inspection) -> None:
    """Show linear receptive fields of some of the most reliable neurons."""
    recording = inspection.recording
    rows = rows_without_gaps(inspection, "stimulus", "responses")
    if not {"stimulus", "responses"} <= recording.shapes.keys() or len(rows) < 2:
        _nothing(figure, "Linear receptive fields", "They need stimulus and responses of the same trials.")
        return
    neurons, told = _best_neurons(inspection)
    if not len(neurons):
        _nothing(figure, "Linear receptive fields", "No response changes.")
        return
    fields = receptive_fields(recording, rows, neurons).clearest(IMAGES)
    heading(
        figure,
        "Linear receptive fields",
        f"response-weighted average of {fields.trials:,} {'movies' if recording.is_movie else 'images'}, decorrelated; "
        f"the clearest of the {len(neurons)} neurons that {'are most reliable' if told else 'respond most'}",
    )
    for number, axes in enumerate(_strip(figure)[: len(fields.neurons)]):
        bound = float(np.abs(fields.filters[number]).max()) or 1.0
        axes.imshow(fields.filters[number], cmap="PuOr_r", vmin=-bound, vmax=bound, interpolation="nearest")
        lag = "" if fields.lags is None else f"\n{_lag(int(fields.lags[number]), recording.frame_rate)} before"
        neuron = int(fields.neurons[number])
        oracle = "" if inspection.reliability is None else f"\noracle {inspection.reliability.oracle[neuron]:.2f}"
        axes.set_xlabel(f"neuron {neuron}{oracle}{lag}", fontsize=8, color=FAINT)
        axes.set_visible(True)


def _lag(frames: int, rate: float | None) -> str:
    return f"{frames} frames" if rate is None else f"{1000 * frames / rate:.0f} ms"


def _best_neurons(inspection: Inspection) -> tuple[NDArray[np.intp], bool]:
    """Return neurons that vary, the most reliable ones first, or, where that is not known, those that respond most."""
    part = inspection.part("responses")
    assert part is not None and part.values is not None, "responses were read"
    known = inspection.reliability is not None
    rank = part.values.mean if inspection.reliability is None else inspection.reliability.oracle
    order = np.argsort(-np.nan_to_num(rank), kind="stable")
    return order[(part.values.std > 0)[order]][:_CANDIDATES], known


def _nothing(figure: SubFigure, title: str, why: str) -> None:
    heading(figure, title)
    figure.text(0.5, 0.45, why, ha="center", va="center", color=FAINT)
