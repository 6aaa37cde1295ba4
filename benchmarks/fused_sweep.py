"""A sweep of like tasks trained as one, over the same tasks one after another in an ordinary bare loop. Aims: 10x, 2.5x, 0.95x."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from report import Spread, table
from small_tasks import (
    BATCH,
    LEARNING_RATE,
    SIZES,
    clock,
    device_here,
    one_thread,
    small_task,
    tensors,
    what_is_timed,
    write_task,
)
from tensor_loops import train_ordinary
from torch import Tensor, nn

from synicix_core.training.spec import Unheard

__all__ = ["run"]


@dataclass(frozen=True)
class _Sweep:
    """Some tasks that differ in seed and learning rate.

    Attributes
    ----------
    size : str
        Which task.
    tasks, epochs, rounds : int
        How many.
    by_hand : int
        How many of the tasks the bare loop trains; its time counts for all of them, as they have nothing to do with each other.
    forced : bool
        Whether they are fused whatever the probe's clock says; else as ``--fuse auto`` does it.
    aim : float
        On the CPU and on a GPU.
    """

    size: str
    tasks: int
    epochs: int
    rounds: int
    by_hand: int
    forced: bool
    aim: dict[str, float]


SWEEPS = (
    _Sweep("micro", 64, epochs=10, rounds=5, by_hand=6, forced=True, aim={"cpu": 10.0, "cuda": 30.0}),
    _Sweep("tiny", 16, epochs=10, rounds=5, by_hand=4, forced=True, aim={"cpu": 2.5, "cuda": 10.0}),
    _Sweep("typical", 4, epochs=2, rounds=3, by_hand=2, forced=False, aim={"cpu": 0.95}),
    _Sweep("typical", 16, epochs=2, rounds=2, by_hand=2, forced=False, aim={"cpu": 0.95}),
)
ON_A_GPU = _Sweep("typical", 32, epochs=3, rounds=3, by_hand=4, forced=False, aim={"cuda": 8.0})

COMPILED = _Sweep("micro", 64, epochs=12, rounds=1, by_hand=6, forced=True, aim={"cpu": 20.0, "cuda": 30.0})


@dataclass(frozen=True)
class _Took:
    """Milliseconds of one task, and what the tasks scored.

    Attributes
    ----------
    whole : float
        With its build and extraction.
    build : float
        Until the first epoch begins.
    epoch : float
        One epoch, the median; its pass over the validation tier included.
    extraction : float
        From the last epoch's end: the weights, and the scores of all three tiers.
    score : float
        Mean loss on the test tier.
    """

    whole: float
    build: float
    epoch: float
    extraction: float
    score: float


def run() -> str:
    """Measure, and return what to print."""
    device = device_here()
    sweeps = (*SWEEPS, ON_A_GPU) if device.type == "cuda" else SWEEPS
    with one_thread(), tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        rows = [_measure(sweep, Path(folder), device) for sweep in sweeps]
        compiled = _compiled(Path(folder), device)
    header = ["tasks", "trained", "ratio", "of best", "aim", "ms per task: bare", "ours", "test losses"]
    return (
        table(header, rows)
        + "\nms per task: whole = until training + epochs x one epoch + after it, medians. Bare: build, train with a validation pass"
        "\nafter each epoch, copy the weights, score three tiers. Ours: the same and all else that a task does, files included; the"
        "\nprobe, once for tasks of a kind, is left out and stands in its column. Ratio: bare over ours, median (min..max) of rounds."
        f"\n{what_is_timed(device)}; tasks differ in seed and learning rate. The bare loop trains some of the"
        "\ntasks and its time counts for all. Losses: means of the tasks that both trained.\n\n" + compiled
    )


def _measure(sweep: _Sweep, folder: Path, device: torch.device) -> list[str]:
    size = SIZES[sweep.size]
    path = write_task(size, folder)
    tiers = tensors(path, device)
    plan, probing = _plan(sweep, path, device)
    bare: list[_Took] = []
    ours: list[_Took] = []
    for turn in range(sweep.rounds + 1):
        warm_up = turn == 0
        sides = [
            lambda: bare.append(_one_by_one(sweep, tiers, device)),
            lambda: ours.append(_together(sweep, path, device, plan.size)),
        ]
        if warm_up and sweep.tasks * sweep.epochs * size.trials * size.inputs > 1e8:
            continue  # what a small task has warmed up need not be by one that takes half a minute
        for side in sides if turn % 2 else reversed(sides):
            side()
        if warm_up:
            bare.clear()
            ours.clear()
    return [*_row(sweep, bare, ours, f"{plan.size} at a time, probe {probing:.1f} s"), _losses(bare, ours)]


def _row(sweep: _Sweep, bare: Sequence[_Took], ours: Sequence[_Took], how: str) -> list[str]:
    theirs, mine = (Spread(tuple(took.whole for took in side)) for side in (bare, ours))
    ratio = theirs.over(mine)
    aim = sweep.aim.get("cuda" if torch.cuda.is_available() else "cpu")
    return [
        f"{sweep.tasks} {sweep.size} x {sweep.epochs} epochs",
        how,
        ratio.text(2),
        f"{theirs.least / mine.least:.2f}",
        "none" if aim is None else f"{aim:g}: {'met' if ratio.median >= aim else 'MISSED'}",
        _phases(bare),
        _phases(ours),
    ]


def _losses(bare: Sequence[_Took], ours: Sequence[_Took]) -> str:
    return f"{bare[-1].score:.4f} / {ours[-1].score:.4f}"


def _phases(side: Sequence[_Took]) -> str:
    whole, build, epoch, extraction = (
        statistics.median(getattr(took, name) for took in side) for name in ("whole", "build", "epoch", "extraction")
    )
    return f"{whole:.1f} = {build:.1f} + n x {epoch:.2f} + {extraction:.1f}"


def _rates(sweep: _Sweep) -> list[float]:
    """Return a learning rate for each task, from half to twice the usual one."""
    return [LEARNING_RATE * 2 ** (2 * index / (sweep.tasks - 1) - 1) for index in range(sweep.tasks)]


def _specs(sweep: _Sweep, path: Path, device: torch.device, **trainer_params: Any) -> list[Any]:
    size = SIZES[sweep.size]
    first = small_task(size, path, 0, device, epochs=sweep.epochs, seed=0, **trainer_params)
    return [
        dataclasses.replace(
            first,
            task=f"{index:032x}",
            seed=index,
            optimizer=dataclasses.replace(first.optimizer, params={"lr": rate}),
            model_save_path=str(path.parent / f"{index}.pt"),
            checkpoint_path=str(path.parent / f"{index}.checkpoint"),
        )
        for index, rate in enumerate(_rates(sweep))
    ]


def _plan(sweep: _Sweep, path: Path, device: torch.device, **trainer_params: Any) -> tuple[Any, float]:
    """Return how many are trained together, and the seconds that it took to find out."""
    from synicix_core.registry import get_registry
    from synicix_core.training.group import plan_group

    began = time.monotonic()
    limit = sweep.tasks if sweep.forced else None
    plan = plan_group(_specs(sweep, path, device, **trainer_params)[0], get_registry(), limit)
    return plan, time.monotonic() - began


def _together(sweep: _Sweep, path: Path, device: torch.device, together: int, **trainer_params: Any) -> _Took:
    """Train all tasks as a worker does: in groups, or each by itself where the plan says so."""
    from synicix_core.registry import get_registry
    from synicix_core.training.group import Member, run_group
    from synicix_core.training.run import run_task

    registry = get_registry()
    members = [Member(spec, _Marks(device)) for spec in _specs(sweep, path, device, **trainer_params)]
    scores: dict[int, float] = {}
    phases: list[tuple[float, float, float]] = []

    def ended(index: int, how: Any) -> None:
        if isinstance(how, BaseException):
            raise how
        scores[index] = how.test_score

    began = clock(device)
    together = min(together, len(members))
    for start in range(0, len(members), together):
        part = members[start : start + together]
        before = clock(device)
        if together == 1:
            ended(start, run_task(part[0].spec, registry, part[0].observer))
        else:
            first = start
            run_group(part, registry, size=together, ended=lambda index, how, first=first: ended(first + index, how))
        after = clock(device)
        marks = part[-1].observer.marks
        epoch = statistics.median(later - earlier for earlier, later in pairwise(marks))
        build = max(marks[0] - epoch - before, 0.0)
        phases.append((build / len(part), epoch / len(part), (after - marks[-1]) / len(part)))
    whole = (clock(device) - began) / len(members)
    build, epoch, extraction = (1000 * sum(column) / len(phases) for column in zip(*phases, strict=True))
    return _Took(1000 * whole, build, epoch, extraction, _mean([scores[index] for index in range(sweep.by_hand)]))


def _one_by_one(sweep: _Sweep, tiers: dict[str, tuple[Tensor, Tensor]], device: torch.device) -> _Took:
    """Train some of the tasks in the ordinary bare loop."""
    size = SIZES[sweep.size]
    began = clock(device)
    builds, epochs, extractions, scores = [], [], [], []
    for index, rate in enumerate(_rates(sweep)[: sweep.by_hand]):
        before = clock(device)
        trained = train_ordinary(size, tiers, device, epochs=sweep.epochs, seed=index, learning_rate=rate)
        after = clock(device)
        scores.append(_extract(trained.model, tiers))
        builds.append(after - before - sum(trained.seconds))
        epochs.append(statistics.median(trained.seconds))
        extractions.append(clock(device) - after)
    whole = (clock(device) - began) / sweep.by_hand
    return _Took(1000 * whole, *(1000 * _mean(part) for part in (builds, epochs, extractions)), _mean(scores))


@torch.no_grad()
def _extract(model: nn.Module, tiers: dict[str, tuple[Tensor, Tensor]]) -> float:
    """Copy the weights to the CPU, score all tiers in batches, and return the test tier's loss."""
    {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
    model.eval()
    scores = {}
    for tier, (inputs, targets) in tiers.items():
        losses = [
            nn.functional.mse_loss(model(x)[0], y) * len(x)
            for x, y in zip(inputs.split(BATCH), targets.split(BATCH), strict=True)
        ]
        scores[tier] = (torch.stack(losses).sum() / len(inputs)).item()
    return scores["test"]


def _compiled(folder: Path, device: torch.device) -> str:
    """Measure one epoch of compiled steps, once compiled, over one of the bare loop."""
    sweep = COMPILED
    path = write_task(SIZES[sweep.size], folder)
    plan, _ = _plan(sweep, path, device, compile="on")
    if plan.size == 1:
        return f'Compiled: not measured, tasks with compile = "on" are trained one by one: {plan.reason}'
    ours = [_together(sweep, path, device, plan.size, compile="on")]
    bare = [_one_by_one(sweep, tensors(path, device), device)]
    ratio = bare[0].epoch / ours[0].epoch
    aim = sweep.aim[device.type]
    return (
        f"Compiled, {sweep.tasks} {sweep.size} tasks, steady state (the median epoch): {bare[0].epoch:.2f} ms per task and epoch in"
        f" the bare loop, {ours[0].epoch:.2f} fused and compiled: {ratio:.1f}x, aim {aim:g}: {'met' if ratio >= aim else 'MISSED'};"
        f"\ntest losses {_losses(bare, ours)}; until training {ours[0].build * sweep.tasks / 1000:.1f} s, compiling included."
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class _Marks(Unheard):
    """Notes when each epoch ended."""

    def __init__(self, device: torch.device) -> None:
        self.marks: list[float] = []
        self._device = device

    def epoch_finished(self, **_fields: Any) -> None:
        """Note the time."""
        self.marks.append(clock(self._device))
