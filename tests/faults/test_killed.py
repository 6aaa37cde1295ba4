"""Workers that are killed or frozen: their tasks go on elsewhere, from where they were, and nothing is written twice."""

from __future__ import annotations

import signal

import pytest

from synicix_core.database import execute
from tests.faults.lab import STEPS, Lab

pytestmark = pytest.mark.database

LEASE = 3.0
SHORT_LEASE = {"SYNICIX_WORKER_LEASE_SECONDS": str(LEASE)}


def test_a_killed_worker_s_task_goes_on_at_once_where_its_process_is_known_to_be_gone(lab: Lab) -> None:
    (task,) = lab.insert()
    victim = lab.start()
    lab.wait_for_steps(3 * STEPS)
    victim.kill()
    assert lab.start().end() == 0  # long before its lease is over
    lab.check_states(task, ["lost", "finished"])
    assert "its process is gone" in lab.attempts(task)[0]["error"]
    assert lab.repeated(task) <= STEPS
    lab.check([task])


def test_a_worker_of_the_same_host_name_is_another_worker(lab: Lab) -> None:
    """A pod that is started again under its old name neither owns the old claim nor keeps it alive."""
    (task,) = lab.insert()
    victim = lab.start(FAULT_HOST="pod-0", **SHORT_LEASE)
    lab.wait_for_steps(3 * STEPS)
    victim.kill()
    # As if it had run in another container, where nobody can look at its process.
    execute(lab.pipeline.connection, f"UPDATE {lab.pipeline.TrainingAttempt.full_table_name} SET process = ''")
    assert lab.start("--wait", "--max-tasks", "1", FAULT_HOST="pod-0", **SHORT_LEASE).end() == 0
    lab.check_states(task, ["lost", "finished"])
    first, second = lab.attempts(task)
    assert first["host"] == second["host"] == "pod-0"
    assert first["worker"] != second["worker"]
    assert "no heartbeat" in first["error"]
    assert lab.repeated(task) <= STEPS
    lab.check([task])


@pytest.mark.parametrize("executor", [True, False], ids=["whole-worker", "supervisor-alone"])
def test_a_frozen_worker_is_fenced_when_it_wakes_and_goes_on_with_the_next_task(lab: Lab, executor: bool) -> None:
    """Its executor may be frozen with it, or go on, end the training and write a model that nobody is to see."""
    (task,) = lab.insert(0)
    zombie = lab.start("--wait", **SHORT_LEASE)
    lab.wait_for_steps(STEPS)
    zombie.signal(signal.SIGSTOP, executor=executor)
    # Other machines cannot look at its process; here it would be found to be there, which it is.
    rescuer = lab.start("--wait", "--max-tasks", "1", **SHORT_LEASE)
    assert rescuer.end() == 0
    winner = (lab.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    lab.check_states(task, ["lost", "finished"])

    zombie.signal(signal.SIGCONT, executor=True)
    (other,) = lab.insert(1)
    lab.wait_for_end([other])
    assert (lab.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1("by_attempt") == winner["by_attempt"]
    first, second = lab.attempts(task)
    assert [attempt["worker"] for attempt in lab.attempts(other)] == [first["worker"]]
    assert (first["state"], second["state"]) == ("lost", "finished")
    assert "taken for lost" in zombie.said
    assert zombie.alive
    lab.check([task, other])
