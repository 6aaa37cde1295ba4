"""Read all tables as they were at one moment, page by page, while workers go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from synicix_core.database.reconnect import ensure_connected, execute, transaction
from synicix_core.errors import DatabaseUnavailable
from synicix_core.tables.transfer_columns import Row, TransferTable

__all__ = ["count_rows", "read_rows", "snapshot"]

_PAGE = 2000
_LEVEL = "SET SESSION TRANSACTION ISOLATION LEVEL"


@contextmanager
def snapshot(connection: Any) -> Iterator[None]:
    """Run the block in one transaction that reads only, and only what was committed when it first read.

    Raises
    ------
    DatabaseUnavailable
        If the connection was lost.
    """
    if connection.adapter.backend == "postgresql":
        with transaction(connection):
            execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
        return
    ensure_connected(connection)
    # MySQL takes it before the transaction begins only, and a session that was opened anew meanwhile has it no longer.
    execute(connection, f"{_LEVEL} REPEATABLE READ")
    try:
        with transaction(connection):
            if execute(connection, "SELECT @@transaction_isolation").fetchone()[0] != "REPEATABLE-READ":
                raise DatabaseUnavailable(
                    "The connection to the database was lost before anything was read", hint="Try again."
                )
            yield
    finally:
        if not connection._is_closed:
            execute(connection, f"{_LEVEL} READ COMMITTED")


def count_rows(connection: Any, table: TransferTable) -> int:
    """Return how many rows a table has."""
    return int(execute(connection, f"SELECT COUNT(*) FROM {table.full_name}").fetchone()[0])


def read_rows(connection: Any, table: TransferTable, condition: str = "") -> Iterator[Row]:
    """Yield all rows in the order of their keys.

    Parameters
    ----------
    connection, table
        Where they are.
    condition : str
        SQL condition on the rows to read.
    """
    adapter = connection.adapter
    select, order = table.select(adapter), ", ".join(table.key)
    marks = ", ".join(["%s"] * len(table.key))
    last: tuple[Any, ...] | None = None
    while True:
        # MySQL finds its place in the index by the first column alone, not by a comparison of all of them.
        after = [f"{table.key[0]} >= %s AND ({order}) > ({marks})"] if last is not None else []
        where = " AND ".join([*after, *([condition] if condition else [])])
        sql = f"{select}{where and f' WHERE {where}'} ORDER BY {order} LIMIT {_PAGE}"
        page = execute(connection, sql, (last[0], *last) if last is not None else ()).fetchall()
        for values in page:
            row = table.encode(values)
            yield row
        if len(page) < _PAGE:
            return
        last = table.key_of(row)
