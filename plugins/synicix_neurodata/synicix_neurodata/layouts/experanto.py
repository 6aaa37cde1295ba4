"""experanto: a folder for the screen and one for each other device, all on one clock.

The layout is that of ``sensorium-competition/experanto``; docs/recordings.md describes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.experanto_devices import Device, read_device
from synicix_neurodata.layouts.experanto_intervals import interval_tiers
from synicix_neurodata.layouts.experanto_meta import bad_experiment, has_modality, read_mapping
from synicix_neurodata.layouts.experanto_screen import KINDS, Screen, pixels, read_screen, read_timestamps
from synicix_neurodata.layouts.experanto_signals import Signals, open_signals
from synicix_neurodata.layouts.tree_files import FolderFiles
from synicix_neurodata.recording import PARTS, Layout, Reader, Recording

__all__ = ["EXPERANTO"]

_NAME = "experanto"

_BEHAVIOR = ("eye_tracker", "treadmill")
"""Folders of behaviour, in the order of their columns."""

_DELAY, _WINDOW = 0.05, 0.5
"""Seconds; of cajal/neuro_data's preprocessing."""

_KEPT_OPEN = 32
"""Videos; each holds a file descriptor."""


_Columns = tuple[Device, tuple[int, ...] | None]


@dataclass(frozen=True)
class _Source:
    kind: str
    files: NDArray[np.str_]
    first: NDArray[np.int64]
    parts: dict[str, tuple[_Columns, ...]]
    """Devices of each part but the stimulus, with their columns, None for all."""
    delay: float
    window: float


def _recognises(path: Path) -> bool:
    try:
        return path.is_dir() and (has_modality(path / "screen") or any(map(has_modality, path.iterdir())))
    except OSError:
        return False


def _describe(path: Path, options: Mapping[str, Any]) -> Recording:
    _check_options(path, options)
    screen = read_screen(path, options.get("kind"))
    if screen.kind == "movie" and options.keys() & {"delay", "window"}:
        raise DatasetError(
            "delay and window are for images",
            file=str(path),
            why="this is a recording of movies, whose responses are taken at each frame",
        )
    delay, window = float(options.get("delay", _DELAY)), float(options.get("window", _WINDOW))
    parts, notes = _parts(path, options)
    if screen.kind == "images":
        _check_window(path, [device for found in parts.values() for device, _ in found], window)
    timestamps = read_timestamps(path)
    tiers = screen.tiers
    if tiers is None or "tiers" in options:
        tiers = interval_tiers(
            path, options.get("tiers", ""), timestamps[screen.first], timestamps[screen.first + screen.frames - 1]
        )
    shapes = {"stimulus": screen.shape}
    shapes |= {
        part: (sum(device.columns if columns is None else len(columns) for device, columns in found),)
        for part, found in parts.items()
    }
    responses = parts["responses"][0][0] if "responses" in parts else None
    return Recording(
        path=str(path),
        layout=_NAME,
        shapes=shapes,
        trials=len(screen.files),
        frames=screen.frames if screen.kind == "movie" else None,
        frame_rate=_frame_rate(screen, timestamps) if screen.kind == "movie" else None,
        tiers=tiers,
        stimulus_ids=screen.stimulus_ids,
        columns=screen.columns,
        neurons=_neurons(path, responses) if responses is not None else {},
        noise_ceiling=_noise_ceiling(path),
        notes=(*screen.notes, *notes),
        source=_Source(screen.kind, screen.files, screen.first, parts, delay, window),
    )


def _check_options(path: Path, options: Mapping[str, Any]) -> None:
    def is_seconds(least: float) -> Callable[[Any], bool]:
        return lambda value: type(value) in (int, float) and least <= value < float("inf")

    def is_folder(value: object) -> bool:
        return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value and "\\" not in value

    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
        "responses": (is_folder, "the name of a folder"),
        "behavior": (
            lambda value: isinstance(value, list) and all(map(is_folder, value)) and len({*value}) == len(value),
            "a list of names of folders",
        ),
        "pupil_columns": (
            lambda value: (
                isinstance(value, list)
                and len({*map(str, value)}) == len(value) in (0, 2)
                and all(type(column) is int and column >= 0 for column in value)
            ),
            "a list of two columns of eye_tracker, counted from 0, or an empty one",
        ),
        "delay": (is_seconds(0), "seconds, 0 or more"),
        "window": (is_seconds(1e-6), "seconds, more than 0"),
        "tiers": (is_folder, "the name of a folder"),
    }
    for name, value in options.items():
        allowed, expected = checks[name]
        if not allowed(value):
            raise DatasetError(f"{name} is {value!r}", file=str(path), why=f"it is {expected}")


def _parts(path: Path, options: Mapping[str, Any]) -> tuple[dict[str, tuple[_Columns, ...]], tuple[str, ...]]:
    """Return the devices of each part, and what there is to say about them."""
    parts: dict[str, tuple[_Columns, ...]] = {}
    folder = options.get("responses") or next((name for name in ("responses", "spikes") if (path / name).is_dir()), "")
    if folder:
        device = read_device(path, folder)
        parts["responses"] = ((device, None),)
    said = options.get("behavior")
    names = [name for name in _BEHAVIOR if (path / name).is_dir()] if said is None else said
    behavior: list[_Columns] = []
    notes: tuple[str, ...] = ()
    for name in names:
        device = read_device(path, name)
        pupil: tuple[int, ...] = ()
        if name == "eye_tracker":
            pupil, notes = _pupil_columns(path, device, options.get("pupil_columns"))
        if pupil:
            parts["pupil_center"] = ((device, pupil),)
        rest = tuple(column for column in range(device.columns) if column not in pupil)
        behavior += [(device, rest)] if rest else []
    if behavior:
        parts["behavior"] = tuple(behavior)
    return {part: parts[part] for part in PARTS if part in parts}, notes


