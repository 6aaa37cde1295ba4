"""What cannot be trained as one is found before training begins, and said."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.training.group import NotTogether, plan_group
from synicix_core.training.spec import Component
from synicix_core.training.stack_probe import _Trial
from synicix_core.training.unfit_code import what_cannot_be_stacked
from tests.training.stack_toys import REGISTRY, stack_spec, train_together, with_model

UNFIT = {
    "Branching": "the forward of Branching (stack_toys.py, line {line}) decides by the values of a tensor (a data-dependent `if`",
    "Reading": "the forward of Reading (stack_toys.py, line {line}) reads a number out of a tensor (`.item()`",
    "Writing": "the forward of Writing (stack_toys.py, line {line}) writes into a tensor that it has just made",
    "Masking": "the forward of Masking (stack_toys.py, line {line}) makes a tensor whose size depends on values",
    "Noisy": "its model Noisy, or its criterion, draws random numbers of its own; only torch.nn's layers of dropout may",
    "NumpyNoise": "its model NumpyNoise, or its criterion, draws random numbers of its own",
    "PythonNoise": "its model PythonNoise, or its criterion, draws random numbers of its own",
    "Counting": "Counting.steps changes as the model learns; tensors may, in buffers",
    "Reassigning": "its buffer seen does not become what it becomes alone; is it replaced, instead of changed in place?",
    "Hooked": "hooks hang on its model, on a Sequential",
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_model_that_cannot_be_stacked_is_found_by_trying(tmp_path: Path, name: str) -> None:
    plan = plan_group(with_model(stack_spec(tmp_path), name), REGISTRY, 4)
    reason = re.sub(r"line \d+", "line {line}", plan.reason)
    assert plan.size == 1 and reason.startswith(UNFIT[name]), plan.reason
    assert not re.search("vmap|functorch|http", plan.reason)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a dataset without tensors": ({"dataset": Component("dataset", "toys/Unheld")}, "Unheld has no tensors()"),
    "no room on the device": ({"resident_share": 1e-12}, "does not fit"),
    "nothing is to be on the device": ({"resident_share": 0.0}, "resident_share is 0"),
    "nan_policy": ({"trainer": Component("trainer", "synicix-core/NNTrainer", {"nan_policy": "skip"})}, "nan_policy"),
    "micro-batches": ({"micro_batches": 4}, "split"),
    "channels last": (
        {"trainer": Component("trainer", "synicix-core/NNTrainer", {"channels_last": True})},
        "channels_last",
    ),
    "a sampler of somebody's": (
        {"samplers": {"train": Component("sampler", "toys/Backwards"), "validation": None, "test": None}},
        "sampler",
    ),
    "a group of one": ({}, "a group of one"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_cannot_be_stacked_is_said(tmp_path: Path, setting: str) -> None:
    changes, why = SETTINGS[setting]
    spec = dataclasses.replace(stack_spec(tmp_path), **changes)
    plan = plan_group(spec, REGISTRY, 1 if setting == "a group of one" else 4)
    assert plan.size == 1 and why in plan.reason, plan.reason


@pytest.mark.parametrize("name", ["Numbered", "Enclosed"])
def test_a_plain_number_that_differs_is_not_taken_from_the_first(tmp_path: Path, name: str) -> None:
    slopes = [0.1, 0.1, 0.3]
    found = train_together([with_model(stack_spec(tmp_path, k), name, slope=slope) for k, slope in enumerate(slopes)])
    assert [isinstance(item, NotTogether) for item in found] == [False, False, True]
    assert ("slope" if name == "Numbered" else "act") in str(found[2])
    assert not (tmp_path / "2.pt").exists()


def test_dropout_that_is_there_in_one_and_not_in_another_keeps_them_apart(tmp_path: Path) -> None:
    found = train_together(
        [with_model(stack_spec(tmp_path, k), "Perceptron", dropout=p) for k, p in enumerate([0.2, 0.0, 0.5])]
    )
    assert [isinstance(item, NotTogether) for item in found] == [False, True, False]


def test_a_probe_leaves_no_trace(tmp_path: Path) -> None:
    spec = stack_spec(tmp_path)
    assert plan_group(spec, REGISTRY, 3).size == 3
    assert not list(tmp_path.iterdir())


def test_the_size_comes_from_the_clock(tmp_path: Path) -> None:
    plan = plan_group(stack_spec(tmp_path), REGISTRY)
    assert plan.size in (16, 64) and re.fullmatch(
        r"with \d+ a step takes \d+\.\d\d ms for each, alone \d+\.\d\d ms", plan.reason
    )


def test_a_model_of_millions_of_weights_is_not_stacked_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synicix_core.training.stack_conditions._CACHE_BYTES", 20 * 400)
    plan = plan_group(stack_spec(tmp_path), REGISTRY)
    assert plan.size == 1 and "its model has 451 weights, and a CPU gains nothing with more than 200" in plan.reason
    assert plan_group(stack_spec(tmp_path), REGISTRY, 4).size == 4, "so many were asked for"


def test_a_stack_that_is_slower_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synicix_core.training.stack_probe._GAIN", 1e-6)
    plan = plan_group(stack_spec(tmp_path), REGISTRY)
    assert plan.size == 1 and "nothing is gained: a step takes " in plan.reason


def test_what_half_of_the_memory_does_not_hold_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synicix_core.training.stack_conditions.free_bytes", lambda _: 2 * 3 * 451 * 20)
    plan = plan_group(stack_spec(tmp_path), REGISTRY, 8)
    assert plan.size == 3 and plan.reason == "half of the free memory holds 3 models of 451 weights"


def test_code_of_nobody_s_is_named_by_its_layer() -> None:
    class Odd(torch.nn.Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError) as raised:
        torch.func.vmap(torch.nn.Sequential(Odd()))(torch.ones(2, 3))
    assert what_cannot_be_stacked(raised.value).startswith("the forward of Odd (test_stack_unfit.py, line ")
    plain = what_cannot_be_stacked(RuntimeError("vmap: something of torch's own"))
    assert plain == "its model, or its criterion, does something that cannot be done for several models at once"
    assert what_cannot_be_stacked(ValueError("an odd shape")).endswith("at once (ValueError: an odd shape)")


def test_so_few_that_nothing_is_gained_are_found_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {64: 64.0, 16: 20.0, 2: 2.4, 3: 3.5, 4: 4.0}
    monkeypatch.setattr(_Trial, "_clock", lambda *_: 1.0)  # alone
    monkeypatch.setattr(_Trial, "_clock_stack", lambda _, size, __: seconds[size] * 0.8)
    plan = plan_group(stack_spec(tmp_path), REGISTRY)
    assert (plan.size, plan.least) == (64, 4)
    assert plan_group(stack_spec(tmp_path), REGISTRY, 3).least == 2
