"""Which stretches of a movie recording are the examples of a tier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.recording import Recording

__all__ = ["Clips", "cut_clips"]


@dataclass(frozen=True)
class Clips:
    """Stretches of equal length, each within one trial.

    Attributes
    ----------
    trial, start : ndarray of intp, (clips,)
        Row of the recording, and first frame.
    frames : int
        Of each clip.
    notes : tuple of str
        What is left out.
    """

    trial: NDArray[np.intp]
    start: NDArray[np.intp]
    frames: int
    notes: tuple[str, ...] = ()


def cut_clips(
    recording: Recording,
    rows: NDArray[np.intp],
    frames: int | None,
    stride: int | None,
    *,
    of_all_tiers: NDArray[np.intp],
) -> Clips:
    """Cut the trials `rows` of a movie recording into clips.

    Parameters
    ----------
    recording : Recording
    rows, of_all_tiers : ndarray of intp
        Trials of the tier, and of every tier.
    frames : int, optional
        Length of a clip; None for whole trials, which must then be of one length in all tiers.
    stride : int, optional
        From the start of one clip to that of the next; None for clips one after another.

    Raises
    ------
    DatasetError
        If trials differ in length and no length is given, no trial is as long as a clip, there is a stride without a
        length, or a number is below 1.
    """
    assert recording.frames is not None, "a static recording is not cut"
    lengths = recording.frames
    for name, value in (("clip_frames", frames), ("clip_stride", stride)):
        if value is not None and value < 1:
            raise DatasetError(f"{name} is {value}", file=recording.path, why="it is a number of frames, 1 or more")
    if stride is not None and frames is None:
        raise DatasetError(
            f"clip_stride is {stride}",
            file=recording.path,
            why="without clip_frames every example is a whole trial, so there is nothing to step through",
            hint="Set clip_frames, too, or leave clip_stride out.",
        )
    used = lengths[of_all_tiers]
    if frames is None:
        if len(np.unique(used)) > 1:
            raise DatasetError(
                "The movies cannot be used whole",
                file=recording.path,
                why=f"the trials have {used.min()} to {used.max()} frames, and a batch needs equal ones",
                hint=f"Set clip_frames, for example to {max(1, min(int(used.min()), 80))}.",
            )
        frames = max(1, int(used[0])) if len(used) else 1
    stride = stride or frames
    long_enough = rows[lengths[rows] >= frames]
    counts = (lengths[long_enough] - frames) // stride + 1
    trial = np.repeat(long_enough, counts)
    ends = np.cumsum(counts)
    start = (np.arange(len(trial)) - np.repeat(ends - counts, counts)) * stride
    if len(rows) and not len(trial):
        raise DatasetError(
            f"No trial has {frames} frames",
            file=recording.path,
            why=f"the longest of the tier has {lengths[rows].max()}",
            hint="Set clip_frames to fewer.",
        )
    short = len(rows) - len(long_enough)
    notes = (f"{short} of {len(rows)} trials are shorter than clip_frames = {frames} and left out",) if short else ()
    return Clips(trial.astype(np.intp), start.astype(np.intp), frames, notes)
