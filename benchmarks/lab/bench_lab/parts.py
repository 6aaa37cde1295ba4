"""The lab's dataset and model, as a user would write them; the rivals of the benchmarks train the same two."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Trials(Dataset[tuple[Tensor, Tensor]]):
    """One tier of an npz file that holds ``<tier>_x`` of shape (n, inputs) and ``<tier>_y`` of shape (n, outputs)."""

    def __init__(self, path: str, tier: str) -> None:
        with np.load(path) as file:
            self.x = torch.from_numpy(file[f"{tier}_x"])
            self.y = torch.from_numpy(file[f"{tier}_y"])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all of it, so that a trainer may keep it on the device."""
        return self.x, self.y

    def get_additional_model_params(self) -> dict[str, Any]:
        """Return nothing: the shapes are enough."""
        return {}


class TwoLayers(nn.Module):
    """Multi-layer perceptron with two hidden layers; L1 and L2 penalty on the weights."""

    def __init__(self, input_shape: tuple[int], output_shape: tuple[int], hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_shape[0], hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, output_shape[0]),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and penalty."""
        weights = [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]
        penalty = sum((1e-5 * weight.abs().sum() + 1e-5 * weight.square().sum() for weight in weights), torch.zeros(()))
        return self.layers(x), penalty.to(x.device)


class FirstStep(TwoLayers):
    """Tells when it was first asked for an output: its history holds the time, by the clock of the whole machine."""

    first: float | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and penalty."""
        if self.first is None:
            self.first = time.monotonic()
        return super().forward(x)

    def params_summary(self) -> dict[str, Any]:
        """Return the time in seconds."""
        return {"first_step": self.first}


def write_trials(path: Path, *, inputs: int, outputs: int, sizes: dict[str, int]) -> None:
    """Write random trials, ``{tier: n}``, whose targets are a linear function of the inputs plus noise."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(inputs, outputs)) / inputs**0.5
    arrays: dict[str, Any] = {}
    for tier, size in sizes.items():
        x = random.normal(size=(size, inputs))
        arrays[f"{tier}_x"] = x.astype(np.float32)
        arrays[f"{tier}_y"] = (x @ weights + 0.1 * random.normal(size=(size, outputs))).astype(np.float32)
    np.savez(path, **arrays)
