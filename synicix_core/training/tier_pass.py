"""One pass of a model over a tier, without learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from synicix_core.errors import SynicixError
from synicix_core.training.batches import (
    batch_size,
    concatenate,
    cut,
    full_precision,
    map_tensors,
    move,
    split_batch,
    split_output,
)
from synicix_core.training.loss_sums import LossSums

__all__ = ["TierPass", "criterion_loss", "run_tier"]

_FOLD_BATCHES = 64


@dataclass(frozen=True)
class TierPass:
    """What came out of it.

    Attributes
    ----------
    loss : float
        Mean of the criterion over the samples, without penalty; NaN without a criterion.
    outputs, targets : nested tensors or None
        Of the whole tier, on the CPU, outputs in float32 or better; None where they were not collected.
    """

    loss: float
    outputs: Any = None
    targets: Any = None


def run_tier(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    *,
    criterion: Callable[[Any, Any], Any] | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    collect: bool = False,
    parts: int = 1,
) -> TierPass:
    """Run `model` in evaluation mode over all batches.

    Parameters
    ----------
    model : torch.nn.Module
        Returns ``(output, regularization_loss)`` or an output; left in the mode in which it was.
    loader : iterable
        Gives ``(input, target)`` batches.
    device : torch.device
        Where the model is.
    criterion : callable, optional
        Computes the loss, outside of `autocast`.
    autocast : callable
        Makes the context of the forward pass.
    collect : bool
        Whether outputs and targets are kept.
    parts : int
        Into how many parts each batch is split, so that it needs less memory.

    Raises
    ------
    SynicixError
        If the loader gives no batch, or batches that cannot be joined.
    """
    sums = LossSums(criterion)
    outputs: list[Any] = []
    targets: list[Any] = []
    fresh = 0
    batches = 0
    # Where memory is short, the device keeps no outputs.
    fold_after = _FOLD_BATCHES if parts == 1 else 1
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in _in_parts(loader, parts):
                batches += 1
                x, y = split_batch(batch)
                x, y_there = move(x, device), move(y, device)
                with autocast():
                    output, _ = split_output(model(x))
                output = full_precision(output)
                if criterion is not None:
                    sums.add(criterion_loss(criterion, output, y_there), None, batch_size(y) or batch_size(x))
                    if sums.pending >= fold_after:
                        sums.fold()
                if collect:
                    outputs.append(map_tensors(torch.Tensor.detach, output))
                    targets.append(y)
                    fresh += 1
                    if fresh >= fold_after:
                        # Copied now and then, so that the device need not hold the whole tier.
                        outputs[-fresh:] = [map_tensors(torch.Tensor.cpu, item) for item in outputs[-fresh:]]
                        fresh = 0
    finally:
        model.train(was_training)
    if not batches:
        raise SynicixError("the loader gave no batch", hint="Check the sampler and the tier of the dataset.")
    loss = sums.means()[0] if criterion is not None else math.nan
    if not collect:
        return TierPass(loss)
    return TierPass(
        loss,
        concatenate([map_tensors(torch.Tensor.cpu, item) for item in outputs]),
        concatenate([map_tensors(torch.Tensor.cpu, item) for item in targets]),
    )


def _in_parts(loader: Iterable[Any], parts: int) -> Iterable[Any]:
    return loader if parts == 1 else (piece for batch in loader for piece in cut(batch, parts))


def criterion_loss(criterion: Callable[[Any, Any], Any], output: Any, target: Any) -> torch.Tensor:
    """Return the loss as a tensor without axes.

    Raises
    ------
    SynicixError
        If the criterion returns anything but one number.
    """
    loss = criterion(output, target)
    if isinstance(loss, torch.Tensor):
        if not loss.dim():
            return loss
        if loss.numel() == 1:
            return loss.reshape(())
        what = f"a tensor of shape {tuple(loss.shape)}"
    else:
        what = f"a {type(loss).__name__}"
    raise SynicixError(
        "the criterion does not return one number",
        where=type(criterion).__name__,
        why=f"it returned {what}",
        hint='Use one that averages or sums; with torch\'s losses that is reduction="mean" or "sum".',
    )
