"""Take back the claims of workers that are gone, so that their tasks go on elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synicix_core.database.dialect import seconds_ago
from synicix_core.database.reconnect import despite_conflicts, execute, transaction
from synicix_core.tables.queue import Problem, Queue

__all__ = ["Recovered", "recover"]

_MD5 = "training_task_md5_hash"
_AT_ONCE = 100
"""Claims taken back in one transaction."""


@dataclass(frozen=True)
class Recovered:
    """A claim that was taken back.

    Attributes
    ----------
    task, attempt, host : str, int, str
        Whose it was.
    why : str
        How it is known that the worker is gone.
    final : bool
        Whether the task ended in an error, because it lost too many workers.
    """

    task: str
    attempt: int
    host: str
    why: str
    final: bool


def recover(
    queue: Queue,
    lease_seconds: float,
    max_attempts: int,
    *,
    namespace: str = "",
    is_gone: Callable[[str], bool] | None = None,
) -> list[Recovered]:
    """Take back claims whose heartbeat is older than the lease, and at once those whose process is provably gone.

    A task that lost `max_attempts` workers without getting any further becomes an error: it may be what kills them.

    Parameters
    ----------
    queue : Queue
        The queue.
    lease_seconds : float
        By the database's clock.
    max_attempts : int
        See above.
    namespace : str
        What the names of processes that can be looked at from here begin with; empty looks at none.
    is_gone : callable
        Tells of the name of such a process whether it has certainly ended.
    """
    found: list[Recovered] = []
    attempts = queue.tables.TrainingAttempt.full_table_name
    if namespace and is_gone is not None:
        sql = f"SELECT {_MD5}, attempt, process FROM {attempts} WHERE state = 'running' AND process LIKE %s"
        for task, attempt, process in execute(queue.connection, sql, (f"{namespace}/%",)).fetchall():
            if is_gone(process):
                found += _take_back(
                    queue, max_attempts, "its process is gone", f"{_MD5} = %s AND attempt = %s", task, attempt
                )
    overdue = f"heartbeat_at < {seconds_ago(queue.connection.adapter)}"
    return found + _take_back(queue, max_attempts, f"no heartbeat for {lease_seconds:.0f} s", overdue, lease_seconds)


@despite_conflicts
def _take_back(queue: Queue, max_attempts: int, why: str, condition: str, *args: object) -> list[Recovered]:
    sql = (
        f"SELECT {_MD5}, attempt, host FROM {queue.tables.TrainingAttempt.full_table_name} "
        f"WHERE state = 'running' AND {condition} ORDER BY {_MD5} LIMIT {_AT_ONCE} FOR UPDATE SKIP LOCKED"
    )
    recovered = []
    with transaction(queue.connection):
        for task, attempt, host in execute(queue.connection, sql, args).fetchall():
            failures = queue.tries(task).failures + 1
            final = failures >= max_attempts
            message = f"the worker on {host} was lost: {why}"
            if final:
                message = f"{failures} workers were lost while they trained this task; the last one on {host}: {why}"
            queue.take_back(task, attempt, Problem(message, kind="lost", cause="lost"), final=final)
            recovered.append(Recovered(str(task), int(attempt), str(host), why, final))
    return recovered
