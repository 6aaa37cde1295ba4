"""Connect to the database server that DataJoint is configured for, or run a PostgreSQL inside the project.

Modules: `server` (which server is configured), `connection` (a connection to it), `adapters` (DataJoint's, mended),
`reconnect` (lost connections and transactions), `versions` (which servers are refused), `dialect` (the SQL that differs),
`embedded` (the server inside the project). DataJoint is imported when one of these names is first used, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synicix_core.database.connection import STORE, check_session, connect
    from synicix_core.database.reconnect import (
        despite_conflicts,
        ensure_connected,
        execute,
        is_conflict,
        is_connection_lost,
        transaction,
    )
    from synicix_core.database.server import ServerAddress, configured_server

__all__ = [
    "STORE",
    "ServerAddress",
    "check_session",
    "configured_server",
    "connect",
    "despite_conflicts",
    "ensure_connected",
    "execute",
    "is_conflict",
    "is_connection_lost",
    "transaction",
]

_MODULES = {
    "STORE": "connection",
    "ServerAddress": "server",
    "check_session": "connection",
    "configured_server": "server",
    "connect": "connection",
    "despite_conflicts": "reconnect",
    "ensure_connected": "reconnect",
    "execute": "reconnect",
    "is_conflict": "reconnect",
    "is_connection_lost": "reconnect",
    "transaction": "reconnect",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
