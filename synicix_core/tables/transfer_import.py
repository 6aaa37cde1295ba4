"""Write an export into a schema, all of it or nothing: rows that are there already are left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from synicix_core.database.dialect import advisory_lock, now_utc
from synicix_core.database.reconnect import ensure_connected, execute, is_conflict, transaction
from synicix_core.errors import DatabaseUnavailable
from synicix_core.registry import Registry
from synicix_core.tables.schema import Tables
from synicix_core.tables.store_lock import hold_store
from synicix_core.tables.transfer_check import CONFIGS, check_export
from synicix_core.tables.transfer_columns import Row, alike, transfer_tables
from synicix_core.tables.transfer_conflicts import Comparison, Conflict, ImportConflicts
from synicix_core.tables.transfer_file import ExportFile
from synicix_core.tables.transfer_files import prove_readable
from synicix_core.tables.transfer_merge import History, compare, histories, read_histories
from synicix_core.tables.transfer_progress import Progress, Silent
from synicix_core.tables.transfer_record import declare_imports, record_imports
from synicix_core.tables.transfer_write import RowWriter, select_rows

__all__ = ["Imported", "import_database"]

_MD5 = "training_task_md5_hash"
_AT_ONCE = 500
_SAMPLE = 50


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes
    ----------
    new, there : dict
        By table, how many rows were written, and how many of the export's were there or were left out for what is there.
    tasks : dict
        How many tasks are ``new``, are the ``same``, are further here (``behind`` in the export), were continued from the
        export (``ahead``), or were left alone because they contradict it (``conflict``).
    conflicts : list of Conflict
        The latter.
    results_looked_at : int
        How many results' files were read.
    unproved : tuple of str
        Providers that are not installed here, so that the md5s of configs that name them were not computed again.
    dataset_files : tuple of str
        Files that the configs name.
    notes : tuple of str
        What else people should know.
    """

    new: dict[str, int]
    there: dict[str, int]
    tasks: dict[str, int]
    conflicts: list[Conflict]
    results_looked_at: int
    unproved: tuple[str, ...]
    dataset_files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def import_database(
    tables: Tables,
    file: ExportFile,
    model_save_dir: Path,
    registry: Registry,
    *,
    keep_existing: bool = False,
    files: str = "sample",
    progress: Progress | None = None,
) -> Imported:
    """Write an export into the schema, in one transaction.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    file : ExportFile
        The export.
    model_save_dir : Path
        Where models lie on this machine.
    registry : Registry
        The plugins that are installed here.
    keep_existing : bool
        Whether tasks that contradict what is here are left as they are here, instead of being an error.
    files : {"sample", "all", "none"}
        Of how many results to read the models and histories first.
    progress : Progress, optional
        Is told how far it is.

    Raises
    ------
    ImportConflicts
        If tasks contradict what is here.
    ConfigurationError
        If the file was changed or damaged, files of results cannot be read from here, or the database refuses a row.
    DatabaseUnavailable
        If the connection was lost, or others wrote the same rows meanwhile.
    """
    connection, progress = tables.connection, progress or Silent()
    ensure_connected(connection)
    moved = transfer_tables(tables)
    total = sum(file.rows_of(name) for name in moved)
    progress.start("Checking rows", total)
    postgres = connection.adapter.backend == "postgresql"
    comparison = Comparison(connection, moved)
    checked = check_export(
        file, moved, registry, comparison.look, progress, postgres=postgres, sample=_SAMPLE if files == "sample" else 0
    )
    # Before the files: those of a task that contradicts have the names of this place's own.
    if comparison.conflicts and not keep_existing:
        raise ImportConflicts(comparison.conflicts)
    results = moved["TrainingResult"]
    whole = (row for row in file.read(results) if row[_MD5] not in comparison.apart)
    chosen = whole if files == "all" else iter(checked.sample)
    looked_at = checked.results if files == "all" else len(checked.sample)
    prove_readable(tables, results, model_save_dir, chosen, looked_at, progress)
    with advisory_lock(connection, f"synicix/import/{tables.schema_name}", timeout=5):
        declare_imports(tables)  # MySQL ends a transaction that declares a table
        run = _Import(tables, keep_existing, progress)
        progress.start("Writing rows", total)
        try:
            with transaction(connection):
                # The files of the rows must not be taken for left over until the rows are there.
                hold_store(connection, tables)
                run.all_of(file)
        except Exception as error:
            if is_conflict(error):
                raise DatabaseUnavailable(
                    "the database gave the import up in favour of somebody else's transaction",
                    hint="Nothing was imported. Try again.",
                ) from error
            raise
        if postgres and sum(run.writer.written.values()) >= _AT_ONCE:
            # A planner that takes the queue for empty sorts all of it for each claim; MySQL counts by itself.
            for table in moved.values():
                execute(connection, f"ANALYZE {table.full_name}")
    new = {name: run.writer.written[name] for name in moved}
    return Imported(
        new=new,
        there={name: file.rows_of(name) - new[name] for name in moved},
        tasks=dict(+run.tasks),
        conflicts=run.conflicts,
        results_looked_at=looked_at,
        unproved=checked.unproved,
        dataset_files=checked.dataset_files,
        notes=tuple(run.notes),
    )


