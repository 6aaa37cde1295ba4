"""Write simulated recordings in the static HDF5 layout, with the truth they were made from."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError, ParamsError
from synicix_neurodata.ceiling import single_trial_ceiling
from synicix_neurodata.layout import write_neurons, write_statistics, write_trials
from synicix_neurodata.population import Population, behavior, draw_population, natural_images

__all__ = ["SimulatedRecording", "Simulation", "recording_name", "simulate_recording"]

_BLOCK = 256
"""Trials that are simulated and written at once; part of what a seed means, because counts are drawn block by block."""

_ANIMAL = 60000


@dataclass(frozen=True)
class Simulation:
    """What to simulate. The same simulation and session always give the same recording.

    Parameters
    ----------
    neurons : int
        Cells, 1 to 65535.
    images : int
        Training images, shown once each; at least 2. Validation images come on top: 10 % of all that are shown once.
    test_images, repeats : int
        Test images, at least 2, and how often each is shown.
    complex_fraction : float
        Share of energy cells, 0 to 1; the others are linear-nonlinear.
    behavior_gain : float
        Mean slope of the cells' log rate against arousal, 0 or more.
    mean_rate : float
        Mean spike count of the population in one trial, above 0.
    image_shape : (int, int)
        Height and width in pixels, at least 8 each.
    seed : int
        0 or more.
    """

    neurons: int = 60
    images: int = 1500
    test_images: int = 100
    repeats: int = 10
    complex_fraction: float = 0.0
    behavior_gain: float = 0.0
    mean_rate: float = 2.0
    image_shape: tuple[int, int] = (16, 24)
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            (name, f"expected {expected}, got {getattr(self, name)!r}")
            for name, allowed, expected in (
                ("neurons", 1 <= self.neurons <= 65535, "1 to 65535"),
                ("images", self.images >= 2, "2 or more"),
                ("test_images", self.test_images >= 2, "2 or more"),
                ("repeats", self.repeats >= 1, "1 or more"),
                ("complex_fraction", 0 <= self.complex_fraction <= 1, "0 to 1"),
                ("behavior_gain", 0 <= self.behavior_gain < float("inf"), "0 or more"),
                ("mean_rate", 0 < self.mean_rate < float("inf"), "more than 0"),
                ("image_shape", min(self.image_shape) >= 8, "at least 8 x 8 pixels"),
                ("seed", self.seed >= 0, "0 or more"),
            )
            if not allowed
        ]
        if wrong:
            raise ParamsError("The recording cannot be simulated", wrong)

    @property
    def tier_sizes(self) -> dict[str, int]:
        """Trials of each tier."""
        validation = -(-self.images // 9)
        return {"train": self.images, "validation": validation, "test": self.test_images * self.repeats}

    @property
    def trials(self) -> int:
        """Trials of the recording."""
        return sum(self.tier_sizes.values())


@dataclass(frozen=True)
class SimulatedRecording:
    """What was written.

    Attributes
    ----------
    file : Path
    tier_sizes : dict of str to int
    mean_count : float
        Mean expected count over the test tier.
    noise_ceiling : dict of str to float
        Mean over the cells of the highest single-trial correlation on the test tier, by mode.
    """

    file: Path
    tier_sizes: dict[str, int]
    mean_count: float
    noise_ceiling: dict[str, float] = field(default_factory=dict)


def recording_name(session: int) -> str:
    """Return the file name of a simulated session, in the manner of the lab's own."""
    return f"static{_ANIMAL}-{session}-1-simulated.h5"


