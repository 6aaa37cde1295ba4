"""A profile of the first steps of a training, which a viewer of traces shows."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from synicix_core.training.spec import NoteTaker, TaskObserver, TaskSpec
from synicix_core.training.timing import (
    BACKWARD,
    DATA,
    EVALUATION,
    FORWARD,
    OPTIMIZER,
    OTHER,
    PARTS,
    PROFILER,
    TRAINING,
    Stopwatch,
)

__all__ = ["RECORDED_BATCHES", "RECORDED_STEPS", "WARM_UP_STEPS", "profiled"]

WARM_UP_STEPS = 5
"""Steps before the first one that is recorded."""
RECORDED_STEPS = 50
RECORDED_BATCHES = 50
"""Of the validation pass, no more batches are recorded."""
_LEARNING = (FORWARD, BACKWARD, OPTIMIZER, TRAINING)


@contextlib.contextmanager
def profiled(spec: TaskSpec, stopwatch: Stopwatch, device: torch.device, observer: TaskObserver) -> Iterator[None]:
    """Record some steps of the training inside the block, and its first validation after them, if `spec` wants that.

    The numbers of the training stay the same, and whatever goes wrong with the profile, it goes on.

    Parameters
    ----------
    spec : TaskSpec
        Says where the profile goes.
    stopwatch : Stopwatch
        Of the training, or of the group of trainings; told what they do.
    device : torch.device
        Where they are.
    observer : TaskObserver
        Who is told where the profile is, or why there is none.
    """
    if not spec.profile:
        yield
        return

    def tell(message: str) -> None:
        if isinstance(observer, NoteTaker):
            observer.note(f"{spec.task[:8]}: {message}")

    profiling = _TrainingProfile(Path(spec.profile), stopwatch, device, tell)
    try:
        yield
    finally:
        profiling.finish()


class _TrainingProfile:
    """Listens to a stopwatch: every part that it is switched to becomes a named range of the trace."""

    def __init__(self, path: Path, stopwatch: Stopwatch, device: torch.device, tell: Callable[[str], None]) -> None:
        self._path = path
        self._stopwatch = stopwatch
        self._device = device
        self._tell = tell
        self._activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            self._activities.append(ProfilerActivity.CUDA)
        self._profile: profile | None = None
        self._range: Any = None
        self._traces: list[dict[str, Any]] = []
        self._steps = self._recorded_steps = self._batches = 0
        self._is_step: bool | None = None
        """Whether what began last is a step: a reading that finds the end of the epoch is none. None: nobody knows yet."""
        self._evaluated = self._over = False
        self._step_began: float | None = None
        self._ordinary: list[float] = []
        self._recorded: list[float] = []
        # Without this, the profiler prints lines of its own.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        stopwatch.profiled = True
        self._unheard = stopwatch.switch, stopwatch.next_step
        switch, next_step = self._unheard

        def heard_switch(part: int) -> int:
            was = switch(part)
            self._guarded(lambda: self._switched(part, was))
            return was

        def heard_next_step() -> None:
            next_step()
            self._guarded(self._step)

        stopwatch.switch, stopwatch.next_step = heard_switch, heard_next_step

    def finish(self) -> None:
        """Write what there is, if that was not done before: the training is over."""
        if not self._over:
            self._count()
            self._guarded(self._write)
        self._end()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something for the profile; what goes wrong is told, and is the end of the profile only."""
        if self._over:
            return
        switch, _ = self._unheard
        was = switch(PROFILER)  # neither the start of the profiler nor what it writes is learning
        try:
            action()
        except Exception as error:  # of the profiler's many parts, or of the disk: never the task's
            self._end()
            why = (
                error.strerror if isinstance(error, OSError) and error.strerror else f"{error or type(error).__name__}"
            )
            where = f" to {self._path}" if isinstance(error, OSError) else ""
            self._tell(f"no profile was written{where}: {why.rstrip('.')}. Training went on without it.")
        finally:
            switch(was)

    def _step(self) -> None:
        now = perf_counter()
        if self._step_began is not None and self._is_step:
            (self._ordinary if self._profile is None else self._recorded).append(now - self._step_began)
        self._count()
        if self._steps == WARM_UP_STEPS:
            self._begin()
        elif self._steps == WARM_UP_STEPS + RECORDED_STEPS:
            self._pause()
        self._name(DATA)
        self._step_began = perf_counter()

    def _count(self) -> None:
        """Count the step that is over, if it was one."""
        self._steps += self._is_step is True
        self._recorded_steps += self._is_step is True and self._profile is not None
        self._is_step = None

    def _switched(self, part: int, was: int) -> None:
        if part in _LEARNING and self._is_step is None:
            self._is_step = True
        if part in (EVALUATION, OTHER):
            self._count()
            self._is_step = False  # until the next one begins
            self._step_began = None  # what lies between two epochs is no step
        if part == EVALUATION:
            if self._steps >= WARM_UP_STEPS and not self._evaluated and self._batches < RECORDED_BATCHES:
                self._begin()
                self._batches += 1
                self._name(part)
            elif self._batches >= RECORDED_BATCHES:
                self._has_evaluated()
        else:
            if was == EVALUATION and self._batches:
                self._has_evaluated()
            self._name(part)

    def _has_evaluated(self) -> None:
        self._evaluated = True
        if self._steps >= WARM_UP_STEPS + RECORDED_STEPS:
            self._pause()

    def _name(self, part: int) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if self._profile is not None:
            self._range = record_function(PARTS[part])
            self._range.__enter__()

    def _begin(self) -> None:
        if self._profile is None:
            starting = profile(activities=self._activities)
            starting.start()
            self._profile = starting

    def _pause(self) -> None:
        """Record no more for now; for good once both the steps and a validation were recorded."""
        self._take()
        if self._evaluated and self._steps >= WARM_UP_STEPS + RECORDED_STEPS:
            self._write()

    def _take(self) -> None:
        recording, self._profile = self._profile, None
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if recording is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # so that the work of the last steps is in the trace
        recording.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._partial("recorded")
        try:
            recording.export_chrome_trace(str(file))
            # The profiler does not say if the disk refused some of it.
            self._traces.append(json.loads(file.read_bytes()))
        finally:
            file.unlink(missing_ok=True)

    def _write(self) -> None:
        self._take()
        if not self._traces:
            self._end()
            self._tell(
                f"no profile was written: the training was over after {self._steps} steps, and the first "
                f"{WARM_UP_STEPS} are not recorded."
            )
            return
        partial = self._partial("partial")
        try:
            partial.write_text(json.dumps(_joined(self._traces)), encoding="utf-8")
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
        self._end()
        self._tell(self._where())

    def _partial(self, word: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{os.getpid()}.{word}")

    def _where(self) -> str:
        what = f"{self._recorded_steps} steps" + (" and a validation" if self._evaluated else "")
        slower = ""
        if self._recorded and self._ordinary:
            each, before = statistics.median(self._recorded), statistics.median(self._ordinary)
            slower = f" A recorded step took {1000 * each:.1f} ms, one before them {1000 * before:.1f} ms."
        return f"the profile of {what} is in {self._path}; open it at https://ui.perfetto.dev.{slower}"

    def _end(self) -> None:
        """Leave the stopwatch as it was; the profiler goes with what it recorded."""
        self._over = True
        self._stopwatch.switch, self._stopwatch.next_step = self._unheard
        self._traces = []
        recording, self._profile = self._profile, None
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if recording is not None:
            with contextlib.suppress(Exception):  # one reason was told
                recording.stop()


def _joined(traces: list[dict[str, Any]]) -> dict[str, Any]:
    """Return several recordings of one process as one; each counts its microseconds from a time of its own."""
    first = traces[0]
    for other in traces[1:]:
        shift = (other.get("baseTimeNanoseconds", 0) - first.get("baseTimeNanoseconds", 0)) / 1000
        for event in other["traceEvents"]:
            if "ts" in event:
                event["ts"] += shift
        first["traceEvents"] += other["traceEvents"]
    return first
