"""Several workers on one machine, as real processes: they share the work, are started again, and stop together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synicix_core.runner.display import Silent
from synicix_core.runner.fleet import Fleet, FleetOptions
from synicix_core.runner.fleet_outcome import WorkerEnd, conclude
from tests.rows import insert_tasks

POPULATE = [sys.executable, "-m", "synicix_core.cli", "populate", "--device", "cpu"]
LONG = {"epoch_limit": 10**6}


def populate(*arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*POPULATE, *arguments], capture_output=True, text=True, timeout=timeout)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*POPULATE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(condition, timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Return the processes that a process started, without those that only wait to be looked at."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if folder.name.isdigit() and int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def attempts(pipeline, state: str) -> list[dict]:
    return (pipeline.TrainingAttempt & {"state": state}).to_dicts()


def sleeps(seconds: float, seed: int = 0) -> dict:
    return {
        "trainer_provider": "Misbehaving",
        "trainer_class_params": {"how": "sleep", "seconds": float(seconds)},
        "seed": seed,
    }


def training(pipeline, workers: int) -> bool:
    """Tell whether so many workers train by now."""
    rows = attempts(pipeline, "running")
    return len({row["pid"] for row in rows}) == workers


@pytest.mark.database
def test_three_workers_train_every_task_once(pipeline):
    tasks = insert_tasks(pipeline, trainings=[sleeps(0.5, seed) for seed in range(11)] + [{"seed": 5}])
    ended = populate("--workers", "3", "--json")
    assert ended.returncode == 0, ended.stderr
    assert {row["training_task_md5_hash"] for row in pipeline.TrainingResult().to_dicts()} == set(tasks)
    rows = pipeline.TrainingAttempt().to_dicts()
    assert len(rows) == 12 and {row["state"] for row in rows} == {"finished"}
    assert len({row["pid"] for row in rows}) == 3

    summary = json.loads(ended.stdout)
    assert (summary["success_count"], summary["error_list"], summary["exit_code"]) == (12, [], 0)
    assert summary["reason"] == "nothing is pending" and summary["seconds"] > 0
    assert [worker["worker"] for worker in summary["workers"]] == ["1", "2", "3"]
    assert sum(worker["success_count"] for worker in summary["workers"]) == 12
    assert {(worker["device"], worker["exit_code"], worker["restarts"]) for worker in summary["workers"]} == {
        ("cpu", 0, 0)
    }
    lines = ended.stderr.splitlines()
    assert len([line for line in lines if re.fullmatch(r"\[[123]\] \w{8}: completed .*", line)]) == 12
    # What all of them say, and what is about none of them, stands there once.
    assert lines.count("training runs on cpu (CPU)") == 1
    assert len([line for line in lines if "CPU cores" in line]) == (len(os.sched_getaffinity(0)) < 3)
    assert "\x1b" not in ended.stderr


@pytest.mark.database
def test_errors_of_all_workers_are_told_together(pipeline):
    fails = {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "raise"}}
    insert_tasks(pipeline, trainings=[{**fails, "seed": seed} for seed in range(4)] + [{"seed": 9}])
    ended = populate("--workers-per-device", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["success_count"] == 1 and len(summary["error_list"]) == 4
    assert all(error["error"].startswith("ValueError: the toy trainer failed") for error in summary["error_list"])
    assert sum(worker["error_count"] for worker in summary["workers"]) == 4


@pytest.mark.database
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_all_workers_give_their_tasks_back(pipeline, number):
    insert_tasks(pipeline, trainings=[{**LONG, "seed": seed} for seed in range(3)])
    fleet = start("--workers", "3")
    wait_until(lambda: training(pipeline, 3))
    workers = children(fleet.pid)
    fleet.send_signal(number)
    out, err = fleet.communicate(timeout=60)
    assert fleet.returncode == 75, err
    assert len(attempts(pipeline, "released")) == 3
    assert len(pipeline.TrainingResult.jobs.pending) == 3
    assert "by 3 workers: interrupted by a signal." in out
    assert not any(map(is_running, workers))


@pytest.mark.database
def test_a_scheduler_that_signals_every_process_means_it_once(pipeline):
    insert_tasks(pipeline, trainings=[{**LONG, "seed": seed} for seed in range(2)])
    fleet = start("--workers", "2")
    wait_until(lambda: training(pipeline, 2))
    workers = children(fleet.pid)
    for pid in [*workers, fleet.pid, *workers]:
        os.kill(pid, signal.SIGTERM)
    _, err = fleet.communicate(timeout=60)
    assert fleet.returncode == 75, err
    assert len(attempts(pipeline, "released")) == 2


@pytest.mark.database
def test_a_second_signal_ends_everybody_at_once(pipeline):
    insert_tasks(pipeline, trainings=[sleeps(600, seed) for seed in range(2)])
    fleet = start("--workers", "2")
    wait_until(lambda: training(pipeline, 2))
    workers = children(fleet.pid)
    executors = [pid for worker in workers for pid in children(worker)]
    assert len(executors) == 2
    fleet.send_signal(signal.SIGINT)
    time.sleep(1)
    assert all(map(is_running, executors))  # they sleep in the middle of a step
    fleet.send_signal(signal.SIGINT)
    fleet.communicate(timeout=20)
    assert fleet.returncode == 130
    wait_until(lambda: not any(map(is_running, [*workers, *executors])), 10)


@pytest.mark.database
def test_workers_that_lose_their_fleet_give_their_tasks_back(pipeline):
    insert_tasks(pipeline, trainings=[{**LONG, "seed": seed} for seed in range(2)])
    fleet = start("--workers", "2")
    wait_until(lambda: training(pipeline, 2))
    workers = children(fleet.pid)
    fleet.kill()
    wait_until(lambda: not any(map(is_running, workers)), 40)
    assert len(attempts(pipeline, "released")) == 2
    assert len(pipeline.TrainingResult.jobs.pending) == 2
    fleet.communicate()


@pytest.mark.database
def test_a_worker_that_was_killed_is_started_again_and_its_task_finished(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_LEASE_SECONDS", "3")
    monkeypatch.setenv("SYNICIX_WORKER_HEARTBEAT_SECONDS", "0.5")
    insert_tasks(pipeline, trainings=[sleeps(8, seed) for seed in range(4)])
    fleet = start("--workers", "2", "--max-tasks", "3", "--json")
    wait_until(lambda: training(pipeline, 2))
    victim = children(fleet.pid)[0]
    os.kill(victim, signal.SIGKILL)
    out, err = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, err
    assert "crashed: it was killed by SIGKILL, as the kernel does when memory runs out; started again in 1 s" in err
    # What it was allowed and did not do may be done by another one.
    assert len(pipeline.TrainingResult()) == 3
    assert [row["pid"] for row in attempts(pipeline, "lost")] == [victim]
    summary = json.loads(out)
    assert summary["success_count"] == 3
    assert sorted(worker["restarts"] for worker in summary["workers"]) == [0, 1]


@pytest.mark.database
def test_never_more_tasks_are_done_than_asked_for(pipeline):
    insert_tasks(pipeline, trainings=[sleeps(0.2, seed) for seed in range(9)])
    ended = populate("--workers", "3", "--max-tasks", "7")
    assert ended.returncode == 0, ended.stderr
    assert "7 tasks trained in " in ended.stdout
    assert ended.stdout.endswith("by 3 workers: as many tasks as asked for are done.\n")
    assert (len(pipeline.TrainingAttempt()), len(pipeline.TrainingResult())) == (7, 7)
    # More than there are: a worker that finds nothing does not keep the others from theirs.
    ended = populate("--workers", "2", "--max-tasks", "3")
    assert ended.returncode == 0 and ended.stdout.startswith("2 tasks trained"), ended.stdout + ended.stderr


@pytest.mark.database
def test_the_time_that_is_given_is_that_of_the_fleet(pipeline):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    ended = populate("--workers", "2", "--max-seconds", "0.01")
    assert ended.returncode == 75
    assert ended.stdout.endswith("by 2 workers: the time is up.\n")
    assert len(pipeline.TrainingAttempt()) == 0


@pytest.mark.database
def test_a_device_that_does_not_work_needs_a_person_although_the_others_did_the_work(pipeline):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(2)])
    command = [*POPULATE[:-2], "--devices", "cpu,cuda:7", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 78, ended.stderr
    assert len(pipeline.TrainingResult()) == 2
    summary = json.loads(ended.stdout)
    assert {worker["worker"]: worker["exit_code"] for worker in summary["workers"]} == {"cpu": 0, "cuda:7": 78}
    assert summary["reason"] == "cuda:7: the executor cannot train on this machine"
    assert ended.stderr.count("there is no device 'cuda:7' here") == 1


@pytest.mark.database
def test_what_all_workers_lack_is_said_once_and_is_78(project):
    ended = populate("--workers", "3")
    assert ended.returncode == 78
    assert ended.stderr.count("Run: synicix-run init") == 1


@pytest.mark.database
def test_what_a_worker_prints_carries_its_name_and_a_worker_that_only_crashes_is_given_up(
    pipeline, tmp_path, monkeypatch
):
    insert_tasks(pipeline)
    # Python runs this in every process that starts; only workers have a parent that reads what they report.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif '--report-fds' in sys.argv:\n    print('\\x1b[2Kone\\rtwo'); sys.stdout.flush(); __import__('os')._exit(9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    ended = populate("--workers", "1")
    assert ended.returncode == 1, ended.stderr
    lines = ended.stderr.splitlines()
    assert lines.count("[1] two") == 5
    assert [line for line in lines if "crashed:" in line] == [
        f"[1] crashed: it ended with status 9; started again in {pause} s" for pause in (1, 2, 4, 8)
    ]
    assert "it crashed again and again without finishing a task; the last time it ended with status 9" in ended.stdout


def end(code: int, success: int = 0, *, worker: str = "1", reason: str = "why", machine: bool = False) -> WorkerEnd:
    return WorkerEnd(worker, "cpu", code, reason, success_count=success, machine=machine)


@pytest.mark.parametrize(
    ("ends", "interrupted", "code"),
    [
        ([end(0), end(0)], False, 0),
        ([end(0, 1), end(75)], False, 75),
        ([end(75), end(1)], False, 1),
        ([end(1), end(78, machine=True)], False, 78),
        ([end(0, 3), end(78, machine=True)], False, 78),
        # It found no task for itself, because another one did what could be done here.
        ([end(0, 3), end(78)], False, 0),
        ([end(78), end(78)], False, 78),
        # Interrupted: the fleet has to run again, whatever else there is; what needs a person will still need one.
        ([end(75), end(78, machine=True)], True, 75),
        ([end(75), end(1), end(0)], True, 75),
        ([end(0), end(0)], True, 0),
        ([end(78, machine=True)], True, 78),
    ],
)
def test_the_exit_code_says_whether_a_person_is_needed(ends, interrupted, code):
    assert conclude(ends, interrupted=interrupted)[0] == code


def test_the_reason_names_the_workers_that_it_is_about():
    mixed = [end(0, 1, worker="a"), end(78, worker="b", reason="no GPU.", machine=True)]
    assert conclude(mixed, interrupted=False)[1] == "b: no GPU"
    assert conclude([end(0, reason="done."), end(0, reason="done")], interrupted=False)[1] == "done"
    assert conclude([end(0, worker="a", reason="x"), end(0, worker="b", reason="y")], interrupted=False)[1] == (
        "a: x; b: y"
    )


class Nowhere(Silent):
    def of(self, worker: str) -> Silent:
        return Silent()

    def note(self, worker: str, text: str) -> None:
        """Show nothing."""

    def printed(self, worker: str, line: str) -> None:
        """Show nothing."""


def test_an_attempt_that_is_made_again_is_given_back_once():
    fleet = Fleet(FleetOptions(command=(), workers=(("1", "cpu"),), max_tasks=4), Nowhere())
    (worker,) = fleet._workers
    assert fleet._allow(worker, 4) == 4

    def hear(kind: str, **fields: object) -> None:
        fleet._hear(worker, None, {"type": kind, **fields})

    def ended(how: str) -> None:
        hear("task_ended", task="a", how=how, why="so")

    hear("returned", failed=True)
    ended("failed")  # it is made again
    assert (worker.allowed, fleet._left) == (3, 1)
    ended("released")
    hear("returned", failed=False)
    assert (worker.allowed, fleet._left) == (2, 2)
    ended("failed")  # for good
    assert (worker.allowed, fleet._left) == (1, 2)
