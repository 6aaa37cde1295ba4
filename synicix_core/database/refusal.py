"""Say why a connection could not be opened: to which server, as whom, and what to do; never with the password."""

from __future__ import annotations

import socket

from synicix_core.database.server import ServerAddress
from synicix_core.errors import ConfigurationError, DatabaseUnavailable, SynicixError

__all__ = ["check_backend", "refusal"]

_WHERE_SET = "datajoint.json, .secrets/ beside it, DJ_* variables or dj.config"


def refusal(address: ServerAddress | None, error: Exception) -> SynicixError:
    """Turn what a driver raised while connecting into the error to show.

    Parameters
    ----------
    address : ServerAddress or None
        The server; None is the PostgreSQL inside the project.
    error : Exception
        What psycopg2, pymysql or DataJoint raised.
    """
    if isinstance(error, SynicixError):
        return error
    # pymysql raises (number, text), psycopg2 a text of several lines.
    text = str(error.args[-1] if error.args else error).strip()
    if address is None:
        return DatabaseUnavailable("The project's PostgreSQL refused the connection", why=_one_line(text))
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    where = str(address)
    lower = text.lower()

    if isinstance(error, ImportError):
        return ConfigurationError(
            "The driver of the database is not installed",
            where=where,
            why=_one_line(text),
            hint="Run `pip install 'datajoint[postgres]'`.",
        )
    if "cryptography" in lower:
        return ConfigurationError(
            "The server's way to check passwords needs one more package",
            where=where,
            why=_one_line(text),
            hint="Run `pip install cryptography`.",
        )
    if number in (1045, 1698) or _says(lower, "authentication failed", "no password supplied", "pg_hba.conf", 'role "'):
        why = _one_line(text) if address.has_password else f"{_one_line(text)}; no password is configured"
        return ConfigurationError(
            "The database server refused the login",
            where=where,
            why=why,
            hint=f"Set user and password in {_WHERE_SET}.",
        )
    if _says(lower, "could not translate host name", "name or service not known", "nodename nor servname"):
        return ConfigurationError(
            "The database host is unknown",
            where=where,
            why=_one_line(text),
            hint=f"Check the host name in {_WHERE_SET}.",
        )
    if _says(lower, 'database "') and "does not exist" in lower:
        return ConfigurationError(
            "The database does not exist on the server",
            where=where,
            why=_one_line(text),
            hint="Create it, or set DJ_DATABASE_NAME.",
        )
    return DatabaseUnavailable(
        "The database cannot be reached", where=where, why=_one_line(text), hint=_hint_for_silence(address)
    )


def check_backend(address: ServerAddress) -> None:
    """Refuse to speak MySQL to a PostgreSQL: each would wait for the other's first word, for minutes.

    Only PostgreSQL's own port is looked at, which everybody uses who forgets that DataJoint takes MySQL for granted.

    Raises
    ------
    ConfigurationError
        The server says nothing, while a MySQL opens the conversation.
    """
    if address.backend != "mysql" or address.port != 5432:
        return
    try:
        with socket.create_connection((address.host, address.port), timeout=5.0) as client:
            if client.recv(1):
                return
    except TimeoutError:
        pass
    except OSError:
        return  # not reachable, which connecting will find out and tell
    raise ConfigurationError(
        "The server is not a MySQL",
        where=str(address),
        why="port 5432 is PostgreSQL's, and without another word DataJoint speaks MySQL",
        hint='Set DJ_BACKEND=postgresql, or "database": {"backend": "postgresql"} in datajoint.json.',
    )


def _hint_for_silence(address: ServerAddress) -> str:
    if address.backend == "mysql":
        return (
            "Check that a MySQL server runs there. If it should be a PostgreSQL, set DJ_BACKEND=postgresql; without it "
            "DataJoint speaks MySQL."
        )
    return "Check that a PostgreSQL server runs there and accepts connections from this machine."


def _says(text: str, *parts: str) -> bool:
    return any(part in text for part in parts)


def _one_line(text: str) -> str:
    return " ".join(text.split())
