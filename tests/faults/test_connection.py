"""The connection to the database is cut, in each phase of a task; one worker goes through all of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from synicix_core.database import execute
from tests.faults.lab import STEPS, Lab
from tests.faults.wire import Wire

pytestmark = pytest.mark.database

RESULT = r"INSERT INTO \S*__training_result"


@pytest.mark.parametrize(
    ("statements", "answered", "states"),
    [
        pytest.param(["SET status = 'reserved'"], False, ["finished"], id="claim"),
        # The worker does not know that it has the claim, so nobody beats for it.
        pytest.param([r"INSERT INTO \S*training_attempt", "COMMIT"], True, ["lost", "finished"], id="claim-unanswered"),
        pytest.param(["SET heartbeat_at = "], False, ["finished"], id="heartbeat"),
        pytest.param(["SET heartbeat_at = "], True, ["finished"], id="heartbeat-unanswered"),
        pytest.param([RESULT], False, ["finished"], id="result"),
        pytest.param([RESULT, "COMMIT"], False, ["finished"], id="commit"),
        pytest.param([RESULT, "COMMIT"], True, ["finished"], id="commit-unanswered"),
    ],
)
def test_a_connection_cut_in_any_phase_costs_nothing(
    standing: Lab, wire: Wire, mark: int, statements: list[str], answered: bool, states: list[str]
) -> None:
    cuts = wire.cuts
    wire.cut_at(*statements, answered=answered)
    (task,) = standing.insert(mark=mark)
    standing.wait_for_end([task])
    assert wire.cuts == cuts + 1
    standing.check_states(task, states)
    standing.check([task])


def test_training_goes_on_while_the_database_is_away(standing: Lab, wire: Wire, mark: int) -> None:
    (task,) = standing.insert(mark=mark)
    standing.wait_for_steps(STEPS)
    with wire.away():
        standing.wait_for_steps(3 * STEPS)
    standing.wait_for_end([task])
    standing.check_states(task, ["finished"])
    assert "Training goes on meanwhile" in standing.workers[-1].said
    standing.check([task])


def test_a_worker_waits_for_a_database_that_is_away_when_it_commits(standing: Lab, wire: Wire, mark: int) -> None:
    (task,) = standing.insert(mark=mark)
    standing.wait_for_steps(STEPS)
    before = standing.workers[-1].said.count("It is tried again")
    with wire.away():
        standing.wait_until(lambda: standing.workers[-1].said.count("It is tried again") > before)
        time.sleep(1)
    standing.wait_for_end([task])
    standing.check([task])


def test_connections_that_the_server_ends_cost_nothing(standing: Lab, wire: Wire, mark: int) -> None:
    (task,) = standing.insert(mark=mark)
    for _ in range(3):
        standing.wait_for_steps(STEPS)
        standing.wait_until(lambda: _end_connections(standing.pipeline.connection, wire) > 0)
    standing.wait_for_end([task])
    standing.check_states(task, ["finished"])
    standing.check([task])


def _end_connections(connection: Any, wire: Wire) -> int:
    """Have the server end the connections of the wire, at least; return how many there were."""
    if connection.adapter.backend == "postgresql":
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
        return len(execute(connection, sql).fetchall())
    hosts = [f"%:{port}" for port in wire.ports]
    if not hosts:
        return 0
    sql = f"SELECT id FROM information_schema.processlist WHERE {' OR '.join(['host LIKE %s'] * len(hosts))}"
    found = execute(connection, sql, hosts).fetchall()
    for (number,) in found:
        execute(connection, f"KILL {number}")
    return len(found)
