"""Where the time of a task goes: every second counted once, by the part that it was spent on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core import DatasetProvider, ModelProvider, TrainerProvider, builtin
from synicix_core.training import timing
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.saved_files import load_checksummed
from synicix_core.training.spec import Component, TaskSpec
from synicix_core.training.timing import (
    BACKWARD,
    CHECKPOINT,
    EVALUATION,
    FORWARD,
    OPTIMIZER,
    PARTS,
    DeviceStopwatch,
    Share,
    Stopwatch,
    make_stopwatch,
)
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import PROVIDERS, Linear, Net, OldTrainer, Recorder, nn_spec, toy_spec

PAUSE = 0.02


class SlowToRead(Linear):
    """Takes its time for each training example."""

    def __init__(self, path: str, tier: str) -> None:
        super().__init__(path, tier)
        self.pause = PAUSE / 10 if tier == "train" else 0.0

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.pause)
        return super().__getitem__(index)


class SlowForward(Net):
    """Takes its time for each training batch."""

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            time.sleep(PAUSE)
        return super().forward(x)


class SlowBackward(Net):
    """Takes its time for the gradient of each batch."""

    def forward(self, x: torch.Tensor) -> Any:
        output, penalty = super().forward(x)
        if output.requires_grad:
            output.register_hook(lambda _: time.sleep(PAUSE))
        return output, penalty


class SlowEvaluation(Net):
    """Takes its time for each batch that it does not learn from."""

    def forward(self, x: torch.Tensor) -> Any:
        if not self.training:
            time.sleep(PAUSE)
        return super().forward(x)


class Validating(OldTrainer):
    """Reads the validation tier itself, slowly, after each epoch."""

    def train(self) -> None:
        super().train()
        for _ in self.loaders[1]:
            time.sleep(PAUSE)


@pytest.fixture(scope="module")
def everything() -> Any:
    here = __name__
    slow = registry(
        EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin),
        plugin("toys", *PROVIDERS),
        plugin(
            "slow",
            DatasetProvider("SlowToRead", target=f"{here}:SlowToRead"),
            *(ModelProvider(c, target=f"{here}:{c}") for c in ("SlowForward", "SlowBackward", "SlowEvaluation")),
            TrainerProvider("Validating", target=f"{here}:Validating"),
        ),
    )
    assert not slow.problems
    return slow


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", made)
    return made


def parts(stopwatch: Stopwatch) -> dict[str, float]:
    return stopwatch.describe()["seconds"]


def spend(stopwatch: Stopwatch, clock: Clock, part: int, seconds: float) -> None:
    stopwatch.switch(part)
    clock.now += seconds


def test_time_goes_to_one_part_after_the_other(clock: Clock) -> None:
    stopwatch = Stopwatch(begun=99.0)
    spend(stopwatch, clock, FORWARD, 2.0)
    with stopwatch.during(CHECKPOINT):
        clock.now += 4.0
    clock.now += 0.5
    stopwatch.next_step()
    clock.now += 8.0
    assert parts(stopwatch) == {"other": 1.0, "forward": 2.5, "checkpoint": 4.0, "data": 8.0}
    clock.now += 1.0
    assert parts(stopwatch)["data"] == 9.0, "to look changes nothing"


def test_an_exception_does_not_leave_the_wrong_part_running(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with pytest.raises(ValueError, match="as asked"), stopwatch.during(EVALUATION):
        raise ValueError("as asked")
    clock.now += 3.0
    assert parts(stopwatch) == {"other": 3.0}


def test_rates_are_those_of_learning_alone(clock: Clock) -> None:
    stopwatch = Stopwatch()
    assert stopwatch.describe()["samples_per_second"] is None
    for part in range(len(PARTS)):
        spend(stopwatch, clock, part, 1.0)
    stopwatch.count(10, 200)
    told = stopwatch.describe()
    # data, forward, backward, optimizer, training
    assert (told["steps_per_second"], told["samples_per_second"]) == (2.0, 40.0)
    assert list(told["seconds"]) == list(PARTS)


def test_what_an_earlier_attempt_measured_is_added(clock: Clock) -> None:
    first = Stopwatch()
    spend(first, clock, FORWARD, 2.0)
    first.count(3, 30)
    saved = first.state_dict()
    second = Stopwatch()
    spend(second, clock, FORWARD, 1.0)
    second.load_state_dict(saved)
    spend(second, clock, BACKWARD, 4.0)
    assert parts(second) == {"forward": 3.0, "backward": 4.0}
    assert (second.steps, second.samples) == (3, 30)


def test_a_group_hands_out_equal_shares_of_what_passed_since(clock: Clock) -> None:
    group = Stopwatch()
    one, two = Share(group), Share(group)
    one.next_step()
    clock.now += 6.0
    two.switch(EVALUATION)
    clock.now += 2.0
    group.deal([one, two])
    clock.now += 5.0
    group.deal([two])
    assert parts(one) == {"data": 3.0, "evaluation": 1.0}
    with two.during(CHECKPOINT):
        clock.now += 1.0
    assert parts(two) == {"data": 3.0, "evaluation": 6.0, "checkpoint": 1.0}, "its end is its own"
    assert parts(one) == {"data": 3.0, "evaluation": 1.0}


class Event:
    """A mark on a device that is always a second late and has a clock of its own."""

    made = 0

    def __init__(self, device: Clock) -> None:
        Event.made += 1
        self._device = device
        self._at: float | None = None

    def record(self) -> None:
        self._at = self._device.now

    def query(self) -> bool:
        return self._at is not None and self._device.now >= self._at + 1.0

    def elapsed_time(self, later: Event) -> float:
        assert self._at is not None and later._at is not None
        return 1000 * (later._at - self._at)


def device_steps(stopwatch: Stopwatch, clock: Clock, device: Clock, steps: int) -> None:
    """Hand out steps within no time, for which the device takes 0.1, 0.2, 0.3 and 0.4 s."""
    for _ in range(steps):
        stopwatch.next_step()
        device.now += 0.1
        for part, seconds in ((FORWARD, 0.2), (BACKWARD, 0.3), (OPTIMIZER, 0.4)):
            stopwatch.switch(part)
            device.now += seconds
            clock.now += 0.001
    stopwatch.next_step()


def test_a_device_says_how_the_time_of_steps_divides(clock: Clock) -> None:
    device, Event.made = Clock(), 0
    stopwatch = DeviceStopwatch(None, lambda: Event(device), lambda: False)
    device_steps(stopwatch, clock, device, 40)
    clock.now += 40.0 - 40 * 0.003  # the host waits
    device.now += 1.0
    stopwatch.settle()
    stopwatch.switch(EVALUATION)
    clock.now += 7.0
    assert parts(stopwatch) == pytest.approx(
        {"data": 4.0, "forward": 8.0, "backward": 12.0, "optimizer": 16.0, "evaluation": 7.0}
    )
    made = Event.made
    assert made == 3 * 5, "steps 2, 18 and 34 of 40 leave five marks each"
    device_steps(stopwatch, clock, device, 40)
    device.now += 1.0
    stopwatch.settle()
    assert Event.made == made, "the same events serve again"


def test_a_device_that_is_not_asked_in_time_leaves_the_hosts_division(clock: Clock) -> None:
    device = Clock()
    stopwatch = DeviceStopwatch(None, lambda: Event(device), lambda: False)
    device_steps(stopwatch, clock, device, 2)
    stopwatch.settle()  # the marks of the second step are not reached yet
    assert parts(stopwatch) == pytest.approx({"forward": 0.002, "backward": 0.002, "optimizer": 0.002})


def test_a_step_that_is_being_recorded_leaves_no_marks(clock: Clock) -> None:
    device, Event.made = Clock(), 0
    stopwatch = DeviceStopwatch(None, lambda: Event(device), lambda: True)
    device_steps(stopwatch, clock, device, 20)
    stopwatch.settle()
    assert Event.made == 0 and parts(stopwatch)["forward"] == pytest.approx(0.02)


def test_the_cpu_needs_no_marks() -> None:
    assert type(make_stopwatch(torch.device("cpu"))) is Stopwatch


def test_a_step_reads_the_clock_once_for_each_part_and_once_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading costs 0.06 us, and all five of a step hardly more than that, of the 600 us of a tiny model's step."""
    read = 0
    clock = time.perf_counter

    def counted() -> float:
        nonlocal read
        read += 1
        return clock()

    stopwatch = Stopwatch()
    monkeypatch.setattr(timing, "perf_counter", counted)
    for _ in range(10):
        stopwatch.next_step()
        for part in (OPTIMIZER, FORWARD, BACKWARD, OPTIMIZER):
            stopwatch.switch(part)
    assert read == 50


