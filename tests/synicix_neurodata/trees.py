"""File trees written to the letter of their description, for tests to read and to spoil."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

TRIALS, NEURONS = 20, 5
TIERS = np.array(["train", "validation", "test"])[np.arange(TRIALS) % 10 // 4]
PADDED = 14
"""Frames of a movie's arrays, those at the end of most trials being NaN."""


def static_arrays() -> dict[str, Any]:
    """Return what a static tree holds, by path without ``.npy``; under ``data`` the first axis is trials."""
    rng = np.random.default_rng(0)
    return {
        "data/images": rng.uniform(0, 255, (TRIALS, 1, 6, 8)).astype("f4"),
        "data/responses": rng.gamma(2.0, 1.5, (TRIALS, NEURONS)),
        "data/behavior": rng.uniform(1, 9, (TRIALS, 3)),
        "data/pupil_center": rng.normal(50, 4, (TRIALS, 2)).astype("f4"),
        "meta/trials/tiers": TIERS,
        "meta/trials/frame_image_id": np.where(TIERS == "test", np.arange(TRIALS) % 10, np.arange(TRIALS)),
        "meta/trials/frame_image_class": np.full(TRIALS, "imagenet"),
        "meta/trials/trial_idx": np.array([f"{trial:032x}" for trial in range(TRIALS)]),
        "meta/neurons/unit_ids": np.arange(7, 7 + NEURONS),
        "meta/neurons/area": np.array([b"V1", b"V1", b"LM", b"LM", b"AL"]),
        "meta/neurons/cell_motor_coordinates": rng.normal(0, 100, (NEURONS, 3)),
        "meta/statistics/responses/all/std": np.ones(NEURONS, "f4"),
    }


def movie_lengths() -> np.ndarray:
    """Return the useful frames of each trial of `movie_arrays`."""
    return 8 + np.arange(TRIALS) % 7


def movie_arrays() -> dict[str, Any]:
    """Return what a movie tree holds: time last, filled up with NaN."""
    rng = np.random.default_rng(1)
    arrays = {
        "data/videos": rng.uniform(0, 255, (TRIALS, 6, 8, PADDED)).astype("f4"),
        "data/responses": rng.gamma(2.0, 1.5, (TRIALS, NEURONS, PADDED)).astype("f4"),
        "data/behavior": rng.uniform(1, 9, (TRIALS, 2, PADDED)),
        "data/pupil_center": rng.normal(50, 4, (TRIALS, 2, PADDED)),
        "meta/trials/tiers": np.where(TIERS == "validation", "oracle", TIERS),
        "meta/neurons/unit_ids": np.arange(7, 7 + NEURONS),
    }
    arrays["meta/trials/tiers"] = np.where(TIERS == "test", "live_test_main", arrays["meta/trials/tiers"])
    for name, values in arrays.items():
        if name.startswith("data/"):
            for trial, length in enumerate(movie_lengths()):
                values[trial, ..., length:] = np.nan
    return arrays


def write_tree(root: Path, arrays: dict[str, Any], **changes: Any) -> Path:
    """Write a tree; `changes` replaces arrays by the last step of their path, None leaves one out."""
    for name, values in arrays.items():
        content = changes.get(name.rsplit("/", maxsplit=1)[-1], values)
        if content is None:
            continue
        if name.startswith("data/"):
            (root / name).mkdir(parents=True)
            for trial, value in enumerate(content):
                np.save(root / name / f"{trial}.npy", value)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / f"{name}.npy", content)
    return root


def pack(root: Path, target: Path, method: int = zipfile.ZIP_DEFLATED, top: str | None = None) -> Path:
    """Pack a tree into a zip file, below the folder `top`, by default one with the name of the tree."""
    start = f"{root.name}/" if top is None else top
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, f"{start}{file.relative_to(root)}")
    return target


def state(root: Path) -> dict[str, Any]:
    """Return everything about a file or folder that reading must not change."""
    return {
        str(place): (place.stat().st_mtime_ns, place.stat().st_size, place.read_bytes() if place.is_file() else b"")
        for place in sorted([root, *root.rglob("*")])
    }
