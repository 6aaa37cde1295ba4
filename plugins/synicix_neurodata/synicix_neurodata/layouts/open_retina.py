"""open-retina's HDF5: a file per session with responses by stimulus name, and the stimuli as .npy files beside it.

The layout is that of ``openretina/data_io/h5_dataset_reader.py``; docs/recordings.md describes it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.hdf5_file import (
    bad_layout,
    get_array,
    get_group,
    is_hdf5,
    open_for_reading,
    opened,
    read_columns,
)
from synicix_neurodata.layouts.npy import NUMBERS
from synicix_neurodata.layouts.open_retina_trials import Cut, cut_into_trials, read_options
from synicix_neurodata.layouts.tree_files import FolderFiles
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["NOISE_CEILING", "OPEN_RETINA", "RESPONSES"]

_NAME = "open-retina HDF5"

RESPONSES = "responses_"
"""What the name of a stimulus has before it in the session's file."""

NOISE_CEILING = "noise_ceiling_"
"""What a mode has before it among the session's ``session_info``."""

_STIMULUS = "stimulus_"
_STIMULI = "stimuli"
_SESSION_SUFFIXES = (".h5", ".hdf5")

_KEPT_OPEN = 64
"""Stimuli; each holds a file descriptor, and a process may have about a thousand."""


@dataclass(frozen=True)
class _Source:
    session: str
    """The session's file."""
    inside: frozenset[str]
    """Names of the stimuli that are in the session's file."""
    cut: Cut


def _recognises(path: Path) -> bool:
    try:
        if path.is_dir():
            sessions = _session_files(path)
            return bool(sessions) and (bool(_stimulus_names(path)) or any(map(_has_responses, sessions)))
        return is_hdf5(path) and _has_responses(path)
    except OSError:
        return False


def _has_responses(session: Path) -> bool:
    try:
        with open_for_reading(session) as file:
            return any(name.startswith(RESPONSES) for name in file)
    except (OSError, RuntimeError):
        return False


def _session_files(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.suffix in _SESSION_SUFFIXES and not child.name.startswith(".") and child.is_file()
    )


def _stimulus_names(folder: Path) -> list[str]:
    try:
        files = FolderFiles(folder).sizes(_STIMULI)
    except ValueError:
        # Something in it is no file, which matters only where it is named.
        return []
    return sorted(name.removesuffix(".npy") for name in files if name.endswith(".npy"))


def _describe(path: Path, options: Mapping[str, Any]) -> Recording:
    chosen = read_options(path, options)
    session = _session(path, chosen.session) if path.is_dir() else path
    outside = _stimulus_names(path) if path.is_dir() else []
    with opened(session) as file:
        with_responses = sorted(name.removeprefix(RESPONSES) for name in file if name.startswith(RESPONSES))
        if not with_responses:
            raise bad_layout(file, f"it has no array whose name begins with '{RESPONSES}'")
        names = chosen.of(with_responses, path)
        responses = {name: _shape(file, RESPONSES + name, axes=2) for name in names}
        # Not `in`, which follows a link into another file.
        inside = frozenset(name for name in names if file.get(_STIMULUS + name, getlink=True) is not None)
        stimuli = {
            name: _shape(file, _STIMULUS + name, axes=4) if name in inside else _outside(path, outside, name)
            for name in names
        }
        for name in names:
            _check_length(file, name, responses[name], stimuli[name])
        neurons = _neurons(file, responses)
        size = _size(path, stimuli)
        trials = cut_into_trials({name: shape[1] for name, shape in stimuli.items()}, chosen)
        ceiling, rate = _stated(file)
        info = read_columns(file, "session_info", neurons)
    return Recording(
        path=str(path),
        layout=_NAME,
        shapes={"stimulus": size, "responses": (neurons,)},
        trials=len(trials.cut.start),
        frames=trials.frames,
        frame_rate=chosen.frame_rate or rate,
        tiers=trials.tiers,
        stimulus_ids=trials.stimulus_ids,
        columns={"stimulus_name": np.array(trials.cut.names)[trials.cut.stimulus], "first_frame": trials.cut.start},
        neurons=info,
        noise_ceiling=ceiling,
        notes=trials.notes,
        source=_Source(str(session), inside, trials.cut),
    )


def _session(folder: Path, name: str) -> Path:
    files = _session_files(folder)
    listed = ", ".join(file.name for file in files)
    if name:
        found = [file for file in files if name in (file.name, file.stem)]
        if len(found) == 1:
            return found[0]
        raise DatasetError(
            f"session names {name!r}", file=str(folder), why=f"the files of sessions in the folder are {listed}"
        )
    # What cannot be opened may well be a session, whose own message is worth more than that it is passed over.
    sessions = [file for file in files if _has_responses(file) or not _opens(file)]
    if len(sessions) == 1:
        return sessions[0]
    if not sessions:
        raise DatasetError(
            "The recording does not have the layout that it seems to have",
            file=str(folder),
            why=f"none of {listed} has an array whose name begins with '{RESPONSES}'",
            hint="docs/recordings.md describes the layouts.",
        )
    raise DatasetError(
        "The folder holds several sessions",
        file=str(folder),
        why=f"they are {', '.join(file.stem for file in sessions)}",
        hint=f'Choose one with layout_params = {{ session = "{sessions[0].stem}" }}.',
    )


def _opens(session: Path) -> bool:
    try:
        with open_for_reading(session):
            return True
    except (OSError, RuntimeError):
        return False


