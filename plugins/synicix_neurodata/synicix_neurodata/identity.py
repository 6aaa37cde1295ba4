"""Which trials showed the same stimulus."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.access import Access
from synicix_neurodata.recording import Recording

__all__ = ["stimulus_ids"]

_BLOCK_BYTES = 8 * 2**20

_EMPTY = ("", "nan", "none")
"""What a column says, as text, of a trial that it does not apply to."""


def stimulus_ids(recording: Recording, column: str = "") -> NDArray[np.str_]:
    """Return a name per trial, equal where the same stimulus was shown: (trials,).

    Taken from `column` where one is named, else from what the file says, else from the stimulus itself, of which a hash
    is taken. Without a stimulus every trial counts as one of its own, and so does one where `column` is empty.

    Raises
    ------
    DatasetError
        If there is no such column.
    """
    if column:
        if column not in recording.columns:
            raise DatasetError(
                f"stimulus_id names the column {column!r}",
                file=recording.path,
                why=f"its columns are {', '.join(sorted(recording.columns)) or 'none'}",
            )
        values = recording.columns[column].astype(str)
        own = np.char.add("trial ", np.arange(recording.trials).astype(str))
        return np.asarray(np.where(np.isin(np.char.lower(values), _EMPTY), own, values))
    if recording.stimulus_ids is not None:
        return recording.stimulus_ids
    if "stimulus" not in recording.shapes:
        return np.arange(recording.trials).astype(str)
    return _content_hashes(recording)


@functools.lru_cache(maxsize=64)
def _content_hashes(recording: Recording) -> NDArray[np.str_]:
    hashes = []
    with Access(recording) as access:
        if recording.frames is not None:
            for trial, frames in enumerate(recording.frames):
                hashes.append(_hash(access.clip("stimulus", trial, 0, int(frames))))
        else:
            per_trial = 8 * int(np.prod(recording.shapes["stimulus"]))
            step = max(1, _BLOCK_BYTES // per_trial)
            for start in range(0, recording.trials, step):
                rows = np.arange(start, min(start + step, recording.trials))
                hashes += [_hash(image) for image in access.trials("stimulus", rows)]
    return np.array(hashes, dtype=str)


def _hash(values: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()
