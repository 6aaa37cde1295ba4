"""Build everything a task needs and try one batch, before anybody waits for a cluster."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synicix_core.errors import SynicixError
from synicix_core.parameters import as_arguments
from synicix_core.registry import Registry
from synicix_core.training.batches import batch_size, full_precision, move, split_batch, split_output
from synicix_core.training.build import (
    TaskParts,
    accepts,
    building,
    load_parts,
    make_criterion,
    make_dataset,
    make_metrics,
    make_model,
    make_tier_loader,
    notes_of,
    require_examples,
    resolve_device,
    trainer_arguments,
)
from synicix_core.training.context import make_context
from synicix_core.training.random_state import seed_everything
from synicix_core.training.spec import TIERS, TaskSpec
from synicix_core.training.tier_pass import criterion_loss, run_tier
from synicix_core.training.torch_state import restored_torch_state

__all__ = ["CheckReport", "check_task"]


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes
    ----------
    device : str
        Where it ran.
    parameters : int
        Numbers that the model learns.
    tier_sizes : dict of str to int
        Examples by tier.
    loss, penalty : float or None
        Of the first training batch, with random weights; None where it is not finite.
    metrics : dict of str to float or None
        Of the first validation batch.
    seconds : float
        Wall time of one step: forward, backward and optimizer.
    notes : tuple of str
        What looks wrong but works.
    """

    device: str
    parameters: int
    tier_sizes: dict[str, int]
    loss: float | None
    penalty: float | None
    metrics: dict[str, float | None]
    seconds: float
    notes: tuple[str, ...] = ()


def check_task(spec: TaskSpec, registry: Registry) -> CheckReport:
    """Build everything that `spec` names, the trainer included, and make one step. No file of the task is written.

    Raises
    ------
    SynicixError
        One that says which provider does not work and why.
    """
    try:
        with restored_torch_state(), tempfile.TemporaryDirectory(prefix="synicix-check-") as directory:
            return _check(dataclasses.replace(spec, num_workers=0), registry, Path(directory))
    except SynicixError:
        raise
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        raise SynicixError(
            "the combination does not work",
            where=f"{spec.model.provider} on {Path(spec.dataset_path).name}",
            why=" ".join([f"{type(error).__name__}: {error}", *notes]),
        ) from error


def _check(spec: TaskSpec, registry: Registry, directory: Path) -> CheckReport:
    parts = load_parts(spec, registry)
    device = resolve_device(spec.device)
    seed_everything(spec.seed)
    datasets = {tier: make_dataset(parts.dataset, spec.dataset_path, tier, spec.dataset.params) for tier in TIERS}
    require_examples(datasets, spec.dataset_path)
    loaders: dict[str, Any] = {tier: make_tier_loader(spec, parts, datasets[tier], tier, device) for tier in TIERS}
    criterion = make_criterion(spec, parts)
    metrics = make_metrics(spec, parts, criterion)
    arguments = trainer_arguments(spec, parts, loaders, device, str(directory / "model.pt"))
    if accepts(parts.trainer.load(), "context"):
        elsewhere = dataclasses.replace(spec, checkpoint_path=str(directory / "checkpoint"))
        arguments["context"] = make_context(elsewhere, parts.trainer, metrics, device, _Nobody())
    with building(parts.trainer):
        parts.trainer.load()(**arguments)
    notes = list(notes_of(datasets))
    model = make_model(spec, parts).to(device)
    loss, penalty, seconds = _step(spec, parts, model, criterion, loaders["train"], device, notes)
    measured = run_tier(model, [next(iter(loaders["validation"]))], device, collect=True)
    return CheckReport(
        device=str(device),
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        tier_sizes={tier: len(dataset) for tier, dataset in datasets.items()},
        loss=_finite(loss),
        penalty=_finite(penalty),
        metrics={
            name: _finite(metric(measured.outputs, measured.targets, loaders["validation"].column))
            for name, metric in metrics.items()
        },
        seconds=seconds,
        notes=tuple(notes),
    )


def _step(
    spec: TaskSpec,
    parts: TaskParts,
    model: torch.nn.Module,
    criterion: Any,
    loader: Any,
    device: torch.device,
    notes: list[str],
) -> tuple[float, float, float]:
    with building(parts.dataset):
        inputs, targets = split_batch(next(iter(loader)))
    with building(parts.optimizer):
        optimizer = parts.optimizer.load()(model.parameters(), **as_arguments(parts.optimizer, spec.optimizer.params))
    started = time.perf_counter()
    inputs, targets = move(inputs, device), move(targets, device)
    with building(parts.model):
        output, penalty = split_output(model(inputs))
    _note_shapes(output, targets, notes)
    if isinstance(criterion, torch.nn.Module):
        criterion.to(device)
    with building(parts.criterion):
        loss = criterion_loss(criterion, full_precision(output), targets)
    with building(parts.model):
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
    with building(parts.optimizer):
        optimizer.step()
    values = loss.item(), 0.0 if penalty is None else penalty.item()
    if not math.isfinite(values[0] + values[1]):
        notes.append(f"the loss of the first batch of {batch_size(targets)} is not finite")
    return *values, time.perf_counter() - started


def _note_shapes(output: Any, targets: Any, notes: list[str]) -> None:
    both = isinstance(output, torch.Tensor) and isinstance(targets, torch.Tensor)
    if both and targets.is_floating_point() and output.shape != targets.shape:
        notes.append(
            f"the output has shape {tuple(output.shape)} and the target {tuple(targets.shape)}; "
            "many losses stretch the one to the other without a word"
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Nobody:
    """Watches a trainer that is only built."""

    def stop_requested(self) -> bool:
        return False

    def progress(self) -> None:
        """Nobody is told."""

    def epoch_finished(self, **fields: Any) -> None:
        """Nobody is told."""

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Nobody is told."""

    def checkpoint_failed(self, message: str) -> None:
        """Nobody is told."""
