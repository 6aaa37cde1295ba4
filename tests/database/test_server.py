"""Which server is meant: the embedded PostgreSQL unless something names a host or a user, by any of DataJoint's ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synicix_core.database import ServerAddress, configured_server
from synicix_core.database.server import datajoint_config, datajoint_settings
from synicix_core.errors import ConfigurationError
from tests.database.conftest import configured


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_nothing_named_means_the_embedded_one() -> None:
    assert configured_server() is None


@pytest.mark.parametrize(
    "variables", [{"DJ_PASS": "x"}, {"DJ_BACKEND": "postgresql"}, {"DJ_PORT": "5433"}, {"DJ_HOST": ""}]
)
def test_what_names_no_server_is_no_server(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert configured_server() is None


def test_variables_name_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_HOST", "db.lab")
    monkeypatch.setenv("DJ_USER", "ann")
    monkeypatch.setenv("DJ_PASS", "secret")
    found = configured_server()
    assert found == ServerAddress("mysql", "db.lab", 3306, "ann", has_password=True)
    assert str(found) == "MySQL at db.lab:3306 as user ann"
    assert "secret" not in repr(found)


def test_a_user_alone_names_a_server_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_USER", "ann")
    assert configured_server() == ServerAddress("mysql", "localhost", 3306, "ann", has_password=False)


def test_a_file_above_the_working_directory_names_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "datajoint.json", {"database": {"host": "db.lab", "user": "ann", "backend": "postgresql"}})
    (tmp_path / ".secrets").mkdir()
    (tmp_path / ".secrets" / "database.password").write_text("secret\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    # DataJoint itself would try MySQL's port here.
    assert configured_server() == ServerAddress("postgresql", "db.lab", 5432, "ann", has_password=True)


def test_a_file_in_the_project_counts_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    write(project / "datajoint.json", {"database.host": "db.lab:3310", "database.user": "ann"})
    (project / ".secrets").mkdir()
    (project / ".secrets" / "database.password").write_text("secret")
    monkeypatch.chdir(elsewhere)
    assert configured_server() is None
    assert configured_server(project) == ServerAddress("mysql", "db.lab", 3310, "ann", has_password=True)


def test_mounted_secrets_name_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "database.user").write_text("ann\n")
    (tmp_path / "database.password").write_text("secret\n")
    monkeypatch.setattr(datajoint_settings, "SYSTEM_SECRETS_DIR", tmp_path)
    monkeypatch.setenv("DJ_HOST", "db.lab")
    assert configured_server() == ServerAddress("mysql", "db.lab", 3306, "ann", has_password=True)


def test_code_names_a_server() -> None:
    with configured(host="db.lab", user="ann", port=3307):
        assert configured_server() == ServerAddress("mysql", "db.lab", 3307, "ann", has_password=False)
    assert configured_server() is None


def test_a_host_needs_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_HOST", "db.lab")
    with pytest.raises(ConfigurationError, match=r"without a user \(host db\.lab\)\. Set DJ_USER"):
        configured_server()


def test_an_ipv6_address_is_refused_with_the_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_HOST", "::1")
    monkeypatch.setenv("DJ_USER", "ann")
    with pytest.raises(ConfigurationError, match="Give an IPv6 address a host name"):
        configured_server()


@pytest.mark.parametrize("text", ['{"database": {"host": "db.lab",}}', '{"database": {"backend": "postgres"}}'])
def test_a_broken_file_is_an_error_and_no_other_database(tmp_path: Path, text: str) -> None:
    path = tmp_path / "datajoint.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"DataJoint's configuration is wrong \({path}\)"):
        configured_server()


def test_a_wrong_value_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    write(tmp_path / "datajoint.json", {"database": {"password": ["hunter2"]}})
    with pytest.raises(ConfigurationError) as caught:
        configured_server()
    assert "hunter2" not in str(caught.value)


def test_a_wrong_variable_is_an_error_also_when_datajoint_reads_it_first() -> None:
    code = "from synicix_core.errors import SynicixError\ntry:\n from synicix_core.database import configured_server\n"
    code += " configured_server()\nexcept SynicixError as error:\n print(type(error).__name__, error)"
    environment = {**os.environ, "DJ_PORT": "many", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("ConfigurationError DataJoint's configuration is wrong (a DJ_* environment variable)")
    assert done.stderr == ""


def test_stores_set_in_code_are_kept_and_the_copy_is_the_connection_s_own(tmp_path: Path) -> None:
    shared = datajoint_settings.config
    shared["stores"] = {"raw": {"protocol": "file", "location": str(tmp_path)}}  # as old scripts spell it
    try:
        copy = datajoint_config()
        assert copy.stores["raw"]["location"] == str(tmp_path)
        copy.stores["raw"]["location"] = "elsewhere"
        copy.stores["new"] = {}
        assert shared.stores == {"raw": {"protocol": "file", "location": str(tmp_path)}}
    finally:
        shared["stores"] = {}


def test_importing_datajoint_through_us_prints_nothing(tmp_path: Path) -> None:
    write(tmp_path / "datajoint.json", {"database": {"host": "db.lab", "user": "ann"}})
    code = "from synicix_core.database import configured_server; configured_server()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for folder in (tmp_path, tmp_path.parent):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
