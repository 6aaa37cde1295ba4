"""Write all rows of a schema into one file, as they were at one moment."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from synicix_core.database.dialect import now_utc
from synicix_core.database.reconnect import ensure_connected, execute
from synicix_core.errors import ConfigurationError
from synicix_core.tables.overview import foreign_reservations, running_attempts
from synicix_core.tables.schema import VERSION_TABLE, Tables
from synicix_core.tables.transfer_columns import TABLES, Row, TransferTable, transfer_tables
from synicix_core.tables.transfer_file import ExportFile, ExportWriter, written_whole
from synicix_core.tables.transfer_files import FileCensus, FileFacts
from synicix_core.tables.transfer_progress import Progress, Silent
from synicix_core.tables.transfer_record import IMPORT_TABLE, read_imports
from synicix_core.tables.transfer_snapshot import count_rows, read_rows, snapshot
from synicix_core.version import __version__

__all__ = ["Exported", "export_database"]

_MD5 = "training_task_md5_hash"
_NAMED = 3


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes
    ----------
    sha256 : str
        Names the export.
    rows : dict
        How many rows, by table.
    released : int
        Tasks that somebody held, and that the export has as pending.
    files : FileFacts
        The files that the rows refer to, which are not in the export.
    other_tables : tuple of str
        Tables of the schema that are not in it.
    """

    sha256: str
    rows: dict[str, int]
    released: int
    files: FileFacts
    other_tables: tuple[str, ...]


def export_database(
    tables: Tables,
    path: Path,
    model_save_dir: Path,
    source: str,
    *,
    release_running: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write all rows of the schema into one file, as they were at one moment; nothing in the database changes.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    path : Path
        The file, which appears under this name when it is whole. One that is there is replaced.
    model_save_dir : Path
        Where models lie on this machine, to say how many there are and how large.
    source : str
        The database, for people.
    release_running : bool
        Whether tasks that are being trained are pending in the export; without it they are an error.
    progress : Progress, optional
        Is told how far it is.

    Raises
    ------
    ConfigurationError
        If tasks are being trained, or the file cannot be written; nothing is left of it then.
    DatabaseUnavailable
        If the connection was lost.
    """
    connection, progress = tables.connection, progress or Silent()
    ensure_connected(connection)
    moved = transfer_tables(tables)
    imports = read_imports(tables)
    with written_whole(path) as handle, snapshot(connection):
        now = execute(connection, f"SELECT {now_utc(connection.adapter)}").fetchone()[0]
        released = _held(tables)
        if released and not release_running:
            raise _refusal(tables, released)
        progress.start("Exporting", sum(count_rows(connection, table) for table in moved.values()))
        census = FileCensus(tables, moved["TrainingResult"], model_save_dir)
        writer = ExportWriter(handle)
        try:
            rows = {
                name: writer.write(moved[name], _rows(tables, moved, name, census, progress.advance)) for name in TABLES
            }
            facts = census.facts()
            writer.finish({
                "synicix_version": __version__,
                "exported_at": now.replace(tzinfo=None).isoformat(timespec="milliseconds"),
                "source": {"database": source, "schema": tables.schema_name, "host": socket.gethostname()},
                "released": released,
                "files": vars(facts),
                "imports": imports,
            })  # fmt: skip
        except BaseException:
            writer.abandon()
            raise
        other_tables = _other_tables(tables)
    return Exported(ExportFile(path).sha256, rows, len(released), facts, other_tables)


def _rows(
    tables: Tables,
    moved: dict[str, TransferTable],
    name: str,
    census: FileCensus,
    advance: Callable[[int], None],
) -> Iterator[Row]:
    # A job may outlive its task until the queue is refreshed.
    condition = f"{_MD5} IN (SELECT {_MD5} FROM {moved['TrainingTask'].full_name})" if name == "Job" else ""
    for row in read_rows(tables.connection, moved[name], condition):
        if name == "TrainingAttempt":
            census.count_attempt(row)
            if row["state"] == "running":
                row["state"] = "released"
        elif name == "TrainingResult":
            census.count_result(row)
        elif name == "Job" and row["status"] == "reserved":
            row |= {"status": "pending", "reserved_time": None, "host": "", "pid": 0, "user": "", "connection_id": 0}
        yield row
        advance(1)


def _held(tables: Tables) -> list[str]:
    """Return the tasks that a worker holds, or that somebody reserved in DataJoint's own way."""
    reservations = {reservation.task for reservation in foreign_reservations(tables)}
    return sorted(reservations | {attempt.task for attempt in running_attempts(tables)})


def _refusal(tables: Tables, held: list[str]) -> ConfigurationError:
    people = [
        f"{attempt.task[:8]} by {attempt.host}:{attempt.pid} (heartbeat {attempt.heartbeat_age:.0f} s ago)"
        for attempt in running_attempts(tables)
    ]
    people += [
        f"{reservation.task[:8]} reserved without an attempt by {reservation.host or 'somebody'}:{reservation.pid}"
        for reservation in foreign_reservations(tables)
    ]
    more = f" and {len(people) - _NAMED} more" if len(people) > _NAMED else ""
    return ConfigurationError(
        f"{len(held)} {'task is' if len(held) == 1 else 'tasks are'} being trained",
        why=f"{', '.join(people[:_NAMED])}{more}; what a worker goes on writing here would not be in the export",
        hint="Stop the workers with SIGTERM, upon which they give their tasks back; what lost ones held is taken back by: "
        "synicix-run queue refresh. Or add --running release, which has these tasks pending in the export; "
        "then no worker may go on here.",
    )


def _other_tables(tables: Tables) -> tuple[str, ...]:
    own = {getattr(tables, name).table_name for name in TABLES[:-1]} | {VERSION_TABLE, IMPORT_TABLE}
    return tuple(sorted(name for name in tables.schema.list_tables() if name not in own))
