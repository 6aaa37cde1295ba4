"""Write the static HDF5 layout: one file per recording, one image per trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.access import Access
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.static_hdf5 import ARRAYS
from synicix_neurodata.recording import Recording
from synicix_neurodata.statistics import summarise
from synicix_neurodata.tiers import Split, assign_tiers
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.placing import abandoned

__all__ = ["StaticHdf5Writer", "write_neurons"]

_MEDIAN_BYTES = 64 * 2**20


class StaticHdf5Writer:
    """Writes one file; see `synicix_neurodata.writers.Writer`.

    Attributes
    ----------
    file : h5py.File
        Open for more than the layout asks for: the simulation puts its truth there.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan
        self.file = h5py.File(path, "w")
        for part, shape in plan.shapes.items():
            self.file.create_dataset(ARRAYS[part], (plan.trials, *shape), plan.dtype(part))

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write successive trials."""
        for part, values in parts.items():
            self.file[ARRAYS[part]][first : first + len(values)] = values

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write the columns, the neurons, the statistics and the ceiling."""
        plan = self._plan
        self._write_trials(plan)
        write_neurons(self.file, plan)
        for mode, mean in noise_ceiling.items():
            name = f"simulation/noise_ceiling/{mode}"
            ceiling = self.file[name] if name in self.file else self.file.create_dataset(name, data=mean)
            ceiling.attrs["mean"] = mean
        self.file.close()
        # Without tiers it is not known which trials are for training.
        if plan.tiers.any():
            _write_statistics(self._path)

    def abandon(self) -> None:
        """Close the file."""
        abandoned(self.file)

    def _write_trials(self, plan: Plan) -> None:
        file = self.file
        own: dict[str, NDArray[Any]] = {
            "types": np.full(plan.trials, b"stimulus.Frame"),
            "condition_hashes": np.char.add(f"session{plan.session}-image", plan.stimulus_ids.astype(str)),
            "trial_idx": np.arange(plan.trials, dtype="u4"),
        }
        if plan.tiers.any():
            file["tiers"] = _storable(plan.tiers)
        for name, values in own.items():
            if name in plan.columns or not plan.exact:
                file[name] = _storable(plan.columns.get(name, values))
        info: dict[str, NDArray[Any]] = {
            "frame_image_id": plan.stimulus_ids,
            "frame_image_class": np.full(plan.trials, b"simulated"),
            "animal_id": np.full(plan.trials, plan.animal, "i4"),
            "session": np.full(plan.trials, plan.session, "i4"),
            "scan_idx": np.full(plan.trials, plan.scan, "i4"),
        }
        if plan.exact:
            info = {"frame_image_id": plan.stimulus_ids} if plan.stimulus_ids.any() else {}
        for name, values in {**info, **plan.columns}.items():
            if name not in own:
                file[f"item_info/{name}"] = _storable(values)


def write_neurons(file: h5py.File, plan: Plan) -> None:
    """Write the group ``neurons``: what the plan tells, and, unless it is exact, what it does not tell."""
    if plan.exact:
        for name, values in plan.neurons.items():
            file[f"neurons/{name}"] = _storable(values)
        return
    count = plan.shapes["responses"][0]
    told = {
        # The lab's own files have unsigned integers of 16 and 8 bits here, which large ids overflow.
        "unit_ids": np.arange(1, count + 1, dtype="i4"),
        "animal_ids": np.full(count, plan.animal, "i4"),
        "sessions": np.full(count, plan.session, "i4"),
        "scan_idx": np.full(count, plan.scan, "i4"),
        **plan.neurons,
    }
    for name, values in told.items():
        file[f"neurons/{name}"] = _storable(values)


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    # UTF-8, because the names of areas and images need not be ASCII.
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def _write_statistics(path: Path) -> None:
    """Add the statistics of the training tier, for all stimuli and for the one type of stimulus that there is.

    The median of a part of more than 64 MB is taken from every second, third… trial, so that it fits into memory.
    """
    recording = describe_recording(path)
    rows = assign_tiers(recording, Split()).rows["train"]
    if not len(rows):
        return
    found = {part: _statistics(recording, part, rows) for part in recording.shapes}
    with h5py.File(path, "r+") as file:
        for part, values in found.items():
            for name, value in values.items():
                for stimulus in ("all", "stimulus.Frame"):
                    file[f"statistics/{ARRAYS[part]}/{stimulus}/{name}"] = np.asarray(value, "f4")


def _statistics(recording: Recording, part: str, rows: NDArray[np.intp]) -> dict[str, Any]:
    summary = summarise(recording, part, rows)
    step = 1 + len(rows) * 8 * int(np.prod(recording.shapes[part])) // _MEDIAN_BYTES
    with Access(recording) as access:
        some = access.trials(part, rows[::step])
    return {
        "mean": summary.mean,
        "std": summary.std,
        "min": summary.minimum,
        "max": summary.maximum,
        "median": np.median(some, axis=None if part == "stimulus" else 0),
    }
