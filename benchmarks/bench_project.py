"""A project with a database server of its own, for the benchmarks that go through populate."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types

__all__ = ["cpu_of_worker", "insert_tasks", "open_project"]

LAB = str(Path(__file__).parent / "lab")


@contextmanager
def open_project() -> Iterator[Path]:
    """Make a project with the dataset of `populate_tasks`; stop its server and remove both at the end."""
    from populate_tasks import DATASET_FILE, write_dataset

    from synicix_core.database import embedded
    from synicix_core.settings import create_project

    for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_"))]:
        del os.environ[name]
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "1"
    os.environ["PYTHONPATH"] = LAB
    sys.path.insert(0, LAB)
    with tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        project = Path(folder) / "project"
        settings = create_project(project)
        write_dataset(settings.dataset_dir / DATASET_FILE)
        embedded.start(project)
        try:
            yield project
        finally:
            embedded.stop(project)


def insert_tasks(
    pipeline: Any, seeds: Iterable[int], model: dict[str, Any] | None = None, **further: Any
) -> list[dict[str, Any]]:
    """Insert a task of one epoch for each seed, and return their keys.

    Parameters
    ----------
    model : dict, optional
        A row of ModelConfig; the lab's TwoLayers if left out.
    **further
        Columns of TrainingConfig.
    """
    from populate_tasks import BATCH_SIZE, DATASET_FILE, HIDDEN_SIZE

    training = {"criterion_provider": "MSELoss", "epoch_limit": 1, "batch_size": BATCH_SIZE, **further}
    dataset = {"dataset_file_name": DATASET_FILE, "dataset_provider": "Trials"}
    if model is None:
        model = {"model_provider": "TwoLayers", "model_class_params": {"hidden_size": HIDDEN_SIZE}}
    (dataset_key,) = _keys(pipeline.DatasetConfig.insert_tuples([dataset]))
    (model_key,) = _keys(pipeline.ModelConfig.insert_tuples([model]))
    trainings = _keys(pipeline.TrainingConfig.insert_tuples([{**training, "seed": seed} for seed in seeds]))
    return _keys(pipeline.TrainingTask.insert_tuples([{**dataset_key, **model_key, **key} for key in trainings]))


def _keys(report: Any) -> list[dict[str, Any]]:
    return [*report.new, *report.existing]


def cpu_of_worker() -> float:
    """Return the seconds of CPU that this process, a supervisor, and its executor have used."""
    executor = next(child for child in psutil.Process().children() if "synicix_core.runner.executor" in child.cmdline())
    theirs = executor.cpu_times()
    return float(time.process_time() + theirs.user + theirs.system)
