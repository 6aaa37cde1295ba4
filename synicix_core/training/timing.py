"""Where the time of a task goes. No torch here unless there is a GPU: `show` reads the names of the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = [
    "BACKWARD",
    "CHECKPOINT",
    "COMPILING",
    "DATA",
    "DATABASE",
    "EVALUATION",
    "FORWARD",
    "OPTIMIZER",
    "OTHER",
    "PARTS",
    "PROFILER",
    "TRAINING",
    "DeviceStopwatch",
    "Share",
    "Stopwatch",
    "make_stopwatch",
]

DATA, FORWARD, BACKWARD, OPTIMIZER, TRAINING, COMPILING, EVALUATION, CHECKPOINT, DATABASE, PROFILER, OTHER = range(11)
PARTS = (
    "data",
    "forward",
    "backward",
    "optimizer",
    "training",
    "compiling",
    "evaluation",
    "checkpoint",
    "database",
    "profiler",
    "other",
)
"""Names of the parts.

``training`` is learning whose parts cannot be told from each other: a step that runs as a whole, or a trainer of somebody
else's. ``compiling`` is what it takes to compile or record a step before it is used.
"""

_LEARNING = (DATA, FORWARD, BACKWARD, OPTIMIZER, TRAINING)
_SAMPLED = 16
"""Of so many steps, a device is asked about one."""


class Stopwatch:
    """Adds up the wall time of a task by what it was spent on.

    Time always goes to exactly one part, so the parts add up to the whole.

    Parameters
    ----------
    begun : float, optional
        When the task began, by `time.perf_counter`; now, if left out.

    Attributes
    ----------
    switch : callable
        ``switch(part)``: from now on time goes to that part. Returns the part to which it went before.
    next_step : callable
        ``next_step()``: from now on time goes to the data of another step.
    steps, samples : int
        Steps of the optimizer, and samples that it learnt from.
    by_trainer : bool
        Whether the trainer itself says what it is doing. If not, its loaders say what they know.
    profiled : bool
        Whether some steps were recorded by a profiler, which slows them down.
    """

    def __init__(self, begun: float | None = None) -> None:
        self.steps = self.samples = 0
        self.by_trainer = self.profiled = False
        self._before = [0.0] * len(PARTS)
        self._running = [0.0] * len(PARTS)
        self.switch: Callable[[int], int] = _switch(self._running, perf_counter() if begun is None else begun)
        self.next_step: Callable[[], Any] = partial(self.switch, DATA)

    @contextmanager
    def during(self, part: int) -> Iterator[None]:
        """Let the time inside the block go to a part, and afterwards to the one before."""
        was = self.switch(part)
        try:
            yield
        finally:
            self.switch(was)

    def add(self, part: int, seconds: float) -> None:
        """Add time that somebody else measured."""
        self._before[part] += seconds

    def count(self, steps: int, samples: int) -> None:
        """Count steps, and samples that were learnt from in them."""
        self.steps += steps
        self.samples += samples

    def settle(self) -> None:
        """Read what a device measured; called when it has nothing left to do."""

    def seconds(self) -> list[float]:
        """Return the seconds of each part, in the order of `PARTS`."""
        self.switch(self.switch(OTHER))  # so that the part that is running counts up to now
        return [before + now for before, now in zip(self._before, self._divided(), strict=True)]

    def deal(self, shares: Sequence[Stopwatch]) -> None:
        """Hand all that was measured since the last time to several tasks, to each the same share.

        Parameters
        ----------
        shares : sequence of Stopwatch
            Of the tasks that are trained together now; at least one.
        """
        seconds = self.seconds()
        for share in shares:
            for part, value in enumerate(seconds):
                share.add(part, value / len(shares))
        self._begin_again()

    def describe(self) -> dict[str, Any]:
        """Return what a result records: JSON.

        Returns
        -------
        dict
            ``seconds`` by part, those without any left out; ``steps``, ``samples``, and both per second of the time that
            learning took, evaluation and everything else left aside (None where that is not known); ``profiled``.
        """
        seconds = self.seconds()
        learning = sum(seconds[part] for part in _LEARNING)
        return {
            "seconds": {name: value for name, value in zip(PARTS, seconds, strict=True) if value > 0},
            "steps": self.steps,
            "samples": self.samples,
            "steps_per_second": self.steps / learning if learning > 0 and self.steps else None,
            "samples_per_second": self.samples / learning if learning > 0 and self.samples else None,
            "profiled": self.profiled,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured so far, for a checkpoint."""
        seconds = dict(zip(PARTS, self.seconds(), strict=True))
        return {"seconds": seconds, "steps": self.steps, "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Add what `state_dict` returned in the attempt that this one goes on from."""
        for part, name in enumerate(PARTS):
            self._before[part] += state["seconds"].get(name, 0.0)
        self.count(state["steps"], state["samples"])

    def _divided(self) -> list[float]:
        return self._running

    def _begin_again(self) -> None:
        for part in range(len(PARTS)):
            self._before[part] = self._running[part] = 0.0


class DeviceStopwatch(Stopwatch):
    """A stopwatch for a device that works on its own while the host goes ahead.

    What the host spends on handing out work says nothing about the work. So one step of `_SAMPLED` leaves marks in the
    device's own queue. They are read once an epoch, when the device is idle anyway, and the time that all steps took is
    divided as the marks say.

    Parameters
    ----------
    begun : float or None
        See `Stopwatch`.
    make_event : callable
        Makes a mark that has ``record()``, ``query()`` and ``elapsed_time(later) -> milliseconds``.
    capturing : callable
        Tells whether work is being recorded instead of done, so that a mark would have no time.
    """

    def __init__(
        self,
        begun: float | None,
        make_event: Callable[[], Any],
        capturing: Callable[[], bool],
    ) -> None:
        super().__init__(begun)
        self._make_event = make_event
        self._capturing = capturing
        self._free: list[Any] = []
        self._marks: list[tuple[int, Any]] | None = None
        """Of the step that leaves marks: each with the part that it ends."""
        self._finished: list[list[tuple[int, Any]]] = []
        self._sampled = [0.0] * len(PARTS)
        self._number = 0
        on_host = self.switch

        def switch(part: int) -> int:
            was = on_host(part)
            if self._marks is not None:
                self._mark(was)
            return was

        def next_step() -> None:
            was = on_host(DATA)
            if self._marks is not None:
                self._mark(was)
                if self._marks is not None:
                    self._finished.append(self._marks)
                    self._marks = None
            self._number += 1
            if self._number % _SAMPLED == 2:  # not the first one, which may wait for kernels to be loaded
                self._marks = []
                self._mark(DATA)

        self.switch = switch
        self.next_step = next_step

    def settle(self) -> None:
        """Read the marks; a step that the device has not finished is left out."""
        self._drop()
        finished, self._finished = self._finished, []
        for marks in finished:
            if marks[-1][1].query():
                for (_, start), (part, end) in pairwise(marks):
                    self._sampled[part] += start.elapsed_time(end) / 1000
            self._free += [event for _, event in marks]

    def _mark(self, part: int) -> None:
        assert self._marks is not None
        if self._capturing():
            self._drop()
            return
        event = self._free.pop() if self._free else self._make_event()
        event.record()
        self._marks.append((part, event))

    def _drop(self) -> None:
        if self._marks is not None:
            self._free += [event for _, event in self._marks]
            self._marks = None

    def _divided(self) -> list[float]:
        sampled = sum(self._sampled[part] for part in _LEARNING)
        if not sampled:
            return self._running
        whole = sum(self._running[part] for part in _LEARNING)
        learning = {part: whole * self._sampled[part] / sampled for part in _LEARNING}
        return [learning.get(part, seconds) for part, seconds in enumerate(self._running)]

    def _begin_again(self) -> None:
        super()._begin_again()
        self._sampled = [0.0] * len(PARTS)


class Share(Stopwatch):
    """The stopwatch of a task that is trained together with others.

    What it is told, it tells that of the group, which hands out everybody's share by `Stopwatch.deal`. What is left when the
    task describes its time, was spent on its end alone.

    Parameters
    ----------
    of : Stopwatch
        That of the group.
    """

    def __init__(self, of: Stopwatch) -> None:
        super().__init__()
        self._of = of

        # Looked up at each call, because a profile puts others in their place.
        def switch(part: int) -> int:
            return of.switch(part)

        def next_step() -> None:
            of.next_step()

        self.switch = switch
        self.next_step = next_step

    def settle(self) -> None:
        """See `Stopwatch`."""
        self._of.settle()

    def seconds(self) -> list[float]:
        """Return the seconds of each part as far as they were handed out."""
        return list(self._before)

    def describe(self) -> dict[str, Any]:
        """See `Stopwatch`."""
        self._of.deal([self])
        self.profiled = self._of.profiled
        return super().describe()


def make_stopwatch(device: torch.device, begun: float | None = None) -> Stopwatch:
    """Return a stopwatch for tasks on a device."""
    if device.type != "cuda":
        return Stopwatch(begun)
    from torch.cuda import Event, is_current_stream_capturing

    return DeviceStopwatch(begun, partial(Event, enable_timing=True), is_current_stream_capturing)


def _switch(seconds: list[float], begun: float) -> Callable[[int], int]:
    """Return `Stopwatch.switch`; a closure, which is a third faster than a method, and called several times a step."""
    since, current = begun, OTHER

    def switch(part: int) -> int:
        nonlocal since, current
        now = perf_counter()
        seconds[current] += now - since
        since = now
        was, current = current, part
        return was

    return switch
