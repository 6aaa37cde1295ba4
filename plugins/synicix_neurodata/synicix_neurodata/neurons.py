"""Which neurons of a recording are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.recording import Recording

__all__ = ["select_neurons"]


def select_neurons(
    recording: Recording,
    *,
    areas: Sequence[str] = (),
    layers: Sequence[str] = (),
    unit_ids: Sequence[int] = (),
    max_neurons: int | None = None,
    seed: int = 0,
) -> NDArray[np.intp] | None:
    """Return the neurons that meet every condition, in the order of the file, or None for all.

    Parameters
    ----------
    recording : Recording
    areas, layers : sequence of str
        Values of ``neurons/area`` and ``neurons/layer``; empty for any.
    unit_ids : sequence of int
        Values of ``neurons/unit_ids``; empty for any.
    max_neurons : int, optional
        How many are drawn, without replacement, of those that meet the rest. Draws of different sizes are independent
        of each other, so that a curve over sizes is not one over nested sets.
    seed : int
        Of that draw.

    Raises
    ------
    DatasetError
        If the file does not tell, a value is unknown, nothing is left, there are fewer than `max_neurons`, or the seed
        is negative.
    """
    count = recording.shapes["responses"][0] if "responses" in recording.shapes else 0
    chosen = np.ones(count, dtype=bool)
    wanted = (("areas", "area", areas), ("layers", "layer", layers), ("unit_ids", "unit_ids", unit_ids))
    for parameter, column, values in wanted:
        if values:
            chosen &= _matches(recording, parameter, column, values)
    if not any(values for *_, values in wanted) and max_neurons is None:
        return None
    indices = np.flatnonzero(chosen)
    if not len(indices):
        asked = ", ".join(f"{name} = {list(values)}" for name, _, values in wanted if values)
        raise DatasetError("No neuron is left", file=recording.path, why=f"none of {count} neurons has {asked}")
    if max_neurons is not None:
        if not 1 <= max_neurons <= len(indices):
            raise DatasetError(
                f"max_neurons is {max_neurons}",
                file=recording.path,
                why=f"there are {len(indices)} neurons to draw from",
                hint=f"Set it to 1 to {len(indices)}, or leave it out.",
            )
        if seed < 0:
            raise DatasetError(f"neuron_seed is {seed}", file=recording.path, why="it is 0 or more")
        rng = np.random.default_rng(np.random.SeedSequence([seed, max_neurons]))
        indices = np.sort(rng.choice(indices, max_neurons, replace=False))
    return indices


def _matches(
    recording: Recording, parameter: str, column: str, values: Sequence[str] | Sequence[int]
) -> NDArray[np.bool_]:
    known = recording.neurons.get(column)
    if known is None or known.ndim != 1:
        raise DatasetError(
            f"The neurons cannot be chosen by {parameter}",
            file=recording.path,
            why=f"the recording does not tell their {column}; "
            f"it tells {', '.join(sorted(recording.neurons)) or 'nothing about them'}",
        )
    # As Python's own numbers, of which none wraps around: unit ids are often uint16.
    held = (known if known.dtype.kind in "iuf" else known.astype(str)).tolist()
    wanted = list(values) if known.dtype.kind in "iuf" else [str(value) for value in values]
    there, asked = set(held), set(wanted)
    missing = [value for value in wanted if value not in there]
    if missing:
        listed = ", ".join(str(value) for value in sorted(there)[:10]) + (", …" if len(there) > 10 else "")
        raise DatasetError(
            f"{parameter} names {', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}",
            file=recording.path,
            why=f"no neuron has that {column}; there are {listed}",
        )
    return np.array([value in asked for value in held])
