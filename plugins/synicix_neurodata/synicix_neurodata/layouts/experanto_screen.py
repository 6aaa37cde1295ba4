"""What experanto's screen showed: its trials, when each was on, and where its pixels are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.experanto_meta import bad_experiment, read_mapping, stated_integer
from synicix_neurodata.layouts.npy import NUMBERS
from synicix_neurodata.layouts.tree_files import FolderFiles
from synicix_neurodata.layouts.trial_columns import stimulus_identity

__all__ = ["KINDS", "Screen", "pixels", "read_screen", "read_timestamps"]

KINDS = {"images": "image", "movie": "video"}
"""Kind of recording, and the modality of its trials in the files."""

_STRUCTURE = ("modality", "first_frame_idx", "num_frames", "image_size", "tier", "valid_trial", "interleave_value")
"""What a trial's file states for the screen itself, and not about the trial."""


@dataclass(frozen=True, eq=False)
class Screen:
    """The trials of one kind, one entry each.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    files : ndarray of str, (trials,)
        Names in ``screen/data``.
    first : ndarray of int64, (trials,)
        Row of ``screen/timestamps.npy`` of the first frame.
    frames : ndarray of int64, (trials,)
        1 for an image.
    shape : tuple of int
        (C, H, W).
    frame_rate : float or None
        Frames per second, as stated.
    tiers : ndarray of str, or None
    stimulus_ids : ndarray of str, or None
    columns : dict of str to ndarray
    notes : tuple of str
    """

    kind: str
    files: NDArray[np.str_]
    first: NDArray[np.int64]
    frames: NDArray[np.int64]
    shape: tuple[int, ...]
    frame_rate: float | None
    tiers: NDArray[np.str_] | None
    stimulus_ids: NDArray[np.str_] | None
    columns: dict[str, NDArray[Any]]
    notes: tuple[str, ...]


def read_screen(recording: Path, kind: str | None) -> Screen:
    """Read which images, or which videos, were shown; blanks and trials marked as invalid are passed over.

    Parameters
    ----------
    recording : Path
        The experiment's folder.
    kind : str, optional
        A key of `KINDS`; None for that of which there are more.

    Raises
    ------
    DatasetError
        If a file is missing or says what cannot be.
    """
    about = read_mapping(recording, "screen/meta.yml")
    if str(about.get("modality")).lower() != "screen":
        raise bad_experiment(recording, f"'screen/meta.yml' states modality {about.get('modality')!r}, not 'screen'")
    every = _trials(recording)
    shown, notes = _of_kind(recording, every, kind)
    kind = next(name for name, modality in KINDS.items() if modality == _modality(next(iter(shown.values()))))
    by_name = about.get("use_stimuli_names") is True
    first = np.array(
        [stated_integer(recording, _place(key), said, "first_frame_idx") for key, said in shown.items()], np.int64
    )
    frames = np.array(
        [
            stated_integer(recording, _place(key), said, "num_frames", least=1) if kind == "movie" else 1
            for key, said in shown.items()
        ],
        np.int64,
    )
    timestamps = read_timestamps(recording)
    late = np.flatnonzero(first + frames > len(timestamps))
    if len(late):
        key = list(shown)[late[0]]
        raise bad_experiment(
            recording,
            f"{_place(key)!r} places its trial at frames {first[late[0]]} to {first[late[0]] + frames[late[0]] - 1}, "
            f"and 'screen/timestamps.npy' has {len(timestamps)}",
        )
    files = _files(recording, shown, by_name)
    columns = _columns(shown)
    ids = stimulus_identity(columns)
    if ids is None and by_name:
        ids = np.array([Path(file).stem for file in files])
    rate = about.get("frame_rate")
    columns.setdefault("onset", timestamps[first])
    return Screen(
        kind=kind,
        files=np.array(files),
        first=first,
        frames=frames,
        shape=_shape(recording, files[0], shown, kind),
        frame_rate=float(rate) if isinstance(rate, int | float) and 0 < rate < float("inf") else None,
        tiers=_tiers(shown),
        stimulus_ids=ids,
        columns=columns,
        notes=notes,
    )


def read_timestamps(recording: Path) -> NDArray[np.float64]:
    """Return when each frame appeared, in seconds: (frames,).

    Raises
    ------
    DatasetError
        If they are missing, no such array, or run backwards.
    """
    try:
        times = np.array(FolderFiles(recording).mapped("screen/timestamps.npy"))
    except (OSError, ValueError) as error:
        raise bad_experiment(recording, _reason("screen/timestamps.npy", error)) from error
    if times.ndim != 1 or times.dtype.kind not in NUMBERS or not len(times):
        raise bad_experiment(
            recording, f"'screen/timestamps.npy' has shape {times.shape} of {times.dtype}, expected (frames,)"
        )
    times = times.astype(np.float64)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise bad_experiment(recording, "the times in 'screen/timestamps.npy' are not finite or run backwards")
    return times


def pixels(read: Callable[[str], NDArray[Any]], file: str, kind: str) -> NDArray[Any]:
    """Return an image as (C, H, W) or a video as (C, T, H, W).

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or has other axes.
    """
    name = f"screen/data/{file}"
    values = read(name)
    frames = values.ndim - (kind == "movie")
    colours_last = frames == 3 and values.shape[-1] in (1, 3)
    if values.dtype.kind not in NUMBERS or 0 in values.shape or not (frames == 2 or colours_last):
        axes = "(frames, height, width[, 3])" if kind == "movie" else "(height, width[, 3])"
        # experanto itself adds the axis of frames to an image, so some exporters have it in the file.
        if not (kind == "images" and values.ndim == 3 and values.shape[0] == 1 and values.dtype.kind in NUMBERS):
            raise ValueError(f"'{name}' has shape {values.shape} of {values.dtype}, expected {axes}")
        return values
    return np.moveaxis(values, -1, 0) if colours_last else values[None]


