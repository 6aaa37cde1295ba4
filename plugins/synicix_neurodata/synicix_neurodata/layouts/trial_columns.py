"""Which stimulus was shown in a trial, told from the columns that layouts have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["stimulus_identity"]

_ID_COLUMNS = ("frame_image_id", "colorframeprojector_image_id", "image_id")
_CLASS_COLUMNS = ("frame_image_class", "colorframeprojector_image_class", "image_class")
_HASH_COLUMNS = ("condition_hashes", "condition_hash")


def stimulus_identity(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.str_] | None:
    """Return a name per trial, equal where the same stimulus was shown, or None where no column tells.

    An image is known by its id within its class, since ids of different classes may coincide; any other stimulus by the
    hash of its condition.
    """
    for id_column, class_column in zip(_ID_COLUMNS, _CLASS_COLUMNS, strict=True):
        if id_column in columns:
            ids = columns[id_column].astype(str)
            if class_column in columns:
                ids = np.char.add(np.char.add(columns[class_column].astype(str), "/"), ids)
            return np.asarray(ids)
    for column in _HASH_COLUMNS:
        if column in columns:
            return np.asarray(columns[column].astype(str))
    return None