def timed_run(spec: TaskSpec, everything: Any) -> tuple[dict[str, Any], float]:
    began = time.perf_counter()
    outcome = run_task(spec, everything, Recorder())
    return outcome.provenance["timing"], time.perf_counter() - began


def test_the_parts_add_up_to_the_whole(tmp_path: Path, everything: Any) -> None:
    told, wall = timed_run(nn_spec(tmp_path), everything)
    assert wall * 0.9 < sum(told["seconds"].values()) <= wall
    assert {"data", "forward", "backward", "optimizer", "evaluation", "checkpoint", "other"} <= set(told["seconds"])
    assert "training" not in told["seconds"], "NNTrainer says what it does"


def test_steps_and_samples_are_counted(tmp_path: Path, everything: Any) -> None:
    told, _ = timed_run(nn_spec(tmp_path, {"accumulate_batches": 2, "early_stopping_patience": None}), everything)
    batches = -(-len(Linear("", "train")) // 10)
    assert told["steps"] == 4 * -(-batches // 2) and told["samples"] == 4 * len(Linear("", "train"))
    learning = sum(told["seconds"][part] for part in ("data", "forward", "backward", "optimizer"))
    assert told["samples_per_second"] == pytest.approx(told["samples"] / learning)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"dataset": Component("dataset", "slow/SlowToRead")}, "data"),
        ({"model": Component("model", "slow/SlowForward")}, "forward"),
        ({"model": Component("model", "slow/SlowBackward")}, "backward"),
        ({"model": Component("model", "slow/SlowEvaluation")}, "evaluation"),
    ],
)
def test_what_takes_long_is_found(tmp_path: Path, everything: Any, change: dict[str, Any], part: str) -> None:
    run_task(nn_spec(tmp_path), everything, Recorder())  # what is imported the first time
    told, _ = timed_run(nn_spec(tmp_path, {"early_stopping_patience": None}, **change), everything)
    assert max(told["seconds"], key=lambda name: told["seconds"][name]) == part


