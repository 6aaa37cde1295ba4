"""The database is away for longer than the worker waits for it, and for longer than the lease while nobody else is there."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.lab import EPOCHS, STEPS, Lab
from tests.faults.wire import Wire

pytestmark = pytest.mark.database

LEASE = 1.5


def test_a_database_that_stays_away_beyond_the_end_of_a_training_ends_the_worker_but_not_the_task(
    lab: Lab, wire: Wire
) -> None:
    (task,) = lab.insert()
    cut_off = lab.start("--db-timeout", "2", **wire.variables)
    lab.wait_for_steps(2 * STEPS)
    with wire.away():
        assert cut_off.end(60) == 75
        assert lab.steps() == EPOCHS * STEPS  # it trained to the end first
    assert "It is tried again for 2 s." in cut_off.said
    assert "Traceback" not in cut_off.said
    assert "0 tasks trained in" in cut_off.said.splitlines()[-1]  # the summary, as after every end of a worker

    # It could tell nobody, so its claim stands as it was: neither an error nor a failed attempt.
    (attempt,) = lab.attempts(task)
    assert (attempt["state"], attempt["error"], attempt["error_kind"]) == ("running", None, None)
    assert not lab.errors([task]) and not lab.results([task])

    assert lab.start(**wire.variables).end() == 0
    lab.check_states(task, ["lost", "finished"])
    assert lab.repeated(task) <= STEPS  # its checkpoints outlived it
    lab.check([task])


def test_a_worker_on_its_own_keeps_its_claim_through_an_outage_longer_than_the_lease(lab: Lab, wire: Wire) -> None:
    lab.step_seconds = 0.15
    (task,) = lab.insert()
    times = {"SYNICIX_WORKER_LEASE_SECONDS": str(LEASE), "SYNICIX_WORKER_HEARTBEAT_SECONDS": "0.3"}
    worker = lab.start(**times, **wire.variables)
    lab.wait_for_steps(STEPS)
    with wire.away():
        time.sleep(0.3)  # for the server to finish what it has got
        last = _only_attempt(lab, task)["heartbeat_at"]
        time.sleep(1.5 * LEASE)
        assert _only_attempt(lab, task)["heartbeat_at"] == last
    seen: list[dict[str, Any]] = []

    def is_beating() -> bool:
        seen.append(_only_attempt(lab, task))
        return bool(seen[-1]["heartbeat_at"] > last)

    lab.wait_until(is_beating)
    assert seen[-1]["state"] == "running"  # the beat, not the end of the task
    assert (seen[-1]["heartbeat_at"] - last).total_seconds() > LEASE
    assert worker.end() == 0

    # Said once each, and by the heartbeat: nothing had to be written meanwhile.
    assert worker.said.count("Training goes on meanwhile.") == worker.said.count("The database is back.") == 1
    assert "It is tried again" not in worker.said
    assert worker.said.index("The database is back.") < worker.said.index(f"{task[:8]}: completed")
    lab.check_states(task, ["finished"])
    assert lab.repeated(task) == 0
    lab.check([task])


def _only_attempt(lab: Lab, task: str) -> dict[str, Any]:
    (attempt,) = lab.attempts(task)
    return attempt
