"""Notice a lost connection, open it again, and run statements and transactions that say so when it is lost.

DataJoint 2.3 reconnects on MySQL only, and on PostgreSQL believes a dead connection to be alive. These functions work with
any DataJoint connection, also one that the user made.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from synicix_core.database.quiet import datajoint, quiet
from synicix_core.errors import DatabaseUnavailable, SynicixError

__all__ = [
    "despite_conflicts",
    "ensure_connected",
    "execute",
    "is_conflict",
    "is_connection_lost",
    "prepare_session",
    "transaction",
]

P = ParamSpec("P")
T = TypeVar("T")

# Client errors 2xxx, and what a server says that is about to close: shutdown, network, inactivity.
_MYSQL_LOST = {0, 1053, 1158, 1159, 1160, 1161, 2002, 2003, 2006, 2013, 2055, 4031}
# Deadlocks, serialization failures, and locks that were waited for in vain.
_MYSQL_CONFLICTS = {1205, 1213}
_POSTGRESQL_CONFLICTS = {"40001", "40P01", "55P03"}
# Shutdown, crash, starting up, and the two time limits on idle sessions; 08xxx are PostgreSQL's connection errors.
_POSTGRESQL_LOST = {"57P01", "57P02", "57P03", "57P05", "25P03"}
_TRIES = 8
"""So often a transaction is begun that the server gave up in favour of another one."""


def ensure_connected(connection: Any) -> None:
    """Open `connection` again if it was dropped; an open transaction is gone then, and its state is cleared.

    Raises
    ------
    DatabaseUnavailable
        The server cannot be reached, or does not let us in any more.
    """
    if not connection._is_closed and connection._conn is not None and connection.adapter.ping(connection._conn):
        return
    forget(connection)
    try:
        with quiet():
            connection.connect()
        prepare_session(connection)
        connection.connection_id = connection.adapter.get_connection_id(connection._conn)
    except DatabaseUnavailable:
        raise
    except SynicixError as error:
        # It let us in before. While a network or a server comes back, names and logins fail that are right.
        raise DatabaseUnavailable(error.what, where=error.where, why=error.why, hint=error.hint) from error
    except Exception as error:
        raise DatabaseUnavailable(
            "The database cannot be reached", where=_where(connection), why=str(error).strip()
        ) from error


def execute(connection: Any, sql: str, params: Sequence[Any] = ()) -> Any:
    """Run one statement and return its cursor; unlike DataJoint's `query`, never run it twice.

    Raises
    ------
    DatabaseUnavailable
        The connection was lost before or during the statement, which may or may not have taken effect.
    """
    try:
        # None instead of an empty sequence: the drivers then leave a "%" in the statement alone.
        return connection.query(sql, tuple(params) or None, reconnect=False)
    except Exception as error:
        if is_connection_lost(connection, error):
            raise _lost(connection, error) from error
        raise


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Run the block in one transaction: commit at its end, roll back if it raises.

    A connection that was dropped before is opened again first. DataJoint's own inserts and deletes join the transaction.

    Raises
    ------
    DatabaseUnavailable
        The connection was lost inside. Nothing was written, unless it was lost during the commit itself: then the message
        says so, and only a look at the rows can tell.
    """
    if connection._in_transaction and connection.in_transaction:
        raise datajoint.errors.DataJointError("A transaction is open already; transactions do not nest.")
    ensure_connected(connection)
    execute(connection, "BEGIN")  # DataJoint's own asks MySQL for a snapshot, which there is none of in READ COMMITTED
    connection._in_transaction = True
    try:
        yield
    except BaseException as error:
        lost = is_connection_lost(connection, error)
        if lost or not _roll_back(connection):
            forget(connection)
        if lost and not isinstance(error, DatabaseUnavailable):
            raise _lost(connection, error) from error
        raise
    _commit(connection)