def test_of_a_trainer_that_says_nothing_the_loaders_know_something(tmp_path: Path, everything: Any) -> None:
    trainer = Component("trainer", "slow/Validating")
    slow = Component("dataset", "slow/SlowToRead")
    told, wall = timed_run(toy_spec(tmp_path, trainer=trainer, dataset=slow), everything)
    seconds = told["seconds"]
    size = len(Linear("", "train"))
    assert seconds["data"] >= 4 * size * PAUSE / 10 and seconds["evaluation"] >= PAUSE and seconds["training"] > 0
    assert "forward" not in seconds and sum(seconds.values()) <= wall
    assert (told["steps"], told["samples"]) == (4 * -(-size // 10), 4 * size)


def test_what_came_before_the_executor_counts(tmp_path: Path, everything: Any) -> None:
    told, wall = timed_run(nn_spec(tmp_path, seconds_before={"database": 50.0, "data": 7.0}), everything)
    assert told["seconds"]["database"] == 50.0 and 7.0 < told["seconds"]["data"] < 7.0 + wall
    assert sum(told["seconds"].values()) <= wall + 57.0


def test_a_resumed_task_knows_what_the_attempt_before_took(tmp_path: Path, everything: Any) -> None:
    spec = nn_spec(tmp_path, {"early_stopping_patience": None}, seconds_before={"database": 50.0})
    with pytest.raises(TrainingInterrupted):
        run_task(spec, everything, Recorder(stop_at=15))
    saved = load_checksummed(Path(spec.checkpoint_path))["timing"]
    assert saved["seconds"]["database"] == 50.0 and saved["seconds"]["forward"] > 0
    again = dataclasses.replace(spec, attempt=2, seconds_before={"database": 1.0})
    told, wall = timed_run(again, everything)
    assert told["seconds"]["database"] == 51.0
    assert (
        sum(saved["seconds"].values()) + 1.0
        < sum(told["seconds"].values())
        <= sum(saved["seconds"].values()) + wall + 1
    )
    assert told["samples"] == 4 * len(Linear("", "train")), "each epoch counted once"


def test_a_checkpoint_without_timing_is_gone_on_from(
    tmp_path: Path, everything: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synicix_core.training.checkpoints import Checkpoints

    spec = nn_spec(tmp_path, {"early_stopping_patience": None})
    with pytest.raises(TrainingInterrupted):
        run_task(spec, everything, Recorder(stop_at=15))
    read: Callable[..., Any] = Checkpoints.read

    def without(self: Checkpoints) -> Any:
        content = read(self)
        assert content is not None
        del content["timing"]
        return content

    monkeypatch.setattr(Checkpoints, "read", without)
    told, wall = timed_run(spec, everything)
    assert sum(told["seconds"].values()) <= wall
