"""What a task must be to be a part of a stack, as far as that can be seen without trying."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.task_run import TaskRun

__all__ = ["why_alone"]


def why_alone(run: TaskRun) -> str:
    """Say why a prepared task cannot be a part of any stack; empty where it can."""
    trainer = run.trainer
    if type(trainer) is not NNTrainer:
        return "only NNTrainer trains several tasks as one"
    if not run.tiers.is_resident:
        if not run.spec.resident_share:
            return "resident_share is 0, and only what is on the device is trained as one"
        named = type(run.tiers.datasets["train"]).__name__
        if not hasattr(run.tiers.datasets["train"], "tensors"):
            return f"its dataset {named} has no tensors()"
        return f"its dataset {named} does not fit into the share of the device's memory that resident_share gives"
    optimization = trainer.run.optimization
    if optimization.precision.scaler is not None:
        return "scaled gradients (fp16) are each task's own"
    if optimization.skip_nonfinite:
        return 'nan_policy "skip" looks at every step'
    if optimization.parts > 1:
        return "its batches are split, because memory ran out"
    if optimization.channels_last:
        return "channels_last has no stacked form"
    if not _knows_its_order(trainer.run.batches.loader):
        return "its sampler gives the examples of an epoch only bit by bit"
    if len({(parameter.dtype, parameter.device) for parameter in trainer.model.parameters()}) != 1:
        return "its parameters are of several dtypes, or on several devices"
    if any(_hooks(module) for module in trainer.model.modules()):
        return "its model has hooks"
    return ""


def _knows_its_order(loader: Any) -> bool:
    sampler = loader.sampler
    ordinary = type(loader.batch_sampler) is BatchSampler and not loader.batch_sampler.drop_last
    drawn = type(sampler) is RandomSampler and sampler.generator is not None and not sampler.replacement
    return ordinary and len(sampler) == len(loader.dataset) and (drawn or type(sampler) is SequentialSampler)


def _hooks(module: torch.nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)
