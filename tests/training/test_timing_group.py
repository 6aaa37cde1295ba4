"""What takes a group its time before its first step is no step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synicix_core.training import compiling, stack, stacked_model, timing
from synicix_core.training.recorded_step import RecordedStep
from synicix_core.training.spec import TaskOutcome
from tests.training.stack_toys import stack_spec, train_together, with_model
from tests.training.toys import Listening

TAKES = 30.0


class Tried:
    """A clock that moves only where a step is recorded, and what was recorded."""

    def __init__(self) -> None:
        self.now = 100.0
        self.compiled: list[bool] = []

    def clock(self) -> float:
        return self.now


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    made = Tried()

    class Slow(RecordedStep):
        def __init__(self, function: Any, arguments: Any, *, compiled: bool = False) -> None:
            super().__init__(function, arguments)
            made.compiled.append(compiled)
            made.now += TAKES

    monkeypatch.setattr(timing, "perf_counter", made.clock)
    monkeypatch.setattr(stacked_model, "RecordedStep", Slow)
    monkeypatch.setattr(stack, "missing_compiler", lambda _: "")
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: "")
    return made


def seconds(found: list[TaskOutcome | BaseException]) -> list[dict[str, float]]:
    assert all(isinstance(item, TaskOutcome) for item in found), found
    return [item.provenance["timing"]["seconds"] for item in found if isinstance(item, TaskOutcome)]


def test_a_group_books_compiling_as_that_and_says_so_once(tmp_path: Path, tried: Tried) -> None:
    observers = [Listening() for _ in range(3)]
    specs = [stack_spec(tmp_path, k, {"compile": "on"}) for k in range(3)]
    found = train_together(specs, list(observers))
    assert tried.compiled == [True]
    assert seconds(found) == [{"compiling": TAKES / 3}] * 3
    kind = specs[0].model.provider.rpartition("/")[2]
    [said] = [message for observer in observers for message in observer.heard]
    assert said == f"{specs[0].task[:8]}: compiling {kind} for a group of 3; this may take a minute"


def test_recording_a_step_is_booked_as_that_too_without_a_word(
    tmp_path: Path, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_RECORDING_TAKES", 0.0)
    observers = [Listening() for _ in range(2)]
    found = train_together([stack_spec(tmp_path, k) for k in range(2)], list(observers))
    assert tried.compiled == [False]
    assert seconds(found) == [{"compiling": TAKES / 2}] * 2
    assert not any(observer.heard for observer in observers)


def test_nothing_is_said_where_nothing_can_be_recorded(tmp_path: Path, tried: Tried) -> None:
    observers = [Listening() for _ in range(2)]
    specs = [with_model(stack_spec(tmp_path, k, {"compile": "on"}), "Perceptron", dropout=0.3) for k in range(2)]
    train_together(specs, list(observers))
    assert not tried.compiled and not any(observer.heard for observer in observers)


def test_the_order_of_an_epoch_is_data(tmp_path: Path, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = stack.StackedEpoch.__init__

    def slow(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        tried.now += 2.0

    monkeypatch.setattr(stack.StackedEpoch, "__init__", slow)
    found = train_together([stack_spec(tmp_path, k) for k in range(2)])
    assert [item.keys() for item in seconds(found)] == [{"data"}] * 2
