"""The frozen events that observer hooks receive. A later version may add fields; none is taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CheckpointSaved", "EpochFinished", "TaskFailed", "TaskFinished", "TaskStarted"]


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """What every event says.

    Attributes
    ----------
    task : str
        md5 of the TrainingTask.
    attempt : int
        Number of this try at the task; it only grows.
    worker : str
        Identity of the worker's incarnation.
    """

    task: str
    attempt: int
    worker: str


@dataclass(frozen=True, kw_only=True)
class TaskStarted(TaskEvent):
    """A worker has claimed a task and hands it to its executor.

    Attributes
    ----------
    device : str
        Device asked for, as torch names it.
    dataset, model, training : mapping
        The three configs, as their rows hold them.
    """

    device: str
    dataset: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpochFinished(TaskEvent):
    """One epoch of training and validation is over.

    Attributes
    ----------
    epoch : int
        Epochs finished so far, from 1.
    epoch_limit : int
        The most epochs that the training config allows.
    train_loss, validation_loss, regularization_loss : float or None
        Means of the epoch, without and (the last) of the penalty; None where the trainer does not tell.
    metrics : mapping of str to float
        What else the trainer reported.
    seconds : float
        Wall time of the epoch.
    """

    epoch: int
    epoch_limit: int
    train_loss: float | None = None
    validation_loss: float | None = None
    regularization_loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(TaskEvent):
    """A checkpoint is on the disk, whole.

    Attributes
    ----------
    path : str
        The file.
    epoch : int
        Epochs finished when it was taken.
    """

    path: str
    epoch: int


@dataclass(frozen=True, kw_only=True)
class TaskFinished(TaskEvent):
    """The result of a task is committed.

    Attributes
    ----------
    status : str
        ``completed``, ``early_stopped``, ``diverged`` or ``no_test``.
    test_score : float or None
        The first metric on the test tier; None where it is not finite or there is no test tier.
    metrics : mapping
        ``{tier: {metric: value}}``.
    epochs, best_epoch : int, int or None
        Epochs trained, and the one whose weights were kept.
    model_path : str
        The saved ``state_dict``.
    train_seconds : float
        Wall time of ``train()``.
    """

    status: str
    test_score: float | None
    metrics: Mapping[str, Mapping[str, float | None]]
    epochs: int
    best_epoch: int | None
    model_path: str
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class TaskFailed(TaskEvent):
    """An attempt ended in an error.

    Attributes
    ----------
    error : str
        One line.
    error_stack : str
        The traceback, empty where there is none.
    """

    error: str
    error_stack: str = ""
