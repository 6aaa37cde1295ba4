"""Write what surrounds the arrays of a simulated recording: trials, neurons and statistics of the static layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.recording import PARTS, describe_recording, open_recording, read_rows
from synicix_neurodata.statistics import summarise

__all__ = ["write_neurons", "write_statistics", "write_trials"]

_MEDIAN_BYTES = 64 * 2**20


def write_trials(
    file: h5py.File, tiers: NDArray[np.str_], image_ids: NDArray[np.int64], *, animal: int, session: int
) -> None:
    """Write the columns with one value per trial; `tiers` and `image_ids` are (trials,), in order of presentation."""
    trials = len(tiers)
    file["tiers"] = tiers.astype("S")
    file["types"] = np.full(trials, b"stimulus.Frame")
    file["condition_hashes"] = np.array([f"session{session}-image{image}" for image in image_ids], dtype="S")
    file["trial_idx"] = np.arange(trials, dtype="u4")
    file["item_info/frame_image_id"] = image_ids
    file["item_info/frame_image_class"] = np.full(trials, b"simulated")
    file["item_info/animal_id"] = np.full(trials, animal, "u2")
    file["item_info/session"] = np.full(trials, session, "u1")
    file["item_info/scan_idx"] = np.ones(trials, "u1")


def write_neurons(file: h5py.File, neurons: int, *, animal: int, session: int) -> None:
    """Write what is known of each neuron."""
    file["neurons/unit_ids"] = np.arange(1, neurons + 1, dtype="u2")
    file["neurons/animal_ids"] = np.full(neurons, animal, "u2")
    file["neurons/sessions"] = np.full(neurons, session, "u1")
    file["neurons/scan_idx"] = np.ones(neurons, "u1")
    file["neurons/layer"] = np.full(neurons, b"L2/3")
    file["neurons/area"] = np.full(neurons, b"V1")


def write_statistics(path: Path) -> None:
    """Add the statistics of the training tier to a recording that is otherwise complete.

    The layout has them for all stimuli and by type; simulated recordings have one type, so the two are equal. The
    median of a part of more than 64 MB is taken from every second, third… trial, so that it fits into memory.
    """
    recording = describe_recording(path)
    rows = recording.rows("train")
    found = {}
    with open_recording(recording.path) as file:
        for part in PARTS:
            summary = summarise(recording, part, "train")
            step = 1 + len(rows) * file[part][:1].nbytes // _MEDIAN_BYTES
            median = np.median(read_rows(file[part], rows[::step]), axis=None if part == "images" else 0)
            found[part] = {
                "mean": summary.mean,
                "std": summary.std,
                "min": summary.minimum,
                "max": summary.maximum,
                "median": median,
            }
    with h5py.File(path, "r+") as file:
        for part, values in found.items():
            for name, value in values.items():
                for stimulus in ("all", "stimulus.Frame"):
                    file[f"statistics/{part}/{stimulus}/{name}"] = np.asarray(value, "f4")
