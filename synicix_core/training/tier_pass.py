"""One pass of a model over a tier, without learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from synicix_core.errors import SynicixError
from synicix_core.training.batches import (
    batch_size,
    concatenate,
    cut,
    full_precision,
    map_tensors,
    split_batch,
    split_output,
    with_channels_last,
)
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.prefetch import Copies
from synicix_core.training.resident import ResidentTier

__all__ = ["TierPass", "criterion_loss", "evaluation_batches", "evaluation_positions", "run_tier"]

_FOLD_BATCHES = 64
_MERGED_BYTES = {"cpu": 8 << 20, "gpu": 32 << 20}
"""Bytes of inputs and targets that pass a model together: more no longer helps, and what a model makes of them needs room."""


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
    before_batch: Callable[[], None] | None = None,
    channels_last: bool = False,
) -> TierPass:
    """Run `model` in evaluation mode over all batches.

    Small batches of single examples pass the model several at a time; what a batch sampler put together stays as it is.

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
    before_batch : callable, optional
        Called before each pass through the model. It may raise.
    channels_last : bool
        Whether images go to the model with their channels last in memory.

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
    copies = Copies(device)
    # Where memory is short, the device keeps no outputs.
    fold_after = _FOLD_BATCHES if parts == 1 else 1
    usual = loader.batch_size if isinstance(loader, DataLoader) else None
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in evaluation_batches(loader, device, parts):
                if before_batch is not None:
                    before_batch()
                batches += 1
                for output, y in _outputs(model, batch, copies, autocast, channels_last, usual):
                    if criterion is not None:
                        sums.add(
                            criterion_loss(criterion, output, copies(y)),
                            None,
                            batch_size(y) or batch_size(output),
                        )
                    if collect:
                        outputs.append(map_tensors(torch.Tensor.detach, output))
                        targets.append(y)
                        fresh += 1
                        if fresh >= fold_after:
                            # Copied now and then, so that the device need not hold the whole tier.
                            for kept in (outputs, targets):
                                kept[-fresh:] = [map_tensors(torch.Tensor.cpu, item) for item in kept[-fresh:]]
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


def _outputs(
    model: nn.Module,
    batch: Any,
    copies: Copies,
    autocast: Callable[[], AbstractContextManager[Any]],
    channels_last: bool,
    usual: int | None,
) -> Iterator[tuple[Any, Any]]:
    """Yield outputs and targets of a batch; in pieces of the usual size where several became one and memory did not do."""
    size = batch_size(batch)
    pieces = [batch]
    while pieces:
        x, y = split_batch(pieces[0])
        x = copies(x)
        try:
            with autocast():
                output, _ = split_output(model(with_channels_last(x) if channels_last else x))
        except (MemoryError, torch.OutOfMemoryError):
            smaller = cut(batch, -(-size // usual)) if usual and size > usual and len(pieces) == 1 else []
            if len(smaller) < 2 or pieces[0] is not batch:
                raise
            pieces = smaller
            continue
        yield full_precision(output), y
        pieces = pieces[1:]


def evaluation_batches(loader: Iterable[Any], device: torch.device, parts: int = 1) -> Iterator[Any]:
    """Yield the batches of a loader as evaluation wants them: in parts where memory is short, several as one where small.

    How many become one depends on the size of an example and the kind of device alone, so the outputs are the same ones
    whatever else is in memory.
    """
    if parts > 1:
        yield from (piece for batch in loader for piece in cut(batch, parts))
        return
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        yield from loader
        return
    together = _MERGED_BYTES["cpu" if device.type == "cpu" else "gpu"]
    resident: ResidentTier | None = getattr(loader, "resident", None)
    if resident is not None:
        yield from map(resident.take, evaluation_positions(loader, resident))
        return
    waiting: list[Any] = []
    count = 0
    for batch in loader:
        size = batch_size(batch)
        count = count or max(together // max(_bytes(batch) // max(size, 1) * loader.batch_size, 1), 1)
        waiting.append(batch)
        if len(waiting) == count:
            yield from _joined(waiting)
            waiting = []
    yield from _joined(waiting)


def evaluation_positions(loader: DataLoader[Any], resident: ResidentTier) -> Iterator[torch.Tensor]:
    """Yield the positions of the same batches, for a tier that is on the device."""
    assert isinstance(loader, TaskDataLoader) and loader.batch_size is not None
    together = _MERGED_BYTES["cpu" if resident.device.type == "cpu" else "gpu"]
    of_an_example = max(resident.nbytes // resident.size, 1)
    count = max(together // (of_an_example * loader.batch_size), 1)
    positions = loader.positions()
    while group := list(islice(positions, count)):
        yield group[0] if len(group) == 1 else torch.cat(group)


def _joined(batches: list[Any]) -> list[Any]:
    try:
        return [concatenate(batches)] if len(batches) > 1 else batches
    except SynicixError:  # examples of several shapes, each batch of one of them
        return batches


def _bytes(value: Any) -> int:
    total = 0

    def add(tensor: torch.Tensor) -> None:
        nonlocal total
        total += tensor.nbytes

    map_tensors(add, value)
    return total


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