def _shape(file: h5py.File, key: str, axes: int) -> tuple[int, ...]:
    array = get_array(file, key)
    shape = () if array is None or array.shape is None else array.shape
    if array is None or len(shape) != axes or 0 in shape:
        expected = "(neurons, frames)" if axes == 2 else "(channels, frames, height, width)"
        raise bad_layout(file, f"'{key}' has shape {shape}, expected {expected}")
    if array.dtype.kind not in NUMBERS:
        raise bad_layout(file, f"'{key}' holds {array.dtype} values, not numbers")
    return tuple(int(size) for size in shape)


def _outside(path: Path, files: list[str], name: str) -> tuple[int, ...]:
    if name not in files:
        there = f"stimuli/ holds {', '.join(files[:12])}{', …' if len(files) > 12 else ''}"
        raise DatasetError(
            f"The stimulus {name!r} is missing",
            file=str(path),
            why=f"there are responses to it, and {there if files else 'there is no stimulus beside the session'}",
            hint=f"Add stimuli/{name}.npy, or leave it out with layout_params = {{ stimuli = [...] }}."
            if path.is_dir()
            else "Give the folder that holds the session's file and stimuli/.",
        )
    try:
        array = FolderFiles(path).mapped(f"{_STIMULI}/{name}.npy")
        if array.ndim != 4 or 0 in array.shape or array.dtype.kind not in NUMBERS:
            raise ValueError(
                f"'{_STIMULI}/{name}.npy' has shape {array.shape} of {array.dtype}, "
                "expected numbers as (channels, frames, height, width)"
            )
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"The stimulus {name!r} cannot be used",
            file=str(path),
            why=str(error),
            hint="Copy it again from where it came from, or check how it was made.",
        ) from error
    return array.shape


def _neurons(file: h5py.File, shapes: Mapping[str, tuple[int, ...]]) -> int:
    counts = {shape[0] for shape in shapes.values()}
    if len(counts) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())[:12])
        raise bad_layout(file, f"the responses differ in their number of neurons (neurons, frames): {listed}")
    return int(counts.pop())


def _check_length(file: h5py.File, name: str, responses: tuple[int, ...], stimulus: tuple[int, ...]) -> None:
    if responses[1] != stimulus[1]:
        turned = "; is the array transposed? It should be (neurons, frames)" if responses[0] == stimulus[1] else ""
        raise bad_layout(
            file, f"'{RESPONSES}{name}' has {responses[1]} frames and its stimulus has {stimulus[1]}{turned}"
        )


def _size(path: Path, stimuli: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    sizes: dict[tuple[int, ...], list[str]] = {}
    for name, shape in stimuli.items():
        sizes.setdefault((int(shape[0]), int(shape[2]), int(shape[3])), []).append(name)
    if len(sizes) > 1:
        listed = "; ".join(f"{size}: {', '.join(names[:5])}" for size, names in sizes.items())
        raise DatasetError(
            "The stimuli differ in size",
            file=str(path),
            why=f"(channels, height, width) are {listed}",
            hint="Choose those of one size with layout_params = { stimuli = [...] }.",
        )
    return next(iter(sizes))


def _stated(file: h5py.File) -> tuple[dict[str, float], float | None]:
    """Return the noise ceiling by mode and the frame rate, as far as ``session_info`` states them."""
    group = get_group(file, "session_info")
    numbers: dict[str, float] = {}
    for name in group if group is not None else ():
        if name == "frame_rate" or name.startswith(NOISE_CEILING):
            array = get_array(file, f"session_info/{name}")
            if array is None or array.shape != () or array.dtype.kind not in "fiu":
                raise bad_layout(file, f"'session_info/{name}' is no single number")
            numbers[name] = float(array[()])
    rate = numbers.pop("frame_rate", None)
    if rate is not None and not 0 < rate < float("inf"):
        raise bad_layout(file, f"'session_info/frame_rate' is {rate}, expected frames per second")
    for name, value in numbers.items():
        if not 0 < value <= 1:
            raise bad_layout(file, f"'session_info/{name}' is {value}, expected a correlation above 0 and at most 1")
    return {name.removeprefix(NOISE_CEILING): value for name, value in numbers.items()}, rate


class _OpenRetinaReader:
    def __init__(self, recording: Recording) -> None:
        self._source: _Source = recording.source
        self._file = open_for_reading(self._source.session)
        self._stimulus = functools.lru_cache(_KEPT_OPEN)(FolderFiles(recording.path).mapped)

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        cut, source = self._source.cut, self._source
        name = cut.names[cut.stimulus[trial]]
        first = int(cut.start[trial])
        frames = slice(first + start, first + stop)
        if part == "responses":
            return np.asarray(self._file[RESPONSES + name][:, frames])
        if name in source.inside:
            return np.asarray(self._file[_STIMULUS + name][:, frames])
        return np.array(self._stimulus(f"{_STIMULI}/{name}.npy")[:, frames])

    def close(self) -> None:
        self._stimulus.cache_clear()
        self._file.close()


def _open(recording: Recording) -> Reader:
    return _OpenRetinaReader(recording)


OPEN_RETINA = Layout(
    _NAME,
    _recognises,
    _describe,
    _open,
    options=(
        "session",
        "stimuli",
        "test_stimuli",
        "validation_stimuli",
        "validation_every",
        "trial_frames",
        "frame_rate",
    ),
)
