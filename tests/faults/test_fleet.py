"""Many workers at once, and machines that are not alike: another clock, another set of plugins."""

from __future__ import annotations

import threading
import uuid
from collections import Counter

import pytest

from synicix_core import Pipeline
from synicix_core.tables.queue import Claim
from tests.faults.lab import Lab

pytestmark = pytest.mark.database

HOUR = 3600


def test_clocks_that_are_off_by_hours_matter_to_nobody(lab: Lab) -> None:
    """Only the database's clock counts: nobody's claim looks old to another, and no times are wrong."""
    tasks = lab.insert(0, 1)
    lease = {"SYNICIX_WORKER_LEASE_SECONDS": "30"}
    fast = lab.start("--max-tasks", "1", FAULT_CLOCK=str(HOUR), **lease)
    slow = lab.start("--max-tasks", "1", FAULT_CLOCK=str(-HOUR), **lease)
    assert (fast.end(), slow.end()) == (0, 0)
    attempts = [attempt for task in tasks for attempt in lab.attempts(task)]
    assert [attempt["state"] for attempt in attempts] == ["finished", "finished"]
    assert len({attempt["worker"] for attempt in attempts}) == 2
    times = [attempt[name] for attempt in attempts for name in ("started_at", "heartbeat_at")]
    times += list(
        (lab.pipeline.TrainingResult & [{"training_task_md5_hash": task} for task in tasks]).to_arrays(
            "utc_insert_time"
        )
    )
    assert (max(times) - min(times)).total_seconds() < HOUR / 2
    lab.check(tasks)


def test_32_workers_at_one_instant_waste_no_claim(lab: Lab) -> None:
    tasks = lab.insert(*range(40))
    pipelines = [Pipeline() for _ in range(32)]
    together = threading.Barrier(32)
    claims: list[Claim | None] = []

    def claim(pipeline: Pipeline) -> None:
        together.wait()
        claims.append(pipeline.queue.claim(uuid.uuid4().hex, "host", 1, "cpu"))

    threads = [threading.Thread(target=claim, args=(pipeline,)) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pipeline in pipelines:
        pipeline.connection.close()
    assert len({claim.task for claim in claims if claim is not None}) == 32
    assert len(lab.pipeline.TrainingAttempt()) == 32
    assert Counter(job["status"] for job in lab.pipeline.TrainingResult.jobs.to_dicts()) == {
        "reserved": 32,
        "pending": 8,
    }
    assert {claim.task for claim in claims if claim is not None} <= set(tasks)


def test_six_workers_started_at_one_instant_train_each_task_once(lab: Lab) -> None:
    lab.step_seconds = 0.01
    tasks = lab.insert(*range(12))
    workers = [lab.start() for _ in range(6)]
    assert [worker.end(240) for worker in workers] == [0] * 6
    for task in tasks:
        lab.check_states(task, ["finished"])
    lab.check(tasks)


def test_a_worker_that_lacks_a_plugin_leaves_its_tasks_to_others(lab: Lab) -> None:
    tasks = lab.insert(0)
    lacking = lab.start("--wait", SYNICIX_DISABLE_PLUGINS="toy-lab")
    lab.wait_until(lambda: "toy-lab" in lacking.said)
    assert lab.start().end() == 0
    assert lacking.alive
    lab.check_states(tasks[0], ["finished"])
    assert lab.attempts(tasks[0])[0]["pid"] != lacking.process.pid
    lab.check(tasks)