def _trials(recording: Path) -> dict[str, dict[str, Any]]:
    """Return what is stated of each trial: from the merged file where that has them all, else from a file each."""
    single = sorted(
        (file.stem for file in _listed(recording / "screen" / "meta") if re.fullmatch(r"\d{5,}\.yml", file.name)),
        key=int,
    )
    said: dict[str, Any] = {}
    if (recording / "screen" / "combined_meta.json").is_file():
        try:
            said = read_mapping(recording, "screen/combined_meta.json")
        except DatasetError:
            # It is no more than a copy of the others, if there are any.
            if not single:
                raise
    if not said.keys() >= set(single):
        said = {key: read_mapping(recording, f"screen/meta/{key}.yml") for key in single}
    if not said:
        raise bad_experiment(recording, "neither 'screen/combined_meta.json' nor 'screen/meta' describes a trial")
    strange = next((key for key, value in said.items() if not isinstance(value, dict) or not _modality(value)), None)
    if strange is not None:
        raise bad_experiment(recording, f"{_place(strange)!r} does not state the modality of its trial")
    return said


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _place(key: str) -> str:
    return f"screen/meta/{key}.yml"


def _modality(said: Mapping[str, Any]) -> str:
    value = said.get("modality")
    return value.lower() if isinstance(value, str) else ""


def _of_kind(
    recording: Path, every: Mapping[str, dict[str, Any]], kind: str | None
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    valid = {key: said for key, said in every.items() if said.get("valid_trial", True) is not False}
    counts = {name: sum(_modality(said) == modality for said in valid.values()) for name, modality in KINDS.items()}
    modalities = sorted({_modality(said) for said in every.values()})
    if not any(counts.values()):
        raise bad_experiment(
            recording, f"the screen showed no image and no video; its {len(every)} trials are {', '.join(modalities)}"
        )
    chosen = kind or max(counts, key=lambda name: counts[name])
    if not counts[chosen]:
        other = next(name for name, count in counts.items() if count)
        raise bad_experiment(
            recording,
            f"kind is {chosen!r} and the screen showed no {KINDS[chosen]}",
            hint=f'Set layout_params = {{ kind = "{other}" }}, or leave kind out.',
        )
    notes = [
        f'{count} trials with a {KINDS[name]} are left out; kind = "{name}" in layout_params takes them instead'
        for name, count in counts.items()
        if count and name != chosen
    ]
    marked = sum(_modality(said) == KINDS[chosen] for said in every.values()) - counts[chosen]
    if marked:
        notes.append(f"{marked} trials are left out, because valid_trial says so")
    return {key: said for key, said in valid.items() if _modality(said) == KINDS[chosen]}, tuple(notes)


def _files(recording: Path, shown: Mapping[str, dict[str, Any]], by_name: bool) -> list[str]:
    """Return the file of each trial; only names that the folder of the data itself has are ever opened."""
    try:
        there = FolderFiles(recording).sizes("screen/data")
    except (OSError, ValueError) as error:
        raise bad_experiment(recording, _reason("screen/data", error)) from error
    stems = [str(said.get("stimulus_name")) if by_name else key for key, said in shown.items()]
    missing = [stem for stem in stems if f"{stem}.npy" not in there]
    if missing:
        other = next((name for name in there if Path(name).stem == missing[0]), None)
        if other is not None:
            raise bad_experiment(
                recording,
                f"'screen/data/{other}' is an encoded image or video, and only .npy files are read",
                hint="Export the experiment without compression.",
            )
        raise bad_experiment(
            recording,
            f"{len(missing)} of {len(stems)} trials have no file of pixels, the first is 'screen/data/{missing[0]}.npy'",
        )
    return [f"{stem}.npy" for stem in stems]


def _shape(recording: Path, file: str, shown: Mapping[str, dict[str, Any]], kind: str) -> tuple[int, ...]:
    sizes = {str(said["image_size"][:2]) for said in shown.values() if isinstance(said.get("image_size"), list)}
    if len(sizes) > 1:
        raise bad_experiment(
            recording,
            f"the trials differ in image_size: {', '.join(sorted(sizes)[:8])}",
            hint="Stimuli of one size are needed; export them so.",
        )
    try:
        shape = pixels(FolderFiles(recording).mapped, file, kind).shape
    except (OSError, ValueError) as error:
        raise bad_experiment(recording, _reason(f"screen/data/{file}", error)) from error
    return (int(shape[0]), *(int(size) for size in shape[-2:]))


def _tiers(shown: Mapping[str, dict[str, Any]]) -> NDArray[np.str_] | None:
    said = [trial.get("tier") for trial in shown.values()]
    return np.array(["none" if tier is None else str(tier) for tier in said]) if any(said) else None


def _columns(shown: Mapping[str, dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return what is stated of every trial and is one number or text."""
    said = list(shown.values())
    found: dict[str, NDArray[Any]] = {}
    for name in said[0]:
        values = [trial.get(name) for trial in said]
        if name in _STRUCTURE or not all(isinstance(value, str | int | float) for value in values):
            continue
        if len({type(value) for value in values} - {int, float}) > 0 and {type(value) for value in values} != {bool}:
            values = [str(value) for value in values]
        column = np.array(values)
        # Integers beyond 64 bits make an array of objects.
        found[str(name)] = column if column.dtype.kind != "O" else np.array([str(value) for value in values])
    return found


def _reason(name: str, error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"'{name}' cannot be read ({error.strerror or error})"
    return str(error)
