"""Values as JSON text between the supervisor and the executor, arrays and numbers that are not finite included."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["from_wire", "to_wire"]

_ARRAY, _FLOAT, _BYTES, _ITEMS = "__array__", "__float__", "__bytes__", "__items__"
_TAGS = {_ARRAY, _FLOAT, _BYTES, _ITEMS}
_NESTED = {dict, list}
_AS_IT_IS = {str, int, bool, type(None)}


def to_wire(value: Any, path: str = "") -> Any:
    """Return `value` as data that ``json.dumps(..., allow_nan=False)`` takes.

    Tuples become lists, NumPy scalars plain numbers. Arrays, bytes and numbers that are not finite are tagged.

    Raises
    ------
    TypeError
        For anything else, named by its path.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return to_wire(value.item(), path)
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and _TAGS.isdisjoint(value):
            return {
                key: item if type(item) in _AS_IT_IS else to_wire(item, f"{path}.{key}") for key, item in value.items()
            }
        # Keys that JSON has not, or that look like a tag.
        return {_ITEMS: [[to_wire(key, path), to_wire(item, f"{path}[{key!r}]")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [
            item if type(item) in _AS_IT_IS else to_wire(item, f"{path}[{index}]") for index, item in enumerate(value)
        ]
    raise TypeError(f"{path.lstrip('.') or 'the value'} of type {type(value).__name__} cannot be sent")


def from_wire(value: Any) -> Any:
    """Return what `to_wire` was given, tuples as lists."""
    if isinstance(value, list):
        return [from_wire(item) if type(item) in _NESTED else item for item in value]
    if not isinstance(value, dict):
        return value
    if not _TAGS.isdisjoint(value):
        return _untagged(value)
    return {key: from_wire(item) if type(item) in _NESTED else item for key, item in value.items()}


def _untagged(value: dict[str, Any]) -> Any:
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _BYTES in value:
        return base64.b64decode(value[_BYTES])
    if _ARRAY in value:
        data = np.frombuffer(base64.b64decode(value[_ARRAY]), dtype=np.dtype(value["dtype"]))
        return data.reshape(value["shape"]).copy()
    return {from_wire(key): from_wire(item) for key, item in value[_ITEMS]}
