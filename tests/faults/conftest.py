"""Labs for the fault tests: one for each test, or one with a worker that stays for a whole module."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synicix_core import Pipeline
from synicix_core.settings import create_project
from tests.conftest import TOY_LAB, _drop
from tests.faults.lab import Lab
from tests.faults.wire import Wire


@pytest.fixture
def lab(pipeline: Any, tmp_path: Path) -> Iterator[Lab]:
    """A lab without workers."""
    made = Lab(pipeline, tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire(server: dict[str, str]) -> Iterator[Wire]:
    """A wire to the server; a worker is on it that is started with ``**wire.variables``."""
    made = Wire(server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def standing_lab(server: dict[str, str], wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        schema = f"test_{uuid.uuid4().hex[:12]}"
        for name, value in {**server, "SYNICIX_SCHEMA_NAME": schema, "DJ_IGNORE_CONFIG_FILE": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([TOY_LAB, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
        folder = tmp_path_factory.mktemp("standing")
        settings = create_project(folder / "project")
        patch.chdir(settings.project_dir)
        pipeline = Pipeline(declare=True)
        made = Lab(pipeline, folder / "lab")
        yield made
        made.close()
        pipeline.connection.close()
        _drop(settings, schema)


@pytest.fixture
def standing(standing_lab: Lab, wire: Wire) -> Lab:
    """That lab, with a worker on the wire that waits for tasks and survives whatever the tests do to it.

    Its observer of epochs raises, in every task.
    """
    if not any(worker.alive for worker in standing_lab.workers):
        standing_lab.start(
            "--wait",
            TOY_LAB_RAISE="1",
            SYNICIX_WORKER_LEASE_SECONDS="4",
            SYNICIX_WORKER_STALL_TIMEOUT_SECONDS="20",
            SYNICIX_WORKER_MAX_ATTEMPTS="10",
            **wire.variables,
        )
    return standing_lab


@pytest.fixture
def mark() -> int:
    """A number that no other task of this run has."""
    return next(_MARKS)


_MARKS = itertools.count(1)
