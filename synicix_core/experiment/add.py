"""Insert the configs and the tasks of a plan, after all of them were checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synicix_core.experiment.document import KINDS
from synicix_core.experiment.expand import Plan
from synicix_core.experiment.prepare import TABLES, PreparedPlan, prepare_plan
from synicix_core.experiment.target import Target

__all__ = ["Count", "Summary", "add"]


@dataclass(frozen=True)
class Count:
    """How many rows were added, and how many were there already."""

    new: int
    existing: int


@dataclass(frozen=True)
class Summary:
    """What `add` did, or with ``dry_run`` would do.

    Attributes
    ----------
    file : str
        Name of the experiment file.
    dry_run : bool
        Whether nothing was inserted.
    tables : dict of str to Count
        Rows of ``DatasetConfig``, ``ModelConfig``, ``TrainingConfig`` and ``TrainingTask``.
    origins : dict of str to Count
        Configs of each table of the file, by its origin: ``sweep.toml [[model]] #2 'mlp'``.
    notes : tuple of str
        What the author may not expect.
    """

    file: str
    dry_run: bool
    tables: dict[str, Count]
    origins: dict[str, Count]
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> int:
        """Number of tasks that the file comes to, new or not."""
        return self.tables["TrainingTask"].new + self.tables["TrainingTask"].existing

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        return {
            "file": self.file,
            "dry_run": self.dry_run,
            "tasks": self.tasks,
            "tables": {name: vars(count) for name, count in self.tables.items()},
            "origins": {origin: vars(count) for origin, count in self.origins.items()},
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        counts = self.origins | self.tables
        width = max(map(len, counts))
        new, existing = ("would be new", "there already") if self.dry_run else ("new", "there already")
        lines = [f"{name:{width}}  {c.new:>9,} {new}, {c.existing:>9,} {existing}" for name, c in counts.items()]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def add(pipeline: Target, plan: Plan, *, dry_run: bool = False) -> Summary:
    """Insert the configs and tasks of a plan; what exists already is counted and left alone.

    Everything is checked before the first row is inserted.

    Parameters
    ----------
    pipeline : Pipeline
        Where to insert.
    plan : Plan
        What `expand` returned.
    dry_run : bool
        Insert nothing, only count.

    Raises
    ------
    ParamsError
        With all mistakes of all tables, each with file, table and key. Nothing was inserted then.
    """
    prepared = prepare_plan(pipeline, plan)
    tasks = prepared.tasks()
    there = {kind: getattr(pipeline, TABLES[kind]).existing(_unique(prepared, kind)) for kind in KINDS}
    totals = {TABLES[kind]: len(_unique(prepared, kind)) for kind in KINDS} | {"TrainingTask": len(tasks)}
    if dry_run:
        new = {TABLES[kind]: totals[TABLES[kind]] - len(there[kind]) for kind in KINDS}
        new["TrainingTask"] = len(tasks.keys() - _stored_tasks(pipeline)) if tasks else 0
    else:
        new = _insert(pipeline, prepared, list(tasks))
    tables = {name: Count(new[name], total - new[name]) for name, total in totals.items()}
    return Summary(plan.file, dry_run, tables, _origins(prepared, there), prepared.notes)


def _insert(pipeline: Target, prepared: PreparedPlan, tasks: list[tuple[str, str, str]]) -> dict[str, int]:
    new = {}
    for kind in KINDS:
        new[TABLES[kind]] = len(getattr(pipeline, TABLES[kind]).insert_prepared(prepared.rows[kind]).new)
    columns = [f"{kind}_config_md5_hash" for kind in KINDS]
    rows_of_tasks = [dict(zip(columns, task, strict=True)) for task in tasks]
    new["TrainingTask"] = len(pipeline.TrainingTask.insert_tuples(rows_of_tasks).new) if tasks else 0
    return new


def _unique(prepared: PreparedPlan, kind: str) -> list[str]:
    return list(dict.fromkeys(prepared.keys(kind)))


def _stored_tasks(pipeline: Target) -> set[tuple[str, str, str]]:
    columns = pipeline.TrainingTask().to_arrays(*(f"{kind}_config_md5_hash" for kind in KINDS))
    return {(str(d), str(m), str(t)) for d, m, t in zip(*columns, strict=True)}


def _origins(prepared: PreparedPlan, there: dict[str, set[str]]) -> dict[str, Count]:
    """Count the configs of each table of the file; one that two tables make is new only in the first."""
    counts: dict[str, Count] = {}
    for kind in KINDS:
        seen = set(there[kind])
        for config, key in zip(prepared.plan.configs(kind), prepared.keys(kind), strict=True):
            count = counts.get(config.origin, Count(0, 0))
            old = key in seen
            counts[config.origin] = Count(count.new + (not old), count.existing + old)
            seen.add(key)
    return counts
