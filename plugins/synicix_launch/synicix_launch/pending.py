"""What there is to train, and the plugins that it takes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synicix_core import Pipeline

__all__ = ["Pending", "look"]

_CORE = "synicix-core"


@dataclass(frozen=True)
class Pending:
    """What waits to be trained.

    Attributes
    ----------
    pending : int
        How many tasks wait, those that are to be tried again later included.
    running : int
        How many workers hold already.
    needs : dict of str to str
        Distributions, other than the core, that provide what these tasks are made of, with the versions installed here;
        ``""`` for one that is not. Sorted by name.
    """

    pending: int
    running: int
    needs: dict[str, str]


def look(pipeline: Pipeline) -> Pending:
    """Count what is pending, and find which distributions it needs."""
    counts = pipeline.counts()
    installed = {plugin.distribution: plugin.version for plugin in pipeline.registry.plugins}
    needed = {stored.partition("/")[0] for stored in _providers(pipeline)} - {_CORE, ""}
    return Pending(
        pending=counts["pending"] + counts["scheduled"],
        running=counts["running"],
        needs={name: installed.get(name, "") for name in sorted(needed)},
    )


def _providers(pipeline: Pipeline) -> Iterable[str]:
    """Yield the qualified names of all providers in the configs of tasks that wait."""
    task, key = pipeline.TrainingTask.full_table_name, "training_task_md5_hash"
    for table in (pipeline.DatasetConfig, pipeline.ModelConfig, pipeline.TrainingConfig):
        columns = [name for name in table.heading.names if name.endswith("_provider") or name == "metrics"]
        (config,) = table.primary_key
        # In SQL: to DataJoint the key of the job table is another attribute than that of the tasks.
        sql = (
            f"SELECT {', '.join(columns)} FROM {table.full_table_name} WHERE {config} IN (SELECT t.{config} FROM {task} t "
            f"LEFT JOIN {pipeline.TrainingResult.full_table_name} r ON r.{key} = t.{key} "
            f"LEFT JOIN {pipeline.TrainingResult.jobs.full_table_name} j ON j.{key} = t.{key} "
            f"WHERE r.{key} IS NULL AND (j.status IS NULL OR j.status = 'pending'))"
        )
        for row in pipeline.connection.query(sql).fetchall():
            for column, value in zip(columns, row, strict=True):
                if column != "metrics":
                    yield value
                else:
                    # MySQL's driver leaves JSON as text.
                    listed = json.loads(value) if isinstance(value, str) else value
                    yield from (metric["provider"] for metric in listed)
