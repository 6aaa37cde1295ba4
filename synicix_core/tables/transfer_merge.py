"""What becomes of a task that both the export and the database know.

A task moves as a whole: its attempts, its result and its job. Attempts have numbers that only grow, so where one side's
attempts are the beginning of the other's, that other one is simply further; anything else is a conflict. What people did to
a task that is as far on both sides, pausing it or giving it a priority, stays as it is in the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.tables.transfer_columns import Row, TransferTable, alike
from synicix_core.tables.transfer_file import ExportFile

__all__ = ["Difference", "History", "compare", "histories", "read_histories"]

_MD5 = "training_task_md5_hash"


@dataclass(frozen=True)
class History:
    """A task and all that happened to it.

    Attributes
    ----------
    task : dict
        Row of TrainingTask.
    attempts : tuple of dict
        Rows of TrainingAttempt, the first one first.
    result, job : dict or None
        Rows of TrainingResult and of the job table.
    """

    task: Row
    attempts: tuple[Row, ...] = ()
    result: Row | None = None
    job: Row | None = None

    @property
    def key(self) -> str:
        """The task's md5."""
        return str(self.task[_MD5])

    @property
    def size(self) -> int:
        """How many rows these are."""
        return 1 + len(self.attempts) + (self.result is not None) + (self.job is not None)


@dataclass(frozen=True)
class Difference:
    """How a task of the export compares with the same one in the database.

    Attributes
    ----------
    kind : {"same", "behind", "ahead", "conflict"}
        ``behind``: the database is further, or people changed something there. ``ahead``: the export knows more.
    why : str
        Of a conflict.
    """

    kind: str
    why: str = ""


def histories(file: ExportFile, tables: Mapping[str, TransferTable]) -> Iterator[History]:
    """Yield the tasks of an export, each with its attempts, result and job.

    Raises
    ------
    ConfigurationError
        If the file was changed or damaged; also at the end, where a row belongs to no task.
    """
    streams = {name: _Stream(file, tables[name]) for name in ("TrainingAttempt", "TrainingResult", "Job")}
    for task in file.read(tables["TrainingTask"]):
        attempts, results, jobs = (stream.take(task[_MD5]) for stream in streams.values())
        yield History(task, tuple(attempts), *(rows[0] if rows else None for rows in (results, jobs)))
    for name, stream in streams.items():
        if stream.next is not None:
            raise file.damaged(f"{name} has a row of a task that is not in the export: {stream.next[_MD5]}")


def read_histories(connection: Any, tables: Mapping[str, TransferTable], tasks: Sequence[str]) -> dict[str, History]:
    """Return those of the tasks that are in the database, by md5."""
    if not tasks:
        return {}
    found: dict[str, dict[str, list[Row]]] = {}
    for name in ("TrainingTask", "TrainingAttempt", "TrainingResult", "Job"):
        table = tables[name]
        sql = (
            f"{table.select(connection.adapter)} WHERE {_MD5} IN ({', '.join(['%s'] * len(tasks))}) "
            f"ORDER BY {', '.join(table.key)}"
        )
        for values in execute(connection, sql, tuple(tasks)).fetchall():
            row = table.encode(values)
            found.setdefault(row[_MD5], {}).setdefault(name, []).append(row)
    return {
        task: History(
            rows["TrainingTask"][0],
            tuple(rows.get("TrainingAttempt", ())),
            next(iter(rows.get("TrainingResult", ())), None),
            next(iter(rows.get("Job", ())), None),
        )
        for task, rows in found.items()
        if "TrainingTask" in rows
    }


def compare(theirs: History, here: History, tables: Mapping[str, TransferTable]) -> Difference:
    """Compare a task of the export with the same one in the database."""
    attempts, results = tables["TrainingAttempt"], tables["TrainingResult"]
    for ours, other in zip(here.attempts, theirs.attempts, strict=False):
        if not alike(attempts, ours, other):
            return Difference("conflict", _other_attempt(ours, other))
    both = theirs.result is not None and here.result is not None
    if both and not alike(results, theirs.result or {}, here.result or {}):
        why = f"it has another result here: {_score(here.result)}; in the export: {_score(theirs.result)}"
        return Difference("conflict", why)
    further = len(theirs.attempts) - len(here.attempts)
    if further > 0 and here.result is not None and theirs.result is None:
        return Difference("conflict", "it has a result here, and went on without one in the export")
    if further > 0:
        if here.job is not None and here.job["status"] == "reserved":
            return Difference("conflict", f"somebody on {here.job['host'] or 'another host'} has reserved it here")
        return Difference("ahead")
    # A finished attempt without its result: somebody deleted the result here, to have it trained again.
    if theirs.result is not None and here.result is None:
        known = any(
            row["attempt"] == theirs.result["by_attempt"] and row["state"] == "finished" for row in here.attempts
        )
        return Difference(
            "behind" if known else "conflict", "" if known else "its result in the export is of no attempt"
        )
    if theirs.job is not None and here.job is None and here.result is None:
        return Difference("ahead")
    return Difference("same" if further == 0 and theirs.job == here.job else "behind")


def _other_attempt(ours: Row, theirs: Row) -> str:
    if ours["state"] == "running":
        return f"a worker on {ours['host']} is training it here"
    return f"its attempt {ours['attempt']} is another one here: {_begun(ours)}; in the export: {_begun(theirs)}"


def _begun(attempt: Row) -> str:
    return f"{attempt['state']} on {attempt['host']}, begun {_utc(attempt['started_at'])}"


def _score(result: Row | None) -> str:
    return "none" if result is None else f"score {result['test_score']} of {_utc(result['utc_insert_time'])}"


def _utc(time: str) -> str:
    return f"{time[:19].replace('T', ' ')} UTC"


class _Stream:
    """The rows of a member, taken task by task."""

    def __init__(self, file: ExportFile, table: TransferTable) -> None:
        self._rows = file.read(table)
        self.next: Row | None = next(self._rows, None)

    def take(self, task: str) -> list[Row]:
        """Return the rows of a task; tasks come in order."""
        taken = []
        while self.next is not None and self.next[_MD5] == task:
            taken.append(self.next)
            self.next = next(self._rows, None)
        return taken
