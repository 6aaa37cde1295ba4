"""Write rows of an export and read them back, in the transaction of the import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synicix_core.database.dialect import quote
from synicix_core.database.quiet import datajoint as dj
from synicix_core.database.reconnect import execute, is_connection_lost
from synicix_core.errors import ConfigurationError, DatabaseUnavailable, SynicixError
from synicix_core.tables.transfer_columns import Row, TransferTable, alike

__all__ = ["RowWriter", "select_rows"]

_ROWS, _BYTES = 500, 4_000_000
"""The most in one statement; servers take 16 MB or more."""


class RowWriter:
    """Inserts rows, and makes sure that the database holds what was inserted.

    Parameters
    ----------
    connection : datajoint.Connection
        In a transaction.
    tables : mapping
        The tables by name.
    """

    def __init__(self, connection: Any, tables: Mapping[str, TransferTable]) -> None:
        self._connection = connection
        self._tables = tables
        self._postgres = connection.adapter.backend == "postgresql"
        self.written: Counter[str] = Counter()

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Insert rows, and read them back.

        Raises
        ------
        ConfigurationError
            If the database refuses one, or returns other content than it was given.
        DatabaseUnavailable
            If the connection was lost, or somebody else wrote the same rows meanwhile.
        """
        table = self._tables[name]
        for chunk in self._chunks(rows):
            self._insert(table, chunk)
        for start in range(0, len(rows), _ROWS):
            self._compare(table, rows[start : start + _ROWS])
        self.written[name] += len(rows)

    def _chunks(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        chunk: list[Row] = []
        size = 0
        for row in rows:
            length = sum(len(value) if isinstance(value, str) else 64 for value in row.values())
            if chunk and (len(chunk) >= _ROWS or size + length > _BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(row)
            size += length
        if chunk:
            yield chunk

    def _insert(self, table: TransferTable, rows: Sequence[Row]) -> None:
        adapter = self._connection.adapter
        marks = f"({', '.join(['%s'] * len(table.columns))})"
        columns = ", ".join(quote(adapter, name) for name in table.names)
        sql = f"INSERT INTO {table.full_name} ({columns}) VALUES {', '.join([marks] * len(rows))}"
        try:
            execute(self._connection, sql, [value for row in rows for value in table.decode(row, self._postgres)])
        except SynicixError:
            raise
        except dj.errors.DuplicateError as error:
            raise DatabaseUnavailable(
                "somebody else wrote the same rows meanwhile", where=table.name, hint="Nothing was imported. Try again."
            ) from error
        except Exception as error:
            if is_connection_lost(self._connection, error):
                raise
            first, last = (" ".join(map(str, table.key_of(row))) for row in (rows[0], rows[-1]))
            raise ConfigurationError(
                "the database does not take the rows",
                where=f"{table.name}, {first} to {last}",
                why=str(error).strip(),
                hint="Nothing was imported.",
            ) from error

    def _compare(self, table: TransferTable, rows: Sequence[Row]) -> None:
        here = {
            table.key_of(row): row for row in select_rows(self._connection, table, [table.key_of(row) for row in rows])
        }
        for row in rows:
            key = table.key_of(row)
            if key not in here or not alike(table, row, here[key]):
                found = here.get(key, {})
                odd = next((name for name in table.names if found.get(name) != row[name]), "")
                raise ConfigurationError(
                    "the database returns a row otherwise than it was given",
                    where=f"{table.name} {' '.join(map(str, key))}, {odd}",
                    why=f"{row.get(odd)!r:.200} became {found.get(odd)!r:.200}",
                    hint="Nothing was imported.",
                )


def select_rows(connection: Any, table: TransferTable, keys: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Return the rows of these keys, as an export has them; those that are not there are left out."""
    if not keys:
        return []
    # By the first column, which is indexed on both backends, then by all.
    firsts = list(dict.fromkeys(key[0] for key in keys))
    sql = f"{table.select(connection.adapter)} WHERE {table.key[0]} IN ({', '.join(['%s'] * len(firsts))})"
    wanted = set(keys)
    rows = (table.encode(values) for values in execute(connection, sql, firsts).fetchall())
    return [row for row in rows if table.key_of(row) in wanted]
