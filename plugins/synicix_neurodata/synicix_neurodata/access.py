"""How the arrays of a recording are read: lazily, in any process, any trials in any order."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError, SynicixError
from synicix_neurodata.layouts import layout_of
from synicix_neurodata.recording import Reader, Recording

__all__ = ["Access", "watched"]

_WATCHER: ContextVar[Callable[[int], object] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Callable[[int], object]) -> Iterator[None]:
    """Tell `watcher` the bytes of every array that is read while the context lasts; for progress over large files."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


class _Opened(threading.local):
    """What one thread has opened, and in which process it did."""

    reader: Reader | None = None
    process = 0


class Access:
    """The arrays of a recording, with the stimulus scaled as asked.

    The file is opened when something is first read, once in each thread of each process: readers seek. The object can be
    sent to other processes.

    Parameters
    ----------
    recording : Recording
    stimulus_scale : float
        Factor on height and width of the stimulus, 0 < factor <= 1; pixels are averaged over the area they cover.
    """

    def __init__(self, recording: Recording, stimulus_scale: float = 1.0) -> None:
        self.recording = recording
        self.stimulus_scale = stimulus_scale
        self._opened = _Opened()

    def shape(self, part: str) -> tuple[int, ...]:
        """Return the shape of one trial, without time, after scaling."""
        shape = self.recording.shapes[part]
        if part != "stimulus" or self.stimulus_scale == 1:
            return shape
        return shape[0], *(max(1, round(size * self.stimulus_scale)) for size in shape[1:])

    def trials(self, part: str, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return trials of a static recording in any order, repeated or not: (len(rows), *shape)."""
        unique, inverse = np.unique(rows, return_inverse=True)
        values = self._read(part, lambda reader: reader.trials(part, unique))
        if values.shape[1:] != self.recording.shapes[part]:
            raise self._other_shape(part, values.shape[1:], self.recording.shapes[part])
        scaled = self._scaled(part, values)
        in_order = len(unique) == len(rows) and bool((inverse[:-1] < inverse[1:]).all())
        return scaled if in_order else scaled[inverse]

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        """Return frames of a movie recording: stimulus (C, frames, H, W), every other part (columns, frames)."""
        values = self._read(part, lambda reader: reader.clip(part, trial, start, stop))
        shape = self.recording.shapes[part]
        expected = (shape[0], stop - start, *shape[1:])
        if values.shape != expected:
            raise self._other_shape(f"{part} of trial {trial}", values.shape, expected)
        return self._scaled(part, values)

    def close(self) -> None:
        """Close what this thread opened; it opens again when it is needed."""
        if self._opened.reader is not None and self._opened.process == os.getpid():
            self._opened.reader.close()
        self._opened.reader = None

    def __enter__(self) -> Access:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open file out, so that the object can be sent to other processes."""
        return Access, (self.recording, self.stimulus_scale)

    def _read(self, part: str, read: Callable[[Any], Any]) -> NDArray[Any]:
        try:
            # A handle that came along through a fork shares its file offset with the parent.
            opened = self._opened
            if opened.reader is None or opened.process != os.getpid():
                opened.reader = layout_of(self.recording).open(self.recording)
                opened.process = os.getpid()
            values = np.asarray(read(opened.reader))
            if (watcher := _WATCHER.get()) is not None:
                watcher(values.nbytes)
            if values.dtype.kind not in "fiub":
                raise DatasetError(
                    f"The {part} cannot be read",
                    file=self.recording.path,
                    why=f"there are {values.dtype} values among them, not numbers",
                    hint="Check how the files were made.",
                )
            return values
        except SynicixError:
            raise
        except Exception as error:
            # Whatever a damaged file makes a library raise, the user is told which file it was.
            raise DatasetError(
                f"The {part} cannot be read",
                file=self.recording.path,
                why=f"{type(error).__name__}: {error} (the file changed, or a part of it is damaged)",
                hint="Copy it again from where it came from.",
            ) from error

    def _other_shape(self, what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> DatasetError:
        return DatasetError(
            f"The {what} cannot be read",
            file=self.recording.path,
            why=f"the shape is {found}, and by the other trials it should be {expected}",
            hint="Check how the file was made.",
        )

    def _scaled(self, part: str, values: NDArray[Any]) -> NDArray[Any]:
        if part != "stimulus" or self.stimulus_scale == 1:
            return values
        height, width = self.shape(part)[1:]
        rows, columns = _area_weights(values.shape[-2], height), _area_weights(values.shape[-1], width)
        return np.asarray(rows @ values.astype(np.float32, copy=False) @ columns.T)


@functools.lru_cache(maxsize=64)
def _area_weights(pixels: int, fewer: int) -> NDArray[np.float32]:
    """Return the share that each pixel has in each of fewer, larger ones: (fewer, pixels), rows of sum 1."""
    edges = np.arange(fewer + 1)[:, None] * (pixels / fewer)
    places = np.arange(pixels)
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.asarray(np.clip(covered, 0, None) * (fewer / pixels), dtype=np.float32)