def is_connection_lost(connection: Any, error: BaseException) -> bool:
    """Return whether `error`, raised by a statement on `connection`, means that the connection is gone."""
    if isinstance(error, DatabaseUnavailable | datajoint.errors.LostConnectionError):
        return True
    if connection.adapter.backend == "postgresql":
        import psycopg2

        if not isinstance(error, psycopg2.Error):
            return False
        code = error.pgcode or ""
        if not code and type(error) in (psycopg2.DatabaseError, psycopg2.OperationalError):
            # Whatever a server says has a code. After a crash the driver does not notice that its end is closed.
            return True
        return code in _POSTGRESQL_LOST or code.startswith("08") or bool(connection._conn.closed)
    import pymysql

    return isinstance(error, pymysql.err.Error) and bool(error.args) and error.args[0] in _MYSQL_LOST


def is_conflict(error: BaseException) -> bool:
    """Return whether the server gave up a transaction in favour of another one: a deadlock, or a lock that took too long.

    Nothing of it was written, and it may be tried again.
    """
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "pgcode", None) in _POSTGRESQL_CONFLICTS:
            return True
        if type(found).__module__.startswith("pymysql") and found.args and found.args[0] in _MYSQL_CONFLICTS:
            return True
        found = found.__cause__
    return False


def despite_conflicts(action: Callable[P, T]) -> Callable[P, T]:
    """Have `action` done again, later each time, where the server gave it up in favour of another: a deadlock, a lock held.

    Such an action may be begun anew: it is one transaction, or statements that do nothing twice.
    """

    @functools.wraps(action)
    def until_done(*args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(1, _TRIES):
            try:
                return action(*args, **kwargs)
            except Exception as error:  # the drivers' own classes
                if not is_conflict(error):
                    raise
            time.sleep(0.05 * 2**number * random.random())
        return action(*args, **kwargs)

    return until_done


def prepare_session(connection: Any) -> None:
    """Make the session count in UTC, since DataJoint's columns hold times without a zone, and read what is committed.

    MySQL would otherwise read, within a transaction, what was there at its beginning, and lock the gaps between rows, so
    that workers who claim at once get into each other's way. Reading what is committed is PostgreSQL's default.
    """
    cursor = connection.adapter.get_cursor(connection._conn)
    if connection.adapter.backend == "postgresql":
        cursor.execute("SET TIME ZONE 'UTC'")
    else:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.close()


def forget(connection: Any) -> None:
    """Close the driver's end of `connection` and clear what DataJoint remembers of an open transaction."""
    if connection._conn is not None:
        # Closing a broken connection may raise; there is nothing left to save.
        with contextlib.suppress(Exception):
            connection._conn.close()
    connection._is_closed = True
    connection._in_transaction = False


def _roll_back(connection: Any) -> bool:
    try:
        execute(connection, connection.adapter.rollback_sql())
    except Exception:
        # Closing the session rolls back as well, and what the block raised is worth more than this.
        return False
    connection._in_transaction = False
    return True


def _commit(connection: Any) -> None:
    try:
        cursor = execute(connection, connection.adapter.commit_sql())
    except Exception as error:
        forget(connection)
        if isinstance(error, DatabaseUnavailable):
            raise DatabaseUnavailable(
                "The connection to the database was lost during a commit",
                where=_where(connection),
                why="whether it took effect is unknown",
                hint="Look at the rows before trying again.",
            ) from error
        raise
    connection._in_transaction = False
    # PostgreSQL answers COMMIT with ROLLBACK, and no error, when an earlier statement of the transaction failed.
    if getattr(cursor, "statusmessage", "COMMIT") == "ROLLBACK":
        raise datajoint.errors.DataJointError(
            "The transaction was rolled back: a statement in it had failed, and its error was ignored."
        )


def _lost(connection: Any, error: BaseException) -> DatabaseUnavailable:
    why = str(error).strip() or type(error).__name__
    return DatabaseUnavailable("The connection to the database was lost", where=_where(connection), why=why)


def _where(connection: Any) -> str:
    info = connection.conn_info
    return f"{info['host']}:{info['port']} as user {info['user']}"
