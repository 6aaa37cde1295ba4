"""Arrays in ``.npy`` files that nobody vouches for: the header is checked against the file, and nothing is unpickled.

NumPy reads the header, which is a literal and never code. The rest is not left to ``np.load``, because a dataset is
thousands of such files with one and the same header, and reading that header is most of the work.
"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD_BYTES", "NUMBERS", "NpyHeader", "PythonObjects", "array_of", "header_of"]

HEAD_BYTES = 4096
"""So much from the start of a file holds every header of a plain array; NumPy's are 128 bytes long."""

NUMBERS = "fiub"
"""Kinds of dtype that count as numbers."""

_MAGIC = b"\x93NUMPY"


class PythonObjects(ValueError):
    """A file holds Python objects, which only code from the file could make."""


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a file claims.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
    fortran : bool
        Whether the first axis runs fastest.
    offset : int
        Where the values begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def file_bytes(self) -> int:
        """Size of the file if the header is true."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"shape {self.shape}, {self.dtype}"


def header_of(name: str, start: bytes, size: int) -> NpyHeader:
    """Return the header of a file.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    start : bytes
        The file from its start, `HEAD_BYTES` of it or all.
    size : int
        Of the whole file in bytes.

    Raises
    ------
    PythonObjects
        If it holds any.
    ValueError
        If it is no ``.npy`` file, or is not as long as its header says.
    """
    if not size:
        raise ValueError(f"'{name}' is empty")
    if not start.startswith(_MAGIC):
        raise ValueError(f"'{name}' is not a NumPy file")
    width = 2 if start[6:7] == b"\x01" else 4
    end = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    if end > size:
        raise ValueError(f"'{name}' is cut off: it ends within its header")
    try:
        header = _parsed(start[:end])
    except Exception as error:
        # On a header that is no literal NumPy raises what its parsers do: SyntaxError, TokenError, RecursionError…
        raise ValueError(f"'{name}' has a damaged header") from error
    if header.dtype.hasobject:
        raise PythonObjects(f"'{name}' holds Python objects, which are never loaded, because loading them runs code")
    if not header.dtype.itemsize and 0 not in header.shape:
        # NumPy makes a character of each, so that a file without values would fill any memory.
        raise ValueError(f"'{name}' holds values without a byte ({header})")
    if header.file_bytes != size:
        problem = "is cut off" if size < header.file_bytes else "is longer than it should be"
        raise ValueError(f"'{name}' {problem}: by its header ({header}) it has {header.file_bytes} bytes, not {size}")
    return header


def array_of(name: str, content: bytes) -> NDArray[Any]:
    """Return the array in a whole file, read-only; raises as `header_of`."""
    header = header_of(name, content[:HEAD_BYTES], len(content))
    if not math.prod(header.shape) or not header.dtype.itemsize:
        return np.zeros(header.shape, header.dtype)
    values: NDArray[Any] = np.frombuffer(content, header.dtype, offset=header.offset)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


@functools.lru_cache(maxsize=256)
def _parsed(start: bytes) -> NpyHeader:
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        # 3.0 exists for the names of fields that are not Latin; a plain array has none.
        raise ValueError("no version of a plain array")
    if min(shape, default=0) < 0:
        raise ValueError("an axis is negative")
    return NpyHeader(tuple(shape), dtype, fortran, stream.tell())
