"""Projects with pending tasks, and launching in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from synicix_launch import launching
from synicix_launch.database import Database
from synicix_launch.pending import Pending

from synicix_core.cli.main import cli
from synicix_core.settings import create_project
from tests.rows import insert_tasks
from tests.synicix_launch.stand_in import StandIn

Launch = Callable[..., Result]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, as working directory, of which it is said that three tasks of the toy lab are pending on a server.

    What is made of that needs no database; tests/synicix_launch/test_launch_command.py asks a real one.
    """
    folder = create_project(tmp_path / "lab").project_dir
    monkeypatch.chdir(folder)
    monkeypatch.setattr(launching.Place, "pipeline", lambda _: None)
    monkeypatch.setattr(launching, "look", lambda _: Pending(3, 0, {"toy-lab": "1.0"}))
    use_database(monkeypatch, embedded=False, host="db.example.org", port=5432)
    return folder


def use_database(monkeypatch: pytest.MonkeyPatch, **columns: Any) -> None:
    """Let the project's database be this one."""
    monkeypatch.setattr(launching, "find_database", lambda _: Database(**columns))


@pytest.fixture
def tasks(pipeline: Any) -> list[str]:
    """Three tasks of the toy lab that are pending in a real database."""
    return insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])


@pytest.fixture
def launch() -> Launch:
    """``launch("slurm", "--submit", code=0)`` runs a launcher and asserts its exit code."""

    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["launch", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StandIn]:
    """``stand_in("kubectl")`` puts a program of that name onto PATH that writes down its calls."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    return lambda name: StandIn(name, folder).install(monkeypatch)


def add_settings(project: Path, text: str) -> None:
    """Append to the project's ``synicix.toml``, whose last table is ``[worker]``."""
    path = project / "synicix.toml"
    path.write_text(path.read_text() + "\n" + text)
