"""Build every distinct combination of configs and run one batch of it, before anybody launches a cluster."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synicix_core.errors import SynicixError
from synicix_core.experiment.document import KINDS
from synicix_core.experiment.expand import Plan
from synicix_core.experiment.prepare import TABLES, prepare_plan
from synicix_core.experiment.target import Target
from synicix_core.hashing import canonical_json
from synicix_core.tables.dataset_files import resolve_dataset_file

if TYPE_CHECKING:
    from synicix_core.training.check import CheckReport
    from synicix_core.training.spec import TaskSpec

__all__ = ["CheckResult", "check"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """What became of one combination of configs.

    Attributes
    ----------
    dataset, model, training : str
        The configs in short; a training without its seed.
    origins : tuple of str
        Where they stand in the experiment file; empty for tasks that are in the database.
    tasks : int
        How many tasks it stands for: those that differ in the seed alone.
    ok : bool
        Whether everything was built and one batch went forward and backward.
    seconds : float
        Wall time that took.
    reason : str
        Why it failed; empty where it did not.
    notes : tuple of str
        What looks wrong but works.
    report : CheckReport or None
        What was measured; None where it failed.
    """

    dataset: str
    model: str
    training: str
    origins: tuple[str, ...]
    tasks: int
    ok: bool
    seconds: float
    reason: str = ""
    notes: tuple[str, ...] = ()
    report: CheckReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {**dataclasses.asdict(self), "origins": list(self.origins), "notes": list(self.notes)}

    def __str__(self) -> str:
        outcome = "ok" if self.ok else f"failed: {self.reason}"
        count = "1 task" if self.tasks == 1 else f"{self.tasks:,} tasks"
        head = f"{self.dataset} | {self.model} | {self.training} ({count}, {self.seconds:.2f} s): {outcome}"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])


@dataclass
class _Combination:
    rows: dict[str, Row]
    origins: tuple[str, ...] = ()
    tasks: int = 0


def check(
    pipeline: Target,
    what: Plan | Any,
    *,
    device: str = "auto",
    observe: Callable[[CheckResult, int], None] | None = None,
) -> list[CheckResult]:
    """Build each distinct combination and run one batch forward and backward.

    Combinations are distinct by dataset config, model config, and training config up to the seed.

    Parameters
    ----------
    pipeline : Pipeline
        Whose tables, directories and plugins count. Nothing is inserted.
    what : Plan or restriction
        A plan of `expand`, or what restricts ``TrainingTask * DatasetConfig * ModelConfig * TrainingConfig`` (``True``
        for all tasks).
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda:0"``, ….
    observe : callable, optional
        Called with each result and the number of combinations.

    Raises
    ------
    ParamsError
        If the rows of a plan are wrong already.
    """
    combinations = _of_plan(pipeline, what) if isinstance(what, Plan) else _of_tasks(pipeline, what)
    results = []
    for combination in combinations:
        results.append(_check_one(pipeline, combination, device))
        if observe is not None:
            observe(results[-1], len(combinations))
    return results


def _of_plan(pipeline: Target, plan: Plan) -> list[_Combination]:
    prepared = prepare_plan(pipeline, plan)
    trainings = [_up_to_seed(row) for row in prepared.rows["training"]]
    combinations: dict[tuple[str, str, str], _Combination] = {}
    for (dataset, model, _), positions in prepared.tasks().items():
        key = (dataset, model, trainings[positions[2]])
        if key not in combinations:
            chosen = dict(zip(KINDS, positions, strict=True))
            combinations[key] = _Combination(
                {kind: prepared.rows[kind][position] for kind, position in chosen.items()},
                tuple(plan.configs(kind)[position].origin for kind, position in chosen.items()),
            )
        combinations[key].tasks += 1
    return list(combinations.values())


def _of_tasks(pipeline: Target, restriction: Any) -> list[_Combination]:
    joined = pipeline.TrainingTask * pipeline.DatasetConfig * pipeline.ModelConfig * pipeline.TrainingConfig
    columns = {kind: f"{kind}_config_md5_hash" for kind in KINDS}
    tasks = (joined & restriction).proj(*columns.values())
    rows = {
        kind: {row[column]: row for row in (getattr(pipeline, TABLES[kind]) & tasks.proj(column)).to_dicts()}
        for kind, column in columns.items()
    }
    trainings = {md5: _up_to_seed(row) for md5, row in rows["training"].items()}
    combinations: dict[tuple[str, str, str], _Combination] = {}
    for task in tasks.to_dicts():
        key = (task[columns["dataset"]], task[columns["model"]], trainings[task[columns["training"]]])
        if key not in combinations:
            combinations[key] = _Combination({kind: rows[kind][task[column]] for kind, column in columns.items()})
        combinations[key].tasks += 1
    return list(combinations.values())


def _check_one(pipeline: Target, combination: _Combination, device: str) -> CheckResult:
    from synicix_core.training.check import check_task

    started = time.perf_counter()
    report, reason = None, ""
    try:
        report = check_task(_spec(pipeline, combination.rows, device), pipeline.registry)
    except SynicixError as error:
        reason = str(error)
    except SystemExit as error:
        # Datasets and models are other people's code; one that wants to exit shall not take the rest along.
        reason = f"it called sys.exit({error.code!r})"
    return CheckResult(
        **{kind: _in_short(kind, combination.rows[kind]) for kind in KINDS},
        origins=combination.origins,
        tasks=combination.tasks,
        ok=not reason,
        seconds=time.perf_counter() - started,
        reason=reason,
        notes=report.notes if report else (),
        report=report,
    )


def _spec(pipeline: Target, rows: Mapping[str, Row], device: str) -> TaskSpec:
    """Return the specification of a task that need not be in the database."""
    from synicix_core.training.task_specs import make_spec

    settings = dataclasses.replace(pipeline.settings, num_workers=0)
    row = {"training_task_md5_hash": "0" * 32, **rows["dataset"], **rows["model"], **rows["training"]}
    path = resolve_dataset_file(
        settings.dataset_dir, row["dataset_file_name"], follow_symlinks=settings.follow_symlinks
    )
    return make_spec(row, settings, path, attempt=0, device=device)


def _up_to_seed(row: Row) -> str:
    return canonical_json({key: value for key, value in row.items() if key not in ("training_config_md5_hash", "seed")})


def _in_short(kind: str, row: Row) -> str:
    prefixes = ("optimizer", "criterion", "trainer") if kind == "training" else (kind,)
    parts = [_component_text(row[f"{prefix}_provider"], row[f"{prefix}_class_params"]) for prefix in prefixes]
    if kind == "dataset":
        parts.insert(0, row["dataset_file_name"])
    return " ".join(parts) + (f" batch_size={row['batch_size']}" if kind == "training" else "")


def _component_text(provider: str, params: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(params.items()))
    return provider.rpartition("/")[2] + (f"({arguments})" if arguments else "")
