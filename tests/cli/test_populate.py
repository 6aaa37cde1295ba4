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
from synicix_core.cli.fleet import plan_workers, too_many_threads, worker_command
from synicix_core.cli.populate import populate
from synicix_core.cli.project import Place
from synicix_core.runner.options import WorkerSummary
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
        (["--workers", "2", "--project", "/"], "There is no Synicix project here"),
        (["--workers", "2", "--lease", "1"], "lease_seconds"),
        (["--devices", "cpu,cuda:0", "--device", "cpu"], "--device and --devices exclude each other"),
        (["--devices", "cpu,cuda:0", "--workers", "3"], "asks for 2 workers: leave --workers out."),
        (["--devices", "cpu,cuda:0", "--workers", "6"], "Or use --workers-per-device 3."),
        (["--devices", "cuda:0,cuda:0"], "--devices names cuda:0 twice"),
        (["--devices", "cpu,tpu"], "names no device 'tpu'"),
        (["--workers", "2", "--workers-per-device", "3"], "--workers 2 contradicts --workers-per-device"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--checkpoint-epochs", "-1"], "Invalid value for '--checkpoint-epochs'"),
        (["--max-cache-bytes", "-1"], "Invalid value for '--max-cache-bytes'"),
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


def on_a_terminal(*arguments: str) -> tuple[int, bytes]:
    """Run `populate` on a terminal of its own; return its exit code and what the terminal was sent."""
    worker, terminal = pty.fork()
    if worker == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [*POPULATE, *arguments])
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
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), shown


def test_a_terminal_gets_the_live_display(pipeline, project):
    insert_tasks(pipeline)
    code, shown = on_a_terminal()
    assert code == 0
    assert b"epoch 0/2" in shown and b"0 done, 0 failed, 1 pending" in shown and b"\x1b[3A\r\x1b[J" in shown
    assert b"\x1b" not in shown.rpartition(b"1 task trained")[2]


def test_several_workers_have_one_display_on_a_terminal(pipeline, project):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(4)])
    code, shown = on_a_terminal("--device", "cpu", "--workers", "2")
    assert code == 0, shown
    text = shown.decode()
    assert re.search(r"\[[12]\] \w{8}: Line on line.txt +\[\.+\] epoch 0/2", text)
    assert "\x1b[3A\r\x1b[J" in text and re.search(r"3 done, 0 failed, [1-3] pending, .* tasks a ", text)
    assert text.count("training runs on cpu (CPU)") == 1
    end = text.rpartition("\x1b[J")[2]
    assert "4 tasks trained in " in end and "by 2 workers: nothing is pending." in end


@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        ([], []),
        (["--workers", "2"], [("1", "auto"), ("2", "auto")]),
        (["--workers-per-device", "2", "--device", "cuda:3"], [("1", "cuda:3"), ("2", "cuda:3")]),
        (["--devices", "cuda:0, cuda:1"], [("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]),
        (
            ["--devices", "cuda:0,cpu", "--workers-per-device", "2", "--workers", "4"],
            [("cuda:0 #1", "cuda:0"), ("cuda:0 #2", "cuda:0"), ("cpu #1", "cpu"), ("cpu #2", "cpu")],
        ),
    ],
)
def test_the_flags_say_which_workers_there_are(flags, workers):
    values = populate.make_context("populate", list(flags)).params
    given = "--device" in flags
    planned = plan_workers(
        *(values[name] for name in ("workers", "devices", "workers_per_device", "device")), device_given=given
    )
    assert list(planned) == workers


def test_a_worker_gets_the_flags_that_its_fleet_was_given():
    place = Place()
    flags = [
        "--workers",
        "3",
        "--where",
        "seed<1",
        "--where",
        "--x",
        "--wait",
        "--max-tasks",
        "5",
        "--max-seconds",
        "9",
    ]
    flags += [
        "--lease",
        "60",
        "--dataset-dir",
        "/data",
        "--project",
        "/lab",
        "-v",
        "--schema",
        "s",
        "--json",
        "--device",
        "cpu",
    ]
    ctx = populate.make_context("populate", flags, obj=place)
    command = worker_command(ctx, place)
    assert command[:4] == (sys.executable, "-m", "synicix_core.cli", "populate")
    assert set(command[4:]) == {
        "--where=seed<1", "--where=--x", "--wait", "--max-tasks=5", "--lease=60.0", "--dataset-dir=/data",
        "--project=/lab", "--schema=s", "--verbose",
    }  # fmt: skip
    again = Place()
    assert populate.make_context("populate", list(command[4:]), obj=again).params["conditions"] == ("seed<1", "--x")
    assert again == place


def test_workers_that_compete_for_cores_are_told_of(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    four = tuple((str(number), "cpu") for number in range(4))
    assert too_many_threads(four, threads=1, loaders=0) == ""
    assert "4 workers may keep 8 CPU cores busy, and this machine has 4" in too_many_threads(four, threads=2, loaders=0)
    assert "8 CPU cores" in too_many_threads(four, threads=1, loaders=1)
    assert "16 CPU cores" in too_many_threads(four, threads=0, loaders=0)
    assert too_many_threads(four[:1], threads=0, loaders=4) == ""
    assert too_many_threads((("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")), threads=8, loaders=0) == ""


def test_flags_of_checkpoints_and_of_the_cache_are_settings(pipeline, run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "synicix_core.pipeline.Pipeline.run_worker",
        lambda self, options, _: seen.append((self.settings, options)) or WorkerSummary(reason="ok"),
    )
    run("populate", "--checkpoint-seconds", "7", "--checkpoint-epochs", "3", "--max-cache-bytes", "41", "--wait")
    ((settings, options),) = seen
    assert (settings.worker.checkpoint_seconds, settings.worker.checkpoint_epochs) == (7.0, 3)
    assert settings.max_cache_bytes == 41 and options.wait and options.owns_process


@pytest.mark.parametrize("flag", ["--resident-share", "--grace", "--lease"])
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_number_that_is_none_is_a_mistake_of_its_flag(flag, number):
    done = subprocess.run([*POPULATE, flag, number], capture_output=True, text=True)
    assert done.returncode == 78 and f"Invalid value for '{flag}'" in done.stderr, done.stderr
