"""A connection is its own, counts in UTC for ever, and is refused with the reason and without the password."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from synicix_core.database import STORE, check_session, connect, embedded, ensure_connected
from synicix_core.database.quiet import datajoint
from synicix_core.database.server import datajoint_settings
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.settings import Settings, create_project, load_settings
from tests.database.conftest import configured

pytestmark = pytest.mark.database

ZONE = {"postgresql": "SELECT current_setting('timezone')", "mysql": "SELECT @@session.time_zone"}
UTC = {"postgresql": "UTC", "mysql": "+00:00"}


def zone(connection: Any) -> str:
    return str(connection.query(ZONE[connection.adapter.backend]).fetchone()[0])


def end_session(settings: Settings, connection: Any) -> None:
    """End the connection's session on the server, as a restart or an administrator does."""
    other = connect(settings)
    identity = connection.adapter.get_connection_id(connection._conn)
    kill = "SELECT pg_terminate_backend(%s)" if connection.adapter.backend == "postgresql" else "KILL %s"
    other.query(kill, (identity,))
    other.close()


def test_a_connection_is_datajoint_s_and_shares_nothing(any_settings: Settings, any_connection: Any) -> None:
    assert isinstance(any_connection, datajoint.Connection)
    assert any_connection._config is not datajoint_settings.config
    assert STORE not in datajoint_settings.config.stores
    schema = datajoint.Schema("shares_nothing", connection=any_connection)
    schema.drop(prompt=False)


def test_the_session_is_in_utc_at_first_and_after_every_kind_of_reconnect(
    any_settings: Settings, any_connection: Any
) -> None:
    expected = UTC[any_connection.adapter.backend]
    assert zone(any_connection) == expected
    end_session(any_settings, any_connection)
    assert zone(any_connection) == expected  # DataJoint's own reconnect
    end_session(any_settings, any_connection)
    ensure_connected(any_connection)
    assert zone(any_connection) == expected
    any_connection.connect()
    assert zone(any_connection) == expected


def test_a_connection_that_the_user_made_is_checked_and_set_to_utc(any_settings: Settings, any_connection: Any) -> None:
    info = any_connection.conn_info
    own = datajoint.Connection(
        info["host"], info["user"], info["passwd"], info["port"], backend=any_connection.adapter.backend
    )
    elsewhere = "SET TIME ZONE 'Asia/Tokyo'" if own.adapter.backend == "postgresql" else "SET time_zone = '+09:00'"
    own.query(elsewhere)
    check_session(own)
    assert zone(own) == UTC[own.adapter.backend]
    end_session(any_settings, own)
    ensure_connected(own)
    assert zone(own) == UTC[own.adapter.backend]
    own.close()


def test_the_store_is_a_folder_in_the_project_unless_one_is_configured(any_settings: Settings, tmp_path: Path) -> None:
    connection = connect(any_settings)
    location = any_settings.project_dir / ".synicix" / "stores" / STORE
    assert connection._config.get_store_spec(STORE)["location"] == str(location)
    assert location.is_dir()
    connection.close()
    datajoint_settings.config["stores"] = {STORE: {"protocol": "file", "location": str(tmp_path)}}
    try:
        connection = connect(any_settings)
        assert connection._config.get_store_spec(STORE)["location"] == str(tmp_path)
        connection.close()
    finally:
        datajoint_settings.config["stores"] = {}


def test_a_store_that_datajoint_would_refuse_later_is_refused_now(running_project: Path) -> None:
    datajoint_settings.config["stores"] = {STORE: {"protocol": "file", "folder": "x"}}
    try:
        with pytest.raises(ConfigurationError, match=rf"stores\.{STORE}.*location"):
            connect(create_project(running_project))
    finally:
        datajoint_settings.config["stores"] = {}


def test_a_configured_server_needs_no_project(running_project: Path, tmp_path: Path) -> None:
    with configured(host=embedded.start(running_project), user="postgres", backend="postgresql", port=5432):
        connection = connect(load_settings(tmp_path, required=False))
    assert connection.query("SELECT 1").fetchone() == (1,)
    connection.close()
    assert not (tmp_path / ".synicix" / "postgres").exists()


