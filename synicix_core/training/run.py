"""Train one task from its specification to its outcome."""

from __future__ import annotations

import contextlib

import torch

from synicix_core.registry import Registry
from synicix_core.training.check import CheckReport, check_task
from synicix_core.training.spec import TaskObserver, TaskOutcome, TaskSpec, TaskState
from synicix_core.training.task_run import TaskRun
from synicix_core.training.tiers import forget_tiers
from synicix_core.training.torch_state import restored_torch_state

__all__ = ["CheckReport", "TaskObserver", "check_task", "run_task"]


def run_task(
    spec: TaskSpec, registry: Registry, observer: TaskObserver, *, state: TaskState | None = None
) -> TaskOutcome:
    """Train a task, save its best weights, and score what was saved on every tier.

    Everything random follows from ``spec.seed`` alone; torch's global switches are afterwards what they were before.

    Parameters
    ----------
    spec : TaskSpec
        What to train. A checkpoint at its ``checkpoint_path``, or of an earlier attempt, is gone on from. The model is at its
        ``model_save_path`` when it is whole and scored, and not before; no checkpoint is removed then.
    registry : Registry
        Where the providers are found.
    observer : TaskObserver
        Who is told, and who may ask to stop.
    state : TaskState, optional
        Tells, also after an exception, how far the task came and what its trainer can do.

    Raises
    ------
    TrainingInterrupted
        If the observer asked to stop.
    DatasetError
        If the dataset cannot be read or has no training or validation examples.
    CheckpointError
        If the trainer left no ``state_dict`` that fits the model, or the disk refuses it.
    """
    try:
        with restored_torch_state(), contextlib.ExitStack() as ending:
            run = TaskRun(spec, registry, observer, state)
            ending.callback(run.close)
            run.prepare()
            run.train()
            return run.finish()
    except (MemoryError, torch.OutOfMemoryError):
        forget_tiers()
        raise