def _pupil_columns(path: Path, device: Device, said: list[int] | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return which columns of the eye tracker are the pupil's centre; nothing in the layout tells."""
    if said is not None:
        if said and max(said) >= device.columns:
            raise DatasetError(
                f"pupil_columns is {said}",
                file=str(path),
                why=f"eye_tracker has {device.columns} columns, counted from 0",
            )
        return tuple(said), ()
    if device.columns == 2:
        return (0, 1), ()
    if device.columns in (3, 4):
        pair = (device.columns - 2, device.columns - 1)
        note = (
            f"the last two of the {device.columns} columns of eye_tracker are taken for the pupil's centre; "
            "pupil_columns in layout_params says otherwise"
        )
        return pair, (note,)
    if device.columns == 1:
        return (), ()
    note = (
        f"all {device.columns} columns of eye_tracker are taken for behaviour; "
        "pupil_columns in layout_params says which two are the pupil's centre"
    )
    return (), (note,)


def _check_window(path: Path, devices: list[Device], window: float) -> None:
    for device in devices:
        if device.rate and device.rate * window < 1 - 1e-9:
            raise DatasetError(
                f"A window of {window:g} s holds no sample of {device.name}",
                file=str(path),
                why=f"it has {device.rate:g} samples per second",
                hint=f"Set layout_params = {{ window = {1 / device.rate:.3g} }} or more.",
            )


def _frame_rate(screen: Screen, timestamps: NDArray[np.float64]) -> float | None:
    if screen.frame_rate is not None:
        return screen.frame_rate
    first = int(screen.first[0])
    steps = np.diff(timestamps[first : first + int(screen.frames[0])])
    return float(1 / np.median(steps)) if len(steps) and np.median(steps) > 0 else None


def _neurons(path: Path, responses: Device) -> dict[str, NDArray[Any]]:
    """Return the arrays in the folder of the responses that have an entry for each neuron."""
    files, folder = FolderFiles(path), f"{responses.name}/meta"
    found = {}
    try:
        for name in files.sizes(folder):
            if name.endswith(".npy") and name not in ("means.npy", "stds.npy", "phase_shifts.npy"):
                values = files.mapped(f"{folder}/{name}")
                if values.shape[:1] == (responses.columns,) and values.dtype.kind in "fiubUS":
                    found[name.removesuffix(".npy")] = (
                        values.astype(str) if values.dtype.kind == "S" else np.array(values)
                    )
    except (OSError, ValueError) as error:
        raise bad_experiment(path, str(error)) from error
    return found


def _noise_ceiling(path: Path) -> dict[str, float]:
    """Return what ``noise_ceiling`` in ``meta.json`` states, by mode."""
    if not (path / "meta.json").is_file():
        return {}
    stated = read_mapping(path, "meta.json").get("noise_ceiling", {})
    right = isinstance(stated, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1 for value in stated.values()
    )
    if not right:
        raise bad_experiment(
            path,
            f"noise_ceiling in 'meta.json' is {str(stated)[:80]}, expected correlations above 0 and at most 1 by mode",
        )
    return {str(mode): float(value) for mode, value in stated.items()}


class _ExperantoReader:
    def __init__(self, recording: Recording) -> None:
        path = Path(recording.path)
        self._source: _Source = recording.source
        self._shape = recording.shapes["stimulus"]
        self._frames = recording.frames
        self._files = FolderFiles(path)
        self._timestamps = read_timestamps(path)
        self._video = functools.lru_cache(_KEPT_OPEN)(self._files.mapped)
        devices = {device for found in self._source.parts.values() for device, _ in found}
        self._signals: dict[str, Signals] = {device.name: open_signals(path, device) for device in devices}

    def trials(self, part: str, trials: NDArray[np.intp]) -> NDArray[Any]:
        source = self._source
        if part == "stimulus":
            return np.stack([self._image(str(source.files[trial])) for trial in trials])
        starts = self._timestamps[source.first[trials]] + source.delay
        found = []
        for device, columns in source.parts[part]:
            values = self._signals[device.name].mean_or_count(starts, starts + source.window)
            found.append(values if columns is None else values[:, list(columns)])
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        source = self._source
        if part == "stimulus":
            video = pixels(self._video, str(source.files[trial]), source.kind)
            if self._frames is not None and video.shape[1] != self._frames[trial]:
                raise ValueError(
                    f"'screen/data/{source.files[trial]}' has {video.shape[1]} frames, and num_frames is {self._frames[trial]}"
                )
            return np.array(video[:, start:stop])
        first = int(source.first[trial])
        starts = self._timestamps[first + start : first + stop]
        stops = self._timestamps[first + start + 1 : first + stop + 1]
        if len(stops) < len(starts):
            # The last frame of all: it lasts as long as the one before.
            stops = np.append(stops, starts[-1] + (starts[-1] - self._timestamps[max(0, first + stop - 2)]))
        found = []
        for device, columns in source.parts[part]:
            values = self._signals[device.name].at_frames(starts, stops)
            found.append(values if columns is None else values[list(columns)])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def close(self) -> None:
        self._video.cache_clear()
        self._signals.clear()

    def _image(self, file: str) -> NDArray[Any]:
        image = pixels(self._files.mapped, file, self._source.kind)
        if image.shape != self._shape:
            raise ValueError(f"'screen/data/{file}' has shape {image.shape}, and the first image has {self._shape}")
        return image


def _open(recording: Recording) -> Reader:
    return _ExperantoReader(recording)


EXPERANTO = Layout(
    _NAME,
    _recognises,
    _describe,
    _open,
    options=("kind", "responses", "behavior", "pupil_columns", "delay", "window", "tiers"),
)
