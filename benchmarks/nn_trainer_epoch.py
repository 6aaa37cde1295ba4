"""Epoch time of NNTrainer, as a task runs it, over a hand-written loop with the same data loading. Aim: 1.05 times."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from nobody import Nobody
from report import Spread, table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainer import BATCH, open_trainer

sys.path.insert(0, str(Path(__file__).parent / "lab"))

__all__ = ["run"]

AIM = 1.05


@dataclass(frozen=True)
class Size:
    """A task of facts that others measured too: inputs -> 2 hidden layers -> outputs, batch 64, Adam, MSE, L1 + L2."""

    name: str
    inputs: int
    hidden: int
    outputs: int
    trials: int
    epochs: int
    rounds: int


SIZES = (
    Size("tiny 64->2x128->32, 2000 trials", 64, 128, 32, 2000, epochs=5, rounds=10),
    Size("small 256->2x64->100, 5000 trials", 256, 64, 100, 5000, epochs=3, rounds=5),
    Size("typical 2309->2x256->1000, 5000 trials", 2309, 256, 1000, 5000, epochs=1, rounds=5),
)


def run() -> str:
    """Measure, and return what to print."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kept = _keep_freed_memory()
    try:
        rows = [_row(size) for size in SIZES]
    finally:
        torch.set_num_threads(threads)
    header = ["task, batch 64", "by hand: CPU ms/epoch", "NNTrainer: CPU ms/epoch", "ratio", "ratio of minima", "aim"]
    return (
        table(header, rows)
        + f"\nFreed memory is {'kept by' if kept else 'given back as it pleases'} the allocator, in both variants."
        + "\nCPU time of one thread, median (min..max) over interleaved rounds that change who goes first; every epoch with"
        "\nits pass over a validation tier of a tenth. NNTrainer's epochs hold all that a task's do: losses, penalties and"
        "\nparameter summaries, best weights, early stopping, reports, looking for a stop and for a checkpoint."
    )


def _keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel; False where there is no glibc.

    Else the page faults of models of some megabytes, 0 to 3000 a step as the heap happens to lie, decide the comparison.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, 2_000_000_000))


def _row(size: Size) -> list[str]:
    tiers = {"train": _tier(size, size.trials), "validation": _tier(size, size.trials // 10)}
    variants: list[tuple[list[float], Callable[[int], list[float]]]] = [
        ([], lambda seed: _by_hand(size, tiers, seed)),
        ([], lambda seed: _nn_trainer(size, tiers, seed)),
    ]
    for turn in range(size.rounds + 1):
        for times, measure in variants if turn % 2 else reversed(variants):
            epochs = measure(turn)
            if turn:  # the first round warms up
                times.append(1000 * sum(epochs) / len(epochs))
    theirs, ours = (Spread(tuple(times)) for times, _ in variants)
    ratio = ours.over(theirs)
    of_minima = ours.least / theirs.least
    met = "met" if ratio.median <= AIM else "MISSED"
    return [size.name, theirs.text(), ours.text(), ratio.text(2), f"{of_minima:.2f}", met]


def _tier(size: Size, trials: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(trials)
    return TensorDataset(
        torch.randn(trials, size.inputs, generator=generator), torch.randn(trials, size.outputs, generator=generator)
    )


def _by_hand(size: Size, tiers: dict[str, TensorDataset], seed: int) -> list[float]:
    from bare_loop import train_epoch, validate
    from bench_lab.parts import TwoLayers

    torch.manual_seed(seed)
    train = DataLoader(tiers["train"], batch_size=BATCH, shuffle=True)
    validation = DataLoader(tiers["validation"], batch_size=BATCH)
    model = TwoLayers((size.inputs,), (size.outputs,), hidden_size=size.hidden)
    optimizer = torch.optim.Adam(model.parameters())
    criterion = nn.MSELoss()
    marks = []
    for _ in range(size.epochs + 1):
        train_epoch(model, optimizer, criterion, train)
        validate(model, criterion, validation)
        marks.append(time.process_time())
    return [later - earlier for earlier, later in pairwise(marks)]


def _nn_trainer(size: Size, tiers: dict[str, TensorDataset], seed: int) -> list[float]:
    observer = _Clock()
    with open_trainer(tiers, size.hidden, observer, epochs=size.epochs + 1, seed=seed) as (trainer, context):
        context.start()
        trainer.train()
    return [later - earlier for earlier, later in pairwise(observer.marks)]


class _Clock(Nobody):
    """Notes the CPU time at the end of each epoch."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def epoch_finished(self, **_fields: Any) -> None:
        """Note the time."""
        self.marks.append(time.process_time())
