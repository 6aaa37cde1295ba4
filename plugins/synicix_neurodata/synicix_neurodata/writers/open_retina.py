"""Write open-retina's HDF5 layout: a session's file with the responses, and each trial's stimulus as .npy beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.open_retina import NOISE_CEILING, RESPONSES
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.placing import abandoned

__all__ = ["OpenRetinaWriter"]


class OpenRetinaWriter:
    """Writes one folder; see `synicix_neurodata.writers.Writer`.

    A stimulus is shown once in this layout, and nothing tells its tier but its name. So each trial has a stimulus of its
    own, ``<tier>_<id>_repeat<number>``, as the reader understands it. Behaviour and pupil have no place in the layout and
    are left out, as are ceilings of modes that need them.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._plan = plan
        self._names = trial_names(plan)
        self._stimuli = path / "stimuli"
        self._stimuli.mkdir(parents=True)
        self._file = h5py.File(path / f"session_{plan.session}.h5", "w")

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write one trial."""
        name, plan = self._names[first], self._plan
        np.save(
            self._stimuli / f"{name}.npy", np.asarray(parts["stimulus"][0], plan.dtype("stimulus")), allow_pickle=False
        )
        self._file[RESPONSES + name] = np.asarray(parts["responses"][0], plan.dtype("responses"))

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write what is known of the neurons, the frame rate and the ceiling."""
        info = self._file.create_group("session_info")
        for name, values in self._plan.neurons.items():
            info[name] = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        info["frame_rate"] = float(self._plan.frame_rate)
        if "stimulus-encoding" in noise_ceiling:
            info[f"{NOISE_CEILING}stimulus-encoding"] = noise_ceiling["stimulus-encoding"]
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        abandoned(self._file)


def trial_names(plan: Plan) -> list[str]:
    """Return the name of the stimulus of each trial. The reader sorts trials by it, so the plan's order is lost."""
    shown: dict[str, int] = {}
    names = []
    for tier, stimulus in zip(plan.tiers, plan.stimulus_ids.astype(str), strict=True):
        safe = "".join(letter if letter.isalnum() else "-" for letter in stimulus).zfill(5)
        name = f"{tier}_{safe}" if tier else safe
        shown[name] = shown.get(name, 0) + 1
        names.append(f"{name}_repeat{shown[name]:03d}")
    return names
