"""The SQL in which PostgreSQL and MySQL differ, as far as Synicix writes SQL by itself.

Every function takes a DataJoint adapter (``connection.adapter``) or a DataJoint connection.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.errors import DatabaseUnavailable

__all__ = [
    "advisory_lock",
    "age_in_seconds",
    "columns_of",
    "now_utc",
    "quote",
    "quote_table",
    "seconds_ago",
    "seconds_later",
    "table_exists",
]


def now_utc(adapter: Any) -> str:
    """Return the SQL for the server's clock as a UTC ``datetime(3)``.

    It is the time at which the statement began, not the transaction, so that a heartbeat that waited for a lock does not
    write a time from before the wait; cut to milliseconds, so that it never lies in the future; and right in a session of
    any time zone.
    """
    if _is_postgresql(adapter):
        return "date_trunc('milliseconds', statement_timestamp() AT TIME ZONE 'UTC')"
    return "UTC_TIMESTAMP(3)"


def seconds_ago(adapter: Any, seconds: str = "%s") -> str:
    """Return the SQL for `seconds` before now; `seconds` is SQL, by default the placeholder of a parameter."""
    if _is_postgresql(adapter):
        return f"({now_utc(adapter)} - make_interval(secs => {seconds}))"
    return f"DATE_SUB({now_utc(adapter)}, INTERVAL {seconds} SECOND)"


def seconds_later(adapter: Any, seconds: str = "%s") -> str:
    """Return the SQL for `seconds` after now; `seconds` is SQL, by default the placeholder of a parameter."""
    if _is_postgresql(adapter):
        return f"({now_utc(adapter)} + make_interval(secs => {seconds}))"
    return f"DATE_ADD({now_utc(adapter)}, INTERVAL {seconds} SECOND)"


def age_in_seconds(adapter: Any, column: str) -> str:
    """Return the SQL for the seconds (a float) from the time in `column`, which is SQL, until now."""
    if _is_postgresql(adapter):
        return f"CAST(EXTRACT(EPOCH FROM {now_utc(adapter)} - {column}) AS double precision)"
    return f"(TIMESTAMPDIFF(MICROSECOND, {column}, {now_utc(adapter)}) / 1e6)"


def quote(adapter: Any, name: str) -> str:
    """Return `name` quoted as an identifier."""
    return str(adapter.quote_identifier(name))


def quote_table(adapter: Any, schema: str, table: str) -> str:
    """Return the quoted full name of a table."""
    return str(adapter.make_full_table_name(schema, table))


@contextmanager
def advisory_lock(connection: Any, name: str, *, timeout: float = 60.0, required: bool = True) -> Iterator[bool]:
    """Hold a lock that belongs to this session of the database, not to any row.

    Parameters
    ----------
    connection
        A DataJoint connection. If it is lost, the server lets go of the lock.
    name : str
        What is locked. MySQL's locks span all schemas of a server, so the name has to contain the schema's.
    timeout : float
        Seconds to wait for whoever holds it; 0 tries once.
    required : bool
        Whether waiting in vain is an error. If not, the block runs all the same and is told.

    Yields
    ------
    bool
        Whether the lock is held.

    Raises
    ------
    DatabaseUnavailable
        Somebody else held the lock until `timeout`, or the connection was lost.
    """
    digest = hashlib.sha256(name.encode()).digest()
    if _is_postgresql(connection.adapter):
        key: int | str = int.from_bytes(digest[:8], "big", signed=True)
        take, give = "SELECT pg_try_advisory_lock(%s)", "SELECT pg_advisory_unlock(%s)"
    else:
        key = f"synicix-{digest.hex()[:32]}"  # at most 64 characters
        take, give = "SELECT GET_LOCK(%s, 0)", "SELECT RELEASE_LOCK(%s)"

    # Asked again and again instead of once with the server's own time limit: PostgreSQL's would end an open transaction,
    # and a session that waits on the server does not notice that its client was killed.
    deadline = time.monotonic() + timeout
    while not (held := bool(execute(connection, take, (key,)).fetchone()[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not held and required:
        raise DatabaseUnavailable(
            "Another process is at work on the same thing",
            where=f"lock {name!r}",
            why=f"it did not finish within {timeout:g} seconds",
            hint="Try again in a while.",
        )
    try:
        yield held
    finally:
        if held:
            _release(connection, give, key)


def table_exists(connection: Any, schema: str, table: str) -> bool:
    """Return whether `schema` holds a table called `table` (its name in the database, prefixes included)."""
    return bool(columns_of(connection, schema, table))


def columns_of(connection: Any, schema: str, table: str) -> dict[str, str]:
    """Return the columns of a table in order, as ``{name: SQL type}``; empty if there is no such table."""
    if _is_postgresql(connection.adapter):
        sql = """
            SELECT a.attname, format_type(a.atttypid, a.atttypmod)
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
            AND c.relkind IN ('r', 'p', 'v') ORDER BY a.attnum"""
    else:
        sql = """
            SELECT column_name, column_type FROM information_schema.columns
            WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"""
    # Older drivers hand out MySQL's types as bytes.
    rows = execute(connection, sql, (schema, table)).fetchall()
    return {name: kind.decode() if isinstance(kind, bytes) else kind for name, kind in rows}


def _release(connection: Any, sql: str, key: int | str) -> None:
    try:
        execute(connection, sql, (key,))
    except DatabaseUnavailable:
        # The session is gone, and its locks with it; what the block raised is worth more than this.
        pass
    except Exception as error:
        # A statement failed inside an open transaction: PostgreSQL takes no other until the rollback. Its locks outlive
        # the transaction, so they can only be given back by ending the session.
        if getattr(error, "pgcode", None) != "25P02":
            raise
        connection.close()


def _is_postgresql(adapter: Any) -> bool:
    return bool(adapter.backend == "postgresql")
