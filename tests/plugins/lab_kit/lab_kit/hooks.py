"""The hooks of lab-kit. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lab_kit import event_log
from synicix_core import DatasetProvider, ModelProvider, TrainerProvider, hookimpl

if TYPE_CHECKING:
    import click

    from synicix_core.events import CheckpointSaved, EpochFinished, TaskFailed, TaskFinished, TaskStarted


@hookimpl
def synicix_datasets() -> Iterator[DatasetProvider]:
    """Provide the dataset."""
    yield DatasetProvider("NpzDataset", target="lab_kit.npz_dataset:NpzDataset", summary="Arrays of one .npz file")


@hookimpl
def synicix_models() -> Iterator[ModelProvider]:
    """Provide the model."""
    yield ModelProvider("Readout", target="lab_kit.readout:Readout", summary="One linear layer with an L2 penalty")


@hookimpl
def synicix_trainers() -> Iterator[TrainerProvider]:
    """Provide the trainers."""
    yield TrainerProvider("PlainTrainer", target="lab_kit.plain_trainer:PlainTrainer", summary="A loop, nothing else")
    yield TrainerProvider(
        "CheckpointTrainer",
        target="lab_kit.checkpoint_trainer:CheckpointTrainer",
        summary="The same loop with mixed precision, observers and checkpoints",
    )


@hookimpl
def synicix_commands() -> Iterator[click.Command]:
    """Provide `synicix-run lab-kit-hello`."""
    from lab_kit.commands import hello

    yield hello


@hookimpl
def synicix_task_started(event: TaskStarted) -> None:
    """Log the event."""
    event_log.write(event)


@hookimpl
def synicix_epoch_finished(event: EpochFinished) -> None:
    """Log the event."""
    event_log.write(event)


@hookimpl
def synicix_checkpoint_saved(event: CheckpointSaved) -> None:
    """Log the event."""
    event_log.write(event)


@hookimpl
def synicix_task_finished(event: TaskFinished) -> None:
    """Log the event."""
    event_log.write(event)


@hookimpl
def synicix_task_failed(event: TaskFailed) -> None:
    """Log the event."""
    event_log.write(event)
