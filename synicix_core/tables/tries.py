"""How the attempts at a task went, which decides whether it is tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import Tables

__all__ = ["TRIED_AGAIN", "Tries", "count_tries", "read_tries"]

TRIED_AGAIN = frozenset({"transient", "died", "hung"})
"""Kinds of error after which a task is tried again."""


@dataclass(frozen=True)
class Tries:
    """What counts.

    Attributes
    ----------
    failures : int
        Attempts that were lost, or failed in a way that allows another try, since the training last got further than
        ever before: a long task on machines that are taken away again and again goes on as long as it gets somewhere.
    out_of_memory : int
        Attempts that failed for want of memory.
    """

    failures: int = 0
    out_of_memory: int = 0


def read_tries(tables: Tables, task: str) -> Tries:
    """Return the tries at a task since it was queued or last retried by hand."""
    md5, attempts = "training_task_md5_hash", tables.TrainingAttempt.full_table_name
    sql = (
        f"SELECT a.state, a.error_kind, a.epoch FROM {attempts} a JOIN {tables.jobs_name} j ON j.{md5} = a.{md5} "
        f"WHERE a.{md5} = %s AND a.started_at >= j.created_time ORDER BY a.attempt"
    )
    return count_tries(execute(tables.connection, sql, (task,)).fetchall())


def count_tries(attempts: Iterable[tuple[str, str | None, int | None]]) -> Tries:
    """Count tries from the state, the kind of error and the epoch of each attempt, the first one first."""
    failures = out_of_memory = furthest = 0
    for state, kind, epoch in attempts:
        if (epoch or 0) > furthest:
            failures, furthest = 0, epoch or 0
        failures += state == "lost" or (state == "failed" and kind in TRIED_AGAIN)
        out_of_memory += state == "failed" and kind == "out_of_memory"
    return Tries(failures, out_of_memory)