def simulate_recording(
    path: str | Path,
    simulation: Simulation,
    *,
    session: int = 1,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> SimulatedRecording:
    """Simulate one session and write it. The file appears under its name when it is whole.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made where it is missing.
    simulation : Simulation
    session : int
        1 to 255; every session has its own images and cells.
    overwrite : bool
        Whether an existing file is replaced.
    progress : callable, optional
        Called with the number of trials just written.

    Raises
    ------
    ParamsError
        If the session is out of range.
    DatasetError
        If the file exists and `overwrite` is false, or it cannot be written.
    """
    if not 1 <= session <= 255:
        raise ParamsError("The recording cannot be simulated", [("session", f"expected 1 to 255, got {session}")])
    path = Path(path)
    if path.exists() and not overwrite:
        raise DatasetError("The recording is not written", file=str(path), why="it exists already")
    # In the same folder, because a rename is atomic only within one file system; hidden, so that no glob finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError("The recording is not written", file=str(path), why=str(error)) from error
    try:
        with h5py.File(temporary, "w") as file:
            written = _write(file, path, simulation, session, progress or (lambda _: None))
        write_statistics(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DatasetError("The recording is not written", file=str(path), why=str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _write(
    file: h5py.File, path: Path, simulation: Simulation, session: int, progress: Callable[[int], object]
) -> SimulatedRecording:
    plan_seed, cell_seed, behavior_seed, image_seed, count_seed = np.random.SeedSequence(
        [simulation.seed, session]
    ).spawn(5)
    tiers, image_ids = _plan(np.random.default_rng(plan_seed), simulation)
    population = draw_population(
        np.random.default_rng(cell_seed),
        simulation.neurons,
        simulation.image_shape,
        complex_fraction=simulation.complex_fraction,
        behavior_gain=simulation.behavior_gain,
        mean_rate=simulation.mean_rate,
    )
    arousal, recorded = behavior(np.random.default_rng(behavior_seed), simulation.trials)

    images = file.create_dataset("images", (simulation.trials, 1, *simulation.image_shape), "f4")
    responses = file.create_dataset("responses", (simulation.trials, simulation.neurons), "f4")
    for name, values in recorded.items():
        file[name] = values.astype("f4")
    truth = file.create_group("simulation")
    rates = truth.create_dataset("rates", responses.shape, "f4")

    # An image depends on its own number only, so a repeated image can be drawn again instead of being kept.
    image_seeds = image_seed.spawn(int(image_ids.max()) + 1)
    test = tiers == "test"
    test_stimulus = []
    starts = range(0, simulation.trials, _BLOCK)
    for start, block_seed in zip(starts, count_seed.spawn(len(starts)), strict=True):
        rows = slice(start, start + _BLOCK)
        shown = natural_images([np.random.default_rng(image_seeds[i]) for i in image_ids[rows]], simulation.image_shape)
        stimulus = population.stimulus_rates(shown)
        expected = stimulus * population.gain(arousal[rows])
        images[rows] = shown
        rates[rows] = expected
        responses[rows] = np.random.default_rng(block_seed).poisson(expected)
        test_stimulus.append(stimulus[test[rows]])
        progress(len(shown))

    stimulus, gain = np.concatenate(test_stimulus), population.gain(arousal[test])
    ceilings = _ceilings(stimulus, gain)
    _write_truth(truth, simulation, session, population, arousal, ceilings)
    write_trials(file, tiers, image_ids, animal=_ANIMAL, session=session)
    write_neurons(file, simulation.neurons, animal=_ANIMAL, session=session)
    means = {mode: float(values.mean()) for mode, values in ceilings.items()}
    return SimulatedRecording(path, simulation.tier_sizes, float((stimulus * gain).mean()), means)


def _plan(rng: np.random.Generator, simulation: Simulation) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return tier and image of each trial: images are split by tier, then all trials are shuffled together."""
    sizes = simulation.tier_sizes
    once = sizes["train"] + sizes["validation"]
    tiers = np.repeat(list(sizes), list(sizes.values()))
    image_ids = np.concatenate(
        [np.arange(once), once + np.repeat(np.arange(simulation.test_images), simulation.repeats)]
    )
    order = rng.permutation(len(tiers))
    return tiers[order], image_ids[order]


def _ceilings(stimulus: NDArray[np.float64], gain: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the ceiling of each cell by mode: what is best given the image, given arousal, and given both.

    Image and arousal are drawn independently, so the rate given one is its own factor, up to a constant.
    """
    rates = stimulus * gain
    ceilings = {
        "stimulus-encoding": single_trial_ceiling(rates, stimulus),
        "full-encoding": single_trial_ceiling(rates),
        "behavior-encoding": single_trial_ceiling(rates, gain),
    }
    return {mode: values for mode, values in ceilings.items() if values.mean() > 0}


def _write_truth(
    group: h5py.Group,
    simulation: Simulation,
    session: int,
    population: Population,
    arousal: NDArray[np.float64],
    ceilings: dict[str, NDArray[np.float64]],
) -> None:
    group.attrs.update({**asdict(simulation), "session": session})
    group["filters"] = population.filters.astype("f4")
    group["complex_cells"] = population.complex_cells
    group["scale"] = population.scale
    group["arousal_slope"] = population.arousal_slope
    group["arousal"] = arousal
    stated = group.create_group("noise_ceiling")
    for mode, values in ceilings.items():
        stated[mode] = values
        stated[mode].attrs["mean"] = values.mean()
