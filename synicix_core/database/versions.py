"""Which servers are refused, and why."""

from __future__ import annotations

import re
from typing import Any

from synicix_core.errors import ConfigurationError

__all__ = ["check_server", "check_version"]

_MINIMUM = {"mysql": ("MySQL", (8, 0, 13)), "postgresql": ("PostgreSQL", (15,))}
_WAYS_ON = (
    "Use MySQL 8.0.13 or newer or PostgreSQL 15 or newer, or configure no server at all: then Synicix runs a PostgreSQL "
    "inside the project."
)


def check_server(connection: Any) -> None:
    """Refuse the server at the other end of a DataJoint `connection` if it cannot hold a pipeline.

    Raises
    ------
    ConfigurationError
        It is a MariaDB, or too old; the message has the version found.
    """
    backend = connection.adapter.backend
    sql = "SELECT version()" if backend == "postgresql" else "SELECT CONCAT_WS(' ', @@version, @@version_comment)"
    check_version(backend, str(connection.query(sql).fetchone()[0]))


def check_version(backend: str, text: str) -> None:
    """Refuse a server by what it says of its version.

    Parameters
    ----------
    backend : str
        ``mysql`` or ``postgresql``, as DataJoint calls them.
    text : str
        PostgreSQL's ``version()``, or MySQL's ``@@version`` and ``@@version_comment``.

    Raises
    ------
    ConfigurationError
        It is a MariaDB, or too old.
    """
    if "mariadb" in text.lower():
        raise ConfigurationError(
            "The database server is a MariaDB",
            where=text,
            why="DataJoint cannot insert <blob@store> columns there, so no result could be stored",
            hint=_WAYS_ON,
        )
    name, minimum = _MINIMUM[backend]
    found = re.search(r"\d+(?:\.\d+)*", text)
    version = tuple(int(part) for part in found[0].split(".")) if found else ()
    if version < minimum:
        raise ConfigurationError(
            "The database server is too old",
            where=text,
            why=f"{name} {'.'.join(map(str, minimum))} is the oldest that works",
            hint=_WAYS_ON,
        )
