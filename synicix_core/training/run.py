"""Train one task from its specification to its outcome."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synicix_core.errors import CheckpointError
from synicix_core.hashing import file_sha256
from synicix_core.registry import Registry
from synicix_core.tables.code_digest import code_digest
from synicix_core.training.build import (
    TaskParts,
    accepts,
    building,
    load_parts,
    make_criterion,
    make_metrics,
    make_model,
    make_tier_loader,
    notes_of,
    resolve_device,
    trainer_arguments,
)
from synicix_core.training.check import CheckReport, check_task
from synicix_core.training.context import TaskContext, make_context
from synicix_core.training.contract import Metric
from synicix_core.training.load import load_state, score_tier
from synicix_core.training.parameter_summary import plain
from synicix_core.training.precision import Precision
from synicix_core.training.provenance import describe_providers, describe_run
from synicix_core.training.random_state import seed_everything
from synicix_core.training.saved_files import publish
from synicix_core.training.spec import TIERS, TaskObserver, TaskOutcome, TaskSpec, TaskState
from synicix_core.training.tiers import Tiers, forget_tiers, open_tiers
from synicix_core.training.torch_state import restored_torch_state

__all__ = ["CheckReport", "TaskObserver", "check_task", "run_task"]

_LOSS_HISTORIES = ("training_epoch_loss_history", "validation_epoch_loss_history", "regularization_loss_history")


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
    parts = load_parts(spec, registry)
    device = resolve_device(spec.device)
    partial = _partial(spec)
    try:
        with restored_torch_state():
            seed_everything(spec.seed)
            tiers = open_tiers(spec, parts, device)
            metrics = make_metrics(spec, parts, make_criterion(spec, parts))
            code = code_digest(describe_providers(spec, registry))
            context = make_context(spec, parts.trainer, metrics, device, observer, code=code, state=state)
            trainer = _train(spec, parts, tiers, device, context, partial)
            scores = _score(spec, parts, tiers, metrics, device, context, partial)
            outcome = _outcome(spec, parts, registry, trainer, context, device, scores, partial, tiers.datasets)
        publish(partial, spec.model_save_path)
        return outcome
    except (MemoryError, torch.OutOfMemoryError):
        forget_tiers()
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _partial(spec: TaskSpec) -> Path:
    """Return where the trainer writes: beside the final name, so that giving it that name cannot fail halfway."""
    final = Path(spec.model_save_path)
    return final.with_name(f".{final.stem}.partial{final.suffix}")


def _train(
    spec: TaskSpec,
    parts: TaskParts,
    tiers: Tiers,
    device: torch.device,
    context: TaskContext,
    partial: Path,
) -> Any:
    target = parts.trainer.load()
    with_context = accepts(target, "context")
    # A trainer that cannot ask whether to stop is stopped by its loaders.
    after_batch = context.progress if with_context else context.progress_or_stop
    loaders = {}
    for tier in TIERS:
        loaders[tier] = make_tier_loader(
            spec, parts, tiers.datasets[tier], tier, device, after_batch=after_batch, resident=tiers.resident[tier]
        )
        context.watch(tier, loaders[tier])
    arguments = trainer_arguments(spec, parts, loaders, device, str(partial))
    if with_context:
        arguments["context"] = context
    _make_directory(partial.parent)
    # Again, so that the first weights of a model do not depend on what the dataset drew.
    seed_everything(spec.seed)
    with building(parts.trainer):
        trainer = target(**arguments)
        context.start()
        trainer.train()
        context.finish()
        trainer.load_best_performing_model()
    return trainer


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            "the directory of the models cannot be made", where=str(directory), why=error.strerror or str(error)
        ) from error


def _score(
    spec: TaskSpec,
    parts: TaskParts,
    tiers: Tiers,
    metrics: Mapping[str, Metric],
    device: torch.device,
    context: TaskContext,
    partial: Path,
) -> dict[str, dict[str, float | None]]:
    # A new model from the file: so the file is known to be whole, and is what the scores belong to.
    model = make_model(spec, parts)
    try:
        load_state(model, partial)
    except CheckpointError as error:
        raise CheckpointError(
            f"the trainer {parts.trainer.qualified} left no usable model",
            where=spec.model_save_path,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            hint="A trainer leaves model.state_dict() at model_save_path, by torch.save.",
        ) from error
    model.to(device)
    scores = {}
    for tier in TIERS:
        stop = context.progress_or_stop
        values = score_tier(
            spec,
            parts,
            metrics,
            model,
            tiers.datasets[tier],
            tier,
            device,
            after_batch=stop,
            resident=tiers.resident[tier],
        )
        scores[tier] = values if values is not None else dict.fromkeys(metrics)
    return scores


def _outcome(
    spec: TaskSpec,
    parts: TaskParts,
    registry: Registry,
    trainer: Any,
    context: TaskContext,
    device: torch.device,
    scores: dict[str, dict[str, float | None]],
    partial: Path,
    datasets: Mapping[str, Any],
) -> TaskOutcome:
    missing: list[str] = []
    histories = {name: _losses(trainer, name, missing) for name in _LOSS_HISTORIES}
    params_history = plain(getattr(trainer, "model_class_params_history", None))
    best_epoch = getattr(trainer, "best_epoch", None)
    if params_history is None:
        missing.append("model_class_params_history")
    if not hasattr(trainer, "best_epoch"):
        missing.append("best_epoch")
    about = Path(spec.dataset_path).name
    notes = [
        *(f"{about}: {note}" for note in notes_of(datasets)),
        *context.notes,
        *(str(note) for note in getattr(trainer, "notes", ())),
    ]
    if missing:
        notes.append(f"the trainer keeps no {', '.join(missing)}")
    if spec.device == "auto" and device.type == "cpu":
        notes.append("there is no GPU here; this was trained on the CPU")
    if not context.state.can_checkpoint:
        notes.append(
            f"the trainer {parts.trainer.qualified} saves no checkpoints: an interrupted training starts again"
        )
    training = histories["training_epoch_loss_history"]
    own_precision = getattr(trainer, "precision", None)
    precision = own_precision.resolved if isinstance(own_precision, Precision) else context.resolved_precision
    provenance = describe_run(spec, registry, device, precision)
    provenance |= {
        "attempt": spec.attempt,
        "resumed_from_epoch": context.resumed_from,
        "micro_batches": spec.micro_batches if context.state.can_split else 1,
    }
    status = _status(trainer, training, has_test=len(datasets["test"]) > 0)
    if status == "diverged" and best_epoch is None and hasattr(trainer, "best_epoch"):
        # What is left are weights that nobody chose: a score of theirs would be ranked among those of trained models.
        scores = {tier: dict.fromkeys(values) for tier, values in scores.items()}
    return TaskOutcome(
        status=status,
        test_score=next(iter(scores["test"].values())),
        metrics=scores,
        best_epoch=int(best_epoch) if best_epoch is not None else None,
        epochs=int(getattr(trainer, "epochs", 0) or len(training) or context.epochs),
        training_epoch_loss_history=training,
        validation_epoch_loss_history=histories["validation_epoch_loss_history"],
        regularization_loss_history=histories["regularization_loss_history"],
        model_class_params_history=params_history if params_history is not None else [],
        model_sha256=file_sha256(partial),
        train_seconds=context.train_seconds,
        provenance=provenance,
        notes=tuple(notes),
    )


def _losses(trainer: Any, name: str, missing: list[str]) -> list[float]:
    try:
        return [float(value) for value in plain(getattr(trainer, name))]
    except (AttributeError, TypeError, ValueError):
        missing.append(name)
        return []


def _status(trainer: Any, training: list[float], *, has_test: bool) -> str:
    status = getattr(trainer, "status", None)
    if status not in ("completed", "early_stopped", "diverged"):
        status = "diverged" if training and not math.isfinite(training[-1]) else "completed"
    return "no_test" if not has_test and status != "diverged" else str(status)
