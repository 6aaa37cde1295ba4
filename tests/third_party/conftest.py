"""One environment and one project for all tests of third parties; each module has a schema of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.third_party.fresh_environment import CORE, FreshEnvironment, Workplace, temporary_folder


@pytest.fixture(scope="session")
def workplace() -> Iterator[Workplace]:
    """A project with two dataset files, and an environment with the core alone."""
    with temporary_folder() as folder:
        environment = FreshEnvironment.create(folder / "environment")
        environment.install(CORE)
        place = Workplace(environment, folder / "project")
        place.project.mkdir()
        done = place.synicix("init")
        assert done.returncode == 0, done.stderr
        _write_datasets(place)
        yield place
        place.synicix("db", "stop")


def _write_datasets(place: Workplace) -> None:
    generator = np.random.default_rng(7)
    weights = generator.normal(size=(6, 3))
    arrays: dict[str, Any] = {}
    tiers = []
    for tier, count in (("train", 96), ("validation", 32), ("test", 32)):
        inputs = generator.normal(size=(count, 6))
        arrays[f"{tier}_inputs"] = inputs
        arrays[f"{tier}_targets"] = inputs @ weights + 0.1 * generator.normal(size=(count, 3))
        tiers += [tier] * count
    np.savez(place.project / "datasets" / "lab.npz", **arrays)
    frames = np.concatenate([arrays[f"{tier}_inputs"] for tier in ("train", "validation", "test")])
    responses = np.concatenate([arrays[f"{tier}_targets"] for tier in ("train", "validation", "test")])
    np.savez(
        place.project / "datasets" / "scan.npz",
        frames=frames.reshape(-1, 2, 3),
        responses=responses,
        trial_types=np.array(tiers),
    )
