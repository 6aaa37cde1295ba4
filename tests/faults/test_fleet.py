"""Many workers at once, and machines that are not alike: another clock, another set of plugins."""

from __future__ import annotations

import multiprocessing
import os
import sys
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute, transaction
from tests.saved import RESULT

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from tests.faults.lab import Lab  # imports torch, which would take the processes below too long

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


@dataclass
class Share:
    """What one of many processes did to the queue.

    Attributes
    ----------
    released, finished : list of (str, int)
        Task and attempt of the claims that it gave back and of those that it committed.
    vain : int
        Claims that won nothing although more tasks were pending than the other processes can have had their hands on.
    unheard : list of (str, int)
        Claims of which a heartbeat said that they are held no longer.
    heavy : bool
        Whether torch was imported.
    """

    released: list[tuple[str, int]] = field(default_factory=list)
    finished: list[tuple[str, int]] = field(default_factory=list)
    vain: int = 0
    unheard: list[tuple[str, int]] = field(default_factory=list)
    heavy: bool = False


PROCESSES, TASKS = 32, 128


def take_a_share(environment: dict[str, str], folder: str) -> Share:
    """Claim tasks, beat once for each, and commit it, or give it back at its first attempt, until nothing is pending."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        pipeline = Pipeline()
        pipeline.TrainingResult.jobs.heading  # noqa: B018 - read before the start, as are those of the tables
        queue, worker, share = pipeline.queue, uuid.uuid4().hex, Share()
    except BaseException:
        _TOGETHER[0].abort()
        raise
    _TOGETHER[0].wait(90)
    first = True
    while True:
        held = queue.claim(worker, "host", os.getpid(), "cpu")
        if first:
            _TOGETHER[0].wait(90)  # each holds a claim before the first one is ended
            first = False
        if held is None:
            left = queue.waiting()
            # Each of the others may just be claiming a task, or have given one back in between.
            share.vain += left >= 2 * PROCESSES
            if not left:
                break
            continue
        ended = (held.task, held.attempt)
        if not queue.heartbeat(held, {"epoch": 1, "train_loss": 0.5}):
            share.unheard.append(ended)
        if held.attempt == 1 and held.task[0] in "0123":
            queue.release(held)
            share.released.append(ended)
        else:
            # Histories of its own: writers of equal ones get into each other's way in a file store.
            history = [float(int(held.task[:12], 16))]
            own = {name: history for name in RESULT if name.endswith("_history")}
            queue.commit(held, {**RESULT, **own, "model_save_path": f"{held.task}.{held.attempt}.pt"})
            share.finished.append(ended)
    pipeline.connection.close()
    share.heavy = "torch" in sys.modules
    return share


_TOGETHER: list[Barrier] = []
"""In a process of the pool: where all wait for each other before they begin."""


def _wait_with(together: Barrier) -> None:
    _TOGETHER.append(together)


def test_32_processes_at_one_instant_waste_no_claim(lab: Lab) -> None:
    tasks = set(lab.insert(*range(TASKS)))
    # A server that has imported what they need forks them; their environment would be the one in which it was started.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "synicix_core.pipeline", "synicix_core.database", "synicix_core.tables.queue"]
    )
    place = (dict(os.environ), str(lab.pipeline.settings.project_dir))
    together = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, context, _wait_with, (together,)) as pool:
        shares = [made.result(150) for made in [pool.submit(take_a_share, *place) for _ in range(PROCESSES)]]
    finished = [ended for share in shares for ended in share.finished]
    released = [ended for share in shares for ended in share.released]
    again = {task for task in tasks if task[0] in "0123"}
    assert again
    # Claimed once, or once more after it was given back.
    assert sorted(released) == [(task, 1) for task in sorted(again)]
    assert sorted(finished) == [(task, 2 if task in again else 1) for task in sorted(tasks)]
    assert sum(share.vain for share in shares) == 0
    assert [ended for share in shares for ended in share.unheard] == []
    assert not any(share.heavy for share in shares)
    attempts = lab.pipeline.TrainingAttempt().to_dicts()
    assert Counter(attempt["state"] for attempt in attempts) == {"finished": TASKS, "released": len(again)}
    assert len({attempt["pid"] for attempt in attempts}) == PROCESSES
    results = lab.pipeline.TrainingResult().to_dicts()
    assert sorted((row["training_task_md5_hash"], row["by_attempt"]) for row in results) == sorted(finished)
    assert len(lab.pipeline.TrainingResult.jobs) == 0


@pytest.mark.parametrize("order", ["original", "random"])
@pytest.mark.parametrize("condition", [None, "seed >= 0"])
def test_a_claim_waits_for_no_other_claim(lab: Lab, order: str, condition: str | None) -> None:
    tasks = lab.insert(*range(4))
    pipeline, other = lab.pipeline, Pipeline()
    postgres = pipeline.connection.adapter.backend == "postgresql"
    execute(
        pipeline.connection, f"SET {'lock_timeout' if postgres else 'innodb_lock_wait_timeout'} = {TIMEOUT[postgres]}"
    )
    restriction = pipeline.restriction([condition])
    with transaction(other.connection):
        for task in tasks[:3]:  # one by one, because MySQL locks all that it reads on the way
            sql = f"SELECT status FROM {other.tables.jobs_name} WHERE training_task_md5_hash = %s FOR UPDATE"
            assert execute(other.connection, sql, (task,)).fetchone() == ("pending",)
        claims = [pipeline.queue.claim("a" * 32, "host", 1, "cpu", restriction=restriction, order=order) for _ in "12"]
    other.connection.close()
    first, second = claims
    assert first is not None and first.task == tasks[3]
    assert second is None


TIMEOUT = {True: 300, False: 1}
"""Milliseconds of PostgreSQL, seconds of MySQL; a claim that waited would be tried again a few times, and then raise."""


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
