"""Pipeline: the tables on one connection, with everything they need from above."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synicix_core.database import check_session, configured_server, connect
from synicix_core.database.quiet import datajoint as dj
from synicix_core.errors import ConfigurationError
from synicix_core.registry import Registered, Registry, get_registry
from synicix_core.settings import Settings, load_settings
from synicix_core.tables import schema as schemas
from synicix_core.tables.config_table import Services
from synicix_core.tables.dataset_files import resolve_dataset_file
from synicix_core.tables.overview import count_states
from synicix_core.tables.queue import Queue
from synicix_core.training.task_specs import fetch_configs, make_spec

if TYPE_CHECKING:
    import torch

    from synicix_core.runner.display import WorkerDisplay
    from synicix_core.runner.supervisor import WorkerOptions, WorkerSummary
    from synicix_core.training.spec import TaskSpec

__all__ = ["Pipeline"]


class Pipeline:
    """The tables of one schema on one connection.

    Parameters
    ----------
    connection : datajoint.Connection, optional
        By default a new one to the server that DataJoint is configured for, or to the project's own PostgreSQL.
    schema_name : str, optional
        By default the project's.
    settings : Settings, optional
        By default those of the project that the working directory lies in.
    registry : Registry, optional
        By default the plugins of this environment.
    declare : bool, optional
        Whether to create the tables where they are missing. By default only on the project's own PostgreSQL; on a server,
        ``synicix-run init`` does it once.

    Attributes
    ----------
    DatasetConfig, ModelConfig, TrainingConfig, TrainingTask, TrainingAttempt, TrainingResult : type
        DataJoint table classes of this connection.

    Raises
    ------
    ConfigurationError
        If there is no project, the schema is not declared or is not ours, or the server is refused.
    DatabaseUnavailable
        If the database cannot be reached.

    Examples
    --------
    >>> pipeline = Pipeline()
    >>> pipeline.ModelConfig.insert_tuples([dict(model_provider="SimpleMLP", model_class_params=dict(hidden_size=64))])
    >>> pipeline.TrainingResult.populate()
    >>> model = pipeline.load_model(pipeline.TrainingResult.keys(limit=1)[0])
    """

    def __init__(
        self,
        connection: Any = None,
        schema_name: str | None = None,
        settings: Settings | None = None,
        registry: Registry | None = None,
        *,
        declare: bool | None = None,
    ) -> None:
        if settings is None:
            settings = load_settings(required=connection is None and configured_server() is None)
        if schema_name is not None:
            settings = dataclasses.replace(settings, schema_name=schema_name)
        self.settings = settings
        self.registry = registry or get_registry()
        if connection is None:
            connection = connect(settings)
            embedded = configured_server(settings.project_dir) is None
        else:
            check_session(connection)
            embedded = False
        self.connection = connection
        if declare or (declare is None and embedded):
            schemas.declare(connection, settings.schema_name)
        elif not schemas.is_declared(connection, settings.schema_name):
            raise ConfigurationError(
                f"the schema {settings.schema_name!r} has no tables yet", hint="Run: synicix-run init"
            )
        self.tables = schemas.bind(
            connection,
            settings.schema_name,
            Services(settings, self.registry, self._inspect_dataset),
            enqueue=self._enqueue,
            run_worker=self._populate,
        )
        self.DatasetConfig = self.tables.DatasetConfig
        self.ModelConfig = self.tables.ModelConfig
        self.TrainingConfig = self.tables.TrainingConfig
        self.TrainingTask = self.tables.TrainingTask
        self.TrainingAttempt = self.tables.TrainingAttempt
        self.TrainingResult = self.tables.TrainingResult
        self.queue = Queue(self.tables)

    @property
    def schema(self) -> Any:
        """The DataJoint schema, for ``dj.Diagram(pipeline.schema)``."""
        return self.tables.schema

    @property
    def schema_name(self) -> str:
        """Name of the schema."""
        return self.settings.schema_name

    def task(self, key: str | Mapping[str, Any]) -> str:
        """Return the md5 of one task.

        Parameters
        ----------
        key : str or mapping
            An md5, the beginning of one (4 digits or more), or a dict that holds it.

        Raises
        ------
        ConfigurationError
            If no task, or more than one, is meant.
        """
        name = "training_task_md5_hash"
        given = key.get(name, "") if isinstance(key, Mapping) else key
        text = str(given).strip().lower()
        if not 4 <= len(text) <= 32 or any(digit not in "0123456789abcdef" for digit in text):
            raise ConfigurationError(
                f"{given!r} does not name a task",
                why=f"a task is named by its {name} or the first 4 or more digits of it",
            )
        found = list((self.TrainingTask & f"{name} LIKE '{text}%%'").to_arrays(name))
        if len(found) != 1:
            why = (
                "there is no such task" if not found else f"{len(found)} tasks begin so: {', '.join(sorted(found)[:4])}"
            )
            raise ConfigurationError(f"{text!r} does not name a task", why=why, hint="Run: synicix-run results")
        return str(found[0])

    def counts(self) -> dict[str, int]:
        """Return how many tasks are pending, scheduled (pending, but due later only), running, finished, error or paused."""
        return count_states(self.tables)

    def spec(self, key: str | Mapping[str, Any]) -> TaskSpec:
        """Return everything that is needed to build a task on this machine: providers, parameters, paths.

        Parameters
        ----------
        key : str or mapping
            As for `task`.
        """
        row = fetch_configs(self.tables, self.task(key))
        # A model can be rebuilt where its dataset file is not; only what reads data looks at the path.
        path = self.settings.dataset_dir / row["dataset_file_name"]
        return make_spec(row, self.settings, path, attempt=0, device="cpu")

    def load_model(self, key: str | Mapping[str, Any]) -> torch.nn.Module:
        """Rebuild the trained model of a task, on the CPU and in evaluation mode.

        Needs the model's plugin and the file in `model_save_dir`, but neither the dataset nor its plugin.

        Parameters
        ----------
        key : str or mapping
            As for `task`.

        Raises
        ------
        ConfigurationError
            If the task has no result yet.
        CheckpointError
            If the file is missing or its sha256 is not that of the row.
        """
        from synicix_core.training.load import build_model, load_state

        task = self.task(key)
        path, sha256 = self._saved_model(task)
        model = build_model(self.spec(task), self.registry)
        load_state(model, path, sha256)
        return model.eval()

    def evaluate(self, key: str | Mapping[str, Any], tier: str = "test") -> dict[str, float | None]:
        """Compute the metrics of a task's trained model on one tier again.

        Parameters
        ----------
        key : str or mapping
            As for `task`.
        tier : {"train", "validation", "test"}
            Which examples.

        Returns
        -------
        dict
            By metric name; None where a value is not finite.
        """
        from synicix_core.training.load import evaluate_task

        spec = self.spec(key)
        row = (
            (self.DatasetConfig * self.TrainingTask & {"training_task_md5_hash": spec.task})
            .proj("dataset_file_name")
            .fetch1()
        )
        settings = self.settings
        path = resolve_dataset_file(
            settings.dataset_dir, row["dataset_file_name"], follow_symlinks=settings.follow_symlinks
        )
        spec = dataclasses.replace(spec, dataset_path=str(path))
        return evaluate_task(spec, self.registry, self.load_model(spec.task), tier)

    def restriction(self, restrictions: Iterable[Any]) -> str:
        """Return SQL that yields the md5s of the tasks which meet conditions on TrainingTask and its configs."""
        conditions = [condition for condition in restrictions if condition is not None]
        if not conditions:
            return ""
        joined = self.TrainingTask * self.DatasetConfig * self.ModelConfig * self.TrainingConfig
        return str((joined & dj.AndList(conditions)).proj().make_sql())

    def run_worker(self, options: WorkerOptions, display: WorkerDisplay | None = None) -> WorkerSummary:
        """Run one worker in this process until it is done; see `Supervisor`."""
        from synicix_core.runner.supervisor import Supervisor

        options = dataclasses.replace(options, project_commit=_git_commit(self.settings.project_dir))
        return Supervisor(self.tables, self.registry, self.settings, options, display).run()

    def _populate(
        self,
        *,
        restrictions: tuple[Any, ...],
        overrides: dict[str, Any],
        order: str,
        max_tasks: int | None,
        display_progress: bool,
        device: str,
    ) -> dict[str, Any]:
        from synicix_core.runner.lines import Lines
        from synicix_core.runner.supervisor import WorkerOptions

        whole = self.settings
        worker = whole.worker.with_fuse(overrides.pop("worker_fuse", whole.worker.fuse))
        for name, value in overrides.items():
            overrides[name] = value if name == "num_workers" else Path(value).expanduser().resolve()
        self.settings = dataclasses.replace(whole, worker=worker, **overrides)
        try:
            options = WorkerOptions(
                restriction=self.restriction(restrictions), order=order, max_tasks=max_tasks, device=device
            )
            summary = self.run_worker(options, Lines() if display_progress else None)
        finally:
            self.settings = whole
        if summary.exit_code == 75:
            raise KeyboardInterrupt(summary.reason)
        if summary.exit_code:
            raise ConfigurationError("nothing could be trained", why=summary.reason, hint="Run: synicix-run doctor")
        return {"success_count": summary.success_count, "error_list": summary.error_list}

    def _saved_model(self, task: str) -> tuple[Path, str]:
        found = (
            (self.TrainingResult & {"training_task_md5_hash": task}).proj("model_save_path", "model_sha256").to_dicts()
        )
        if not found:
            raise ConfigurationError(f"task {task} has no result yet", hint=f"Run: synicix-run show {task[:8]}")
        return self.settings.model_save_dir / found[0]["model_save_path"], found[0]["model_sha256"]

    def _enqueue(self) -> int:
        return self.queue.enqueue()

    def _inspect_dataset(self, registered: Registered, path: Path, params: dict[str, Any]) -> Any:
        from synicix_core.training.inspect_dataset import inspect_dataset

        return inspect_dataset(registered, path, params)


def _git_commit(directory: Path) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(directory), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
