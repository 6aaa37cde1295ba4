"""The TrainingContext that the pipeline hands to a trainer: progress, preemption, checkpoints."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from synicix_core.registry import Registered
from synicix_core.training import random_state
from synicix_core.training.checkpoints import CheckpointPlan, Checkpoints
from synicix_core.training.contract import Metric, TrainingInterrupted
from synicix_core.training.precision import Precision, resolve_precision
from synicix_core.training.spec import NoteTaker, TaskObserver, TaskSpec, TaskState
from synicix_core.training.timing import CHECKPOINT, Stopwatch

if TYPE_CHECKING:
    from synicix_core.training.data_parallel import DataParallel

__all__ = ["TaskContext", "make_context"]

_PROGRESS_SECONDS = 1.0


class TaskContext:
    """Implements `TrainingContext` for one attempt at one task.

    Parameters
    ----------
    checkpoints : CheckpointPlan
        Of which task, where and how often.
    seed, epoch_limit : int
        From the training config.
    metrics : mapping of str to Metric
        In order.
    make_precision : callable
        Returns the precision, when it is first asked for.
    observer : TaskObserver
        Who is told.
    micro_batches : int
        Into how many parts a batch is to be split.
    state : TaskState, optional
        Where it is noted how far the task has come.
    stopwatch : Stopwatch, optional
        Where the time goes; what it measured travels with the checkpoints.

    Attributes
    ----------
    process_state : mapping or None
        State of the process's generators, where nothing of this task draws from them: other tasks train beside it.
    data_parallel : DataParallel or None
        Which of several processes this is that train the task together, each on a device of its own; None: it is the only one.
    clock : callable
        Gives the seconds by which the time of training is taken.
    group : mapping or None
        What the result says of the group that the task is trained in, or was up to the checkpoint that it went on from.
    """

    def __init__(
        self,
        *,
        checkpoints: CheckpointPlan,
        seed: int,
        epoch_limit: int,
        metrics: Mapping[str, Metric],
        make_precision: Callable[[], Precision],
        observer: TaskObserver,
        micro_batches: int = 1,
        state: TaskState | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.stopwatch = stopwatch if stopwatch is not None else Stopwatch()
        self.seed = seed
        self.metrics = dict(metrics)
        self.generator = random_state.new_generator(seed, "trainer")
        self.state = state if state is not None else TaskState()
        self.resumed_from: int | None = None
        self.process_state: Mapping[str, Any] | None = None
        self.data_parallel: DataParallel | None = None
        self.clock: Callable[[], float] = time.monotonic
        self._epoch_limit = epoch_limit
        self._make_precision = make_precision
        self._precision: Precision | None = None
        self._task = checkpoints.task
        self._checkpoints = Checkpoints(checkpoints)
        self._micro_batches = micro_batches
        self._observer = observer
        self._generators = {"trainer": self.generator}
        self._started = self.clock()
        self._epoch_started = time.monotonic()
        self._finished: float | None = None
        self._seconds_before = 0.0
        self.group: Mapping[str, Any] | None = None
        self._next_progress = 0.0
        self._told_refusal = False

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know about the checkpoints."""
        return self._checkpoints.notes

    @property
    def epochs(self) -> int:
        """Epochs finished."""
        return self.state.epochs

    @property
    def micro_batches(self) -> int:
        """Into how many parts to split each batch; asking tells that the trainer can do it."""
        self.state.can_split = True
        return self._micro_batches

    @property
    def precision(self) -> Precision:
        """Autocast and gradient scaling; torch's float32 switches are set when it is first asked for."""
        if self._precision is None:
            self._precision = self._make_precision()
            self._precision.apply()
        return self._precision

    @property
    def resolved_precision(self) -> str:
        """The precision that the trainer used, as far as it asked for one here."""
        return self._precision.resolved if self._precision is not None else "as the trainer chose"

    @property
    def train_seconds(self) -> float:
        """Wall time of training so far, that of the attempts that this one goes on from included."""
        return self._seconds_before + (self.clock() if self._finished is None else self._finished) - self._started

    def watch(self, tier: str, loader: Any) -> None:
        """Let the state of the generators that a loader draws from travel with the checkpoints."""
        for index, generator in enumerate(random_state.generators_of(loader)):
            self._generators[f"{tier}:{index}"] = generator

    def start(self) -> None:
        """Take the time: training starts now."""
        self._started = self.clock()
        self._epoch_started = time.monotonic()
        self._checkpoints.start()

    def finish(self) -> None:
        """Take the time: training is over."""
        self._finished = self.clock()

    def progress(self) -> None:
        """Tell the observer that the task is alive, at most once a second."""
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_SECONDS
            self._observer.progress()

    def tell(self, message: str) -> None:
        """Tell people something at once, if the observer takes that."""
        if isinstance(self._observer, NoteTaker):
            self._observer.note(f"{self._task[:8]}: {message}")

    def progress_or_stop(self) -> None:
        """Raise `TrainingInterrupted` when a stop is requested: for trainers that have no context to ask."""
        if self.stop_requested():
            raise TrainingInterrupted(self.epochs)

    def stop_requested(self) -> bool:
        """Tell whether to stop now."""
        self.progress()
        return self._observer.stop_requested()

    def epoch_finished(
        self,
        epoch: int,
        *,
        train_loss: Any = None,
        validation_loss: Any = None,
        regularization_loss: Any = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the observer that an epoch is over. A number that is not finite is told as None."""
        now = time.monotonic()
        self.state.epochs = int(epoch)
        self._observer.epoch_finished(
            epoch=self.epochs,
            epoch_limit=self._epoch_limit,
            train_loss=_finite(train_loss),
            validation_loss=_finite(validation_loss),
            regularization_loss=_finite(regularization_loss),
            metrics={name: value for name, item in (metrics or {}).items() if (value := _finite(item)) is not None},
            seconds=now - self._epoch_started,
        )
        self._epoch_started = now

    def checkpoint_due(self) -> bool:
        """Tell whether the time, or the number of epochs, between checkpoints is over."""
        self.state.can_checkpoint = True
        return self._checkpoints.due(self.state.epochs)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write `state` and the random state of everything to the checkpoint file.

        A disk that refuses costs the checkpoint, not the training: the observer and the result are told.
        """
        self.state.can_checkpoint = True
        content = {
            "epochs": self.epochs,
            "seconds": self.train_seconds,
            "timing": self.stopwatch.state_dict(),
            "group": None if self.group is None else {**self.group, "until_epoch": self.epochs},
            "random": random_state.capture(self._generators, self.process_state),
            "state": dict(state),
        }
        with self.stopwatch.during(CHECKPOINT):
            refusal = self._checkpoints.write(content)
        if refusal is None:
            self._observer.checkpoint_saved(str(self._checkpoints.path), self.epochs)
        elif not self._told_refusal:
            self._told_refusal = True
            self.notes.append(f"a checkpoint could not be written ({refusal.why}); training went on")
            self._observer.checkpoint_failed(str(refusal))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return what was saved last, by this attempt or an earlier one, and restore the random state; None without any."""
        self.state.can_checkpoint = True
        with self.stopwatch.during(CHECKPOINT):
            content = self._checkpoints.read()
        if content is None:
            return None
        if "timing" in content:
            self.stopwatch.load_state_dict(content["timing"])
        self.group = content.get("group")
        self.state.epochs = self.resumed_from = content["epochs"]
        self._seconds_before = content["seconds"]
        random_state.restore(content["random"], self._generators)
        state: dict[str, Any] = content["state"]
        return state


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value.detach() if isinstance(value, torch.Tensor) else value)
    return number if math.isfinite(number) else None


def make_context(
    spec: TaskSpec,
    trainer: Registered,
    metrics: Mapping[str, Metric],
    device: torch.device,
    observer: TaskObserver,
    *,
    code: str = "",
    state: TaskState | None = None,
    stopwatch: Stopwatch | None = None,
) -> TaskContext:
    """Return the context of a task, whose precision is what the row, or the trainer's default, says."""
    plan = CheckpointPlan(
        task=spec.task,
        path=Path(spec.checkpoint_path),
        resume_from=tuple(map(Path, spec.resume_from)),
        seconds=spec.checkpoint_seconds,
        epochs=spec.checkpoint_epochs,
        code=code,
    )
    return TaskContext(
        checkpoints=plan,
        seed=spec.seed,
        epoch_limit=spec.epoch_limit,
        metrics=metrics,
        make_precision=lambda: resolve_precision(_requested_precision(trainer, spec.trainer.params), device),
        observer=observer,
        micro_batches=spec.micro_batches,
        state=state,
        stopwatch=stopwatch,
    )


def _requested_precision(registered: Registered, params: Mapping[str, Any]) -> str:
    """Return what the row says of precision, or the trainer's default for it, or ``"auto"``."""
    return str(params["precision"]) if "precision" in params else _default_precision(registered.load())


@functools.lru_cache(maxsize=64)
def _default_precision(trainer: Any) -> str:
    try:
        parameter = inspect.signature(trainer).parameters.get("precision")
    except (TypeError, ValueError):
        return "auto"
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else "auto"
