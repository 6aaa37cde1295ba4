"""What the database lets this user do."""

from __future__ import annotations

from synicix_core.database.adapters import AccessRefused
from synicix_core.database.dialect import quote, quote_table
from synicix_core.database.reconnect import execute, transaction
from synicix_core.errors import ConfigurationError
from synicix_core.tables.schema import VERSION_TABLE, Tables

__all__ = ["prove_permitted"]


def prove_permitted(tables: Tables) -> None:
    """Try each kind of statement with which a worker writes, on no row, so that nothing is changed or locked.

    Raises
    ------
    ConfigurationError
        If this user may not do one of them.
    """
    connection = tables.connection
    try:
        with transaction(connection):
            for sql in _statements(tables):
                execute(connection, sql)
    except AccessRefused as error:
        raise ConfigurationError(
            "the database user may read, but not train",
            where=f"user {connection.conn_info['user']}, schema {tables.schema_name}",
            why=error.why,
            hint=error.hint,
        ) from error


def _statements(tables: Tables) -> list[str]:
    adapter = tables.connection.adapter
    state, status = quote(adapter, "state"), quote(adapter, "status")
    jobs, attempts = tables.jobs_name, tables.TrainingAttempt.full_table_name
    results = tables.TrainingResult.full_table_name
    versions = quote_table(adapter, tables.schema_name, VERSION_TABLE)
    nothing = "WHERE 1 = 0"
    return [
        *(f"INSERT INTO {table} SELECT * FROM {table} {nothing}" for table in (attempts, jobs, results)),
        f"UPDATE {attempts} SET {state} = {state} {nothing}",
        f"UPDATE {jobs} SET {status} = {status} {nothing}",
        f"DELETE FROM {jobs} {nothing}",
        # Whoever commits a result locks this row, which on PostgreSQL takes more than the right to read it.
        f"SELECT schema_version FROM {versions} {nothing} FOR SHARE",
    ]
