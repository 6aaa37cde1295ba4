"""Servers for the tests of the database layer; they start and kill their own, so they do not share the suite's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from synicix_core.database import connect, embedded
from synicix_core.database.server import datajoint_settings
from synicix_core.settings import Settings, create_project


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user gets to; each start of pytest closes all of its own (tmp_path) again."""
    path = Path(tempfile.mkdtemp(prefix="synicix-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def project(place: Path) -> Iterator[Path]:
    """A fresh project whose PostgreSQL, if the test starts it, is stopped at the end."""
    path = create_project(place / "project").project_dir
    yield path
    embedded.stop(path)


@pytest.fixture(scope="module")
def running_project() -> Iterator[Path]:
    """A project whose PostgreSQL runs while the module's tests do."""
    path = Path(tempfile.mkdtemp(prefix="synicix-test-"))
    create_project(path)
    embedded.start(path)
    yield path
    embedded.stop(path)
    shutil.rmtree(path)


@pytest.fixture(params=["postgresql", "mysql"])
def any_settings(request: pytest.FixtureRequest, running_project: Path) -> Iterator[Settings]:
    """Settings with which `connect` reaches the embedded PostgreSQL and, with --mysql, a real MySQL."""
    settings = create_project(running_project)
    if request.param == "postgresql":
        yield settings
        return
    if not request.config.getoption("--mysql", default=False):
        pytest.skip("needs --mysql")
    host, port, user, password = os.environ["SYNICIX_TEST_MYSQL"].split(":")
    with configured(host=host, port=int(port), user=user, password=password, backend="mysql"):
        yield settings


@pytest.fixture
def any_connection(any_settings: Settings) -> Iterator[Any]:
    connection = connect(any_settings)
    yield connection
    connection.close()


@contextmanager
def configured(**values: Any) -> Iterator[None]:
    """Configure a server as ``dj.config["database.host"] = ...`` does, and undo it as if it had never been."""
    database = datajoint_settings.config.database
    before, fields_set = database.model_dump(), set(database.model_fields_set)
    try:
        for name, value in values.items():
            setattr(database, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(database, name, value)
        database.model_fields_set.clear()
        database.model_fields_set.update(fields_set)


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the server of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_")) and name != "SYNICIX_TEST_MYSQL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
