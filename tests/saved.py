"""Results with their files, as a worker leaves them, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RESULT: dict[str, Any] = {
    "test_score": 0.5,
    "status": "completed",
    "scores": {"test": {"loss": 0.5}},
    "best_epoch": 1,
    "epochs": 2,
    "training_epoch_loss_history": [1.0, 0.5],
    "validation_epoch_loss_history": [1.0, 0.5],
    "regularization_loss_history": [1.0, 0.5],
    "model_class_params_history": [1.0, 0.5],
    "model_sha256": "0" * 64,
    "train_seconds": 1.0,
    "code_sha256": "0" * 64,
    "provenance": {},
}


LINE_BEFORE = {
    "kind": "model",
    "provider": "toy-lab/Line",
    "distribution": "toy-lab",
    "version": "1.0",
    "sha256": "0" * 64,
}
"""The provenance of a model whose source file has changed since."""


def claim(pipeline: Any, task: str) -> Any:
    """Claim one task."""
    table = pipeline.TrainingTask.full_table_name
    only = f"SELECT training_task_md5_hash FROM {table} WHERE training_task_md5_hash = '{task}'"
    held = pipeline.queue.claim("a" * 32, "node7", 41, "cpu", restriction=only)
    assert held is not None
    return held


def commit(pipeline: Any, held: Any, history: list[float] | None = None) -> str:
    """Write the model of a claim and commit its result, all four histories alike; return the model's name."""
    model = f"{held.task}.{held.attempt}.pt"
    touch(pipeline, model)
    row = {**RESULT, "model_save_path": model}
    if history is not None:
        row |= dict.fromkeys((name for name in RESULT if name.endswith("_history")), history)
    pipeline.queue.commit(held, row)
    return model


def finish(pipeline: Any, task: str, history: list[float] | None = None) -> str:
    """Claim a task and commit its result."""
    return commit(pipeline, claim(pipeline, task), history)


def touch(pipeline: Any, *names: str, content: str = "weights") -> None:
    """Write files into `model_save_dir`."""
    for name in names:
        (pipeline.settings.model_save_dir / name).write_text(content)


def names(pipeline: Any) -> set[str]:
    """Return the names of all files in `model_save_dir`."""
    return {path.name for path in pipeline.settings.model_save_dir.iterdir()}


def store_dir(pipeline: Any) -> Path:
    """Return the folder of the store that the schema's histories lie in."""
    spec = pipeline.connection._config.get_store_spec("external_training_result")
    return Path(spec["location"]) / "_hash" / pipeline.schema_name


def histories(pipeline: Any) -> set[str]:
    """Return the names of all files in the store."""
    folder = store_dir(pipeline)
    return {path.name for path in folder.rglob("*") if path.is_file()} if folder.exists() else set()
