"""Which database server is configured, in the way DataJoint is configured.

In the order of precedence: ``dj.config[...] = ...`` in code, ``DJ_*`` variables, ``datajoint.json`` in the working directory
or above it (or in the project), ``.secrets/`` beside it or ``/run/secrets/datajoint``. Whatever names a host or a user means
that server; nothing of the kind means the embedded PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core.database.quiet import quiet, without_values
from synicix_core.errors import ConfigurationError

with quiet():
    # The module itself: `datajoint.config` is a proxy that refuses to be read in DataJoint's thread-safe mode.
    from datajoint import settings as datajoint_settings

__all__ = ["ServerAddress", "configured_server", "datajoint_config"]


@dataclass(frozen=True)
class ServerAddress:
    """Where the configured server is and as whom to log in; never holds the password."""

    backend: str
    """``mysql`` or ``postgresql``."""
    host: str
    port: int
    user: str
    has_password: bool

    def __str__(self) -> str:
        name = {"mysql": "MySQL", "postgresql": "PostgreSQL"}[self.backend]
        return f"{name} at {self.host}:{self.port} as user {self.user}"


def configured_server(project_dir: Path | None = None) -> ServerAddress | None:
    """Return the server that DataJoint is configured for, or None for the embedded PostgreSQL.

    Parameters
    ----------
    project_dir : Path, optional
        A ``datajoint.json`` in there counts, too, wherever the command is typed.

    Raises
    ------
    ConfigurationError
        A ``datajoint.json`` or a variable is wrong, or a host is named without a user.
    """
    config = datajoint_config(project_dir)
    if not _names_a_server(config):
        return None
    database = config.database
    host, _, port = (database.host or "localhost").partition(":")
    if database.user is None or not database.user:
        raise ConfigurationError(
            "The database server is configured without a user",
            where=f"host {database.host}",
            hint='Set DJ_USER and DJ_PASS, or "database": {"user": ...} in datajoint.json and the password in '
            ".secrets/database.password beside it.",
        )
    if port and not port.isdigit():
        raise ConfigurationError(
            "The database host is not valid",
            where=f"host {database.host}",
            why="DataJoint takes a host name, an IPv4 address or a socket directory, optionally with :port behind it",
            hint="Give an IPv6 address a host name.",
        )
    number = int(port or database.port)
    # DataJoint derives its default port before it reads the backend from a file.
    if not port and database.backend == "postgresql" and number == 3306:
        number = 5432
    return ServerAddress(
        backend=database.backend,
        host=host,
        port=number,
        user=database.user,
        has_password=bool(database.password and database.password.get_secret_value()),
    )


def datajoint_config(project_dir: Path | None = None) -> Any:
    """Return a copy of DataJoint's configuration, for one connection: changing it changes nothing for anybody else.

    Raises
    ------
    ConfigurationError
        A ``datajoint.json`` or a variable is wrong. DataJoint itself only warns and goes on with its defaults; here that
        would quietly start another database.
    """
    config = datajoint_settings.config.model_copy(deep=True)
    path = None
    if not config.ignore_config_file:
        path = datajoint_settings.find_config_file() or _file_in(project_dir)
        if path is not None:
            _check_file(path)
    if _names_a_server(config):
        return config
    # Variables and files may have come, and the working directory changed, since DataJoint was imported.
    stores = config.stores
    with quiet(), _said_by_us("a DJ_* variable"):
        config = datajoint_settings._create_config()
        if path is not None and config._config_path is None:
            config.load(path)
            if (secrets := datajoint_settings.find_secrets_dir(path)) is not None:
                config._load_secrets(secrets)
    config.stores = {**config.stores, **stores}
    return config


def _names_a_server(config: Any) -> bool:
    """Whether something set a host or a user; DataJoint's own default, the host localhost, does not count."""
    database = config.database
    return any(name in database.model_fields_set and getattr(database, name) for name in ("host", "user"))


def _file_in(project_dir: Path | None) -> Path | None:
    path = project_dir / datajoint_settings.CONFIG_FILENAME if project_dir else None
    return path if path is not None and path.is_file() else None


def _check_file(path: Path) -> None:
    with quiet(), _said_by_us(str(path)):
        datajoint_settings.Config().load(path)


@contextmanager
def _said_by_us(where: str) -> Iterator[None]:
    """Turn whatever DataJoint raises about its configuration into one ConfigurationError."""
    try:
        yield
    except Exception as error:
        # Not chained: the original shows the offending value, which may be a password.
        raise ConfigurationError("DataJoint's configuration is wrong", where=where, why=without_values(error)) from None
