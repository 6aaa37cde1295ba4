"""A small static recording that tests change as they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def static_recording(path: Path, trials: int = 40, neurons: int = 6, **changes: Any) -> str:
    """Write a static HDF5 recording of distinct images; `changes` replaces arrays, None leaves one out."""
    rng = np.random.default_rng(0)
    content = {
        "images": rng.uniform(0, 255, (trials, 1, 8, 12)).astype("f4"),
        "responses": rng.gamma(2.0, 1.5, (trials, neurons)).astype("f4"),
        "behavior": rng.uniform(1, 9, (trials, 3)),
        "pupil_center": rng.normal(50, 4, (trials, 2)),
        "tiers": np.array(["train", "validation", "test"])[np.arange(trials) % 10 // 4].astype("S"),
        "neurons/unit_ids": np.arange(10, 10 + neurons),
        "neurons/area": np.array([b"V1", b"V1", b"LM"])[np.arange(neurons) % 3],
        "neurons/layer": np.array([b"L2/3", b"L4"])[np.arange(neurons) % 2],
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
    return str(path)
