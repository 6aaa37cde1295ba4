"""An inspection as JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.inspection import Inspection, Part
from synicix_neurodata.modes import experiment_lines

__all__ = ["EXPLAINABLE", "as_data", "neuron_data", "response_data"]

EXPLAINABLE = 0.15
"""Explainable variance from which a neuron counts for the metric FEVE."""


def as_data(inspection: Inspection) -> dict[str, Any]:
    """Return the same as JSON data; what is not known is None."""
    recording, reliability = inspection.recording, inspection.reliability
    tiers = inspection.tiers
    name = Path(recording.path).name
    return {
        "file": recording.path,
        "layout": recording.layout,
        "taken_from": dict(recording.taken_from),
        "movie": recording.is_movie,
        "trials": recording.trials,
        "frames": _frames(recording.frames),
        "frame_rate": _number(recording.frame_rate),
        "parts": [_part_data(part) for part in inspection.parts],
        "tiers": {
            "of_file": recording.file_tiers() if recording.tiers is not None else None,
            "becomes": {word: tier or None for word, tier in inspection.becomes().items()},
            "used": None
            if tiers is None
            else {
                tier: {"trials": len(rows), "showings": _keyed(inspection.repeats(rows))}
                for tier, rows in tiers.rows.items()
            },
        },
        "showings": _keyed(inspection.repeats()),
        "neurons": neuron_data(inspection),
        "responses": response_data(inspection),
        "reliability": None
        if reliability is None
        else {
            "of": inspection.reliability_of,
            "stimuli": reliability.stimuli,
            "trials": reliability.trials,
            "repeats": list(reliability.repeats),
            "explainable_variance": _number(reliability.explainable_variance.mean()),
            "neurons_explainable": int((reliability.explainable_variance >= EXPLAINABLE).sum()),
            "oracle": _number(reliability.oracle.mean()),
            "ceiling": _number(reliability.ceiling),
            "fano": _median(reliability.fano),
        },
        "noise_ceiling": dict(recording.noise_ceiling),
        "modes": {
            use.mode: {
                "usable": use.usable,
                "why": use.why or None,
                "params": use.params,
                "experiment": experiment_lines(name, use) if use.usable else None,
            }
            for use in inspection.modes
        },
        "notes": [note for note in inspection.notes if note],
        "problems": list(inspection.problems),
    }


def _part_data(part: Part) -> dict[str, Any]:
    values = part.values
    return {
        "name": part.name,
        "shape": list(part.shape),
        "dtype": part.dtype,
        "bytes": part.bytes,
        "mean": None if values is None else _number(values.mean.mean()),
        "std": None if values is None else _number(values.std.mean()),
        "minimum": None if values is None else _number(values.minimum.min()),
        "maximum": None if values is None else _number(values.maximum.max()),
        "missing_trials": None if values is None else values.missing.tolist(),
        "problem": part.problem or None,
    }


def neuron_data(inspection: Inspection) -> dict[str, Any] | None:
    """Return how many neurons there are, by area and layer, and what is known of them; None without responses."""
    recording = inspection.recording
    if "responses" not in recording.shapes:
        return None
    return {
        "count": recording.shapes["responses"][0],
        "area": _counted(recording.neurons.get("area")),
        "layer": _counted(recording.neurons.get("layer")),
        "known": sorted(recording.neurons),
    }


def _counted(values: NDArray[Any] | None) -> dict[str, int]:
    if values is None or values.ndim != 1:
        return {}
    names, counts = np.unique(values.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def response_data(inspection: Inspection) -> dict[str, Any] | None:
    """Return what responses are like, or None where they were not read.

    ``mean`` over trials (and frames) and neurons; ``of_neurons``: 5th, 50th and 95th percentile of the neurons' means;
    ``silent``, ``constant``, ``negative``: how many neurons are zero throughout, never change but are not zero, and have
    negative values.
    """
    part = inspection.part("responses")
    if part is None or part.values is None:
        return None
    values, silent = part.values, part.values.silent
    return {
        "neurons": len(silent),
        "mean": _number(values.mean.mean()),
        "of_neurons": [_number(share) for share in np.percentile(values.mean, [5, 50, 95])],
        "silent": int(silent.sum()),
        "constant": int(((values.minimum == values.maximum) & ~silent).sum()),
        "negative": int((values.minimum < 0).sum()),
    }


def _frames(frames: NDArray[np.int64] | None) -> dict[str, int] | None:
    if frames is None or not len(frames):
        return None
    return {"least": int(frames.min()), "most": int(frames.max()), "total": int(frames.sum())}


def _keyed(showings: Mapping[int, int]) -> dict[str, int]:
    return {str(times): stimuli for times, stimuli in showings.items()}


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
