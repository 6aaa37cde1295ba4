"""The database is restarted, or away for longer than the lease."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synicix_core import Pipeline
from synicix_core.database import embedded, ensure_connected, execute
from synicix_core.errors import DatabaseUnavailable
from synicix_core.settings import create_project
from tests.conftest import TOY_LAB
from tests.faults.lab import STEPS, Lab
from tests.faults.wire import Wire

SHORT_LEASE = {"SYNICIX_WORKER_LEASE_SECONDS": "3"}


@pytest.mark.database
def test_a_worker_that_was_cut_off_finds_out_that_its_task_was_finished_by_another(lab: Lab, wire: Wire) -> None:
    (task,) = lab.insert()
    cut_off = lab.start(**SHORT_LEASE, **wire.variables)
    lab.wait_for_steps(STEPS)
    with wire.away():
        lab.wait_until(lambda: "It is tried again" in cut_off.said or "Training goes on meanwhile" in cut_off.said)
        # Other machines cannot look at its process; here it would be found to be there, which it is.
        assert lab.start("--wait", "--max-tasks", "1", **SHORT_LEASE).end() == 0
    lab.check_states(task, ["lost", "finished"])
    assert cut_off.end() == 0
    lab.check_states(task, ["lost", "finished"])
    assert "taken for lost" in cut_off.said
    lab.check([task])


@pytest.fixture
def own_server_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab on the PostgreSQL inside its project, which no other test uses."""
    # Not below pytest's own directory, which it closes to others again whenever a second pytest starts.
    folder = Path(tempfile.mkdtemp(prefix="synicix-tests-"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([TOY_LAB, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.setenv("DJ_IGNORE_CONFIG_FILE", "1")
    project = create_project(folder / "project").project_dir
    monkeypatch.chdir(project)
    pipeline = Pipeline()
    made = Lab(pipeline, tmp_path / "lab")
    yield made
    made.close()
    pipeline.connection.close()
    embedded.stop(project)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(folder)


def test_a_database_that_is_killed_and_started_again_costs_nothing(own_server_lab: Lab) -> None:
    lab = own_server_lab
    project = lab.pipeline.settings.project_dir
    tasks = lab.insert(0, 1)
    worker = lab.start()
    for _ in range(2):
        lab.wait_for_steps(2 * STEPS)
        server = embedded.status(project).pid
        assert server is not None
        os.kill(server, signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
        time.sleep(0.5)
        embedded.start(project)
    assert worker.end() == 0
    lab.pipeline.connection.close()
    lab.pipeline = Pipeline()
    for task in tasks:
        lab.check_states(task, ["finished"])
    lab.check(tasks)


def test_a_crash_of_the_server_is_known_for_a_lost_connection(own_server_lab: Lab) -> None:
    """psycopg2 then raises an error without a code, and believes that the connection is open."""
    pipeline = own_server_lab.pipeline
    project = pipeline.settings.project_dir
    server = embedded.status(project).pid
    assert server is not None
    os.kill(server, signal.SIGQUIT)
    own_server_lab.wait_until(lambda: not embedded.status(project).running)
    with pytest.raises(DatabaseUnavailable, match="lost"):
        execute(pipeline.connection, "SELECT 1")
    ensure_connected(pipeline.connection)
    assert execute(pipeline.connection, "SELECT 1").fetchone() == (1,)
