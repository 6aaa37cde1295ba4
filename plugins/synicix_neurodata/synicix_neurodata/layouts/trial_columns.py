"""Which stimulus was shown in a trial, told from the columns that layouts have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["stimulus_identity"]

_COLUMNS = ("frame_image_id", "colorframeprojector_image_id", "image_id", "condition_hashes", "condition_hash")
_CLASS_COLUMNS = ("frame_image_class", "colorframeprojector_image_class", "image_class", "", "")

_NOTHING = ("", "nan", "NaN", "None")
"""What columns hold, turned into text, where there is no value."""


def stimulus_identity(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.str_] | None:
    """Return a name per trial, equal where the same stimulus was shown, or None where no column tells.

    An image is known by its id within its class, since ids of different classes may coincide; any other stimulus by the
    hash of its condition. Columns of one type of stimulus have no value in trials of another: these are told by the next
    column that has one, and count as stimuli of their own where none has.
    """
    names: NDArray[np.str_] | None = None
    for column, class_column in zip(_COLUMNS, _CLASS_COLUMNS, strict=True):
        if column not in columns:
            continue
        told = columns[column].astype(str)
        known = ~np.isin(told, _NOTHING)
        if class_column in columns:
            told = np.char.add(np.char.add(columns[class_column].astype(str), "/"), told)
        if names is None:
            names, missing = told, ~known
        else:
            names, missing = np.where(missing, told, names), missing & ~known
        if not missing.any():
            return np.asarray(names)
    if names is None or missing.all():
        return None
    own = np.char.add("trial ", np.arange(len(names)).astype(str))
    return np.asarray(np.where(missing, own, names))
