"""Write the movie HDF5 layout: one file per recording, one clip per trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.movie_hdf5 import ARRAYS
from synicix_neurodata.statistics import summarise
from synicix_neurodata.tiers import Split, assign_tiers
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.placing import abandoned
from synicix_neurodata.writers.static_hdf5 import write_neurons

__all__ = ["MovieHdf5Writer"]

_TYPE = "stimulus.Clip"


class MovieHdf5Writer:
    """Writes one file; see `synicix_neurodata.writers.Writer`."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan
        self._file = h5py.File(path, "w")
        for part in plan.shapes:
            # The mark by which the lab's readers know a list of arrays.
            self._file.create_group(ARRAYS[part]).attrs["_iterable"] = True

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write one trial."""
        for part, values in parts.items():
            clip = values[0] if part == "stimulus" else values[0].T
            self._file[f"{ARRAYS[part]}/{first}"] = clip.astype(self._plan.dtype(part), copy=False)
        # Otherwise a disk that is full may show only when the file is closed, and HDF5 crashes over it.
        self._file.flush()

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write the columns, the neurons, the statistics and the ceiling."""
        self._write_trials()
        write_neurons(self._file, self._plan)
        for mode, mean in noise_ceiling.items():
            self._file.create_dataset(f"simulation/noise_ceiling/{mode}", data=mean).attrs["mean"] = mean
        self._file.close()
        # Without tiers it is not known which trials are for training.
        if self._plan.tiers.any():
            _write_statistics(self._path)

    def abandon(self) -> None:
        """Close the file."""
        abandoned(self._file)

    def _write_trials(self) -> None:
        plan, file = self._plan, self._file
        assert plan.frames is not None, "movies have frames"
        ids = plan.stimulus_ids.astype(str)
        own = {
            "tiers": plan.tiers,
            "types": np.full(plan.trials, _TYPE),
            "condition_hashes": np.char.add(f"session{plan.session}-clip", ids),
            "movie_names": np.char.add("clip", ids),
            "train_idx": plan.tiers == "train",
            "val_idx": plan.tiers == "validation",
            "test_idx": plan.tiers == "test",
            "trial_idx": np.arange(plan.trials, dtype="u4"),
            "durations": (plan.frames / plan.frame_rate).astype("f4"),
        }
        told = _told(plan) if plan.exact else own
        for name, values in {**told, **plan.columns}.items():
            text = values.dtype.kind == "U"
            file[name if name in own else f"item_info/{name}"] = np.char.encode(values, "utf-8") if text else values


def _told(plan: Plan) -> dict[str, NDArray[Any]]:
    """Return of the columns that the layout has those which an exact plan tells in another way."""
    assert plan.frames is not None, "movies have frames"
    told: dict[str, NDArray[Any]] = {}
    if plan.tiers.any():
        told["tiers"] = plan.tiers
    if plan.stimulus_ids.any():
        told["frame_image_id"] = plan.stimulus_ids
    if np.isfinite(plan.frame_rate):
        told["durations"] = plan.frames / plan.frame_rate
    return told


def _write_statistics(path: Path) -> None:
    """Add the statistics of the training tier over trials and frames, for all stimuli and for the one type there is."""
    recording = describe_recording(path)
    rows = assign_tiers(recording, Split()).rows["train"]
    if not len(rows):
        return
    found = {part: summarise(recording, part, rows) for part in recording.shapes}
    with h5py.File(path, "r+") as file:
        file["statistics/source"] = b"train"
        for part, summary in found.items():
            values = {"mean": summary.mean, "std": summary.std, "min": summary.minimum, "max": summary.maximum}
            for name, value in values.items():
                for stimulus in ("all", _TYPE):
                    file[f"statistics/{ARRAYS[part]}/{stimulus}/{name}"] = np.asarray(value, "f4")
