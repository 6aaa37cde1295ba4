"""What looks as if it could be stacked is stacked with the numbers it has alone, or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synicix_core.training import training_run
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.dropout import own_dropout
from synicix_core.training.group import NotTogether, plan_group
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from synicix_core.training.tiers import _held, forget_tiers
from tests.training.stack_toys import furthest, stack_spec, the_registry, train_together, with_model
from tests.training.test_stack_resume import again
from tests.training.toys import Recorder

REGISTRY = the_registry()


def optimizer(name: str, **params: Any) -> Component:
    return Component("optimizer", f"synicix-core/{name}", params)


SOUND: dict[str, tuple[str, dict[str, Any]]] = {
    "transposed gradients, Adagrad": ("Transposed", {"optimizer": optimizer("Adagrad", lr=0.1)}),
    "transposed gradients, amsgrad": ("Transposed", {"optimizer": optimizer("Adam", amsgrad=True)}),
    "transposed gradients, dampening": (
        "Transposed",
        {"optimizer": optimizer("SGD", lr=0.1, momentum=0.9, dampening=0.5)},
    ),
    "one gradient for two, clipped": ("Shared", {"trainer": {"gradient_clip_norm": 0.1}}),
    "one gradient for two, accumulated": ("Shared", {"trainer": {"accumulate_batches": 3}}),
    "cycled betas": ("Perceptron", {"trainer": {"scheduler": "onecycle"}}),
    "cycled momentum": (
        "Perceptron",
        {"trainer": {"scheduler": "onecycle"}, "optimizer": optimizer("SGD", lr=0.1, momentum=0.9)},
    ),
    "a layer that sometimes takes no part": ("Sometimes", {}),
    "the same with momentum": ("Sometimes", {"optimizer": optimizer("SGD", lr=0.1, momentum=0.9)}),
    "one layer of dropout in two places": ("Twice", {}),
    "an input that is changed in place": ("Changing", {}),
    "a metric that changes its targets": ("Perceptron", {"metrics": (Component("metric", "toys/spoiling"),)}),
}


@pytest.mark.parametrize("case", SOUND)
def test_the_numbers_are_those_alone(tmp_path: Path, case: str) -> None:
    name, changes = SOUND[case]
    alone = [with_model(stack_spec(tmp_path / "alone", k, **changes), name) for k in range(3)]
    together = [with_model(stack_spec(tmp_path / "together", k, **changes), name) for k in range(3)]
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in alone]
    found = train_together(together)
    for mine, theirs in zip(expected, found, strict=True):
        assert isinstance(theirs, TaskOutcome), theirs
        assert theirs.metrics["test"] == pytest.approx(mine.metrics["test"], rel=1e-10)
    assert max(furthest(one, other) for one, other in zip(alone, together, strict=True)) < 1e-12


UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "numbers drawn for the last batch": ("NoisyAtTheEnd", {}, "draws random numbers"),
    "numbers drawn in evaluation": ("NoisyWhenAsked", {}, "draws random numbers"),
    "steps counted in an object": ("Ticking", {}, "ticks changes"),
    "a criterion that counts": (
        "Perceptron",
        {"criterion": Component("criterion", "toys/CountingLoss")},
        "calls changes",
    ),
    "a metric that draws": ("Perceptron", {"metrics": (Component("metric", "toys/bootstrap"),)}, "its metric draws"),
    "an optimizer that replaces tensors": (
        "Perceptron",
        {"optimizer": Component("optimizer", "toys/Replacing")},
        "puts new tensors in the place",
    ),
    "a criterion that gives many numbers": (
        "Perceptron",
        {"criterion": Component("criterion", "synicix-core/MSELoss", {"reduction": "none"})},
        "one number",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_would_have_other_numbers_is_declined(tmp_path: Path, case: str) -> None:
    name, changes, why = UNFIT[case]
    plan = plan_group(with_model(stack_spec(tmp_path, **changes), name), REGISTRY, 3)
    assert plan.size == 1 and why in plan.reason, plan.reason


def test_what_was_found_for_other_parameters_is_not_believed(tmp_path: Path) -> None:
    assert plan_group(with_model(stack_spec(tmp_path), "Conditional", rate=0.0), REGISTRY, 3).size == 3
    found = train_together([with_model(stack_spec(tmp_path, k), "Conditional", rate=0.3) for k in range(3)])
    assert all(isinstance(item, NotTogether) for item in found)


def test_dropout_of_everything_is_zero_and_not_nothing(tmp_path: Path) -> None:
    found = train_together([with_model(stack_spec(tmp_path, k), "Perceptron", dropout=1.0) for k in range(2)])
    assert [item.status for item in found if isinstance(item, TaskOutcome)] == ["completed"] * 2


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout1d, (4, 3, 5)),
        (nn.Dropout1d, (3, 5)),
        (nn.Dropout2d, (4, 3, 5, 6)),
        (nn.Dropout2d, (4, 3, 5)),
        (nn.Dropout3d, (4, 3, 2, 2, 2)),
        (nn.Dropout3d, (3, 2, 2, 2)),
    ],
)
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_channels_are_dropped_as_torch_drops_them(layer: type[nn.Module], shape: tuple[int, ...]) -> None:
    ours = nn.Sequential(layer(0.5))
    own_dropout(ours, torch.Generator().manual_seed(7))
    torch.manual_seed(7)
    assert torch.equal(ours(torch.ones(shape)), layer(0.5)(torch.ones(shape)))


def test_a_task_that_was_stopped_in_its_validation_goes_on_in_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "_LONG_VALIDATION", -1.0)
    monkeypatch.setattr("synicix_core.training.tier_pass._MERGED_BYTES", {"cpu": 1})
    for size in (8, 10):
        whole = [stack_spec(tmp_path / f"whole{size}", k, batch_size=size) for k in range(2)]
        halves = [stack_spec(tmp_path / f"halves{size}", k, batch_size=size) for k in range(2)]
        for spec in whole:
            run_task(spec, REGISTRY, Recorder())
        steps = -(-50 // size)
        for spec in halves:
            with pytest.raises(TrainingInterrupted):
                run_task(spec, REGISTRY, Recorder(stop_at=steps + 2))
        found = train_together(again(halves))
        assert [item.epochs for item in found if isinstance(item, TaskOutcome)] == [3, 3]
        assert max(furthest(one, other) for one, other in zip(whole, halves, strict=True)) < 1e-12


@pytest.mark.parametrize("stop", [2, 3, 4, 5])
def test_accumulation_goes_on_where_the_last_step_had_fewer_batches(tmp_path: Path, stop: int) -> None:
    def spec(folder: str) -> TaskSpec:
        return stack_spec(tmp_path / folder, 0, {"accumulate_batches": 2}, batch_size=10)

    run_task(spec("whole"), REGISTRY, Recorder())
    with pytest.raises(TrainingInterrupted):
        run_task(spec("halves"), REGISTRY, Recorder(stop_at=stop))
    (rest,) = again([spec("halves")])
    run_task(rest, REGISTRY, Recorder())
    assert furthest(spec("whole"), spec("halves")) == 0.0


def test_half_precision_is_stacked(tmp_path: Path) -> None:
    specs = [
        with_model(stack_spec(tmp_path, k, {"precision": "bf16"}), "Perceptron", dtype="float32") for k in range(2)
    ]
    data = Component("dataset", "toys/Held", {"dtype": "float32"})
    found = train_together([dataclasses.replace(spec, dataset=data) for spec in specs])
    assert [item.status for item in found if isinstance(item, TaskOutcome)] == ["completed"] * 2


def test_a_share_of_nothing_keeps_nothing_on_the_device(tmp_path: Path) -> None:
    forget_tiers()
    spec = stack_spec(tmp_path, dataset_sha256="f" * 64)
    run_task(spec, REGISTRY, Recorder())
    assert _held
    outcome = run_task(dataclasses.replace(spec, resident_share=0.0), REGISTRY, Recorder())
    assert outcome.provenance["resident"] is False
    forget_tiers()
