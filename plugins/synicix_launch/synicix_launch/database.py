"""Where the project's database is, for whoever starts workers elsewhere; and where its password lies."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core import Settings

__all__ = ["STORE", "Database", "find_database"]

STORE = "external_training_result"
"""The DataJoint store of the histories."""

_SECRET_NAMES = ("access_key", "secret_key", "token", "account_key", "connection_string", "password")


@dataclass(frozen=True)
class Database:
    """The database that the project uses; holds no password.

    Attributes
    ----------
    embedded : bool
        Whether it is the PostgreSQL inside the project; the other fields then say nothing.
    backend, host, port : str, str, int
        ``mysql`` or ``postgresql``, and where it listens.
    name : str or None
        Of the database on a PostgreSQL server, where one is named.
    use_tls : bool or None
        Whether connections are encrypted; None leaves it to the server.
    store : mapping
        DataJoint's settings of the store of the histories, without keys; empty where none is configured.
    password_in_variable : bool
        Whether the password stands in DJ_PASS, which DataJoint asks first.
    password_in_config : str
        The path of a ``datajoint.json`` with the password in it; ``""`` where there is none.
    password_in_secrets : str
        The path of a file ``database.password`` with nothing else in it; ``""`` where there is none.
    """

    embedded: bool
    backend: str = "postgresql"
    host: str = ""
    port: int = 0
    name: str | None = None
    use_tls: bool | None = None
    store: Mapping[str, Any] | None = None
    password_in_variable: bool = False
    password_in_config: str = ""
    password_in_secrets: str = ""

    @property
    def is_local(self) -> bool:
        """Whether other machines cannot reach it under its name."""
        return self.embedded or _is_local(self.host)

    @property
    def password_in_variable_alone(self) -> bool:
        """Whether a process that lacks DJ_PASS has no password."""
        return self.password_in_variable and not (self.password_in_config or self.password_in_secrets)

    def __str__(self) -> str:
        if self.embedded:
            return "the PostgreSQL inside the project"
        return f"{'MySQL' if self.backend == 'mysql' else 'PostgreSQL'} at {self.host}:{self.port}"


def find_database(settings: Settings) -> Database:
    """Return where the project's database is, without connecting.

    Raises
    ------
    ConfigurationError
        If DataJoint's configuration is wrong.
    """
    # Here and not above: this imports DataJoint.
    from synicix_core import configured_server, datajoint_config

    server = configured_server(settings.project_dir)
    if server is None:
        return Database(embedded=True)
    config = datajoint_config(settings.project_dir)
    store = config.stores.get(STORE) or {}
    in_config, in_secrets = ("", "") if config.ignore_config_file else _password_files(settings.project_dir)
    return Database(
        embedded=False,
        backend=server.backend,
        host=server.host,
        port=server.port,
        name=config.database.name,
        use_tls=config.database.use_tls,
        store={key: value for key, value in store.items() if key not in _SECRET_NAMES},
        password_in_variable=bool(os.environ.get("DJ_PASS")),
        password_in_config=in_config,
        password_in_secrets=in_secrets,
    )


def _is_local(host: str) -> bool:
    if host.startswith("/") or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _password_files(project: Path) -> tuple[str, str]:
    """Return which configuration and which secret file hold the password, where DataJoint looks for them."""
    from datajoint.settings import CONFIG_FILENAME, find_config_file, find_secrets_dir, read_secret_file

    in_project = project / CONFIG_FILENAME
    path = find_config_file() or (in_project if in_project.is_file() else None)
    in_config = str(path) if path is not None and _holds_password(path) else ""
    folder, name = find_secrets_dir(path), "database.password"
    return in_config, str(folder / name) if folder is not None and read_secret_file(folder, name) else ""


def _holds_password(path: Path) -> bool:
    # It was read before, by DataJoint, so it is JSON.
    said = json.loads(path.read_text(encoding="utf-8"))
    return bool(said.get("database.password") or (said.get("database") or {}).get("password"))
