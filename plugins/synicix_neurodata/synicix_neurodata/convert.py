"""Any recording as one HDF5 file, written block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.access import Access
from synicix_neurodata.layouts import describe_recording, find_layout
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Recording
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.choice import WRITTEN
from synicix_neurodata.writers.placing import check_room, placed

__all__ = ["Conversion", "convert_recording", "converted_path"]

_STATIC, _MOVIE = "static-hdf5", "movie-hdf5"

_BLOCK_BYTES = 32 * 2**20

_FILE_SUFFIXES = (".h5", ".hdf5", ".zip", ".nwb")

_IDENTITY_COLUMN = "frame_image_id"
"""The column that tells before all others which stimulus was shown."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes
    ----------
    file : Path
    layout, source_layout : str
        As `Layout.name`.
    trials, bytes : int
    notes : tuple of str
        What is not as it was in the source.
    """

    file: Path
    layout: str
    source_layout: str
    trials: int
    bytes: int
    notes: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return this as JSON data."""
        return {**dataclasses.asdict(self), "file": str(self.file), "notes": list(self.notes)}


def converted_path(source: Path, output: Path) -> Path:
    """Return which file a conversion to `output` writes: itself, or, in a folder, one with the name of the source.

    Raises
    ------
    DatasetError
        If it would be written over the source, or into its folder, or `output` is the folder of another recording.
    """
    source = Path(source).absolute()
    if output.is_dir():
        held = find_layout(output)
        if held is not None and not _same_file(source, output):
            raise DatasetError(
                "Nothing is converted",
                file=str(output),
                why=f"this folder is another recording ({held.name})",
                hint="Name another file or folder as OUTPUT.",
            )
        name = source.stem if source.suffix.lower() in _FILE_SUFFIXES else source.name
        target = output / f"{name}.h5"
    else:
        target = output
    inside = source.resolve()
    if inside == target.resolve() or inside in target.resolve().parents or _same_file(source, target):
        where = "in the folder of the source" if source.is_dir() else "the source itself"
        raise DatasetError(
            "Nothing is converted",
            file=str(target),
            why=f"it is {where}, and a recording is never written to",
            hint="Name another file or folder as OUTPUT.",
        )
    return target