@dataclass
class _Import:
    """One import, in its transaction."""

    target: Tables
    keep_existing: bool
    progress: Progress
    tasks: Counter[str] = field(default_factory=Counter)
    conflicts: list[Conflict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = self.target.connection
        self.moved = transfer_tables(self.target)
        self.writer = RowWriter(self.connection, self.moved)

    def all_of(self, file: ExportFile) -> None:
        """Write what is new of an export."""
        for name in CONFIGS:
            for chunk in _chunks(file.read(self.moved[name])):
                self._configs(name, chunk)
        for some in _chunks(histories(file, self.moved)):
            self._histories(some)
        if self.conflicts and not self.keep_existing:
            raise ImportConflicts(self.conflicts)
        if sum(self.writer.written.values()):
            self._record(file)

    def _configs(self, name: str, rows: Sequence[Row]) -> None:
        table = self.moved[name]
        here = {
            row[table.key[0]]: row for row in select_rows(self.connection, table, [table.key_of(row) for row in rows])
        }
        self.writer.write(name, [row for row in rows if row[table.key[0]] not in here])
        for row in rows:
            ours = here.get(row[table.key[0]])
            if ours is not None and not alike(table, ours, row):
                odd = [column for column in table.names if ours[column] != row[column]]
                self.notes.append(
                    f"{name} {row[table.key[0]][:8]} is here with another {', '.join(odd)}, which its md5 does not cover; "
                    "it stays as it is here"
                )
        self.progress.advance(len(rows))

    def _histories(self, some: Sequence[History]) -> None:
        here = read_histories(self.connection, self.moved, [history.key for history in some])
        new = [history for history in some if history.key not in here]
        further: list[History] = []
        for history in some:
            if history.key in here:
                difference = compare(history, here[history.key], self.moved)
                if difference.kind == "conflict":
                    self.conflicts.append(Conflict(history.key, difference.why))
                elif difference.kind == "ahead":
                    further.append(history)
                self.tasks[difference.kind] += 1
        self.tasks["new"] += len(new)
        if not self.conflicts or self.keep_existing:
            self._new(new)
            self._further(further, here)
        self.progress.advance(sum(history.size for history in some))

    def _new(self, new: Sequence[History]) -> None:
        # A job may be here without its task, which was deleted.
        self._delete_jobs([history.key for history in new])
        self.writer.write("TrainingTask", [history.task for history in new])
        self.writer.write("TrainingAttempt", [attempt for history in new for attempt in history.attempts])
        self.writer.write("TrainingResult", [history.result for history in new if history.result is not None])
        self.writer.write("Job", [history.job for history in new if history.job is not None])

    def _further(self, further: Sequence[History], seen: dict[str, History]) -> None:
        """Add what the export knows more of tasks that are here, unless a worker claims one just now."""
        if not further:
            return
        tasks = [history.key for history in further]
        jobs = self.moved["Job"].full_name
        sql = f"SELECT {_MD5} FROM {jobs} WHERE {_MD5} IN ({_marks(tasks)}) ORDER BY {_MD5} FOR UPDATE"
        execute(self.connection, sql, tasks).fetchall()
        here = read_histories(self.connection, self.moved, tasks)
        if any(here.get(task) != seen[task] for task in tasks):
            raise DatabaseUnavailable(
                "workers took tasks while they were imported",
                hint="Nothing was imported. Stop the workers of this database, or try again.",
            )
        self._delete_jobs(tasks)
        known = {(task, row["attempt"]) for task in tasks for row in here[task].attempts}
        attempts = [
            row for history in further for row in history.attempts if (history.key, row["attempt"]) not in known
        ]
        self.writer.write("TrainingAttempt", attempts)
        results = [history.result for history in further if history.result and here[history.key].result is None]
        self.writer.write("TrainingResult", results)
        self.writer.write("Job", [history.job for history in further if history.job is not None])

    def _delete_jobs(self, tasks: Sequence[str]) -> None:
        if tasks:
            sql = f"DELETE FROM {self.moved['Job'].full_name} WHERE {_MD5} IN ({_marks(tasks)})"
            execute(self.connection, sql, tasks)

    def _record(self, file: ExportFile) -> None:
        source, now = file.manifest.get("source") or {}, now_utc(self.connection.adapter)
        imported_at: datetime = execute(self.connection, f"SELECT {now}").fetchone()[0]
        row = {
            "export_sha256": file.sha256,
            "imported_at": imported_at.replace(tzinfo=None),
            "exported_at": file.manifest["exported_at"],
            "source": f"{source.get('database')}, schema {source.get('schema')}, exported on {source.get('host')}"[
                :1024
            ],
            "schema_name": self.target.schema_name,
        }
        record_imports(self.target, [*(file.manifest.get("imports") or ()), row])


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, _AT_ONCE)):
        yield chunk


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))
