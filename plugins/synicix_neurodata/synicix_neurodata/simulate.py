"""Write simulated recordings, in any layout, with the ceiling that a model can reach on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import ParamsError
from synicix_neurodata.ceiling import single_trial_ceiling
from synicix_neurodata.movies import clip_rates, natural_clip
from synicix_neurodata.population import Population, behavior, draw_population, natural_images
from synicix_neurodata.writers import Plan, Writer
from synicix_neurodata.writers.choice import WRITTEN
from synicix_neurodata.writers.placing import placed
from synicix_neurodata.writers.static_hdf5 import StaticHdf5Writer

__all__ = ["SimulatedRecording", "Simulation", "recording_name", "simulate_recording"]

_BLOCK = 256
"""Trials that are simulated and written at once; part of what a seed means, because counts are drawn block by block."""

_ANIMAL = 60000

_LARGEST_GAIN, _LARGEST_RATE = 5.0, 1e6
"""Beyond them, counts are zero nearly always, or no counts any more."""


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
        Mean slope of the cells' log rate against arousal, 0 to 5.
    mean_rate : float
        Mean spike count of the population in one trial, above 0, at most 1e6.
    image_shape : (int, int)
        Height and width in pixels, at least 8 each.
    frames : int
        Frames of each trial, for movies; 0 for images. Then images are clips, and rates are those of one frame.
    frame_rate : float
        Frames per second of movies, above 0.
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
    frames: int = 0
    frame_rate: float = 30.0
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
                ("behavior_gain", 0 <= self.behavior_gain <= _LARGEST_GAIN, f"0 to {_LARGEST_GAIN:g}"),
                ("mean_rate", 0 < self.mean_rate <= _LARGEST_RATE, f"more than 0, at most {_LARGEST_RATE:g}"),
                ("image_shape", min(self.image_shape) >= 8, "at least 8 x 8 pixels"),
                ("frames", self.frames >= 0, "0 or more"),
                ("frame_rate", 0 < self.frame_rate < float("inf"), "more than 0"),
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


def recording_name(session: int, layout: str = "static-hdf5") -> str:
    """Return the name of a simulated session, in the manner of the lab's own."""
    written = WRITTEN[layout]
    return f"{written.prefix}{_ANIMAL}-{session}-1-simulated{written.suffix}"


