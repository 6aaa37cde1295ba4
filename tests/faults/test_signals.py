"""SIGTERM and SIGINT: the worker stops in time, whatever it is doing, and its task goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.lab import STEPS, Lab
from tests.faults.wire import Wire

pytestmark = pytest.mark.database

GRACE = 4.0


def test_an_interrupted_task_goes_on_without_a_step_twice(lab: Lab) -> None:
    (task,) = lab.insert()
    for number in (signal.SIGTERM, signal.SIGINT):
        worker = lab.start()
        lab.wait_for_steps(2 * STEPS)
        worker.signal(number)
        assert worker.end() == 75
        assert len(lab.pipeline.TrainingResult.jobs.pending) == 1
    assert lab.start().end() == 0
    lab.check_states(task, ["released", "released", "finished"])
    assert lab.repeated(task) == 0
    lab.check([task])


def test_an_executor_that_hangs_does_not_keep_a_worker_from_stopping_in_time(lab: Lab) -> None:
    (task,) = lab.insert()
    worker = lab.start("--grace", str(GRACE))
    lab.wait_for_steps(2 * STEPS)
    lab.ask_for("hang")
    lab.wait_until(lambda: not (lab.folder / "disasters" / "hang").exists())
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.end() == 75
    assert time.monotonic() - begun <= GRACE + 0.5
    assert lab.start().end() == 0
    lab.check_states(task, ["released", "finished"])
    assert lab.repeated(task) <= STEPS
    lab.check([task])


def test_a_silent_database_does_not_keep_a_worker_from_stopping_in_time(lab: Lab, wire: Wire) -> None:
    (task,) = lab.insert()
    worker = lab.start("--grace", str(GRACE), **wire.variables)
    lab.wait_for_steps(2 * STEPS)
    with wire.silent():
        time.sleep(1)  # for the worker to wait for the answer to a heartbeat
        begun = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.end() == 75
        assert time.monotonic() - begun <= GRACE + 0.5
    wire.cut()
    assert lab.start().end() == 0
    lab.check_states(task, ["lost", "finished"])
    assert lab.repeated(task) <= STEPS
    lab.check([task])


def test_a_second_signal_ends_the_worker_at_once(lab: Lab) -> None:
    (task,) = lab.insert()
    worker = lab.start("--grace", "600")
    lab.wait_for_steps(STEPS)
    executor = worker.executor
    lab.ask_for("hang")
    lab.wait_until(lambda: not (lab.folder / "disasters" / "hang").exists())
    worker.signal(signal.SIGTERM)
    time.sleep(1.2)
    worker.signal(signal.SIGTERM)
    assert worker.end(10) == 143
    assert executor is not None
    lab.wait_until(lambda: not Path(f"/proc/{executor}").exists())
    assert lab.start().end() == 0
    lab.check_states(task, ["lost", "finished"])
    lab.check([task])


def test_a_worker_that_copies_a_dataset_stops_at_once_and_leaves_no_half_of_it(lab: Lab) -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs a second file system")
    (lab.pipeline.settings.dataset_dir / "line.txt").write_text("2.0" + " " * 10_000)
    (task,) = lab.insert()
    cache = Path("/dev/shm") / f"synicix-{os.getpid()}-{task[:8]}"
    elsewhere = {"SYNICIX_DATASET_CACHE_DIR": str(cache)}
    try:
        worker = lab.start("--grace", "60", FAULT_SLOW_COPY="0.01", **elsewhere)
        lab.wait_until(lambda: any(path.stat().st_size for path in cache.glob(".*half*")))
        begun = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.end() == 75
        assert time.monotonic() - begun < 20
        assert not list(cache.glob("*half*")) and not list(cache.glob(".*half*"))
        assert lab.start(**elsewhere).end() == 0
    finally:
        subprocess.run(["rm", "-rf", str(cache)], check=True)
    lab.check_states(task, ["released", "finished"])
    assert lab.attempts(task)[0]["error"] is None
    lab.check([task])
