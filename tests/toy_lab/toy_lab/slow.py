"""A model that takes its time, so that something can happen to it meanwhile; and the disasters that tests ask for."""

import ctypes
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


class Plodder(nn.Module):
    """A small network with dropout, whose training steps can be slowed down, counted and struck from outside.

    The environment says how: `TOY_LAB_STEP_SECONDS` is how long a step takes, a line for each step goes to the file
    `TOY_LAB_STEPS`, and a file ``segfault``, ``hang`` or ``kill`` in the directory `TOY_LAB_DISASTERS` strikes once, at the
    next step, and is removed. None of it changes the numbers, nor does `mark`, which only tells tasks apart. Of more than
    `most` examples at once, if that is not 0, it says that they do not fit into memory.
    """

    def __init__(self, input_shape, output_shape, hidden: int = 8, most: int = 0, mark: int = 0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, output_shape[0])
        )
        self.most = most

    def forward(self, x):
        if self.most and len(x) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x)} examples at once")
        if self.training:
            _take_a_step()
        return self.layers(x), 1e-3 * self.layers[0].weight.square().sum()


def _take_a_step():
    if steps := os.environ.get("TOY_LAB_STEPS"):
        with Path(steps).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if disasters := os.environ.get("TOY_LAB_DISASTERS"):
        for name, strike in _DISASTERS.items():
            try:
                Path(disasters, name).unlink()
            except FileNotFoundError:
                continue
            strike()
    time.sleep(float(os.environ.get("TOY_LAB_STEP_SECONDS", "0")))


_DISASTERS = {
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(3600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
