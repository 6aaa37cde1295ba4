"""One task trained by several processes: what rank 0 does, and what the others do beside it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import replace

import torch

from synicix_core.registry import Registry
from synicix_core.training.build import load_parts
from synicix_core.training.data_parallel import DataParallel
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.spec import TaskObserver, TaskOutcome, TaskSpec, TaskState, Unheard
from synicix_core.training.task_run import TaskRun
from synicix_core.training.tiers import forget_tiers
from synicix_core.training.torch_state import restored_torch_state

__all__ = ["run_first", "run_other", "why_alone"]


def why_alone(spec: TaskSpec, registry: Registry) -> str:
    """Return why a task cannot be trained on several devices; empty if it can."""
    registered = load_parts(spec, registry).trainer
    target = registered.load()
    if inspect.isclass(target) and issubclass(target, NNTrainer) and target.train is NNTrainer.train:
        return ""
    return f"the trainer {registered.qualified} trains on one device; only NNTrainer can use several"


def run_first(
    spec: TaskSpec,
    registry: Registry,
    observer: TaskObserver,
    parallel: DataParallel,
    state: TaskState,
    trained: Callable[[], None],
) -> TaskOutcome:
    """Train a task as rank 0 and score it; like `synicix_core.training.run.run_task`, with the same errors.

    Parameters
    ----------
    spec : TaskSpec
        What to train.
    registry : Registry
        Where the providers are found.
    observer : TaskObserver
        Who is told, and who may ask to stop.
    parallel : DataParallel
        This rank.
    state : TaskState
        Tells, also after an exception, how far the task came and what its trainer can do.
    trained : callable
        Called when the other ranks are not needed any more; what follows is scoring.
    """
    try:
        with restored_torch_state(), contextlib.ExitStack() as ending:
            run = TaskRun(_for_rank(spec, parallel), registry, observer, state, parallel=parallel)
            ending.callback(run.close)
            run.prepare()
            run.train()
            trained()
            return run.finish()
    except (MemoryError, torch.OutOfMemoryError):
        forget_tiers()
        raise


def run_other(spec: TaskSpec, registry: Registry, parallel: DataParallel, state: TaskState) -> None:
    """Train a task as another rank, which writes nothing and tells nobody.

    Raises
    ------
    TrainingInterrupted
        If rank 0 was asked to stop.
    """
    with restored_torch_state():
        run = TaskRun(_for_rank(spec, parallel), registry, Unheard(), state, parallel=parallel)
        run.prepare()
        run.train()


def _for_rank(spec: TaskSpec, parallel: DataParallel) -> TaskSpec:
    # On the CPU all ranks hold their copies of a dataset in the same memory.
    share = spec.resident_share / (parallel.ranks if parallel.device.type == "cpu" else 1)
    spec = replace(spec, device=str(parallel.device), resident_share=share)
    return spec if parallel.is_first else replace(spec, profile="", seconds_before={})
