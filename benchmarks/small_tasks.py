"""The three tasks of the benchmarks of speed: their sizes and data, and how a worker trains one of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from task_specs import task_spec
from torch import Tensor

from synicix_core.training.spec import Unheard

sys.path.insert(0, str(Path(__file__).parent / "lab"))

__all__ = [
    "BATCH",
    "L1",
    "L2",
    "LEARNING_RATE",
    "SIZES",
    "Size",
    "clock",
    "device_here",
    "nn_trainer",
    "one_thread",
    "small_task",
    "tensors",
    "what_is_timed",
    "write_task",
]

BATCH = 64
L1 = L2 = 1e-5
"""Strengths of the penalties, those of ``bench_lab``'s TwoLayers."""

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Size:
    """A task: inputs -> 2 hidden layers -> outputs, batch 64, Adam, mean squared error, L1 and L2 penalty.

    Attributes
    ----------
    name : str
        What it is called.
    inputs, hidden, outputs : int
        Width of each layer.
    trials : int
        Of the train tier; validation and test tier have a tenth.
    """

    name: str
    inputs: int
    hidden: int
    outputs: int
    trials: int

    def __str__(self) -> str:
        return f"{self.name}: {self.inputs}->2x{self.hidden}->{self.outputs}, {self.trials} trials"


SIZES = {
    size.name: size
    for size in (
        Size("micro", 32, 32, 8, 2000),
        Size("tiny", 64, 128, 32, 2000),
        Size("typical", 2309, 256, 1000, 5000),
    )
}


def write_task(size: Size, folder: Path) -> Path:
    """Write the dataset file of a task."""
    from bench_lab.parts import write_trials

    path = folder / f"{size.name}.npz"
    tenth = size.trials // 10
    write_trials(
        path,
        inputs=size.inputs,
        outputs=size.outputs,
        sizes={"train": size.trials, "validation": tenth, "test": tenth},
    )
    return path


def tensors(path: Path, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Return inputs and targets of each tier, on the device."""
    from bench_lab.parts import Trials

    found = {tier: Trials(str(path), tier).tensors() for tier in ("train", "validation", "test")}
    return {tier: (inputs.to(device), targets.to(device)) for tier, (inputs, targets) in found.items()}


def small_task(
    size: Size, path: Path, number: int, device: torch.device, *, epochs: int, seed: int, **trainer_params: Any
) -> Any:
    """Return the TaskSpec of SimpleMLP that trains for all of its epochs, in float32 unless `trainer_params` says otherwise."""
    model = {"num_hidden_layers": 2, "hidden_size": size.hidden, "l1_loss_lamda": L1, "l2_loss_lamda": L2}
    return task_spec(
        number,
        path,
        path.parent,
        dataset="Trials",
        model=("synicix-mlp/SimpleMLP", model),
        trainer_params={"early_stopping_patience": None, "precision": "fp32", **trainer_params},
        learning_rate=LEARNING_RATE,
        criterion="synicix-core/MSELoss",
        metric="synicix-core/loss",
        batch_size=BATCH,
        epochs=epochs,
        seed=seed,
        device=str(device),
    )


def device_here() -> torch.device:
    """Return the first GPU, or the CPU where there is none."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> float:
    """Return seconds of CPU of this process; of the wall, with all work done, for a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.monotonic()


def what_is_timed(device: torch.device) -> str:
    """Say what `clock` tells."""
    return (
        "CPU time of one thread" if device.type == "cpu" else f"Wall time on one {torch.cuda.get_device_name(device)}"
    )


def nn_trainer(size: Size, path: Path, device: torch.device, *, epochs: int, seed: int) -> tuple[float, float]:
    """Train a task as a worker does; return the mean milliseconds of an epoch, the first left out, and the last loss."""
    from synicix_core.registry import get_registry
    from synicix_core.training.run import run_task

    observer = _Clock(device)
    run_task(small_task(size, path, seed, device, epochs=epochs, seed=seed), get_registry(), observer)
    return 1000 * (observer.marks[-1] - observer.marks[0]) / (epochs - 1), observer.validation_loss


class _Clock(Unheard):
    """Notes when each epoch ended, and its validation loss."""

    def __init__(self, device: torch.device) -> None:
        self.marks: list[float] = []
        self.validation_loss = float("nan")
        self._device = device

    def epoch_finished(self, **fields: Any) -> None:
        """Note them."""
        self.marks.append(clock(self._device))
        self.validation_loss = fields["validation_loss"]


@contextmanager
def one_thread() -> Iterator[bool]:
    """Let torch use one thread, and the allocator keep freed memory as an executor has it; yield whether it does.

    The rivals get both, too: else the page faults of models of some megabytes, 0 to 3000 a step as the heap happens to lie,
    decide the comparison.
    """
    from synicix_core.runner.allocator import keep_freed_memory

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield keep_freed_memory()
    finally:
        torch.set_num_threads(threads)
