"""`populate` with a real worker, and the exit codes on which schedulers act."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from synicix_core import Pipeline
from synicix_core.settings import create_project
from tests.cli.conftest import as_program, fail, finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

POPULATE = [sys.executable, "-m", "synicix_core.cli", "populate"]
SLEEPS = {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "sleep", "seconds": 60.0}}
FAILS = {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "raise"}}


def states(pipeline: Pipeline) -> set[str]:
    return {str(state) for state in pipeline.TrainingAttempt().to_arrays("state")}


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_sweep_is_trained_shown_and_loaded(pipeline, project, run, run_json):
    insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}, FAILS])
    done = as_program("populate", "--where", "seed<1", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["success_count"], summary["exit_code"]) == (1, 0) and summary["seconds"] > 0
    (error,) = summary["error_list"]
    assert (
        error["error"].startswith("ValueError: the toy trainer failed") and len(error["training_task_md5_hash"]) == 32
    )
    assert "pending" in done.stderr and "score" in done.stderr and "\x1b" not in done.stderr

    done = as_program("populate", "--max-tasks", "1")
    assert done.returncode == 0
    assert re.fullmatch(r"1 task trained in .*: as many tasks as asked for are done\.\n", done.stdout)
    assert run_json("status")["states"]["finished"] == 2

    task = run_json("results")["listings"][0]["results"][0]["task"]
    assert "train" in run("show", task).stdout
    loaded = run_json("load", task, "-o", "copy.pt")
    assert loaded["parameters"] == 4 and loaded["model"] == "toy-lab/Line" and "Linear" in loaded["architecture"]
    assert (project / "copy.pt").read_bytes() == (project / "models" / f"{task}.1.pt").read_bytes()
    assert "To replace it, add --force." in run("load", task, "-o", "copy.pt", code=2).stderr
    text = run("load", task, "-o", "copy.pt", "--force").stdout
    snippet = text.partition("In Python:\n")[2]
    names: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in snippet.splitlines()), names)
    assert str(names["model"]) == loaded["architecture"]


def test_nothing_pending_is_0(pipeline, run):
    assert run("populate").stdout.startswith("0 tasks trained in ")
    done, failed = insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])
    finish(pipeline, {done: 0.5})
    fail(pipeline, failed, "ValueError: bad")
    assert "nothing is pending." in run("populate").stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--orders", "random"], "No such option"),
        (["--order", "backwards"], "Invalid value for '--order'"),
        (["--where", "colour=red"], "the condition 'colour=red'"),
        (["--where", "score>0.5"], "tasks cannot be chosen by 'score'"),
        (["--lease", "1"], "lease_seconds"),
        (["--project", "/"], "There is no Synicix project here"),
    ],
)
def test_a_broken_configuration_is_78(pipeline, run, arguments, text):
    insert_tasks(pipeline)
    result = run("populate", *arguments, code=78)
    assert text in result.stderr and result.stdout == ""
    assert states(pipeline) == set()


def test_a_schema_without_tables_is_78(project, run):
    assert "synicix-run init" in run("populate", code=78).stderr


def test_work_that_cannot_run_here_is_78_and_says_why(pipeline, project):
    insert_tasks(pipeline)
    done = as_program("populate", env={**os.environ, "SYNICIX_DISABLE_PLUGINS": "toy-lab"})
    assert done.returncode == 78
    assert "toy-lab is switched off" in done.stderr


@pytest.fixture
def server_away(tmp_path, monkeypatch):
    """A project whose server does not answer."""
    create_project(tmp_path)
    variables = {"DJ_HOST": "127.0.0.1", "DJ_PORT": "1", "DJ_USER": "nobody", "DJ_BACKEND": "postgresql"}
    for name, value in {**variables, "DJ_IGNORE_CONFIG_FILE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def test_a_database_that_is_away_is_75_after_a_while(server_away, run):
    text = run("populate", "--db-timeout", "1.5", code=75).stderr
    assert "It is tried again for 1.5 s" in text and "Error: The database cannot be reached" in text


def test_sigterm_releases_the_task_and_is_75(pipeline, project):
    insert_tasks(pipeline, trainings=[SLEEPS])
    worker = subprocess.Popen([*POPULATE, "--grace", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: states(pipeline) == {"running"})
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 75, err
    assert states(pipeline) == {"released"} and "released: it is pending again" in err
    assert "interrupted by a signal." in out


def test_sigterm_while_it_starts_is_75(server_away):
    worker = subprocess.Popen(POPULATE, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    assert "It is tried again" in worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 75
    assert "Interrupted before the first task." in worker.stderr.read()
    worker.stderr.close()


def test_a_terminal_gets_the_live_display(pipeline, project):
    insert_tasks(pipeline)
    worker, terminal = pty.fork()
    if worker == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, POPULATE)
    shown = b""
    while True:
        assert select.select([terminal], [], [], 120)[0]
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
    os.close(terminal)
    assert b"epoch 0/2" in shown and b"0 done, 0 failed, 1 pending" in shown and b"\x1b[3A\r\x1b[J" in shown
    assert b"\x1b" not in shown.rpartition(b"1 task trained")[2]
