"""What the rows refer to: which attempts a task had, which model and which histories a result has.

DataJoint's own collector is gone around: it reads the references first and lists the store afterwards, so that it deletes
what a worker commits in between, and an error while it reads the references makes every file look unused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from synicix_core.database.dialect import now_utc, quote_table
from synicix_core.database.quiet import quiet
from synicix_core.database.reconnect import execute, transaction
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.tables.result_histories import HISTORIES
from synicix_core.tables.schema import SCHEMA_VERSION, VERSION_TABLE, Tables

__all__ = [
    "ResultFiles",
    "TaskRows",
    "closed_store",
    "committed_since",
    "database_time",
    "delete_results",
    "other_tables_in_store",
    "result_files",
    "rows_of_tasks",
]

_MD5 = "training_task_md5_hash"
_PAGE = 5000
_CLOCK_STEP = timedelta(seconds=60)


@dataclass(frozen=True)
class TaskRows:
    """What the rows of a task say about its files.

    Attributes
    ----------
    attempts : mapping
        The state of each attempt by its number.
    model : str or None
        The model file of its result, relative to `model_save_dir`; None without a result.
    """

    attempts: Mapping[int, str] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True)
class ResultFiles:
    """The files of one result: its model relative to `model_save_dir`, and its histories relative to the store."""

    task: str
    model: str
    histories: tuple[str, ...]


def rows_of_tasks(tables: Tables, tasks: Sequence[str]) -> dict[str, TaskRows]:
    """Return what the rows of these tasks say about their files; tasks that are not in the schema are left out."""
    found: dict[str, TaskRows] = {}
    for start in range(0, len(tasks), _PAGE):
        chunk = tuple(tasks[start : start + _PAGE])
        rows = execute(
            tables.connection,
            f"SELECT t.{_MD5}, a.attempt, a.state, r.model_save_path FROM {tables.TrainingTask.full_table_name} t "
            f"LEFT JOIN {tables.TrainingAttempt.full_table_name} a ON a.{_MD5} = t.{_MD5} "
            f"LEFT JOIN {tables.TrainingResult.full_table_name} r ON r.{_MD5} = t.{_MD5} "
            f"WHERE t.{_MD5} IN ({_marks(chunk)})",
            chunk,
        )
        for task, attempt, state, model in rows.fetchall():
            attempts = dict(found[task].attempts) if task in found else {}
            if attempt is not None:
                attempts[int(attempt)] = state
            found[task] = TaskRows(attempts, model)
    return found


def result_files(tables: Tables) -> Iterator[ResultFiles]:
    """Yield the files of every result, read in pages, so that a large table never lies in memory as a whole."""
    last = ""
    while page := _read_results(tables, "WHERE {md5} > %s ORDER BY {md5} " + f"LIMIT {_PAGE}", (last,)):
        yield from page
        last = page[-1].task


@contextmanager
def closed_store(tables: Tables, patience: float = 60.0) -> Iterator[None]:
    """Keep workers from writing results while the block runs, in a transaction; those who write now are waited for.

    It is the counterpart of `synicix_core.tables.store_lock.hold_store`.

    Raises
    ------
    DatabaseUnavailable
        If somebody was writing a result for all of `patience` seconds.
    """
    versions = quote_table(tables.connection.adapter, tables.schema_name, VERSION_TABLE)
    deadline = time.monotonic() + patience
    # Asked again and again: who waits in the server keeps others waiting behind it on MySQL, and hears no Ctrl-C.
    sql = f"SELECT schema_version FROM {versions} WHERE schema_version = {SCHEMA_VERSION} FOR UPDATE SKIP LOCKED"
    with transaction(tables.connection):
        while execute(tables.connection, sql).fetchone() is None:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    "the store of the histories cannot be tidied up",
                    why=f"a worker has been writing a result for {patience:.0f} s",
                    hint="See which one with: synicix-run status. Then try again.",
                )
            time.sleep(0.02)
        yield


def database_time(tables: Tables) -> datetime:
    """Return the database's time, in UTC without a zone."""
    found: datetime = execute(tables.connection, f"SELECT {now_utc(tables.connection.adapter)}").fetchone()[0]
    return found.replace(tzinfo=None)


def committed_since(tables: Tables, moment: datetime) -> list[ResultFiles]:
    """Return the files of the results that were committed since a `database_time` which was taken with the store closed.

    An attempt is marked finished while its worker holds the store, so that its time is that of the commit, however long
    the worker waited or was frozen before. The result's own time is from before.
    """
    attempts = tables.TrainingAttempt.full_table_name
    return _read_results(
        tables,
        f"JOIN {attempts} a ON a.{_MD5} = r.{_MD5} AND a.attempt = r.by_attempt "
        "WHERE a.state = 'finished' AND a.heartbeat_at >= %s",
        (moment - _CLOCK_STEP,),
    )


def delete_results(tables: Tables, tasks: Sequence[str], is_gone: Callable[[ResultFiles], bool]) -> list[str]:
    """Delete those results whose files are gone, through DataJoint, with all rows that depend on them.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    tasks : sequence of str
        The results to look at.
    is_gone : callable
        Asked about each result as it is now, with its row locked.

    Returns
    -------
    list of str
        The tasks whose results were deleted.
    """
    with transaction(tables.connection):
        rows = _read_results(tables, f"WHERE {{md5}} IN ({_marks(tasks)}) ORDER BY {{md5}} FOR UPDATE", tuple(tasks))
        gone = [row.task for row in rows if is_gone(row)]
        if gone:
            listed = ", ".join(f"'{task}'" for task in gone)
            with quiet():
                (tables.TrainingResult & f"{_MD5} IN ({listed})").delete(transaction=False, prompt=False)
    return gone


def other_tables_in_store(tables: Tables) -> list[str]:
    """Return the tables of this schema beside TrainingResult that keep files in the same part of a store."""
    own = tables.TrainingResult.table_name
    names = [name for name in tables.schema.list_tables() if name != own]
    return [name for name in names if tables.schema.get_table(name).heading.hash_objects]


def _read_results(tables: Tables, clauses: str, args: Iterable[Any]) -> list[ResultFiles]:
    columns = ", ".join(f"r.{column}" for column in ("model_save_path", *HISTORIES))
    rows = execute(
        tables.connection,
        f"SELECT r.{_MD5}, {columns} FROM {tables.TrainingResult.full_table_name} r {clauses.format(md5=f'r.{_MD5}')}",
        tuple(args),
    ).fetchall()
    return [ResultFiles(task, model, _paths(task, histories)) for task, model, *histories in rows]


def _paths(task: str, histories: Iterable[Any]) -> tuple[str, ...]:
    paths = []
    for stored in histories:
        # PostgreSQL's driver reads JSON, MySQL's hands out its text.
        metadata = json.loads(stored) if isinstance(stored, str | bytes) else stored
        if not isinstance(metadata, dict) or not isinstance(metadata.get("path"), str):
            # Guessing here could make a file that is needed look unused.
            raise ConfigurationError(
                "a result refers to its histories in a form that this version does not know",
                where=f"task {task}",
                hint="Install the DataJoint version that synicix-core asks for.",
            )
        paths.append(metadata["path"])
    return tuple(paths)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))
