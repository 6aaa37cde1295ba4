"""The worker, as real processes: what it leaves in the database when training ends well, badly or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from synicix_core.database import execute
from synicix_core.runner import process, supervisor
from synicix_core.runner.options import WorkerOptions
from synicix_core.tables.recovery import recover
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

POPULATE = [sys.executable, "-m", "synicix_core.cli", "populate"]


def populate(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*POPULATE, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*POPULATE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def running(pipeline) -> int:
    return len(pipeline.TrainingAttempt & "state = 'running'")


def misbehaving(how: str, seed: int = 0, **params) -> dict:
    return {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": how, **params}, "seed": seed}


def executor_of(worker: subprocess.Popen[str]) -> int:
    command = ["pgrep", "-f", "-P", str(worker.pid), "synicix_core.runner.executor"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_every_pending_task_is_trained_once(pipeline):
    insert_tasks(
        pipeline,
        trainings=[{"seed": seed} for seed in range(3)],
        models=[{}, {"model_class_params": {"penalty": 1e-3}}],
    )
    ended = populate()
    assert ended.returncode == 0, ended.stderr
    rows = pipeline.TrainingResult().to_dicts()
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"completed"}
    for row in rows:
        assert len(row["training_epoch_loss_history"]) == row["epochs"] == 2
        assert row["provenance"]["providers"]
        assert row["test_score"] == row["scores"]["test"]["loss"]
    assert len(pipeline.TrainingResult.jobs) == 0
    assert populate().returncode == 0
    assert len(pipeline.TrainingAttempt()) == 6


def test_the_same_seed_gives_the_same_numbers_whatever_ran_before(pipeline):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    assert populate().returncode == 0
    first = {row["training_task_md5_hash"]: row["model_sha256"] for row in pipeline.TrainingResult().to_dicts()}
    assert len(set(first.values())) == 3
    pipeline.TrainingResult().delete(prompt=False)
    pipeline.queue.enqueue()
    assert populate("--order", "random").returncode == 0
    assert {row["training_task_md5_hash"]: row["model_sha256"] for row in pipeline.TrainingResult().to_dicts()} == first
    assert set(first) == set(tasks)


def test_an_error_in_the_users_code_is_recorded_and_stops_nobody(pipeline):
    insert_tasks(pipeline, trainings=[misbehaving("raise"), misbehaving("exit"), misbehaving("unsaved"), {"seed": 1}])
    ended = populate()
    assert ended.returncode == 0, ended.stderr
    assert len(pipeline.TrainingResult()) == 1
    errors = pipeline.TrainingResult.jobs.errors.to_dicts()
    messages = " ".join(error["error_message"] for error in errors)
    assert "ValueError: the toy trainer failed \\0 as asked" in messages
    assert "SystemExit: 3" in messages
    assert "left no usable model" in messages
    assert any("parts.py" in (error["error_stack"] or "") for error in errors)
    assert {row["state"] for row in pipeline.TrainingAttempt().to_dicts()} == {"failed", "finished"}
    assert populate().returncode == 0
    assert len(pipeline.TrainingAttempt()) == 4


def test_an_executor_that_dies_is_replaced_and_its_task_tried_again(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_RETRY_SECONDS", "0.2")
    monkeypatch.setenv("SYNICIX_WORKER_MAX_ATTEMPTS", "2")
    (task, _) = insert_tasks(pipeline, trainings=[misbehaving("die"), {"seed": 1}])
    ended = populate()
    assert ended.returncode == 0, ended.stderr
    assert len(pipeline.TrainingResult()) == 1
    (error,) = pipeline.TrainingResult.jobs.errors.to_dicts()
    assert "SIGKILL" in error["error_message"]
    assert len(pipeline.TrainingAttempt & {"training_task_md5_hash": error["training_task_md5_hash"]}) == 2
    assert task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_releases_the_task_and_exits_75(pipeline, number):
    insert_tasks(pipeline, trainings=[{"epoch_limit": 10**6, "trainer_class_params": {"nan_policy": "stop"}}])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    time.sleep(1.0)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 75, err
    attempt = pipeline.TrainingAttempt.fetch1()
    assert (attempt["state"], attempt["error"]) == ("released", None)
    assert attempt["epoch"] is not None, "how far it came is known before any heartbeat"
    assert len(pipeline.TrainingResult.jobs.pending) == 1
    assert len(pipeline.TrainingResult.jobs.errors) == 0
    assert "Traceback" not in out + err


def test_a_trainer_that_does_not_listen_is_ended_after_the_grace_period(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_GRACE_SECONDS", "1")
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=600)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    time.sleep(0.5)
    begun = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 75
    assert time.monotonic() - begun < 10
    assert pipeline.TrainingAttempt.fetch1("state") == "released"


def test_a_second_signal_ends_the_worker_at_once(pipeline):
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=600)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    worker.terminate()
    time.sleep(1.2)
    worker.terminate()
    assert worker.wait(10) == 143


def test_no_executor_outlives_its_supervisor(pipeline):
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=600)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    executor = process.name_of(executor_of(worker))
    assert not process.is_gone(executor)
    worker.kill()
    worker.wait()
    wait_until(lambda: process.is_gone(executor))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_killed_worker_s_task_goes_on(pipeline, monkeypatch, elsewhere):
    """At once where its process can be looked for, and else after the lease."""
    monkeypatch.setenv("SYNICIX_WORKER_LEASE_SECONDS", "2" if elsewhere else "300")
    monkeypatch.setenv("SYNICIX_WORKER_HEARTBEAT_SECONDS", "0.3")
    (task,) = insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=3)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    worker.kill()
    worker.wait()
    if elsewhere:
        attempts = pipeline.TrainingAttempt.full_table_name
        execute(pipeline.connection, f"UPDATE {attempts} SET process = 'another-machine/1/1'")
        time.sleep(2.0)
    ended = populate()
    assert ended.returncode == 0
    assert "no heartbeat for 2 s" in ended.stderr if elsewhere else "its process is gone" in ended.stderr
    states = pipeline.TrainingAttempt.to_dicts(order_by="attempt")
    assert [row["state"] for row in states] == ["lost", "finished"]
    assert (pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1("by_attempt") == 2


def test_a_long_task_keeps_its_claim_by_heartbeats(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_LEASE_SECONDS", "2")
    monkeypatch.setenv("SYNICIX_WORKER_HEARTBEAT_SECONDS", "0.3")
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=5)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    time.sleep(2.5)
    assert len(recover(pipeline.queue, 2, 3)) == 0
    assert worker.wait(60) == 0
    assert len(pipeline.TrainingResult()) == 1


def test_a_worker_whose_claim_was_taken_writes_nothing(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_HEARTBEAT_SECONDS", "60")
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=3)])
    worker = start("--max-tasks", "1")
    wait_until(lambda: running(pipeline) == 1)
    execute(pipeline.connection, f"UPDATE {pipeline.TrainingAttempt.full_table_name} SET heartbeat_at = '2020-01-01'")
    assert len(recover(pipeline.queue, 300, 3)) == 1
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert [row["state"] for row in pipeline.TrainingAttempt.to_dicts(order_by="attempt")] == ["lost", "finished"]
    assert pipeline.TrainingResult.fetch1("by_attempt") == 2


def test_a_hung_executor_is_ended(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_STALL_TIMEOUT_SECONDS", "1.5")
    monkeypatch.setenv("SYNICIX_WORKER_MAX_ATTEMPTS", "1")
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=600)])
    assert populate().returncode == 0
    assert "hung" in pipeline.TrainingResult.jobs.errors.fetch1("error_message")


def test_a_lost_connection_during_training_costs_nothing(pipeline, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_HEARTBEAT_SECONDS", "0.3")
    insert_tasks(pipeline, trainings=[misbehaving("sleep", seconds=4)])
    worker = start()
    wait_until(lambda: running(pipeline) == 1)
    cut_other_connections(pipeline.connection)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert pipeline.TrainingResult.fetch1("by_attempt") == 1


def cut_other_connections(connection) -> None:
    if connection.adapter.backend == "postgresql":
        execute(
            connection,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL",
        )
        return
    own = execute(connection, "SELECT CONNECTION_ID()").fetchone()[0]
    for (number,) in execute(
        connection, "SELECT id FROM information_schema.processlist WHERE user <> 'event_scheduler'"
    ).fetchall():
        if number != own:
            with suppress(pymysql.err.OperationalError):  # it may have ended meanwhile
                execute(connection, f"KILL {number}")


def test_a_changed_dataset_file_is_an_error_that_names_both_digests(pipeline, project):
    insert_tasks(pipeline)
    old = pipeline.DatasetConfig.fetch1("dataset_file_sha256")
    (project / "datasets" / "line.txt").write_text("3.0")
    assert populate().returncode == 0
    message = pipeline.TrainingResult.jobs.errors.fetch1("error_message")
    assert old in message
    assert "has changed" in message


def test_tasks_of_a_missing_plugin_are_left_alone(pipeline, monkeypatch):
    insert_tasks(pipeline, trainings=[{"seed": 1}, misbehaving("well")])
    monkeypatch.setenv("SYNICIX_DISABLE_PLUGINS", "toy-lab")
    ended = populate()
    assert ended.returncode == 78, ended.stderr
    assert "toy-lab" in ended.stderr
    assert len(pipeline.TrainingResult.jobs.pending) == 2
    assert len(pipeline.TrainingAttempt()) == 0
    monkeypatch.delenv("SYNICIX_DISABLE_PLUGINS")
    assert populate().returncode == 0


def test_a_worker_that_waits_trains_what_comes_later_and_leaves_when_asked(pipeline):
    worker = start("--wait")
    time.sleep(3.0)
    assert worker.poll() is None
    insert_tasks(pipeline)
    wait_until(lambda: len(pipeline.TrainingResult()) == 1)
    worker.terminate()
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err


def test_a_worker_that_has_waited_for_long_looks_more_rarely_until_it_has_trained_again(pipeline, monkeypatch):
    waits = []

    def wait(least, most):
        waits.append((least, most))
        if len(waits) == 1:
            monkeypatch.setattr(supervisor, "_SOON_SECONDS", 0.0)
        elif len(waits) == 2:
            monkeypatch.setattr(supervisor, "_SOON_SECONDS", 60.0)
            insert_tasks(pipeline)
        elif len(waits) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.01

    monkeypatch.setattr(supervisor.random, "uniform", wait)
    assert pipeline.run_worker(WorkerOptions(wait=True)).success_count == 1
    assert waits == [(0.5, 2.0), (5.0, 15.0), (0.5, 2.0)]


def test_limits_and_restrictions(pipeline):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(4)])
    assert populate("--max-tasks", "1").returncode == 0
    assert len(pipeline.TrainingResult()) == 1
    left = (pipeline.TrainingTask - pipeline.TrainingResult) * pipeline.TrainingConfig
    seed = min(left.to_arrays("seed"))
    assert populate("--where", f"seed = {seed}").returncode == 0
    assert len(pipeline.TrainingResult()) == 2
    assert populate("--max-seconds", "0.01").returncode == 75


def test_observers_see_every_task_and_a_broken_one_harms_none(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LAB_EVENTS", str(tmp_path / "events"))
    monkeypatch.setenv("TOY_LAB_RAISE", "1")
    insert_tasks(pipeline, trainings=[{"seed": 0}, misbehaving("raise")])
    ended = populate()
    assert ended.returncode == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "events").read_text().splitlines()]
    # The observer of epochs raises at the first one and is then switched off for the rest of the task.
    assert sorted(events) == ["EpochFinished", "TaskFailed", "TaskStarted", "TaskStarted"]
    assert ended.stderr.count("the observer is broken") == 1
    assert len(pipeline.TrainingResult()) == 1


def test_what_cannot_be_written_is_found_before_training(pipeline, project):
    insert_tasks(pipeline)
    (project / "models").rmdir()
    (project / "models").write_text("in the way")
    ended = populate()
    assert ended.returncode == 78
    assert "model_save_dir cannot be written" in ended.stderr
    assert len(pipeline.TrainingAttempt()) == 0


def test_a_device_that_is_not_there_is_a_broken_configuration(pipeline):
    insert_tasks(pipeline)
    ended = populate("--device", "cuda:7")
    assert ended.returncode == 78
    assert "no device 'cuda:7'" in ended.stderr
    assert len(pipeline.TrainingAttempt()) == 0


def test_the_supervisor_never_imports_torch(pipeline):
    insert_tasks(pipeline)
    code = (
        "import sys; from synicix_core import Pipeline; from synicix_core.runner.supervisor import WorkerOptions;"
        "summary = Pipeline().run_worker(WorkerOptions()); print(summary.success_count, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.split() == ["1", "False"]


def test_a_dataset_on_another_disk_is_copied_once_and_verified(pipeline, project, monkeypatch):
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs a second file system")
    cache = f"/dev/shm/{project.parent.name}"
    monkeypatch.setenv("SYNICIX_DATASET_CACHE_DIR", cache)
    insert_tasks(pipeline)
    try:
        assert populate().returncode == 0
        names = [entry.name for entry in Path(cache).iterdir() if not entry.name.startswith(".")]
        assert names == [pipeline.DatasetConfig.fetch1("dataset_file_sha256") + ".txt"]
    finally:
        subprocess.run(["rm", "-rf", cache], check=True)


def test_a_result_that_cannot_be_stored_is_an_error_of_its_task_alone(pipeline, project, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_MAX_ATTEMPTS", "1")
    insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])
    (store,) = (project / ".synicix" / "stores").iterdir()
    worker = start("--max-tasks", "1")
    wait_until(lambda: running(pipeline) == 1)
    store.rename(store.with_name("away"))
    _, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    (error,) = pipeline.TrainingResult.jobs.errors.to_dicts()
    assert "cannot be stored" in error["error_message"]
    assert len(pipeline.TrainingResult()) == 0
    store.with_name("away").rename(store)
    assert pipeline.queue.retry([error["training_task_md5_hash"]]) == 1
    assert populate().returncode == 0
    assert len(pipeline.TrainingResult()) == 2


def test_a_dataset_directory_that_is_not_there_costs_no_task(pipeline, tmp_path):
    insert_tasks(pipeline)
    ended = populate("--dataset-dir", str(tmp_path / "not-mounted"))
    assert ended.returncode == 78
    assert "dataset_dir is not a directory" in ended.stderr
    assert len(pipeline.TrainingResult.jobs.pending) == 1


def test_tasks_whose_file_is_not_here_are_left_to_other_machines(pipeline, project):
    (project / "datasets" / "steep.txt").write_text("3.0")
    insert_tasks(pipeline, datasets=[{}, {"dataset_file_name": "steep.txt"}], trainings=[{"seed": 0}, {"seed": 1}])
    (project / "datasets" / "steep.txt").rename(project / "steep.txt")
    ended = populate()
    assert ended.returncode == 0, ended.stderr
    assert "there is no dataset file 'steep.txt'" in ended.stderr
    assert len(pipeline.TrainingResult()) == 2
    assert (len(pipeline.TrainingResult.jobs.pending), len(pipeline.TrainingResult.jobs.errors)) == (2, 0)
    assert populate().returncode == 78
    (project / "steep.txt").rename(project / "datasets" / "steep.txt")
    assert populate().returncode == 0
    assert len(pipeline.TrainingResult()) == 4
