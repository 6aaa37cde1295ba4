"""Tasks for benchmarks that train without a database, as a worker would be given them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["task_spec"]


def task_spec(
    number: int,
    path: Path,
    files: Path,
    *,
    dataset: str,
    model: tuple[str, Mapping[str, Any]],
    trainer_params: Mapping[str, Any],
    learning_rate: float,
    criterion: str,
    metric: str,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    device: str = "cpu",
) -> Any:
    """Return a TaskSpec of NNTrainer and Adam.

    Parameters
    ----------
    number : int
        Of its own for each task of a dataset: one goes on from the checkpoint that it finds.
    path : Path
        The dataset file.
    files : Path
        A folder for the task's files.
    dataset, criterion, metric : str
        Providers without parameters.
    model : str, dict
        Provider and parameters.
    """
    from synicix_core.registry import get_registry
    from synicix_core.training.inspect_dataset import inspect_dataset
    from synicix_core.training.spec import TIERS, Component, TaskSpec

    registered = get_registry().resolve("dataset", dataset)
    facts = inspect_dataset(registered, path, {})
    return TaskSpec(
        task=f"{number:032x}",
        attempt=1,
        dataset=Component("dataset", registered.qualified, {}),
        dataset_path=str(path),
        samplers=dict.fromkeys(TIERS),
        input_shape=facts.input_shape,
        output_shape=facts.output_shape,
        additional_model_params=facts.additional_model_params,
        model=Component("model", model[0], dict(model[1])),
        trainer=Component("trainer", "synicix-core/NNTrainer", dict(trainer_params)),
        optimizer=Component("optimizer", "synicix-core/Adam", {"lr": learning_rate}),
        criterion=Component("criterion", criterion, {}),
        metrics=(Component("metric", metric, {}),),
        batch_size=batch_size,
        epoch_limit=epochs,
        seed=seed,
        device=device,
        num_workers=0,
        model_save_path=str(files / f"{path.stem}.{number}.pt"),
        checkpoint_path=str(files / f"{path.stem}.{number}.checkpoint"),
        project_commit="",
    )
