"""The TrainingContext that the pipeline hands to a trainer: progress, preemption, checkpoints."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from synicix_core.errors import CheckpointError
from synicix_core.registry import Registered
from synicix_core.training import random_state
from synicix_core.training.contract import Metric, TrainingInterrupted
from synicix_core.training.precision import Precision, resolve_precision
from synicix_core.training.saved_files import load_plain, require_plain, save_atomically
from synicix_core.training.spec import TaskObserver, TaskSpec

__all__ = ["CHECKPOINT_SECONDS", "TaskContext", "make_context"]

CHECKPOINT_SECONDS = 30.0
"""Time between checkpoints. Long ones come less often: writing them takes at most a twentieth of the time."""

_FORMAT = 1
_PROGRESS_SECONDS = 1.0


class TaskContext:
    """Implements `TrainingContext` for one attempt at one task.

    Parameters
    ----------
    task : str
        md5 of the task; a checkpoint of another task is refused.
    seed, epoch_limit : int
        From the training config.
    metrics : mapping of str to Metric
        In order.
    make_precision : callable
        Returns the precision, when it is first asked for.
    checkpoint_path : str
        Absolute path of the checkpoint file.
    observer : TaskObserver
        Who is told.
    checkpoint_seconds : float
        Time between checkpoints.
    """

    def __init__(
        self,
        *,
        task: str,
        seed: int,
        epoch_limit: int,
        metrics: Mapping[str, Metric],
        make_precision: Callable[[], Precision],
        checkpoint_path: str,
        observer: TaskObserver,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.seed = seed
        self.metrics = dict(metrics)
        self.generator = random_state.new_generator(seed, "trainer")
        self.epochs = 0
        self.resumed_from: int | None = None
        self.notes: list[str] = []
        self._task = task
        self._epoch_limit = epoch_limit
        self._make_precision = make_precision
        self._precision: Precision | None = None
        self._path = Path(checkpoint_path)
        self._observer = observer
        self._generators = {"trainer": self.generator}
        self._interval = checkpoint_seconds
        self._started = self._epoch_started = self._saved_at = time.monotonic()
        self._finished: float | None = None
        self._seconds_before = 0.0
        self._write_seconds = 0.0
        self._next_progress = 0.0

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
        return self._seconds_before + (self._finished or time.monotonic()) - self._started

    def watch(self, tier: str, loader: Any) -> None:
        """Let the state of the generators that a loader draws from travel with the checkpoints."""
        for index, generator in enumerate(random_state.generators_of(loader)):
            self._generators[f"{tier}:{index}"] = generator

    def start(self) -> None:
        """Take the time: training starts now."""
        self._started = self._epoch_started = self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Take the time: training is over."""
        self._finished = time.monotonic()

    def progress(self) -> None:
        """Tell the observer that the task is alive, at most once a second."""
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_SECONDS
            self._observer.progress()

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
        self.epochs = int(epoch)
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
        """Tell whether the time between checkpoints is over."""
        return time.monotonic() - self._saved_at >= max(self._interval, 20 * self._write_seconds)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write `state` and the random state of everything to the checkpoint file."""
        started = time.monotonic()
        require_plain(state, "state")
        envelope = {
            "format": _FORMAT,
            "task": self._task,
            "epochs": self.epochs,
            "seconds": self.train_seconds,
            "random": random_state.capture(self._generators),
            "state": dict(state),
        }
        save_atomically(envelope, self._path)
        self._saved_at = time.monotonic()
        self._write_seconds = self._saved_at - started
        self._observer.checkpoint_saved(str(self._path), self.epochs)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return what was saved and restore the random state; None where nothing was."""
        if not self._path.exists():
            return None
        try:
            envelope = load_plain(self._path)
        except CheckpointError as error:
            # A damaged checkpoint must not cost the task; it only costs the epochs.
            self.notes.append(f"the checkpoint could not be read, so training started over: {error.why}")
            return None
        if not isinstance(envelope, dict) or (envelope.get("format"), envelope.get("task")) != (_FORMAT, self._task):
            raise CheckpointError(
                "the checkpoint belongs to another task or another version of Synicix",
                where=str(self._path),
                hint="Move the file away to train from the start.",
            )
        self.epochs = self.resumed_from = envelope["epochs"]
        self._seconds_before = envelope["seconds"]
        random_state.restore(envelope["random"], self._generators)
        state: dict[str, Any] = envelope["state"]
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
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TaskContext:
    """Return the context of a task, whose precision is what the row, or the trainer's default, says."""
    return TaskContext(
        task=spec.task,
        seed=spec.seed,
        epoch_limit=spec.epoch_limit,
        metrics=metrics,
        make_precision=lambda: resolve_precision(_requested_precision(trainer, spec.trainer.params), device),
        checkpoint_path=spec.checkpoint_path,
        observer=observer,
        checkpoint_seconds=checkpoint_seconds,
    )


def _requested_precision(registered: Registered, params: Mapping[str, Any]) -> str:
    """Return what the row says of precision, or the trainer's default for it, or ``"auto"``."""
    if "precision" in params:
        return str(params["precision"])
    try:
        parameter = inspect.signature(registered.load()).parameters.get("precision")
    except (TypeError, ValueError):
        return "auto"
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else "auto"
