"""Datasets with ``tensors()``, and what may go wrong with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler

from synicix_core import DatasetProvider, ModelProvider, SamplerProvider, builtin
from synicix_core.registry import Registry
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import PROVIDERS, Linear, Net

built: Counter[str] = Counter()
"""How often a dataset was built, by tier."""


class Held(Linear):
    """Has ``tensors()``; counts how often it is built."""

    notes = ("held in memory",)

    def __init__(self, path: str, tier: str, *, sizes: dict[str, int] | None = None) -> None:
        built[tier] += 1
        super().__init__(path, tier, sizes=sizes)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x, self.y


class Unheld(Linear):
    """The same numbers without ``tensors()``."""

    def __init__(self, path: str, tier: str, *, sizes: dict[str, int] | None = None) -> None:
        super().__init__(path, tier, sizes=sizes)


class Named(Held):
    """Inputs by name, integer targets, arrays of NumPy."""

    def __getitem__(self, index: int) -> Any:
        return {"left": self.x[index, :2], "right": (self.x[index, 2:],)}, int(self.y[index].argmax())

    def tensors(self) -> Any:
        inputs = {"left": self.x[:, :2].numpy(), "right": (self.x[:, 2:],)}
        return inputs, self.y.argmax(1).numpy()


class Lying(Held):
    """Its ``tensors()`` are not its items."""

    def __init__(self, path: str, tier: str, *, lie: str) -> None:
        super().__init__(path, tier)
        self.lie = lie

    def tensors(self) -> Any:
        lies: dict[str, Any] = {
            "dtype": (self.x.double(), self.y),
            "shape": (self.x[:, :5], self.y),
            "axes": (self.x[..., None], self.y),
            "first": (torch.cat([self.x[:1] + 1, self.x[1:]]), self.y),
            "last": (self.x, torch.cat([self.y[:-1], self.y[-1:] * 2])),
            "length": (self.x[:-1], self.y[:-1]),
            "uneven": (self.x, torch.cat([self.y, self.y])),
            "no pair": self.x,
            "three": (self.x, self.y, self.y),
            "nesting": ({"x": self.x}, self.y),
            "no axis": (self.x, torch.tensor(1.0)),
        }
        return lies[self.lie]


class Scribbling(Net):
    """Changes its input in place."""

    def forward(self, x: torch.Tensor) -> Any:
        x.mul_(0.5).add_(1.0)
        return super().forward(x)


class NamedNet(torch.nn.Module):
    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)

    def forward(self, x: Any) -> torch.Tensor:
        return self.layer(torch.cat([x["left"], x["right"][0]], 1))


class Weighted(WeightedRandomSampler):
    def __init__(self, dataset: Any, generator: torch.Generator) -> None:
        super().__init__(np.linspace(0.1, 1.0, len(dataset)).tolist(), len(dataset), generator=generator)


class Replaced(RandomSampler):
    def __init__(self, dataset: Any, generator: torch.Generator) -> None:
        super().__init__(dataset, replacement=True, num_samples=33, generator=generator)


class Negative:
    """Positions from the end, as lists allow them."""

    def __init__(self, dataset: Any) -> None:
        self.size = len(dataset)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        return iter(range(-1, -self.size - 1, -1))


class Dropping(BatchSampler):
    def __init__(self, dataset: Any, generator: torch.Generator) -> None:
        super().__init__(RandomSampler(dataset, generator=generator), 7, drop_last=True)


def resident_registry() -> Registry:
    """Return the toys' registry with these."""
    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    more = (
        *(DatasetProvider(c.__name__, target=f"{__name__}:{c.__name__}") for c in (Held, Unheld, Named, Lying)),
        *(ModelProvider(c.__name__, target=f"{__name__}:{c.__name__}") for c in (Scribbling, NamedNet)),
        SamplerProvider("Weighted", target=Weighted),
        SamplerProvider("Replaced", target=Replaced),
        SamplerProvider("Negative", target=Negative),
        SamplerProvider("Dropping", target=Dropping, yields="batch"),
    )
    found = registry(core, plugin("toys", *PROVIDERS, *more))
    assert not found.problems
    return found
