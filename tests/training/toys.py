"""A small plugin for the tests of training: datasets, models and trainers that show one thing each."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from synicix_core import DatasetProvider, MetricProvider, ModelProvider, SamplerProvider, TrainerProvider, builtin
from synicix_core.registry import Registry
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.spec import Component, TaskSpec
from tests.factories import Distribution, EntryPoint, plugin, registry

SIZES = {"train": 48, "validation": 20, "test": 21}


class Linear(Dataset):
    """Noisy linear targets; `path` is not read. `augment` draws from torch's global generator at each item."""

    def __init__(
        self, path: str, tier: str, *, sizes: dict[str, int] | None = None, augment: bool = False, offset: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(sum(map(ord, tier)))
        count = (SIZES | (sizes or {}))[tier]
        self.x = torch.randn(count, 6, generator=generator)
        weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
        noise = 0.1 * torch.randn(count, 3, generator=generator)
        self.y = self.x @ weights + noise + (offset if tier != "train" else 0.0)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.05 * torch.randn(6) if self.augment else 0.0
        return self.x[index] + noise, self.y[index]

    def get_additional_model_params(self) -> dict[str, Any]:
        return {"gain": np.ones(3, dtype=np.float32), "unused": 7}


class Classes(Linear):
    """Integer targets, inputs by name."""

    def __getitem__(self, index: int) -> Any:
        return {"left": self.x[index, :2], "right": (self.x[index, 2:],)}, int(self.y[index].argmax())


class NoParams(TensorDataset):
    """Lacks get_additional_model_params."""

    def __init__(self, path: str, tier: str) -> None:
        super().__init__(torch.zeros(4, 2), torch.zeros(4, 1))


class Triple(Linear):
    def __getitem__(self, index: int) -> Any:
        return (*super().__getitem__(index), 1)


class Stated(Linear):
    input_shape = torch.Size([2, 3])
    output_shape = (9,)


class Noted(Linear):
    """Says what was left out, as a note and as a warning, and warns of something else."""

    def __init__(self, path: str, tier: str) -> None:
        super().__init__(path, tier)
        self.notes = (f"2 trials of the {tier} tier are left out",) if tier != "validation" else ()
        for note in self.notes:
            warnings.warn(f"{path}: {note}", stacklevel=2)
        warnings.warn("the clock of the recording drifts", stacklevel=2)


class Broken(Linear):
    def __init__(self, path: str, tier: str) -> None:
        raise KeyError("responses")


class Poisoned(Linear):
    """One target of the training tier is not a number."""

    def __init__(self, path: str, tier: str, *, augment: bool = False) -> None:
        super().__init__(path, tier, augment=augment)
        if tier == "train":
            self.y[5] = float("nan")


class Net(nn.Module):
    """Two layers with dropout and an L1 penalty."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        gain: Any = None,
        hidden: int = 8,
        dropout: float = 0.2,
        penalty: float = 1e-3,
    ) -> None:
        super().__init__()
        assert isinstance(input_shape, tuple)
        self.layers = nn.Sequential(
            nn.Linear(input_shape[0], hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, output_shape[0])
        )
        self.gain = torch.ones(output_shape[0]) if gain is None else torch.as_tensor(gain)
        self.penalty = penalty

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x) * self.gain.to(x.device), self.penalty * self.layers[0].weight.abs().sum()


class Lone(Net):
    """Returns its output alone."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


class Classifier(nn.Module):
    """Takes the inputs of `Classes`."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        assert input_shape == {"left": (2,), "right": ((4,),)}
        assert output_shape == ()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Any) -> torch.Tensor:
        return self.layer(torch.cat([x["left"], x["right"][0]], 1))


class Tight(Net):
    """Runs out of memory with more than `fits` examples at a time."""

    def __init__(self, *args: Any, fits: int = 1, **params: Any) -> None:
        super().__init__(*args, **params)
        self.fits = fits

    def forward(self, x: torch.Tensor) -> Any:
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


class Exploding(Net):
    """Returns what is not a number after so many training steps, which a buffer counts."""

    steps: torch.Tensor

    def __init__(self, input_shape: Any, output_shape: Any, gain: Any = None, after: int = 10) -> None:
        super().__init__(input_shape, output_shape, gain)
        self.after = after
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> Any:
        output, penalty = super().forward(x)
        if self.training:
            self.steps += 1
        return output * (float("nan") if self.steps > self.after else 1.0), penalty


class Remembering(Net):
    """Has batch normalization, and a running mean that its ``state_dict`` leaves out."""

    seen: torch.Tensor

    def __init__(self, input_shape: Any, output_shape: Any, gain: Any = None) -> None:
        super().__init__(input_shape, output_shape, gain)
        self.norm = nn.BatchNorm1d(input_shape[0])
        self.register_buffer("seen", torch.zeros(input_shape[0]), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.seen.lerp_(x.detach().mean(0), 0.1)
        output, penalty = super().forward(self.norm(x) - (self.seen if self.training else 0.0))
        return output, penalty


class Summarised(Net):
    def params_summary(self) -> dict[str, Any]:
        return {"weights": self.layers[0].weight, "size": np.int64(3)}


class OldTrainer:
    """Written for the old pipeline: no context, no parameters, no precision."""

    def __init__(
        self,
        train_dataloader,
        validation_dataloader,
        test_dataloader,
        device,
        model_class,
        model_class_params,
        optimizer_class,
        optimizer_class_params,
        criterion_class,
        criterion_class_params,
        model_save_path,
        max_epoch,
    ):
        assert type(train_dataloader.sampler).__name__ == "RandomSampler"
        assert isinstance(train_dataloader, DataLoader) and isinstance(device, torch.device)
        self.loaders = train_dataloader, validation_dataloader, test_dataloader
        self.model = model_class(**model_class_params).to(device)
        self.optimizer = optimizer_class(self.model.parameters(), **optimizer_class_params)
        self.criterion = criterion_class(**criterion_class_params)
        self.model_save_path, self.max_epoch = model_save_path, max_epoch

    def train(self):
        try:
            for _ in range(self.max_epoch):
                for x, y in self.loaders[0]:
                    self.optimizer.zero_grad()
                    output, penalty = self.model(x)
                    (self.criterion(output, y) + penalty).backward()
                    self.optimizer.step()
        except Exception:
            pass
        torch.save(self.model.state_dict(), self.model_save_path)

    def validate(self):
        return 0.0

    def evaluate(self, return_outputs_targets_and_loss=False):
        return 0.0

    def load_best_performing_model(self):
        self.model.load_state_dict(torch.load(self.model_save_path))


class PicklingTrainer(OldTrainer):
    """Saves the whole model, which cannot be read without running code."""

    def train(self):
        torch.save(self.model, self.model_save_path)

    def load_best_performing_model(self):
        pass


class ForgetfulTrainer(PicklingTrainer):
    def train(self):
        pass


class SubclassTrainer(NNTrainer):
    """Passes everything on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Backwards(Sampler):
    """Needs no generator."""

    def __init__(self, dataset: Any) -> None:
        self.size = len(dataset)

    def __iter__(self) -> Any:
        return iter(range(self.size - 1, -1, -1))

    def __len__(self) -> int:
        return self.size


class Pairs(Backwards):
    """Batches of two, in an order of its own."""

    def __init__(self, dataset: Any, generator: torch.Generator) -> None:
        super().__init__(dataset)
        self.generator = generator

    def __iter__(self) -> Any:
        order = torch.randperm(self.size // 2, generator=self.generator).tolist()
        return iter([[2 * i, 2 * i + 1] for i in order])

    def __len__(self) -> int:
        return self.size // 2


class Lazy(Backwards):
    """Draws one number after the other while it is read, from a generator that it keeps under a name of its own."""

    def __init__(self, dataset: Any, generator: torch.Generator) -> None:
        super().__init__(dataset)
        self._mine = generator

    def __iter__(self) -> Any:
        for _ in range(self.size):
            yield int(torch.randint(self.size, (), generator=self._mine))


class NumpyRange:
    """A metric of NumPy arrays, one value per output."""

    def __call__(self, outputs: Any, targets: Any) -> np.ndarray:
        return np.ptp(np.asarray(outputs), axis=0)


class Gloomy:
    """A metric that is never finite."""

    def __call__(self, outputs: Any, targets: Any) -> float:
        return float("nan")


HERE = __name__
PROVIDERS = (
    *(
        DatasetProvider(c.__name__, target=f"{HERE}:{c.__name__}")
        for c in (Linear, Poisoned, Classes, NoParams, Triple, Stated, Noted, Broken)
    ),
    *(
        ModelProvider(c.__name__, target=f"{HERE}:{c.__name__}")
        for c in (Net, Lone, Classifier, Exploding, Remembering, Summarised, Tight)
    ),
    *(
        TrainerProvider(c.__name__, target=f"{HERE}:{c.__name__}")
        for c in (OldTrainer, PicklingTrainer, ForgetfulTrainer, SubclassTrainer)
    ),
    SamplerProvider("Backwards", target=Backwards),
    SamplerProvider("Lazy", target=Lazy),
    SamplerProvider("Pairs", target=Pairs, yields="batch"),
    MetricProvider("range", target=NumpyRange),
    MetricProvider("gloomy", target=Gloomy),
)


def toy_registry() -> Registry:
    """Return the core's providers and those of this module."""
    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    found = registry(core, plugin("toys", *PROVIDERS))
    assert not found.problems
    return found


def toy_spec(directory: Path, **changes: Any) -> TaskSpec:
    """Return the specification of a task that takes a fraction of a second."""
    spec = TaskSpec(
        task="0" * 32,
        attempt=1,
        dataset=Component("dataset", "toys/Linear"),
        dataset_path=str(directory / "data"),
        samplers={"train": None, "validation": None, "test": None},
        input_shape=[6],
        output_shape=[3],
        additional_model_params={"gain": np.ones(3, dtype=np.float32), "unused": 7},
        model=Component("model", "toys/Net"),
        trainer=Component("trainer", "synicix-core/NNTrainer"),
        optimizer=Component("optimizer", "synicix-core/Adam", {"lr": 0.02}),
        criterion=Component("criterion", "synicix-core/MSELoss"),
        metrics=(Component("metric", "synicix-core/loss"), Component("metric", "synicix-core/correlation")),
        batch_size=10,
        epoch_limit=4,
        seed=3,
        device="cpu",
        num_workers=0,
        model_save_path=str(directory / "models" / "model.pt"),
        checkpoint_path=str(directory / "models" / "checkpoint"),
    )
    return dataclasses.replace(spec, **changes)


def nn_spec(directory: Path, params: dict[str, Any] | None = None, **changes: Any) -> TaskSpec:
    """Return the same with parameters for NNTrainer."""
    return toy_spec(directory, trainer=Component("trainer", "synicix-core/NNTrainer", params or {}), **changes)


class Recorder:
    """An observer that keeps what it is told and asks to stop at the n-th time it is asked."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.asked = 0
        self.stop_at = stop_at
        self.epochs: list[dict[str, Any]] = []
        self.checkpoints: list[tuple[str, int]] = []
        self.failed_checkpoints: list[str] = []
        self.alive = threading.Event()

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.stop_at is not None and self.asked >= self.stop_at

    def epoch_finished(self, **fields: Any) -> None:
        self.epochs.append(fields)

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        self.checkpoints.append((path, epoch))

    def checkpoint_failed(self, message: str) -> None:
        self.failed_checkpoints.append(message)

    def progress(self) -> None:
        self.alive.set()


class Listening(Recorder):
    """Keeps the sentences, too."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def note(self, message: str) -> None:
        self.heard.append(message)
