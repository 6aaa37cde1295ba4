"""Rows of the toy lab, ready to insert, and tasks of them."""

from __future__ import annotations

from typing import Any

DATASET: dict[str, Any] = {"dataset_file_name": "line.txt", "dataset_provider": "Points"}
MODEL: dict[str, Any] = {"model_provider": "Line"}
TRAINING: dict[str, Any] = {"criterion_provider": "MSELoss", "epoch_limit": 2, "batch_size": 8}


def insert_tasks(
    pipeline: Any,
    trainings: list[dict[str, Any]] | None = None,
    models: list[dict[str, Any]] | None = None,
    datasets: list[dict[str, Any]] | None = None,
) -> list[str]:
    """Insert configs that differ from the toy rows as given, and every combination as a task; return the tasks."""
    keys = []
    for table, base, changes in (
        (pipeline.DatasetConfig, DATASET, datasets),
        (pipeline.ModelConfig, MODEL, models),
        (pipeline.TrainingConfig, TRAINING, trainings),
    ):
        report = table.insert_tuples([{**base, **change} for change in changes or [{}]])
        keys.append([*report.new, *report.existing])
    report = pipeline.TrainingTask.insert_tuples([{**d, **m, **t} for d in keys[0] for m in keys[1] for t in keys[2]])
    return [key["training_task_md5_hash"] for key in [*report.new, *report.existing]]
