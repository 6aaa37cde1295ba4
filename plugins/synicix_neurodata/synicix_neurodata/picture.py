"""A recording at a glance, as one PNG: stimuli, receptive fields, responses, reliability, tiers and behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synicix_core.errors import ConfigurationError
from synicix_neurodata.inspection import Inspection
from synicix_neurodata.picture_images import IMAGES, draw_receptive_fields, draw_stimuli
from synicix_neurodata.picture_plots import draw_behavior, draw_reliability, draw_responses, draw_tiers
from synicix_neurodata.picture_style import FAINT, LEFT, STYLE
from synicix_neurodata.writers.placing import placed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_matplotlib", "draw", "picture_of"]

_WIDTH = 12.0
"""Inches."""

_LONGEST_NAME = 90


def check_matplotlib() -> None:
    """Raise a ConfigurationError that says what to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise ConfigurationError(
            "The picture cannot be drawn",
            why="matplotlib is not installed",
            hint="Run: pip install 'synicix-neurodata[plots]'",
        ) from error


def draw(inspection: Inspection, path: Path) -> None:
    """Draw the recording and write a PNG, in place of one that exists.

    Parameters
    ----------
    inspection : Inspection
        Not a quick one.
    path : Path

    Raises
    ------
    ConfigurationError
        If matplotlib is not installed.
    DatasetError
        If the recording cannot be read, or the picture not be written.
    """
    figure = picture_of(inspection)
    with placed(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png")


def picture_of(inspection: Inspection) -> Figure:
    """Return the picture as a figure of matplotlib; raises as `draw`."""
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        heights = _heights(inspection)
        figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=120, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        _fill(figure, inspection, heights)
    return figure


def _heights(inspection: Inspection) -> list[float]:
    """Return the inches that title, stimuli, receptive fields, numbers and behaviour need."""
    shapes = inspection.recording.shapes
    _, height, width = shapes.get("stimulus", (1, 0, 1))
    image = float(np.clip(0.94 * _WIDTH / IMAGES * height / width, 0.4, 2.0))
    return [0.8, image + 0.75, image + 1.05, 2.95, 2.5 if {"behavior", "pupil_center"} & shapes.keys() else 0.8]


def _fill(figure: Figure, inspection: Inspection, heights: list[float]) -> None:
    panels: Any = figure.subfigures(5, 1, height_ratios=heights)
    title, stimuli, tuning, numbers, trace = panels
    name = Path(inspection.recording.path).name
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 2]} … {name[-_LONGEST_NAME // 2 :]}"
    title.text(LEFT, 0.62, name, va="center", fontsize=14, fontweight="bold")
    title.text(LEFT, 0.2, _summary(inspection), va="center", fontsize=9.5, color=FAINT)
    draw_stimuli(stimuli, inspection)
    draw_receptive_fields(tuning, inspection)
    left, middle, right = numbers.subplots(1, 3)
    draw_responses(left, inspection)
    draw_reliability(middle, inspection)
    draw_tiers(right, inspection)
    draw_behavior(trace.subplots(), inspection)


def _summary(inspection: Inspection) -> str:
    recording = inspection.recording
    told = [recording.layout, f"{recording.trials:,} {'movies' if recording.is_movie else 'trials'}"]
    if recording.frames is not None and len(recording.frames):
        least, most = recording.frames.min(), recording.frames.max()
        rate = "" if recording.frame_rate is None else f" at {recording.frame_rate:g} per second"
        told.append(f"{least}{'' if least == most else f' to {most}'} frames{rate}")
    if "stimulus" in recording.shapes:
        channels, height, width = recording.shapes["stimulus"]
        told.append(f"{height} x {width} pixels" + ("" if channels == 1 else f", {channels} channels"))
    if "responses" in recording.shapes:
        told.append(f"{recording.shapes['responses'][0]:,} neurons")
    return "  ·  ".join(told)
