"""TrainingResult: what came of a task; at most one row per task, ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synicix_core.database.connection import STORE
from synicix_core.errors import ConfigurationError

__all__ = ["TrainingResult"]


class TrainingResult:
    """The trained model of a task, its scores, its histories, and where it came from.

    Parameters
    ----------
    dataset_dir, dataset_cache_dir, model_save_dir : str or Path, optional
        Directories to use in `populate` instead of the project's.
    num_workers : int, optional
        Data-loading processes to use in `populate` instead of the project's setting.
    """

    definition = f"""
    # What came of a task
    -> TrainingTask
    ---
    test_score=null                : float64       # first metric on the test tier, of the best weights
    status                         : enum('completed', 'early_stopped', 'diverged', 'no_test')
    scores                         : json          # of every metric, by tier and name
    best_epoch=null                : int32
    epochs                         : int32
    training_epoch_loss_history    : <blob@{STORE}>
    validation_epoch_loss_history  : <blob@{STORE}>
    regularization_loss_history    : <blob@{STORE}>
    model_class_params_history     : <blob@{STORE}>
    model_save_path                : varchar(256)  # relative to model_save_dir
    model_sha256                   : char(64)
    by_attempt                     : int32         # the TrainingAttempt that it came of
    train_seconds                  : float64
    code_sha256                    : char(64)      # of the source files of all providers that took part
    provenance                     : json
    utc_insert_time                : datetime(3)
    index (test_score)
    index (code_sha256)
    index (utc_insert_time)
    """
    run_worker: Any
    """Runs the worker for `populate`; set when the pipeline binds the tables."""

    def __init__(
        self,
        dataset_dir: str | Path | None = None,
        dataset_cache_dir: str | Path | None = None,
        model_save_dir: str | Path | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        self._directories = {
            "dataset_dir": dataset_dir,
            "dataset_cache_dir": dataset_cache_dir,
            "model_save_dir": model_save_dir,
            "num_workers": num_workers,
        }

    def populate(
        self,
        *restrictions: Any,
        reserve_jobs: bool = True,
        order: str = "original",
        suppress_errors: bool = False,
        max_calls: int | None = None,
        display_progress: bool = False,
        processes: int = 1,
        device: str = "auto",
        fuse: str | int | None = None,
    ) -> dict[str, Any]:
        """Train what is pending, with the supervisor and executor that ``synicix-run populate`` runs.

        Parameters
        ----------
        *restrictions
            Conditions on TrainingTask and its configs, as DataJoint takes them.
        reserve_jobs : bool
            Tasks are always claimed; ``False`` is refused.
        order : {"original", "random"}
            By priority and age, or at random within the highest priority.
        suppress_errors : bool
            Whether to return the errors of tasks rather than raise when all is done. Either way they are recorded.
        max_calls : int, optional
            The most tasks to train.
        display_progress : bool
            Print a line for each epoch and task.
        processes : int
            Only 1: start more workers instead, here or on other machines.
        device : str
            Device of the executor, as torch names it; ``auto`` takes a GPU where there is one.
        fuse : {"auto", "off"} or int, optional
            How many tasks that are alike are trained together; by default what the project's settings say.

        Returns
        -------
        dict
            ``{"success_count": int, "error_list": [(key, message), …]}``.
        """
        if not reserve_jobs:
            raise ConfigurationError(
                "populate always reserves jobs",
                why="a claim is what makes sure that a task has one result",
                hint="Leave reserve_jobs out, or set it to True.",
            )
        if processes != 1:
            raise ConfigurationError(
                "populate runs one worker",
                why="forked processes cannot train on a GPU",
                hint="Run: synicix-run populate --workers " + str(processes),
            )
        if order not in ("original", "random"):
            raise ConfigurationError(f"order is 'original' or 'random', not {order!r}")
        overrides = {name: value for name, value in self._directories.items() if value is not None}
        if fuse is not None:
            overrides["worker_fuse"] = fuse
        summary: dict[str, Any] = type(self).run_worker(
            restrictions=restrictions,
            overrides=overrides,
            order=order,
            max_tasks=max_calls,
            display_progress=display_progress,
            device=device,
        )
        if summary["error_list"] and not suppress_errors:
            key, message = summary["error_list"][0]
            count = len(summary["error_list"])
            raise ConfigurationError(
                f"{count} task{'s' if count > 1 else ''} ended in an error",
                where=key["training_task_md5_hash"],
                why=message,
                hint="Run: synicix-run errors",
            )
        return summary
