"""A lock between those who write into the store of the histories and the one who removes what no row refers to."""

from __future__ import annotations

from typing import Any

from synicix_core.database.dialect import quote_table
from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import VERSION_TABLE, Tables

__all__ = ["hold_store"]


def hold_store(connection: Any, tables: Tables) -> None:
    """Keep the store's files as they are until the end of this transaction; any number of sessions may do so at once.

    A file with equal content is used again instead of being written, so one that no row refers to yet may be about to be
    referred to.
    """
    versions = quote_table(connection.adapter, tables.schema_name, VERSION_TABLE)
    execute(connection, f"SELECT schema_version FROM {versions} FOR SHARE").fetchall()
