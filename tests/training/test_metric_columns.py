"""A metric may ask which examples its rows belong to, and is told right whatever read them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from synicix_core import DatasetProvider, MetricProvider, TrainerProvider, builtin
from synicix_core.errors import SynicixError
from synicix_core.registry import Registry
from synicix_core.training.check import check_task
from synicix_core.training.contract import Metric
from synicix_core.training.load import build_model, evaluate_task
from synicix_core.training.loaders import TaskDataLoader, make_loader
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskSpec
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import PROVIDERS, Backwards, Lazy, Linear, Net, OldTrainer, Pairs, Recorder, toy_spec

NONE: dict[str, Component | None] = {"train": None, "validation": None, "test": None}


class Numbered(Linear):
    """The first target of an example is its number, 100 and up."""

    def __init__(self, path: str, tier: str) -> None:
        super().__init__(path, tier)
        self.y[:, 0] = self.numbers = 100 + torch.arange(len(self.x))

    def column(self, name: str) -> Any:
        return {"number": self.numbers.numpy(), "text": self.numbers.numpy().astype(str), "short": np.zeros(3)}[name]


class Aligned:
    """The fraction of the rows whose number is that of the column, plus how many there are in thousands."""

    def __init__(self, name: str = "number") -> None:
        self.name = name

    def __call__(self, outputs: Any, targets: Any, column: Any) -> float:
        numbers = column(self.name).astype(int)
        assert isinstance(numbers, np.ndarray) and len(outputs) == len(targets)
        return float((numbers == targets[:, 0].numpy()).mean()) + 1000 * len(numbers)


class AlignedModule(nn.Module):
    """The same as a module."""

    def forward(self, outputs: Any, targets: Any, *, column: Any) -> float:
        return Aligned()(outputs, targets, column)


class AskingTrainer(OldTrainer):
    """Computes the metrics itself, and tells their values as notes."""

    def __init__(self, *args: Any, context: Any, tell: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context, self.tell = context, tell
        self.notes: list[str] = []

    def train(self) -> None:
        super().train()
        loader = self.loaders[1]
        collected = [(self.model(x)[0].detach(), y) for x, y in loader]
        outputs, targets = (torch.cat(tensors) for tensors in zip(*collected, strict=True))
        column = (loader.column,) if self.tell else ()
        self.notes = [f"{name} {metric(outputs, targets, *column)}" for name, metric in self.context.metrics.items()]


@pytest.fixture(scope="module")
def found() -> Registry:
    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    mine = [
        DatasetProvider("Numbered", target=Numbered),
        MetricProvider("aligned", target=Aligned),
        MetricProvider("aligned_module", target=AlignedModule),
        TrainerProvider("AskingTrainer", target=AskingTrainer),
    ]
    return registry(core, plugin("toys", *PROVIDERS, *mine))


def spec_of(directory: Path, metric: Component | None = None, **changes: Any) -> TaskSpec:
    metrics = (metric or Component("metric", "toys/aligned"), Component("metric", "synicix-core/loss"))
    return toy_spec(directory, **{"dataset": Component("dataset", "toys/Numbered"), "metrics": metrics, **changes})


SAMPLERS = {
    "in order": None,
    "backwards": Component("sampler", "toys/Backwards"),
    "at random, with repetition": Component("sampler", "toys/Lazy"),
    "batches": Component("sampler", "toys/Pairs"),
}


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rows_and_examples_belong_together(tmp_path: Path, found: Registry, sampler: str, micro_batches: int) -> None:
    samplers = {"train": None, "validation": SAMPLERS[sampler], "test": SAMPLERS[sampler]}
    spec = spec_of(tmp_path, samplers=samplers, micro_batches=micro_batches, batch_size=7)
    observer = Recorder()
    outcome = run_task(spec, found, observer)
    test_rows = 20 if sampler == "batches" else 21
    assert {tier: values["aligned"] for tier, values in outcome.metrics.items()} == {
        "train": 48_001.0,
        "validation": 20_001.0,
        "test": test_rows * 1000 + 1.0,
    }
    assert [event["metrics"] for event in observer.epochs] == [{"aligned": 20_001.0}] * 4, "early stopping sees it too"
    model = build_model(spec, found)
    assert evaluate_task(spec, found, model, "test")["aligned"] == outcome.metrics["test"]["aligned"]


def test_a_check_reads_one_batch_of_it(tmp_path: Path, found: Registry) -> None:
    samplers = {**NONE, "validation": SAMPLERS["backwards"]}
    assert check_task(spec_of(tmp_path, samplers=samplers, batch_size=7), found).metrics["aligned"] == 7001.0


def test_a_module_is_asked_what_its_forward_takes(tmp_path: Path, found: Registry) -> None:
    spec = spec_of(tmp_path, Component("metric", "toys/aligned_module"))
    assert check_task(spec, found).metrics["aligned_module"] == 10_001.0


def test_a_trainer_that_computes_metrics_itself_is_told_what_to_pass(tmp_path: Path, found: Registry) -> None:
    def spec(tell: bool) -> TaskSpec:
        return spec_of(tmp_path, trainer=Component("trainer", "toys/AskingTrainer", {"tell": tell}))

    assert "aligned 20001.0" in run_task(spec(True), found, Recorder()).notes
    with pytest.raises(SynicixError, match=r"'aligned' cannot be computed.*metric\(outputs, targets, loader.column\)"):
        run_task(spec(False), found, Recorder())


@pytest.mark.parametrize(
    ("metric", "dataset", "words"),
    [
        ({}, "Linear", r"'aligned'.*column 'number'.*the dataset Linear has no column\(name\)"),
        ({"name": "image"}, "Numbered", "'aligned'.*column 'image'.*KeyError: 'image'"),
        ({"name": "short"}, "Numbered", r"'aligned'.*20 examples.*shape \(3,\)"),
    ],
)
def test_a_column_that_is_not_there_is_one_clear_error(
    tmp_path: Path, found: Registry, metric: Any, dataset: str, words: str
) -> None:
    spec = spec_of(
        tmp_path, Component("metric", "toys/aligned", metric), dataset=Component("dataset", f"toys/{dataset}")
    )
    with pytest.raises(SynicixError, match=words):
        check_task(spec, found)
    with pytest.raises(SynicixError, match=words):
        run_task(spec, found, Recorder())


def test_outputs_of_another_pass_are_refused() -> None:
    metric = Metric("aligned", Aligned(), True, takes_column=True)
    with pytest.raises(SynicixError, match=r"5 outputs.*shape \(4,\).*latest pass"):
        metric(torch.zeros(5, 1), torch.zeros(5, 1), lambda _: np.zeros(4))


def test_a_trainer_with_a_plain_loader_is_told_what_it_lacks(tmp_path: Path) -> None:
    class Context:
        metrics = {"aligned": Metric("aligned", Aligned(), True, takes_column=True)}
        micro_batches = 1
        seed = 0

        def load_checkpoint(self) -> None:
            return None

        def stop_requested(self) -> bool:
            return False

        checkpoint_due = stop_requested

    trainer = NNTrainer(
        *(DataLoader(Numbered("", tier), batch_size=8) for tier in ("train", "validation", "test")),
        "cpu",
        Net,
        {"input_shape": (6,), "output_shape": (3,)},
        torch.optim.SGD,
        {"lr": 1e-6},
        nn.MSELoss,
        {},
        str(tmp_path / "model.pt"),
        1,
        context=Context(),  # type: ignore[arg-type]
    )
    with pytest.raises(SynicixError, match="'aligned' cannot be computed"):
        trainer.train()


def loader_of(sampler: Any = None, **options: Any) -> TaskDataLoader:
    loader = make_loader(Numbered("", "validation"), "validation", seed=1, batch_size=6, sampler=sampler, **options)
    assert loader is not None
    return loader


def numbers_of(batches: Any) -> list[int]:
    return [int(number) for _, y in batches for number in y[:, 0]]


def test_a_loader_knows_what_it_handed_out_in_its_latest_pass() -> None:
    loader = loader_of(Lazy(Numbered("", "validation"), torch.Generator().manual_seed(0)))
    with pytest.raises(SynicixError, match="no batch was read yet"):
        loader.column("number")
    first = numbers_of(loader)
    assert loader.column("number").tolist() == first
    assert loader.column("text").tolist() == [str(number) for number in first]
    second = numbers_of(loader)
    assert loader.column("number").tolist() == second != first
    batches = iter(loader)
    begun = numbers_of([next(batches), next(batches)])
    assert loader.column("number").tolist() == begun and len(begun) == 12


def test_two_passes_at_a_time_are_kept_apart() -> None:
    loader = loader_of(Lazy(Numbered("", "validation"), torch.Generator().manual_seed(0)))
    ahead, behind = iter(loader), iter(loader)
    next(ahead)
    late = numbers_of([next(behind)])
    next(ahead)
    assert loader.column("number").tolist() == late


def test_samplers_may_yield_tensors_and_keys() -> None:
    loader = loader_of([torch.tensor([3, 1]), torch.tensor([-1])], batches=True)
    assert numbers_of(loader) == loader.column("number").tolist() == [103, 101, 119]

    class ByKey(Numbered):
        def __getitem__(self, key: Any) -> Any:
            return super().__getitem__(int(key[3:]))

    loader = TaskDataLoader(ByKey("", "validation"), batch_size=2, sampler=["row4", "row2"])
    assert numbers_of(loader) == [104, 102], "nobody is in its way"
    with pytest.raises(SynicixError, match="something other than positions"):
        loader.column("number")
    assert len(loader) == 1


def test_a_loader_without_a_length_stays_one() -> None:
    def endless() -> Any:
        while True:
            yield [1, 2]

    loader = TaskDataLoader(Numbered("", "validation"), batch_sampler=endless())
    with pytest.raises(TypeError):
        len(loader)
    numbers_of([next(iter(loader))])
    assert loader.column("number").tolist() == [101, 102]


def test_a_loader_is_freed_as_soon_as_it_is_let_go() -> None:
    # Its data-loading processes end with it, and not when Python next looks for cycles.
    loader = loader_of(Pairs(Numbered("", "validation"), torch.Generator()), batches=True)
    numbers_of(loader)
    gone = weakref.ref(loader)
    del loader
    assert gone() is None


@pytest.mark.slow
def test_data_loading_processes_are_ahead_and_change_nothing() -> None:
    loader = loader_of(Backwards(Numbered("", "validation")), num_workers=2)
    for _ in range(2):
        batches = iter(loader)
        begun = numbers_of([next(batches)])
        assert begun == loader.column("number").tolist() == list(range(119, 113, -1))
        rest = numbers_of(batches)
        assert loader.column("number").tolist() == begun + rest == list(range(119, 99, -1))
    gone = weakref.ref(loader)
    del loader, batches
    assert gone() is None
