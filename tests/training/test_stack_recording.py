"""The step of a stack is recorded when that pays, and gives the very same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.training.compiling import missing_compiler
from synicix_core.training.spec import TaskOutcome
from synicix_core.training.stacked_model import StackedModel
from tests.training.stack_toys import furthest, stack_spec, train_together, with_model


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let stacks record at once, and note how it went."""
    found: list[bool] = []
    record = StackedModel.record

    def noted(self: StackedModel, *batch: Any, **how: Any) -> bool:
        found.append(record(self, *batch, **how))
        return found[-1]

    monkeypatch.setattr(StackedModel, "record", noted)
    return found


KINDS = {
    "Perceptron": ({}, True),
    "Normed": ({}, True),
    "Attentive": ({}, True),
    "with dropout": ({"dropout": 0.3}, False),
    "Convolved": ({}, False),
    "Doomed": ({"after": 1e9}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_is_the_step(
    tmp_path: Path, kind: str, recordings: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, can_be = KINDS[kind]
    name = kind if kind[0].isupper() else "Perceptron"
    plain = [with_model(stack_spec(tmp_path / "plain", k), name, **params) for k in range(3)]
    recorded = [with_model(stack_spec(tmp_path / "recorded", k), name, **params) for k in range(3)]
    train_together(plain)
    assert not recordings  # three short epochs are not worth it
    monkeypatch.setattr("synicix_core.training.stack._RECORDING_TAKES", 0.0)
    train_together(recorded)
    assert recordings == [can_be]
    assert [furthest(one, other) for one, other in zip(plain, recorded, strict=True)] == [0.0] * 3


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_compiler(torch.device("cpu"))), reason="there is no compiler here")
def test_a_compiled_step_is_the_step_up_to_rounding(tmp_path: Path, recordings: list[bool]) -> None:
    plain = [stack_spec(tmp_path / "plain", k) for k in range(3)]
    compiled = [stack_spec(tmp_path / "compiled", k, {"compile": "on"}) for k in range(3)]
    train_together(plain)
    found = train_together(compiled)
    assert recordings == [True]
    assert max(furthest(one, other) for one, other in zip(plain, compiled, strict=True)) < 1e-10
    for item in found:
        assert isinstance(item, TaskOutcome)
        assert item.provenance["compiled"] is True and not item.provenance["fused"]["exact"]
