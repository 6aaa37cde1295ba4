"""What went wrong, by cause: the database reads the last attempt of each task that ended in an error, and groups them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from synicix_core.database.dialect import age_in_seconds
from synicix_core.database.reconnect import execute
from synicix_core.errors import ConfigurationError
from synicix_core.tables.schema import Tables

__all__ = [
    "CANCELLED",
    "CANCELLED_CAUSE",
    "ErrorFilter",
    "ErrorGroup",
    "cancellation",
    "failed_tasks",
    "group_failures",
]

CANCELLED = "cancelled by "
"""How the message of a task begins that a person cancelled; what follows is who it was."""

CANCELLED_CAUSE = "ca9ce11d"
"""The cause of all of these."""

_MD5 = "training_task_md5_hash"
_FEW_HOSTS = 3


@dataclass(frozen=True)
class ErrorFilter:
    """Which of the tasks that ended in an error are meant; everything that is set has to hold.

    Attributes
    ----------
    kind : str or None
        An attempt's `error_kind`.
    cause : str or None
        The cause, as `ErrorGroup` has it.
    containing : str or None
        A text that the message contains, whatever its case.
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose from.
    """

    kind: str | None = None
    cause: str | None = None
    containing: str | None = None
    restriction: str = ""


@dataclass(frozen=True)
class ErrorGroup:
    """Tasks that ended in an error of the same cause.

    Attributes
    ----------
    kind : str
        The `error_kind` of the last attempts, or ``cancelled``; ``error`` where they say none.
    cause : str
        The same for errors of the same cause.
    message : str
        First line of the message of `tasks[0]`.
    count : int
        How many tasks.
    tasks : tuple of str
        The first few of them.
    hosts : tuple of str
        On which machines the last attempts ran, if they are few; those with the most of them first.
    host_count : int
        On how many machines; 0 where nothing was attempted.
    last_at : datetime or None
        When the last of these attempts ended, in UTC.
    seconds_ago : float or None
        How long ago that is by the database's clock.
    """

    kind: str
    cause: str
    message: str
    count: int
    tasks: tuple[str, ...]
    hosts: tuple[str, ...]
    host_count: int
    last_at: datetime | None
    seconds_ago: float | None


def group_failures(tables: Tables, wanted: ErrorFilter | None = None, *, examples: int = 5) -> list[ErrorGroup]:
    """Return the tasks that ended in an error by kind and cause, the most frequent first.

    Parameters
    ----------
    tables : Tables
        Where they are.
    wanted : ErrorFilter, optional
        Which of them; by default all.
    examples : int
        How many tasks to name in each group.
    """
    failures, args = _failures(tables, wanted or ErrorFilter())
    places = "".join(f", MIN(CASE WHEN place = {place} THEN task END)" for place in range(1, examples + 1))
    sql = (
        f"SELECT kind, cause, host, COUNT(*), MAX(ended_at), "
        f"{age_in_seconds(tables.connection.adapter, 'MAX(ended_at)')}{places} "
        f"FROM (SELECT failures.*, ROW_NUMBER() OVER (PARTITION BY kind, cause ORDER BY task) AS place "
        f"FROM ({failures}) failures) numbered GROUP BY kind, cause, host"
    )
    # By host, too: to count distinct ones for each cause, the database would sort them all.
    parts: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for kind, cause, *part in execute(tables.connection, sql, args).fetchall():
        parts.setdefault((str(kind), str(cause)), []).append(tuple(part))
    groups = [_group(kind, cause, by_host) for (kind, cause), by_host in parts.items()]
    messages = _messages(tables, [group.tasks[0] for group in groups])
    groups = [replace(group, message=messages.get(group.tasks[0], "")) for group in groups]
    return sorted(groups, key=lambda group: (-group.count, group.message, group.cause))


def failed_tasks(tables: Tables, wanted: ErrorFilter | None = None) -> list[str]:
    """Return the tasks that ended in an error, in order.

    Parameters
    ----------
    tables : Tables
        Where they are.
    wanted : ErrorFilter, optional
        Which of them; by default all.

    Raises
    ------
    ConfigurationError
        If no error has the cause that is wanted.
    """
    failures, args = _failures(tables, wanted or ErrorFilter())
    rows = execute(tables.connection, f"SELECT task FROM ({failures}) failures ORDER BY task", args).fetchall()
    return [str(row[0]) for row in rows]


def cancellation(tables: Tables, task: str) -> str:
    """Return what is said of a task that somebody cancelled, and nothing of any other."""
    message = _messages(tables, [task]).get(task, "")
    return message if message.startswith(CANCELLED) else ""


def _failures(tables: Tables, wanted: ErrorFilter) -> tuple[str, tuple[Any, ...]]:
    """Return a query of one row for each task in error, and its arguments.

    Its kind and cause are those of its last attempt; one that DataJoint itself put into error, or that was cancelled before
    anybody tried it, has none, and goes by the first line of its message. Jobs of deleted tasks do not count.
    """
    jobs, attempts = tables.jobs_name, tables.TrainingAttempt.full_table_name
    first_line = "split_part" if tables.connection.adapter.backend == "postgresql" else "SUBSTRING_INDEX"
    cancelled = f"LEFT(j.error_message, {len(CANCELLED)}) = '{CANCELLED}'"
    # A pending task was cancelled: neither place nor time of an attempt before that is of interest.
    theirs = f"{cancelled} AND (a.error_kind IS NULL OR a.error_kind <> 'cancelled')"
    sql = (
        f"SELECT j.{_MD5} AS task, CASE WHEN {theirs} THEN NULL ELSE a.host END AS host, "
        f"CASE WHEN {theirs} THEN NULL ELSE a.heartbeat_at END AS ended_at, "
        f"CASE WHEN {cancelled} THEN 'cancelled' ELSE COALESCE(a.error_kind, 'error') END AS kind, "
        f"CASE WHEN {cancelled} THEN '{CANCELLED_CAUSE}' "
        f"ELSE COALESCE(a.error_cause, {first_line}(j.error_message, %s, 1)) END AS cause "
        # Grouped are the attempts at tasks in error alone: those at all tasks may be many more.
        f"FROM {jobs} j LEFT JOIN (SELECT b.{_MD5}, MAX(b.attempt) AS attempt FROM {jobs} e "
        f"JOIN {attempts} b ON b.{_MD5} = e.{_MD5} WHERE e.status = 'error' GROUP BY b.{_MD5}) tried "
        f"ON tried.{_MD5} = j.{_MD5} "
        f"LEFT JOIN {attempts} a ON a.{_MD5} = tried.{_MD5} AND a.attempt = tried.attempt WHERE j.status = 'error' "
        f"AND (a.{_MD5} IS NOT NULL OR "
        f"EXISTS (SELECT 1 FROM {tables.TrainingTask.full_table_name} t WHERE t.{_MD5} = j.{_MD5}))"
    )
    args: list[Any] = ["\n"]
    if wanted.containing is not None:
        escaped = wanted.containing.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
        sql += " AND LOWER(j.error_message) LIKE %s ESCAPE '!'"
        args.append(f"%{escaped}%")
    if wanted.restriction:
        sql += f" AND j.{_MD5} IN ({wanted.restriction})"
    if wanted.kind is not None:
        sql, args = f"SELECT * FROM ({sql}) any_kind WHERE kind = %s", [*args, wanted.kind]
    if wanted.cause is not None:
        causes = _causes(tables, sql, args, wanted.cause)
        sql = f"SELECT * FROM ({sql}) any_cause WHERE cause IN ({', '.join(['%s'] * len(causes))})"
        args += causes
    return sql, tuple(args)


def _group(kind: str, cause: str, by_host: Sequence[tuple[Any, ...]]) -> ErrorGroup:
    """Sum up what the database counted for each host; the message is looked up later."""
    hosts = sorted((-int(number), str(host)) for host, number, *_ in by_host if host is not None)
    latest = max((part for part in by_host if part[2] is not None), key=lambda part: part[2], default=None)
    return ErrorGroup(
        kind,
        _cause_id(cause),
        "",
        sum(int(part[1]) for part in by_host),
        tuple(sorted(str(task) for part in by_host for task in part[4:] if task is not None)),
        tuple(host for _, host in hosts) if len(hosts) <= _FEW_HOSTS else (),
        len(hosts),
        None if latest is None else latest[2],
        None if latest is None else float(latest[3]),
    )


def _causes(tables: Tables, failures: str, args: Sequence[Any], wanted: str) -> list[str]:
    """Return the causes that are shown as `wanted`."""
    rows = execute(tables.connection, f"SELECT DISTINCT cause FROM ({failures}) failures", args).fetchall()
    found = [str(row[0]) for row in rows if _cause_id(str(row[0])) == wanted.strip().lower()]
    if not found:
        raise ConfigurationError(f"no task ended in an error of the cause {wanted!r}", hint="Run: synicix-run errors")
    return found


def _cause_id(cause: str) -> str:
    """Return what a cause is called: what its attempt calls it, or else a digest of the message's first line."""
    return cause if re.fullmatch(r"[0-9a-z_]{1,16}", cause) else hashlib.sha256(cause.encode()).hexdigest()[:8]


def _messages(tables: Tables, tasks: Sequence[str]) -> dict[str, str]:
    """Return the first lines of the messages of some tasks."""
    found = {}
    for start in range(0, len(tasks), 1000):
        chunk = tuple(tasks[start : start + 1000])
        marks = ", ".join(["%s"] * len(chunk))
        sql = f"SELECT {_MD5}, error_message FROM {tables.jobs_name} WHERE {_MD5} IN ({marks})"
        rows = execute(tables.connection, sql, chunk).fetchall()
        found.update({str(task): str(message).partition("\n")[0] for task, message in rows})
    return found
