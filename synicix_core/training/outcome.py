"""What a result says of a task: histories, scores, status, provenance, notes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synicix_core.registry import Registry
from synicix_core.training.build import TaskParts, notes_of
from synicix_core.training.context import TaskContext
from synicix_core.training.parameter_summary import plain
from synicix_core.training.precision import Precision
from synicix_core.training.provenance import describe_run
from synicix_core.training.spec import TaskOutcome, TaskSpec

__all__ = ["make_outcome"]

_LOSS_HISTORIES = ("training_epoch_loss_history", "validation_epoch_loss_history", "regularization_loss_history")


def make_outcome(
    spec: TaskSpec,
    parts: TaskParts,
    registry: Registry,
    trainer: Any,
    context: TaskContext,
    device: torch.device,
    scores: dict[str, dict[str, float | None]],
    sha256: str,
    datasets: Mapping[str, Any],
) -> TaskOutcome:
    """Collect what a trained and scored task has to show.

    Parameters
    ----------
    spec, parts, registry, device
        The task, its providers, where they were found, and where it ran.
    trainer : Trainer
        After training.
    context : TaskContext
        What the trainer was given.
    scores : dict
        ``{tier: {metric: value or None}}``.
    sha256 : str
        Of the file of the weights.
    datasets : mapping
        By tier.
    """
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
    how = plain(getattr(trainer, "how", None))
    provenance |= {
        **(how if isinstance(how, dict) else {}),
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
        model_sha256=sha256,
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
