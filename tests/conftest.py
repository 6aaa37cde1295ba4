"""One database server for the whole run, and a fresh project with a schema of its own for each test that asks."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOY_LAB = str(Path(__file__).parent / "toy_lab")
sys.path.insert(0, TOY_LAB)

_OURS = ("SYNICIX_TEST_", "SYNICIX_CACHE")
_FOREIGN = [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_")) and not name.startswith(_OURS)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mysql", action="store_true", help="run the database tests on the MySQL that SYNICIX_TEST_MYSQL names"
    )


def pytest_configure() -> None:
    # The server and the project of whoever runs the tests stay out of them.
    for name in _FOREIGN:
        del os.environ[name]


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("--mysql"):
        return "database: MySQL at " + os.environ.get("SYNICIX_TEST_MYSQL", "?").rsplit(":", 2)[0]
    return "database: embedded PostgreSQL; tests on MySQL are skipped (they run with --mysql and SYNICIX_TEST_MYSQL)"


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The DJ_* variables of a running server: the embedded PostgreSQL, or MySQL with ``--mysql``."""
    if request.config.getoption("--mysql"):
        host, port, user, password = os.environ["SYNICIX_TEST_MYSQL"].split(":")
        yield {"DJ_HOST": host, "DJ_PORT": port, "DJ_USER": user, "DJ_PASS": password, "DJ_BACKEND": "mysql"}
        return
    from synicix_core.database import embedded
    from synicix_core.settings import create_project

    # Not below pytest's own directory, which it closes to others again whenever a second pytest starts.
    folder = create_project(tempfile.mkdtemp(prefix="synicix-tests-")).project_dir
    host = embedded.start(folder)
    yield {"DJ_HOST": host, "DJ_USER": "postgres", "DJ_PASS": "", "DJ_BACKEND": "postgresql"}
    embedded.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture
def project(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh project on the server, with a schema of its own, as working directory; the toy lab's plugin is at hand."""
    from synicix_core.settings import create_project

    schema = f"test_{uuid.uuid4().hex[:12]}"
    variables = {**server, "SYNICIX_SCHEMA_NAME": schema, "DJ_IGNORE_CONFIG_FILE": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([TOY_LAB, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    folder = tmp_path / "project"
    settings = create_project(folder)
    monkeypatch.chdir(folder)
    yield folder
    _drop(settings, schema)


@pytest.fixture
def pipeline(project: Path) -> Iterator[Any]:
    """A pipeline on that project, with one dataset file."""
    from synicix_core import Pipeline

    (project / "datasets" / "line.txt").write_text("2.0")
    made = Pipeline(declare=True)
    yield made
    made.connection.close()


def _drop(settings: Any, schema: str) -> None:
    from synicix_core.database import connect, execute

    connection = connect(settings)
    postgres = connection.adapter.backend == "postgresql"
    execute(
        connection, f'DROP SCHEMA IF EXISTS "{schema}" CASCADE' if postgres else f"DROP DATABASE IF EXISTS `{schema}`"
    )
    connection.close()
