"""Where the rows of a schema came from: a row for each export that was imported into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from synicix_core.database.dialect import quote_table, table_exists
from synicix_core.database.quiet import datajoint as dj
from synicix_core.database.reconnect import execute
from synicix_core.errors import ConfigurationError
from synicix_core.tables.schema import Tables

__all__ = ["IMPORT_TABLE", "declare_imports", "read_imports", "record_imports"]

IMPORT_TABLE = "synicix_import"
"""Its name in the database."""


class SynicixImport:
    """An export that was imported, here or on the way here."""

    definition = """
    # Exports whose rows are in this schema
    export_sha256 : char(64)        # of the manifest
    ---
    imported_at   : datetime(3)
    exported_at   : datetime(3)
    source        : varchar(1024)   # which database and schema it is of
    schema_name   : varchar(64)     # of the schema that it was imported into
    """


def declare_imports(tables: Tables) -> None:
    """Make sure that the table is there; it is declared by the first import.

    Raises
    ------
    ConfigurationError
        If this user may not declare tables.
    """
    try:
        _table(tables, create=True)
    except dj.errors.AccessError as error:
        raise ConfigurationError(
            "this user may not import",
            where=f"schema {tables.schema_name}, user {tables.connection.conn_info['user']}",
            why="the first import declares a table that records where the rows came from",
            hint="Import as the user who ran: synicix-run init",
        ) from error


def read_imports(tables: Tables) -> list[dict[str, Any]]:
    """Return the rows, the oldest first; none where nothing was ever imported.

    Raises
    ------
    ConfigurationError
        If this user may not read them.
    """
    connection, full_name = tables.connection, quote_table(tables.connection.adapter, tables.schema_name, IMPORT_TABLE)
    if not table_exists(connection, tables.schema_name, IMPORT_TABLE):
        return []
    names = ("export_sha256", "imported_at", "exported_at", "source", "schema_name")
    try:
        # Not by DataJoint, which takes a table that this user may not read for one that is not there.
        rows = execute(connection, f"SELECT {', '.join(names)} FROM {full_name} ORDER BY imported_at").fetchall()
    except dj.errors.AccessError as error:
        raise ConfigurationError(
            f"this user may not read {IMPORT_TABLE}",
            where=f"schema {tables.schema_name}, user {connection.conn_info['user']}",
            hint=f"As the user who imported: GRANT SELECT ON {full_name} TO {connection.conn_info['user']}",
        ) from error
    return [{name: _text(value) for name, value in zip(names, row, strict=True)} for row in rows]


def record_imports(tables: Tables, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows unless they are there; part of a transaction."""
    _table(tables, create=False)().insert(list(rows), skip_duplicates=True)


def _table(tables: Tables, *, create: bool) -> Any:
    table: Any = type("SynicixImport", (SynicixImport, dj.Manual), {"__module__": __name__})
    schema = dj.Schema(tables.schema_name, connection=tables.connection, create_schema=False, create_tables=create)
    schema(table, context={})
    return table


def _text(value: Any) -> str:
    return (
        str(value.replace(tzinfo=None).isoformat(timespec="milliseconds"))
        if hasattr(value, "isoformat")
        else str(value)
    )
