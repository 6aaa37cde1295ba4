"""A group that is asked to stop between two epochs saves each of its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.stack import Stack
from tests.training.stack_toys import Recorder, stack_spec, train_together


def test_a_stop_between_two_epochs_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    begin = Stack._begin

    def begin_later(self: Stack, left: Any) -> Any:
        if self.runs[0].epochs == 2:
            asked.append(1)
        return begin(self, left)

    monkeypatch.setattr(Stack, "_begin", begin_later)
    monkeypatch.setattr(Recorder, "stop_requested", lambda _: bool(asked))
    specs = [stack_spec(tmp_path, k) for k in range(3)]
    found = train_together(specs)
    assert asked
    assert all(isinstance(one, TrainingInterrupted) for one in found), found
    assert len(list(tmp_path.glob("*checkpoint*"))) == 3
