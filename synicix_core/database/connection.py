"""Open a connection to the configured server or to the PostgreSQL inside the project, with everything checked."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any

from synicix_core.database.adapters import mend_adapter
from synicix_core.database.quiet import datajoint, quiet
from synicix_core.database.reconnect import is_connection_lost, prepare_session
from synicix_core.database.refusal import check_backend, refusal
from synicix_core.database.server import ServerAddress, configured_server, datajoint_config
from synicix_core.database.versions import check_server
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.settings import Settings

__all__ = ["STORE", "check_session", "connect"]

STORE = "external_training_result"
"""The store of the histories in TrainingResult; its name is part of the column type."""


def connect(settings: Settings, *, start: bool = True) -> Any:
    """Open a DataJoint connection of its own, which shares no state with ``dj.conn()`` and ``dj.config``.

    Parameters
    ----------
    settings : Settings
        Says which project's PostgreSQL to use when no server is configured, and where its stores lie.
    start : bool
        Whether to start that PostgreSQL when it is not running.

    Returns
    -------
    datajoint.Connection
        Its session counts in UTC, also after every reconnect. Its ``_config`` is a copy of DataJoint's, with a file store
        `STORE` inside the project added if none of that name is configured.

    Raises
    ------
    ConfigurationError
        The server refuses the credentials, is unknown, too old or a MariaDB; or the configuration is wrong.
    DatabaseUnavailable
        The server cannot be reached.
    """
    config = datajoint_config(settings.project_dir)
    _add_store(config, settings.project_dir)
    address = configured_server(settings.project_dir)
    if address is not None:
        check_backend(address)
        connection = DatabaseConnection(config, address)
    else:
        if not start:
            _refuse_stopped(settings.project_dir)
        connection = DatabaseConnection(config, None, settings.project_dir)
    check_session(connection)
    return connection


def check_session(connection: Any) -> None:
    """Refuse a server that cannot hold a pipeline, and prepare the session and the adapter; for any DataJoint connection.

    Raises
    ------
    ConfigurationError
        The server is too old or a MariaDB.
    """
    mend_adapter(connection)
    check_server(connection)
    prepare_session(connection)


class DatabaseConnection(datajoint.Connection):  # type: ignore[misc]
    """A DataJoint connection whose every reconnect, DataJoint's own included, ends in a session that counts in UTC.

    Parameters
    ----------
    config
        The connection's own DataJoint configuration.
    address : ServerAddress or None
        The configured server.
    project_dir : Path, optional
        Without `address`: the project whose PostgreSQL is meant. It is started when needed, also on a reconnect.
    """

    _in_transaction: bool

    def __init__(self, config: Any, address: ServerAddress | None, project_dir: Path | None = None) -> None:
        self._address = address
        self._project_dir = project_dir
        if address is not None:
            # The setting is kept as DataJoint has it; what it derives its own errors from is the address.
            secret = config.database.password
            arguments = {
                "host": address.host,
                "user": address.user,
                "password": secret.get_secret_value() if secret else None,
                "port": address.port,
                "use_tls": config.database.use_tls,
                "backend": address.backend,
            }
        else:
            config.database.name = None
            config.database.backend = "postgresql"
            # The host is the socket's directory, which `connect` fills in: it changes when the project is moved.
            arguments = {"host": "", "user": "postgres", "password": "", "port": 5432, "use_tls": False}
        with quiet():
            super().__init__(**arguments, config_override=config)

    def connect(self) -> None:
        """Open the connection, again or for the first time.

        Raises
        ------
        ConfigurationError, DatabaseUnavailable
            As in `synicix_core.database.connect`.
        """
        if self._project_dir is not None:
            self._connect_embedded(self._project_dir)
            return
        try:
            with quiet():
                super().connect()
            prepare_session(self)
        except Exception as error:
            # Not chained: a driver's error may show the connection string.
            raise refusal(self._address, error) from None
        _notice_a_dead_peer(self._conn)

    def query(self, query: str, args: Any = (), **options: Any) -> Any:
        """Run a statement as DataJoint does, which reconnects outside transactions; on PostgreSQL, too."""
        if self.adapter.backend == "postgresql" and self._conn is not None and self._conn.closed:
            # DataJoint asks a closed connection for a cursor before it looks for a lost one.
            was_open = bool(self._in_transaction)
            self._in_transaction = False
            reconnect = options.get("reconnect")
            if was_open or not (self._config["database.reconnect"] if reconnect is None else reconnect):
                raise datajoint.errors.LostConnectionError("The connection is closed.")
            self.connect()
        return super().query(query, args, **options)

    def _execute_query(self, *arguments: Any) -> None:
        try:
            super()._execute_query(*arguments)
        except Exception as error:
            if is_connection_lost(self, error):
                raise datajoint.errors.LostConnectionError(str(error).strip()) from error
            raise

    def _connect_embedded(self, project_dir: Path) -> None:
        from synicix_core.database.embedded import start

        # Somebody may stop or kill the server between its start and our connection.
        for attempts_left in (2, 1, 0):
            self.conn_info["host"] = start(project_dir)
            try:
                with quiet():
                    super().connect()
                prepare_session(self)
                return
            except Exception as error:
                if not attempts_left:
                    raise refusal(None, error) from error
                time.sleep(0.5)


def _add_store(config: Any, project_dir: Path) -> None:
    if STORE not in config.stores:
        location = project_dir / ".synicix" / "stores" / STORE
        try:
            location.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "The store of the training histories cannot be created", where=str(location), why=error.strerror or ""
            ) from error
        config.stores = {**config.stores, STORE: {"protocol": "file", "location": str(location)}}
    try:
        config.get_store_spec(STORE)
    except Exception as error:
        raise ConfigurationError(
            "A DataJoint store is configured wrongly", where=f"stores.{STORE}", why=str(error)
        ) from error


def _refuse_stopped(project_dir: Path) -> None:
    from synicix_core.database.embedded import status

    found = status(project_dir)
    if not found.running:
        raise DatabaseUnavailable(
            "The project's PostgreSQL is not running", where=str(found.data_dir), hint="Run `synicix-run db start`."
        )


def _notice_a_dead_peer(driver_connection: Any) -> None:
    """Have the kernel give up on a silent server after about a minute instead of hours; a hint, never an error."""
    descriptor = (
        driver_connection.fileno() if hasattr(driver_connection, "fileno") else driver_connection._sock.fileno()
    )
    options = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
    if sys.platform == "linux":
        options["TCP_USER_TIMEOUT"] = 60_000
    with contextlib.suppress(OSError), socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                twin.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