def simulate_recording(
    path: str | Path,
    simulation: Simulation,
    *,
    session: int = 1,
    layout: str = "static-hdf5",
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> SimulatedRecording:
    """Simulate one session and write it. The recording appears under its name when it is whole.

    Parameters
    ----------
    path : str or Path
        The file or folder to write; the folder it is in is made where it is missing.
    simulation : Simulation
    session : int
        1 to 255; every session has its own images and cells.
    layout : str
        A name of `synicix_neurodata.writers.choice.WRITTEN`.
    overwrite : bool
        Whether an existing recording is replaced.
    progress : callable, optional
        Called with the number of trials just written.

    Raises
    ------
    ParamsError
        If the session is out of range, or the layout is unknown or does not go with images, or with movies.
    DatasetError
        If the recording exists and `overwrite` is false, or it cannot be written.
    """
    _check(simulation, session, layout)
    path = Path(path)
    with placed(path, overwrite=overwrite, parents=True) as temporary:
        drawn = _draw(simulation, session)
        writer = WRITTEN[layout].open(temporary, drawn.plan)
        try:
            ceilings, mean_count = _write(writer, drawn, progress or (lambda _: None))
            means = {mode: float(values.mean()) for mode, values in ceilings.items()}
            writer.finish(means)
        finally:
            writer.abandon()
    return SimulatedRecording(path, simulation.tier_sizes, mean_count, means)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A session before its trials: everything that is drawn once."""

    simulation: Simulation
    session: int
    plan: Plan
    population: Population
    image_ids: NDArray[np.int64]
    arousal: NDArray[np.float64]
    """(trials,), or (trials, frames)."""
    recorded: dict[str, NDArray[np.float64]]
    """(trials, columns), or (trials, columns, frames)."""
    image_seeds: list[np.random.SeedSequence]
    count_seed: np.random.SeedSequence


def _check(simulation: Simulation, session: int, layout: str) -> None:
    mistakes = []
    if not 1 <= session <= 255:
        mistakes.append(("session", f"expected 1 to 255, got {session}"))
    if layout not in WRITTEN:
        mistakes.append(("layout", f"expected one of {', '.join(WRITTEN)}, got {layout!r}"))
    elif WRITTEN[layout].movie != bool(simulation.frames):
        expected = (
            "1 or more, because its trials are movies" if WRITTEN[layout].movie else "0, because it is for images"
        )
        mistakes.append(("frames", f"for the layout {layout} expected {expected}, got {simulation.frames}"))
    if mistakes:
        raise ParamsError("The recording cannot be simulated", mistakes)


def _draw(simulation: Simulation, session: int) -> _Drawn:
    plan_seed, cell_seed, behavior_seed, image_seed, count_seed = np.random.SeedSequence(
        [simulation.seed, session]
    ).spawn(5)
    tiers, image_ids = _order(np.random.default_rng(plan_seed), simulation)
    population = draw_population(
        np.random.default_rng(cell_seed),
        simulation.neurons,
        simulation.image_shape,
        complex_fraction=simulation.complex_fraction,
        behavior_gain=simulation.behavior_gain,
        mean_rate=simulation.mean_rate,
    )
    trials, frames, neurons = simulation.trials, simulation.frames, simulation.neurons
    arousal, recorded = behavior(np.random.default_rng(behavior_seed), trials * max(1, frames))
    if frames:
        arousal = arousal.reshape(trials, frames)
        recorded = {part: values.reshape(trials, frames, -1).swapaxes(1, 2) for part, values in recorded.items()}
    plan = Plan(
        shapes={
            "stimulus": (1, *simulation.image_shape),
            "responses": (neurons,),
            "behavior": (3,),
            "pupil_center": (2,),
        },
        tiers=tiers,
        stimulus_ids=image_ids,
        frames=np.full(trials, frames) if frames else None,
        frame_rate=simulation.frame_rate,
        neurons={"layer": np.full(neurons, "L2/3"), "area": np.full(neurons, "V1")},
        animal=_ANIMAL,
        session=session,
    )
    # An image depends on its own number only, so a repeated image can be drawn again instead of being kept.
    image_seeds = image_seed.spawn(int(image_ids.max()) + 1)
    return _Drawn(simulation, session, plan, population, image_ids, arousal, recorded, image_seeds, count_seed)


def _order(rng: np.random.Generator, simulation: Simulation) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return tier and image of each trial: images are split by tier, then all trials are shuffled together."""
    sizes = simulation.tier_sizes
    once = sizes["train"] + sizes["validation"]
    tiers = np.repeat(list(sizes), list(sizes.values()))
    image_ids = np.concatenate(
        [np.arange(once), once + np.repeat(np.arange(simulation.test_images), simulation.repeats)]
    )
    order = rng.permutation(len(tiers))
    return tiers[order], image_ids[order]


def _write(
    writer: Writer, drawn: _Drawn, progress: Callable[[int], object]
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Write all trials; return the ceiling of each cell by mode, and the mean count over the test tier."""
    test = drawn.plan.tiers == "test"
    test_stimulus, test_gain = [], []
    truth = _Truth(writer, drawn) if isinstance(writer, StaticHdf5Writer) else None
    for first, parts, stimulus, gain in _trials(drawn):
        writer.write(first, parts)
        if truth is not None:
            truth.write(first, stimulus * gain)
        rows = test[first : first + len(stimulus)]
        # Frames of movies are observations as trials are.
        test_stimulus.append(stimulus[rows].reshape(-1, drawn.simulation.neurons))
        test_gain.append(gain[rows].reshape(-1, drawn.simulation.neurons))
        progress(len(rows))
    shown, felt = np.concatenate(test_stimulus), np.concatenate(test_gain)
    ceilings = _ceilings(shown, felt)
    if truth is not None:
        truth.finish(ceilings)
    return ceilings, float((shown * felt).mean())


def _trials(
    drawn: _Drawn,
) -> Iterator[tuple[int, dict[str, NDArray[Any]], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the first trial of each block, its parts, and the rate at mean gain and the gain: (trials[, frames], n)."""
    simulation, trials = drawn.simulation, drawn.simulation.trials
    block = 1 if simulation.frames else _BLOCK
    starts = range(0, trials, block)
    for start, seed in zip(starts, drawn.count_seed.spawn(len(starts)), strict=True):
        rows = slice(start, start + block)
        rngs = [np.random.default_rng(drawn.image_seeds[image]) for image in drawn.image_ids[rows]]
        gain = drawn.population.gain(drawn.arousal[rows])
        if simulation.frames:
            shown = natural_clip(rngs[0], simulation.frames, simulation.image_shape)[None, None]
            stimulus = clip_rates(drawn.population, shown[0, 0])[None]
        else:
            shown = natural_images(rngs, simulation.image_shape)
            stimulus = drawn.population.stimulus_rates(shown)
        counts = np.random.default_rng(seed).poisson(stimulus * gain)
        parts: dict[str, NDArray[Any]] = {
            "stimulus": shown,
            "responses": np.moveaxis(counts, -1, 1) if simulation.frames else counts,
        }
        parts |= {part: values[rows] for part, values in drawn.recorded.items()}
        yield start, {part: values.astype(np.float32) for part, values in parts.items()}, stimulus, gain


def _ceilings(stimulus: NDArray[np.float64], gain: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the ceiling of each cell by mode: what is best given the stimulus, given arousal, and given both.

    Stimulus and arousal are drawn independently, so the rate given one is its own factor, up to a constant.
    """
    rates = stimulus * gain
    ceilings = {
        "stimulus-encoding": single_trial_ceiling(rates, stimulus),
        "full-encoding": single_trial_ceiling(rates),
        "behavior-encoding": single_trial_ceiling(rates, gain),
    }
    return {mode: values for mode, values in ceilings.items() if values.mean() > 0}


class _Truth:
    """The group ``/simulation`` of a static HDF5 file: what the recording was made from."""

    def __init__(self, writer: StaticHdf5Writer, drawn: _Drawn) -> None:
        self._group = writer.file.create_group("simulation")
        self._drawn = drawn
        trials, neurons = drawn.plan.trials, drawn.simulation.neurons
        self._rates = self._group.create_dataset("rates", (trials, neurons), "f4")

    def write(self, first: int, rates: NDArray[np.float64]) -> None:
        self._rates[first : first + len(rates)] = rates

    def finish(self, ceilings: Mapping[str, NDArray[np.float64]]) -> None:
        drawn, population = self._drawn, self._drawn.population
        self._group.attrs.update({**asdict(drawn.simulation), "session": drawn.session})
        self._group["filters"] = population.filters.astype("f4")
        self._group["complex_cells"] = population.complex_cells
        self._group["scale"] = population.scale
        self._group["arousal_slope"] = population.arousal_slope
        self._group["arousal"] = drawn.arousal
        for mode, values in ceilings.items():
            self._group[f"noise_ceiling/{mode}"] = values
