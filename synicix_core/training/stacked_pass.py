"""One pass of several models over a tier, each batch for all of them, without learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from synicix_core.training.batches import concatenate, map_tensors
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.resident import ResidentTier
from synicix_core.training.stacked_model import StackedModel
from synicix_core.training.tier_pass import TierPass, evaluation_positions

__all__ = ["run_stack"]


def run_stack(
    model: StackedModel, loader: DataLoader[Any], resident: ResidentTier, criterion: Any, *, collect: bool
) -> list[TierPass]:
    """Run models in evaluation mode over all batches, as `tier_pass.run_tier` does with one.

    Parameters
    ----------
    model : StackedModel
        The models.
    loader : DataLoader
        Reads the tier in order.
    resident : ResidentTier
        The tier.
    criterion : callable
        The one that the stack computes losses by; says whether it sums or averages.
    collect : bool
        Whether outputs and targets are kept, for each model by itself.
    """
    count = len(model)
    sums = [LossSums(criterion) for _ in range(count)]
    outputs: list[list[Any]] = [[] for _ in range(count)]
    targets: list[Any] = []

    def for_all(tensor: Tensor) -> Tensor:
        return tensor.expand(count, *tensor.shape)

    for positions in evaluation_positions(loader, resident):
        x, y = resident.take(positions)
        output, losses = model.outputs(map_tensors(for_all, x), map_tensors(for_all, y))
        for own, loss in zip(sums, losses.tolist(), strict=True):
            own.add_numbers(loss, 0.0, len(positions))
        if collect:
            targets.append(map_tensors(Tensor.cpu, y))
            for k, found in enumerate(outputs):
                found.append(_slice(output, k))
    if not collect:
        return [TierPass(own.means()[0]) for own in sums]
    whole = concatenate(targets)
    # Targets for each, as a metric may change what it is given.
    return [
        TierPass(own.means()[0], concatenate(found), map_tensors(torch.clone, whole))
        for own, found in zip(sums, outputs, strict=True)
    ]


def _slice(value: Any, k: int) -> Any:
    return map_tensors(lambda tensor: tensor[k].cpu(), value)
