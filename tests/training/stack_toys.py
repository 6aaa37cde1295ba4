"""Models of many kinds, and a dataset that lives on the device, for the tests of trainings that are stacked."""

from __future__ import annotations

import dataclasses
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from synicix_core import (
    CriterionProvider,
    DatasetProvider,
    MetricProvider,
    ModelProvider,
    OptimizerProvider,
    SamplerProvider,
    builtin,
)
from synicix_core.registry import Registry
from synicix_core.training.group import Member, run_group
from synicix_core.training.saved_files import load_plain
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import Backwards, Recorder, toy_spec

SIZES = {"train": 50, "validation": 23, "test": 17}


class Held(Dataset):
    """Noisy linear targets as tensors; `dtype` is "float64" or "float32", `image` makes inputs (1, 4, 6), `steps` (4, 6)."""

    opened = 0

    def __init__(self, path: str, tier: str, *, dtype: str = "float64", shape: tuple[int, ...] = (24,)) -> None:
        type(self).opened += 1
        generator = torch.Generator().manual_seed(sum(map(ord, tier)))
        x = torch.randn(SIZES[tier], 24, generator=generator, dtype=torch.float64)
        weights = torch.randn(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 5
        y = x @ weights + 0.1 * torch.randn(SIZES[tier], 3, generator=generator, dtype=torch.float64)
        kind = getattr(torch, dtype)
        self.x, self.y = x.to(kind).view(-1, *shape), y.to(kind)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    def column(self, name: str) -> np.ndarray:
        return np.arange(len(self))

    def get_additional_model_params(self) -> dict[str, Any]:
        return {}


class Unheld(Held):
    """The same without ``tensors()``."""

    tensors = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "tensors":
            raise AttributeError(name)
        return super().__getattribute__(name)


class _Kind(nn.Module):
    """In float64 or float32, with a penalty whose strength is a buffer."""

    strength: Tensor

    def __init__(self, dtype: str, penalty: float) -> None:
        super().__init__()
        self._dtype = getattr(torch, dtype)
        self.register_buffer("strength", torch.tensor(penalty), persistent=False)

    def result(self, output: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.cat([parameter.flatten() for parameter in self.parameters() if parameter.dim() > 1])
        return output, self.strength * weights.abs().sum()


class Perceptron(_Kind):
    def __init__(
        self, input_shape: Any, output_shape: Any, dtype: str = "float64", penalty: float = 1e-3, dropout: float = 0.0
    ) -> None:
        super().__init__(dtype, penalty)
        layers = [nn.Linear(24, 16), nn.Tanh(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(16, 3)]
        self.layers = nn.Sequential(*layers)
        self.to(self._dtype)

    def forward(self, x: Tensor) -> Any:
        return self.result(self.layers(x.flatten(1)))


class Normed(_Kind):
    """Layer norm."""

    def __init__(self, input_shape: Any, output_shape: Any, dtype: str = "float64", penalty: float = 1e-3) -> None:
        super().__init__(dtype, penalty)
        self.layers = nn.Sequential(nn.Linear(24, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
        self.to(self._dtype)

    def forward(self, x: Tensor) -> Any:
        return self.result(self.layers(x))


class Convolved(_Kind):
    """Convolution with batch normalization."""

    def __init__(self, input_shape: Any, output_shape: Any, dtype: str = "float64", penalty: float = 1e-3) -> None:
        super().__init__(dtype, penalty)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ELU(), nn.Flatten(), nn.Linear(96, 3)
        )
        self.to(self._dtype)

    def forward(self, x: Tensor) -> Any:
        return self.result(self.layers(x.view(-1, 1, 4, 6)))


class Gated(_Kind):
    """A GRU of torch, which only the gradient of each model batches."""

    def __init__(self, input_shape: Any, output_shape: Any, dtype: str = "float64", penalty: float = 1e-3) -> None:
        super().__init__(dtype, penalty)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.readout = nn.Linear(5, 3)
        self.to(self._dtype)

    def forward(self, x: Tensor) -> Any:
        return self.result(self.readout(self.gru(x.view(-1, 4, 6))[0][:, -1]))


class Attentive(_Kind):
    def __init__(self, input_shape: Any, output_shape: Any, dtype: str = "float64", penalty: float = 1e-3) -> None:
        super().__init__(dtype, penalty)
        # Without a bias of the keys, whose gradient is nothing but rounding.
        self.query, self.key, self.value = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.readout = nn.Linear(24, 3)
        self.to(self._dtype)

    def forward(self, x: Tensor) -> Any:
        x = x.view(-1, 4, 6)
        found = nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.result(self.readout(self.norm(x + found).flatten(1)))


class Numbered(Perceptron):
    """Has its strength as a plain number."""

    def __init__(self, input_shape: Any, output_shape: Any, slope: float = 0.1) -> None:
        super().__init__(input_shape, output_shape)
        self.slope = slope

    def forward(self, x: Tensor) -> Any:
        return self.slope * self.layers(x)


class Enclosed(Perceptron):
    """Has a number where nobody looks for one: in what a function has closed over."""

    def __init__(self, input_shape: Any, output_shape: Any, slope: float = 0.1) -> None:
        super().__init__(input_shape, output_shape)
        self.act = lambda x: nn.functional.leaky_relu(x, slope)

    def forward(self, x: Tensor) -> Any:
        return self.act(self.layers(x))


class Branching(Perceptron):
    def forward(self, x: Tensor) -> Any:
        y = self.layers(x)
        return y if self.layers[0].weight[0, 0] > 0 else 2 * y


class Reading(Perceptron):
    def forward(self, x: Tensor) -> Any:
        return self.layers(x) * self.layers[0].weight.norm().item()


class Writing(Perceptron):
    def forward(self, x: Tensor) -> Any:
        y = torch.zeros(len(x), 3, dtype=x.dtype)
        y[:, :] = self.layers(x)
        return y


class Masking(Perceptron):
    def forward(self, x: Tensor) -> Any:
        y = self.layers(x)
        return y + y[y > 0].mean()


class Noisy(Perceptron):
    """Functional dropout."""

    def forward(self, x: Tensor) -> Any:
        return nn.functional.dropout(self.layers(x), 0.3, self.training)


class NumpyNoise(Perceptron):
    def forward(self, x: Tensor) -> Any:
        return self.layers(x) + float(np.random.standard_normal()) * self.training


class PythonNoise(Perceptron):
    def forward(self, x: Tensor) -> Any:
        return self.layers(x) + random.random() * self.training


class Counting(Perceptron):
    """Counts its steps as a plain number."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__(input_shape, output_shape)
        self.steps = 0

    def forward(self, x: Tensor) -> Any:
        self.steps += self.training
        return self.layers(x) / (1 + self.steps)


class Reassigning(Perceptron):
    """Puts a new tensor in the place of a buffer."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__(input_shape, output_shape)
        self.register_buffer("seen", torch.zeros(24, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.seen = 0.9 * self.seen + x.detach().mean(0)
        return self.layers(x - 0.1 * self.seen)


class Hooked(Perceptron):
    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__(input_shape, output_shape)
        self.layers.register_forward_hook(lambda *_: None)


class Doomed(Perceptron):
    """Becomes infinite after so many training steps; a buffer counts and a buffer says after how many."""

    steps: Tensor
    after: Tensor

    def __init__(self, input_shape: Any, output_shape: Any, after: float = 1e9) -> None:
        super().__init__(input_shape, output_shape)
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.register_buffer("after", torch.tensor(after, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.steps += 1
        return self.result(self.layers(x) / (self.steps < self.after))


MODELS = (
    *(Perceptron, Normed, Convolved, Gated, Attentive, Numbered, Enclosed, Branching, Reading, Writing, Masking, Noisy),
    *(NumpyNoise, PythonNoise, Counting, Reassigning, Hooked, Doomed),
)


class Plain(torch.optim.Optimizer):
    """Gradient descent by hand, as a third party writes it."""

    def __init__(self, parameters: Any, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["steps"] = state.get("steps", 0) + 1
                    parameter.sub_(group["lr"] / state["steps"] ** 0.5 * parameter.grad)


HERE = __name__


def stack_registry() -> Registry:
    """Return the core's providers, those of this module and those of `stack_traps`."""
    from tests.training import stack_traps as traps

    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    providers = (
        *(DatasetProvider(c.__name__, target=f"{HERE}:{c.__name__}") for c in (Held, Unheld)),
        *(ModelProvider(c.__name__, target=f"{HERE}:{c.__name__}") for c in MODELS),
        SamplerProvider("Backwards", target=Backwards),
        OptimizerProvider("Plain", target=f"{HERE}:Plain"),
        *(ModelProvider(c.__name__, target=f"{traps.__name__}:{c.__name__}") for c in traps.MODELS),
        OptimizerProvider("Replacing", target=f"{traps.__name__}:Replacing"),
        CriterionProvider("CountingLoss", target=f"{traps.__name__}:CountingLoss"),
        MetricProvider("bootstrap", target=f"{traps.__name__}:Bootstrap", higher_is_better=False),
        MetricProvider("spoiling", target=f"{traps.__name__}:Spoiling", higher_is_better=False),
    )
    found = registry(core, plugin("toys", *providers))
    assert not found.problems
    return found


def stack_spec(directory: Path, number: int = 0, trainer: dict[str, Any] | None = None, **changes: Any) -> TaskSpec:
    """Return the specification of a task whose seed and files are told by its number."""
    directory.mkdir(parents=True, exist_ok=True)
    settled = {
        "task": f"{number:032d}",
        "dataset": Component("dataset", "toys/Held"),
        "model": Component("model", "toys/Perceptron"),
        "trainer": Component("trainer", "synicix-core/NNTrainer", trainer or {}),
        "optimizer": Component("optimizer", "synicix-core/Adam", {"lr": 0.01}),
        "input_shape": [24],
        "output_shape": [3],
        "additional_model_params": {},
        "seed": 100 + number,
        "batch_size": 8,
        "epoch_limit": 3,
        "model_save_path": str(directory / f"{number}.pt"),
        "checkpoint_path": str(directory / f"{number}.checkpoint"),
    }
    return toy_spec(directory, **settled | changes)


@functools.cache
def the_registry() -> Registry:
    """Return the one registry of these tests."""
    return stack_registry()


def __getattr__(name: str) -> Any:
    if name == "REGISTRY":
        return the_registry()
    raise AttributeError(name)


def with_model(spec: TaskSpec, name: str, **params: Any) -> TaskSpec:
    """Return the task with another model."""
    return dataclasses.replace(spec, model=Component("model", f"toys/{name}", params))


def train_together(specs: list[TaskSpec], observers: list[Recorder] | None = None) -> list[TaskOutcome | BaseException]:
    """Train tasks as a group, and return how each ended."""
    ends: dict[int, TaskOutcome | BaseException] = {}
    observers = observers or [Recorder() for _ in specs]

    def ended(index: int, how: TaskOutcome | BaseException) -> None:
        assert index not in ends
        ends[index] = how

    members = [Member(spec, observer) for spec, observer in zip(specs, observers, strict=True)]
    run_group(members, the_registry(), size=len(specs), ended=ended)
    return [ends[index] for index in range(len(specs))]


def weights(spec: TaskSpec) -> dict[str, Tensor]:
    """Return the weights that a task saved."""
    return load_plain(spec.model_save_path)


def furthest(one: TaskSpec, other: TaskSpec) -> float:
    """Return the greatest difference between the weights that two tasks saved."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)
