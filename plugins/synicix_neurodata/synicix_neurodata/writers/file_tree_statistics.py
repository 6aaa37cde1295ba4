"""The statistics that file trees carry: of the training tier, and of movies for each frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.access import Access
from synicix_neurodata.layouts.file_tree import STATIC_NAMES, VIDEO_NAMES
from synicix_neurodata.recording import Recording
from synicix_neurodata.statistics import summarise
from synicix_neurodata.tiers import Split, assign_tiers

__all__ = ["tree_statistics"]

_MEDIAN_BYTES = 64 * 2**20


def tree_statistics(recording: Recording, frames: int) -> dict[str, NDArray[Any]]:
    """Return every statistic by its name below ``meta/statistics``, ``images/all/mean``.

    Those of a static tree are () for images, else (columns,). Those of a movie tree have an axis of time at their end,
    videos (H, W, frames), else (columns, frames); a frame that no trial of the training tier has is NaN. The median of a
    part of more than 64 MB is taken from every second, third… trial, so that it fits into memory; movies have none.

    Parameters
    ----------
    recording : Recording
    frames : int
        Of the longest trial of a movie tree.
    """
    rows = assign_tiers(recording, Split()).rows["train"]
    if not len(rows):
        return {}
    names = VIDEO_NAMES if recording.is_movie else STATIC_NAMES
    found: dict[str, NDArray[Any]] = {}
    for part in recording.shapes:
        values = _per_frame(recording, part, rows, frames) if recording.is_movie else _static(recording, part, rows)
        for stimulus in ("all", "stimulus_clip" if recording.is_movie else "stimulus_frame"):
            found |= {f"{names[part][0]}/{stimulus}/{name}": value for name, value in values.items()}
    return found


def _static(recording: Recording, part: str, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    summary = summarise(recording, part, rows)
    step = 1 + len(rows) * 8 * int(np.prod(recording.shapes[part])) // _MEDIAN_BYTES
    with Access(recording) as access:
        some = access.trials(part, rows[::step])
    median = np.median(some, axis=None if part == "stimulus" else 0)
    return {
        "mean": summary.mean,
        "std": summary.std,
        "min": summary.minimum,
        "max": summary.maximum,
        "median": np.asarray(median),
    }


def _per_frame(recording: Recording, part: str, rows: NDArray[np.intp], frames: int) -> dict[str, NDArray[Any]]:
    assert recording.frames is not None, "movies have frames"
    shape = recording.shapes[part]
    sizes = (*shape[1:], frames) if part == "stimulus" else (*shape, frames)
    count, mean, squares = np.zeros(frames), np.zeros(sizes), np.zeros(sizes)
    least, most = np.full(sizes, np.inf), np.full(sizes, -np.inf)
    with Access(recording) as access:
        for row in rows:
            length = int(recording.frames[row])
            clip = access.clip(part, int(row), 0, length).astype(np.float64)
            values = np.moveaxis(clip[0], 0, -1) if part == "stimulus" else clip
            here = (..., slice(0, length))
            count[:length] += 1
            # Welford (1962), one trial at a time.
            shift = values - mean[here]
            mean[here] += shift / count[:length]
            squares[here] += shift * (values - mean[here])
            least[here], most[here] = np.minimum(least[here], values), np.maximum(most[here], values)
    with np.errstate(divide="ignore", invalid="ignore"):
        std = np.sqrt(squares / (count - 1))
    none = count == 0
    found = {"mean": mean, "std": std, "min": least, "max": most}
    for values in found.values():
        values[..., none] = np.nan
    return found
