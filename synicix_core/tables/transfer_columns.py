"""What of the tables is moved to another database, and how each value is written as JSON: the same on both backends."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from synicix_core.database.dialect import quote
from synicix_core.hashing import canonical_json
from synicix_core.tables.schema import Tables

__all__ = ["TABLES", "Column", "Row", "TransferTable", "alike", "fingerprint", "transfer_tables"]

Row = dict[str, Any]
"""A row as the file holds it: JSON data by column name."""

TABLES = (
    "DatasetConfig",
    "ModelConfig",
    "TrainingConfig",
    "TrainingTask",
    "TrainingAttempt",
    "TrainingResult",
    "Job",
)
"""In the order in which they can be written; ``Job`` is DataJoint's job table of TrainingResult."""

_JOBS = """
    -> TrainingTask
    ---
    status              : enum
    priority            : int8
    created_time        : datetime
    scheduled_time      : datetime
    reserved_time       : datetime
    completed_time      : datetime
    duration            : float64
    error_message       : varchar
    error_stack         : <blob>
    user                : varchar
    host                : varchar
    pid                 : int32
    connection_id       : int64
    version             : varchar
"""
"""DataJoint's job table, which it describes only to those who may write it."""

_KINDS = {
    "char": "text",
    "varchar": "text",
    "enum": "text",
    "int8": "integer",
    "int32": "integer",
    "int64": "integer",
    "float64": "float",
    "datetime": "time",
    "json": "json",
    "<blob>": "bytes",
    "<blob@": "reference",
}
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SORTED = json.JSONEncoder(sort_keys=True)
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Column:
    """A column and how its values are written.

    Attributes
    ----------
    name : str
        Its name.
    kind : {"text", "integer", "float", "time", "json", "bytes", "reference"}
        What it holds: ``time`` is UTC, to the millisecond; ``bytes`` are packed by DataJoint and are written in base64;
        ``reference`` is where in a store a file lies.
    padded : bool
        Whether PostgreSQL fills it with blanks.
    """

    name: str
    kind: str
    padded: bool = False

    def encode(self, value: Any) -> Any:
        """Return a value as the driver read it as JSON data."""
        if value is None:
            return None
        if self.kind == "text":
            return str(value).rstrip(" ") if self.padded else str(value)
        if self.kind == "integer":
            return int(value)
        if self.kind == "float":
            number = float(value)
            return (
                number if math.isfinite(number) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(number, "NaN")
            )
        if self.kind == "time":
            return value.replace(tzinfo=None).isoformat(timespec="milliseconds")
        if self.kind == "bytes":
            return base64.b64encode(bytes(value)).decode("ascii")
        return json.loads(value)

    def decode(self, value: Any, postgres: bool) -> Any:
        """Return JSON data as the driver writes it.

        MySQL has no place for numbers that are not finite; they become NULL there.

        Raises
        ------
        ValueError
            If the data is not of this kind, or PostgreSQL cannot hold it.
        """
        if value is None:
            return None
        found = self._decode(value)
        if self.kind == "float" and not math.isfinite(found) and not postgres:
            return None
        if postgres and ("\0" in found if self.kind == "text" else self.kind == "json" and _ESCAPED_NUL.search(found)):
            raise ValueError("has a NUL character, which PostgreSQL cannot hold")
        return found

    def _decode(self, value: Any) -> Any:
        if self.kind == "text" and isinstance(value, str):
            return value
        if self.kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
            return value
        if self.kind == "float":
            if isinstance(value, str) and value in _NOT_FINITE:
                return _NOT_FINITE[value]
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        if self.kind == "time" and isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=None).isoformat(" ", timespec="milliseconds")
        if self.kind == "bytes" and isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise ValueError(f"is not base64: {error}") from error
        if self.kind in ("json", "reference"):
            return json.dumps(value)
        raise ValueError(f"is not of the kind {self.kind!r}: {value!r:.80}")

    def sql(self, adapter: Any) -> str:
        """Return the SQL that reads it in one form on both backends."""
        name = quote(adapter, self.name)
        if self.kind in ("json", "reference"):
            return f"CAST({name} AS {'text' if adapter.backend == 'postgresql' else 'CHAR'})"
        return name


@dataclass(frozen=True)
class TransferTable:
    """A table of the schema, as far as it is moved.

    Attributes
    ----------
    name : str
        One of `TABLES`.
    full_name : str
        Quoted full name in the database.
    key : tuple of str
        Primary key; rows are read, and lie in the file, in its order.
    columns : tuple of Column
        All columns that its definition declares.
    """

    name: str
    full_name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]

    def select(self, adapter: Any) -> str:
        """Return the ``SELECT … FROM`` of all columns."""
        return f"SELECT {', '.join(column.sql(adapter) for column in self.columns)} FROM {self.full_name}"

    def encode(self, values: Sequence[Any]) -> Row:
        """Return a row that `select` read as JSON data."""
        return {column.name: column.encode(value) for column, value in zip(self.columns, values, strict=True)}

    def decode(self, row: Mapping[str, Any], postgres: bool) -> list[Any]:
        """Return the values of a row as the driver writes them, in the order of the columns.

        Raises
        ------
        ValueError
            Naming the column, if columns are missing or unknown, or a value is not of its column's kind.
        """
        if row.keys() != {column.name for column in self.columns}:
            odd = sorted(row.keys() ^ {column.name for column in self.columns})
            raise ValueError(f"the columns differ: {', '.join(odd)}")
        values = []
        for column in self.columns:
            try:
                values.append(column.decode(row[column.name], postgres))
            except ValueError as error:
                raise ValueError(f"{column.name} {error}") from error
        return values

    def key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the primary key of a row."""
        return tuple(row[name] for name in self.key)


def transfer_tables(tables: Tables) -> dict[str, TransferTable]:
    """Return what is moved, by name; read from the definitions, since PostgreSQL shows keys only to those who may write."""
    found: dict[str, TransferTable] = {}
    for name in TABLES:
        definition = _JOBS if name == "Job" else getattr(tables, name).definition
        full_name = tables.jobs_name if name == "Job" else getattr(tables, name).full_table_name
        above, below = (_columns(part, found) for part in definition.split("---\n"))
        found[name] = TransferTable(name, full_name, tuple(column.name for column in above), above + below)
    return found


def alike(table: TransferTable, row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two rows of a table have the same content.

    What one of the backends cannot tell apart is the same: ``-0.0`` and ``0.0``, 1e16 and the integer, and in columns of
    numbers NULL and what is not finite.
    """
    # The common case, and ten times as fast as levelling out what the databases change.
    return _SORTED.encode(row) == _SORTED.encode(other) or fingerprint(table, row) == fingerprint(table, other)


def fingerprint(table: TransferTable, row: Mapping[str, Any]) -> str:
    """Return a text that is the same for rows that are `alike`."""
    floats = {column.name for column in table.columns if column.kind == "float"}
    return canonical_json({name: _number(value) if name in floats else value for name, value in row.items()})


def _number(value: Any) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)


def _columns(definition: str, parents: Mapping[str, TransferTable]) -> tuple[Column, ...]:
    columns: list[Column] = []
    for line in definition.splitlines():
        if parent := re.match(r"\s*->\s*(\w+)", line):
            table = parents[parent[1]]
            columns += [column for column in table.columns if column.name in table.key]
        elif found := re.match(r"\s*(\w+)\s*(?:=[^:]*)?:\s*(<blob[>@]|\w+)", line):
            columns.append(Column(found[1], _KINDS[found[2]], padded=found[2] == "char"))
    return tuple(columns)
