"""From the rows of a task to everything that is needed to train it on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synicix_core.settings import Settings
from synicix_core.tables.dataset_config import TIERS
from synicix_core.training.spec import Component, TaskSpec

if TYPE_CHECKING:
    from synicix_core.tables.schema import Tables

__all__ = ["checkpoint_path", "fetch_configs", "latest_checkpoint", "make_spec", "model_path"]


def fetch_configs(tables: Tables, task: str) -> dict[str, Any]:
    """Return the columns of a task and its three configs.

    Raises
    ------
    datajoint.errors.DataJointError
        If there is no such task.
    """
    joined = tables.TrainingTask * tables.DatasetConfig * tables.ModelConfig * tables.TrainingConfig
    row: dict[str, Any] = (joined & {"training_task_md5_hash": task}).fetch1()
    return row


def make_spec(
    row: dict[str, Any],
    settings: Settings,
    dataset_path: Path,
    *,
    attempt: int,
    device: str,
    micro_batches: int = 1,
    project_commit: str = "",
    seconds_before: dict[str, float] | None = None,
) -> TaskSpec:
    """Make the specification of one attempt.

    Parameters
    ----------
    row : dict
        The columns of the three configs, and the md5 of the task, as `fetch_configs` returns them. Without the sha256 of the
        dataset file, what is read of it is not kept.
    settings : Settings
        Directories of this machine.
    dataset_path : Path
        The dataset file on this machine.
    attempt : int
        Number of the attempt; part of the names of its files, so that attempts never write the same file.
    device : str
        As torch names it.
    micro_batches : int
        Into how many parts a batch is split.
    project_commit : str
        Git commit of the project, for the provenance.
    seconds_before : dict of str to float, optional
        What this attempt took so far, by the parts of `timing.PARTS`.
    """
    task = row["training_task_md5_hash"]
    return TaskSpec(
        task=task,
        attempt=attempt,
        dataset=Component("dataset", row["dataset_provider"], row["dataset_class_params"]),
        dataset_path=str(dataset_path),
        samplers={tier: _sampler(row, tier) for tier in TIERS},
        input_shape=row["input_shape"],
        output_shape=row["output_shape"],
        additional_model_params=row["additional_model_params"],
        model=Component("model", row["model_provider"], row["model_class_params"]),
        trainer=Component("trainer", row["trainer_provider"], row["trainer_class_params"]),
        optimizer=Component("optimizer", row["optimizer_provider"], row["optimizer_class_params"]),
        criterion=Component("criterion", row["criterion_provider"], row["criterion_class_params"]),
        metrics=tuple(Component("metric", metric["provider"], metric["params"]) for metric in row["metrics"]),
        batch_size=int(row["batch_size"]),
        epoch_limit=int(row["epoch_limit"]),
        seed=int(row["seed"]),
        device=device,
        num_workers=settings.num_workers,
        model_save_path=str(settings.model_save_dir / model_path(task, attempt)),
        checkpoint_path=str(settings.model_save_dir / checkpoint_path(task, attempt)),
        resume_from=tuple(
            str(settings.model_save_dir / checkpoint_path(task, earlier)) for earlier in range(attempt - 1, 0, -1)
        ),
        checkpoint_seconds=settings.worker.checkpoint_seconds,
        checkpoint_epochs=settings.worker.checkpoint_epochs,
        micro_batches=micro_batches,
        project_commit=project_commit,
        dataset_sha256=row.get("dataset_file_sha256", ""),
        resident_share=settings.worker.resident_share,
        devices=settings.worker.devices_per_task,
        seconds_before=seconds_before or {},
    )


def model_path(task: str, attempt: int) -> str:
    """Return where the model of an attempt is saved, relative to `model_save_dir`."""
    return f"{task}.{attempt}.pt"


def checkpoint_path(task: str, attempt: int) -> str:
    """Return where the checkpoint of an attempt is saved, relative to `model_save_dir`."""
    return f"{task}.{attempt}.checkpoint"


def latest_checkpoint(settings: Settings, task: str, attempts: int) -> Path | None:
    """Return the checkpoint that an attempt after so many goes on from, if its file is there."""
    files = (settings.model_save_dir / checkpoint_path(task, attempt) for attempt in range(attempts, 0, -1))
    return next((file for file in files if file.exists()), None)


def _sampler(row: dict[str, Any], tier: str) -> Component | None:
    provider = row[f"{tier}_sampler_provider"]
    return Component("sampler", provider, row[f"{tier}_sampler_class_params"]) if provider else None
