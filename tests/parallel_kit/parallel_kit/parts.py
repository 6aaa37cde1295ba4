"""The kit's datasets, model and samplers. `Net` goes wrong in one process only, where that is asked for."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler


class Doubles(Dataset):
    """Noisy targets; `path` is not read. The target of the training example `poisoned` is not a number."""

    def __init__(self, path, tier, n: int = 50, poisoned: int = -1):
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(tier))
        self.x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
        weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        self.y = (self.x @ weights).sin() + 0.1 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
        if tier == "train" and poisoned >= 0:
            self.y[poisoned] = float("nan")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if reads := os.environ.get("PARALLEL_KIT_READS"):
            with Path(reads).open("a") as file:
                file.write(f"{os.environ.get('RANK', '-')} {index}\n")
        return self.x[index], self.y[index]

    def get_additional_model_params(self):
        return {}


class HeldDoubles(Doubles):
    """The same, in memory as a whole."""

    def tensors(self):
        return self.x, self.y


class Net(nn.Module):
    """Two layers and an L1 penalty; more as asked.

    In the process of rank `rank`, at its training step `step`, from 1, it does what `how` says: ``raise``, ``memory``,
    ``die`` or ``hang``.
    """

    def __init__(
        self, input_shape, output_shape, hidden: int = 16, penalty: float = 1e-2, dropout: float = 0.0, norm: str = "",
        spare: bool = False, seconds: float = 0.0, how: str = "", rank: int = 1, step: int = 1,
    ):  # fmt: skip
        super().__init__()
        norms = {"": nn.Identity(), "layer": nn.LayerNorm(hidden), "batch": nn.BatchNorm1d(hidden)}
        self.layers = nn.Sequential(
            nn.Linear(input_shape[0], hidden), norms[norm], nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 3)
        )
        self.penalty = penalty
        self.seconds = seconds
        self.spare = nn.Linear(2, 2) if spare else None  # no loss depends on it
        self.fault = (how, rank, step)
        self.steps = 0
        self.double()

    def forward(self, x):
        if self.training:
            self.steps += 1
            time.sleep(self.seconds)
            how, rank, step = self.fault
            if how and rank == int(os.environ.get("RANK", "0")) and self.steps == step:
                _go_wrong(how)
        return self.layers(x), self.penalty * self.layers[0].weight.abs().sum()


def _go_wrong(how):
    if how == "raise":
        raise ValueError("the net failed as asked")
    if how == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)


class FromTheProcess(Sampler):
    """Draws an order from NumPy's global generator, bit by bit."""

    def __init__(self, dataset):
        self.size = len(dataset)

    def __iter__(self):
        for _ in range(self.size):
            yield int(np.random.randint(self.size))

    def __len__(self):
        return self.size


class OfTheRank(FromTheProcess):
    """Has another order in each process."""

    def __iter__(self):
        first = int(os.environ.get("RANK", "0"))
        return iter([(first + index) % self.size for index in range(self.size)])


class Batches(FromTheProcess):
    """Batches of several sizes, the smallest of one."""

    def __init__(self, dataset, generator):
        super().__init__(dataset)
        self.generator = generator

    def __iter__(self):
        order = torch.randperm(self.size, generator=self.generator).tolist()
        return iter([order[:7], order[7:8], order[8:21], order[21:]])

    def __len__(self):
        return 4