def test_connecting_prints_nothing(any_settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    connect(any_settings).close()
    assert capfd.readouterr() == ("", "")


def test_the_project_s_server_is_started_only_when_that_is_wanted(project: Path) -> None:
    settings = create_project(project)
    with pytest.raises(DatabaseUnavailable, match=r"not running.*synicix-run db start"):
        connect(settings, start=False)
    connect(settings).close()
    connect(settings, start=False).close()


def test_a_project_s_server_that_was_killed_comes_back_for_a_connection_that_is_open(project: Path) -> None:
    connection = connect(create_project(project))
    pid = embedded.status(project).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    ensure_connected(connection)
    assert zone(connection) == "UTC"
    connection.close()


@pytest.fixture
def login(any_settings: Settings) -> dict[str, Any]:
    """What `configured` needs to reach a server that asks for a password."""
    database = datajoint_settings.config.database
    if database.user:
        return {name: getattr(database, name) for name in ("host", "port", "user", "backend")}
    project = any_settings.project_dir
    rules = embedded.status(project).data_dir / "pg_hba.conf"
    rules.write_text("local all ann scram-sha-256\nlocal all all trust\n")
    connection = connect(any_settings)
    connection.query("DROP ROLE IF EXISTS ann")
    connection.query("CREATE ROLE ann LOGIN PASSWORD 'right'")
    connection.query("SELECT pg_reload_conf()")
    connection.close()
    time.sleep(0.2)  # the server reads the rules again in its own time
    return {"host": embedded.start(project), "port": 5432, "user": "ann", "backend": "postgresql"}


def test_a_wrong_password_is_told_without_it(any_settings: Settings, login: dict[str, Any]) -> None:
    with configured(**login, password="hunter2"), pytest.raises(ConfigurationError) as caught:
        connect(any_settings)
    text = str(caught.value)
    assert "refused the login" in text
    assert f"{login['host']}:{login['port']} as user {login['user']}" in text
    assert "hunter2" not in text
    assert caught.value.__cause__ is None
    assert "no password is configured" not in text


def test_a_missing_password_is_told(any_settings: Settings, login: dict[str, Any]) -> None:
    with configured(**login, password=None), pytest.raises(ConfigurationError, match="no password is configured"):
        connect(any_settings)


def test_a_missing_role_is_told(running_project: Path) -> None:
    host = embedded.start(running_project)
    refused = pytest.raises(ConfigurationError, match=r'refused the login.*role "nobody_here" does not exist')
    with configured(host=host, user="nobody_here", backend="postgresql", port=5432), refused:
        connect(create_project(running_project))


@pytest.mark.parametrize("backend", ["mysql", "postgresql"])
def test_a_port_without_a_server_is_told(backend: str, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    refused = pytest.raises(DatabaseUnavailable, match=rf"127\.0\.0\.1:{port} as user ann.*refused")
    with configured(host="127.0.0.1", port=port, user="ann", password="hunter2", backend=backend), refused as caught:
        connect(create_project(tmp_path))
    assert "hunter2" not in str(caught.value)
    assert ("DJ_BACKEND=postgresql" in str(caught.value)) == (backend == "mysql")


@pytest.mark.parametrize("backend", ["mysql", "postgresql"])
def test_an_unknown_host_is_told(backend: str, tmp_path: Path) -> None:
    refused = pytest.raises((ConfigurationError, DatabaseUnavailable), match=r"no-such-host\.invalid:\d+ as user ann")
    with configured(host="no-such-host.invalid", user="ann", password="hunter2", backend=backend), refused:
        connect(create_project(tmp_path))


def test_a_postgresql_is_not_asked_in_mysql(tmp_path: Path) -> None:
    try:
        listener = socket.create_server(("127.0.0.1", 5432))  # silent, as PostgreSQL is until its client speaks
    except OSError:
        pytest.skip("port 5432 is taken")
    refused = pytest.raises(ConfigurationError, match=r"not a MySQL.*Set DJ_BACKEND=postgresql")
    with listener, configured(host="127.0.0.1", port=5432, user="ann", backend="mysql"), refused:
        connect(create_project(tmp_path))


def test_a_server_that_hangs_up_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(2):  # DataJoint tries with and without TLS
                listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        port = listener.getsockname()[1]
        refused = pytest.raises(DatabaseUnavailable, match="Check that a MySQL server runs there")
        with configured(host="127.0.0.1", port=port, user="ann", backend="mysql"), refused:
            connect(create_project(tmp_path))