def convert_recording(
    source: str | Path,
    target: str | Path,
    layout_params: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Conversion:
    """Write a recording of images as static HDF5, or one of movies as movie HDF5.

    Datasets made of the two give the same items. Tiers keep the words of the file, and a recording without tiers gets
    none; numbers keep their types. No more than 32 MiB of trials, or one movie, are in memory. The file appears under
    its name when it is whole.

    Parameters
    ----------
    source, target : str or Path
    layout_params : mapping, optional
        As for the dataset.
    overwrite : bool
        Whether a file `target` that exists is replaced.
    progress : callable, optional
        Called with the number of trials just written.

    Raises
    ------
    DatasetError
        If the source cannot be read, holds no trials or no stimulus and no responses, or the target cannot be written.
    """
    recording = describe_recording(source, layout_params)
    target = converted_path(Path(source), Path(target))
    if not recording.trials:
        raise DatasetError("Nothing is converted", file=recording.path, why="the recording holds no trials")
    written = WRITTEN[_MOVIE if recording.is_movie else _STATIC]
    observations = recording.trials if recording.frames is None else int(recording.frames.sum())
    dtypes: dict[str, np.dtype[Any]] = {}
    with placed(target, overwrite=overwrite) as temporary, Access(recording) as access:
        while True:
            plan, notes = _plan(recording, access, dtypes)
            check_room(target, observations * sum(_observation_bytes(plan)))
            writer = written.open(temporary, plan)
            try:
                for first, parts in _blocks(recording, access, plan):
                    writer.write(first, parts)
                    if progress is not None:
                        progress(len(next(iter(parts.values()))))
                writer.finish(recording.noise_ceiling)
                break
            except _Wider as found:
                # Files of single trials may differ in type, which only turns out when they are read.
                dtypes[found.part] = found.dtype
            finally:
                writer.abandon()
    layout = describe_recording(target).layout
    return Conversion(target, layout, recording.layout, recording.trials, target.stat().st_size, notes)


class _Wider(Exception):
    """A part of a trial holds what the type of the trials before cannot."""

    def __init__(self, part: str, dtype: np.dtype[Any]) -> None:
        self.part = part
        self.dtype = dtype


def _same_file(source: Path, target: Path) -> bool:
    return target.exists() and source.exists() and source.samefile(target)


def _plan(recording: Recording, access: Access, dtypes: Mapping[str, np.dtype[Any]]) -> tuple[Plan, tuple[str, ...]]:
    columns, ids, notes = _columns(recording)
    nothing = np.full(recording.trials, "")
    plan = Plan(
        shapes=recording.shapes,
        tiers=nothing if recording.tiers is None else recording.tiers,
        stimulus_ids=nothing if ids is None else ids,
        frames=recording.frames,
        frame_rate=np.nan if recording.frame_rate is None else recording.frame_rate,
        columns=columns,
        neurons={_name(name): _storable(values) for name, values in recording.neurons.items()},
        dtypes={part: _dtype(recording, access, part) for part in recording.shapes} | dict(dtypes),
        exact=True,
    )
    return plan, notes


def _columns(recording: Recording) -> tuple[dict[str, NDArray[Any]], NDArray[np.str_] | None, tuple[str, ...]]:
    """Return the columns, and the identity of stimuli where the columns do not tell it by themselves."""
    columns = {_name(name): _storable(values) for name, values in recording.columns.items() if values.ndim == 1}
    told, ids = stimulus_identity(columns), recording.stimulus_ids
    if told is None if ids is None else told is not None and np.array_equal(told, ids):
        return columns, None, ()
    # Columns by which the source's own layout does not tell stimuli would tell them in the new one.
    renamed = [
        name
        for name, values in columns.items()
        if name in (_IDENTITY_COLUMN, "frame_image_class")
        or (ids is None and stimulus_identity({name: values}) is not None)
    ]
    notes = tuple(f"the column {name} is named source_{name}: it does not tell the stimulus" for name in renamed)
    return {f"source_{name}" if name in renamed else name: values for name, values in columns.items()}, ids, notes


def _name(name: str) -> str:
    # A slash would make groups of it.
    return name.replace("/", "_")


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype.kind in "fiubUS" else values.astype(str)


def _dtype(recording: Recording, access: Access, part: str) -> np.dtype[Any]:
    if recording.frames is None:
        return access.trials(part, np.array([0])).dtype
    return access.clip(part, 0, 0, min(1, int(recording.frames[0]))).dtype


def _blocks(recording: Recording, access: Access, plan: Plan) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield the first trial of each block and its parts, as writers want them."""
    if recording.frames is not None:
        for trial, frames in enumerate(recording.frames):
            parts = {part: access.clip(part, trial, 0, int(frames))[None] for part in recording.shapes}
            yield trial, _checked(plan, parts)
        return
    step = max(1, _BLOCK_BYTES // sum(_observation_bytes(plan)))
    for first in range(0, recording.trials, step):
        rows = np.arange(first, min(first + step, recording.trials))
        parts = {part: access.trials(part, rows) for part in recording.shapes}
        yield first, _checked(plan, parts)


def _observation_bytes(plan: Plan) -> list[int]:
    """Return the bytes of one image, or frame, and what belongs to it, by part."""
    return [int(np.prod(shape)) * plan.dtype(part).itemsize for part, shape in plan.shapes.items()]


def _checked(plan: Plan, parts: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Make sure that the types of the plan hold all values."""
    for part, values in parts.items():
        if not np.can_cast(values.dtype, plan.dtype(part), "safe"):
            raise _Wider(part, np.result_type(values.dtype, plan.dtype(part)))
    return parts
