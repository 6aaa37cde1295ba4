"""What a task must be to be a part of a stack, as far as that can be seen without trying."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.resident import free_bytes
from synicix_core.training.task_run import TaskRun

__all__ = ["Room", "why_alone"]

_CACHE_BYTES = 16 << 20
"""On the CPU a stack gains as long as weights, gradients and what the optimizer keeps stay in its caches."""
_BYTES_PER_WEIGHT = 20
_SHARE_OF_FREE = 0.5


def why_alone(run: TaskRun) -> str:
    """Say why a prepared task cannot be a part of any stack; empty where it can."""
    trainer = run.trainer
    if type(trainer) is not NNTrainer:
        return f"its trainer is {type(trainer).__name__}, and only NNTrainer trains several tasks as one"
    if not run.tiers.is_resident:
        if not run.spec.resident_share:
            return "resident_share is 0, and only what is on the device is trained as one"
        named = type(run.tiers.datasets["train"]).__name__
        if not hasattr(run.tiers.datasets["train"], "tensors"):
            return f"its dataset {named} has no tensors()"
        return f"its dataset {named} does not fit into the share of the device's memory that resident_share gives"
    optimization = trainer.run.optimization
    if optimization.precision.scaler is not None:
        return "with precision fp16 each task scales its gradients in its own way"
    if optimization.skip_nonfinite:
        return 'with nan_policy "skip" each task decides at every step whether it counts'
    if optimization.parts > 1:
        return "its batches are split, because memory ran out"
    if optimization.channels_last:
        return "channels_last lays out the memory of one model, not of several"
    if not _knows_its_order(trainer.run.batches.loader):
        sampler = type(trainer.run.batches.loader.sampler).__name__
        return f"its sampler {sampler} gives the examples of an epoch bit by bit, and the whole order is needed first"
    if len({(parameter.dtype, parameter.device) for parameter in trainer.model.parameters()}) != 1:
        return "its parameters are of several dtypes, or on several devices"
    hooked = next((type(module).__name__ for module in trainer.model.modules() if _hooks(module)), None)
    return "" if hooked is None else f"hooks hang on its model, on a {hooked}"


class Room:
    """How many models of a size there is room for.

    Parameters
    ----------
    model : torch.nn.Module
        One of them.
    device : torch.device
        Where they are to be.

    Attributes
    ----------
    fitting : int
        As many as there is memory for.
    gaining : int
        As many as a stack gains by.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self._weights = sum(parameter.numel() for parameter in model.parameters())
        each = max(self._weights * _BYTES_PER_WEIGHT, 1)
        self.fitting = int(_SHARE_OF_FREE * free_bytes(device)) // each
        self.gaining = min(self.fitting, _CACHE_BYTES // each) if device.type == "cpu" else self.fitting

    def reason(self, wanted: int) -> str:
        """Say why so many are too many."""
        if self.fitting < wanted:
            return f"half of the free memory holds {self.fitting:,} models of {self._weights:,} weights"
        most = _CACHE_BYTES // (2 * _BYTES_PER_WEIGHT)
        return f"its model has {self._weights:,} weights, and a CPU gains nothing with more than {most:,}"


def _knows_its_order(loader: Any) -> bool:
    sampler = loader.sampler
    ordinary = type(loader.batch_sampler) is BatchSampler and not loader.batch_sampler.drop_last
    drawn = type(sampler) is RandomSampler and sampler.generator is not None and not sampler.replacement
    return ordinary and len(sampler) == len(loader.dataset) and (drawn or type(sampler) is SequentialSampler)


def _hooks(module: torch.nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)
