"""What people do to the queue: pause, resume, cancel and put first; each in one transaction, whatever the
number of tasks; tasks that are claimed meanwhile get one more.

Workers lock a task's attempt before its job, and so does this module. A worker whose claim was taken away notices at its
next heartbeat.
"""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from synicix_core.database.dialect import now_utc
from synicix_core.database.quiet import quiet
from synicix_core.database.reconnect import despite_conflicts, execute, transaction
from synicix_core.tables.error_groups import CANCELLED, CANCELLED_CAUSE
from synicix_core.tables.schema import Tables

__all__ = ["Change", "cancel", "choose_tasks", "count_states_of", "delete_results", "pause", "resume", "set_priority"]

_MD5 = "training_task_md5_hash"
_AT_ONCE = 5000
"""Tasks in one statement."""
_DELETED_AT_ONCE = 1000
_STATES = {"pending": "pending", "reserved": "running", "error": "error", "ignore": "paused", "success": "finished"}
"""What people call the states of DataJoint's job table."""


@dataclass(frozen=True)
class Change:
    """What became of the tasks that were chosen.

    Attributes
    ----------
    changed : int
        How many were changed.
    running : int
        How many of these a worker was training.
    left : dict
        How many were left alone, by the state that they are in: ``finished``, ``error``, ``paused``, ``pending``,
        ``running``, or ``foreign`` for those that somebody reserved without an attempt, as DataJoint's own `populate` does.
    """

    changed: int
    running: int
    left: dict[str, int]


def pause(tables: Tables, tasks: Sequence[str]) -> Change:
    """Keep tasks from being trained until they are resumed; a running one goes on from its last checkpoint then.

    Parameters
    ----------
    tables : Tables
        Where they are.
    tasks : sequence of str
        Those to pause, of any state; only pending and running ones are changed.
    """
    edit = _Edit(("pending",), "status = 'ignore', reserved_time = NULL, host = '', pid = 0", (), "state = 'released'")
    return _change(tables, tasks, edit)


def resume(tables: Tables, tasks: Sequence[str]) -> Change:
    """Make paused tasks pending again, due now.

    Parameters
    ----------
    tables : Tables
        Where they are.
    tasks : sequence of str
        Those to resume, of any state; only paused ones are changed.
    """
    now = now_utc(tables.connection.adapter)
    return _change(tables, tasks, _Edit(("ignore",), f"status = 'pending', scheduled_time = {now}"))


def cancel(tables: Tables, tasks: Sequence[str]) -> Change:
    """End tasks in an error that says who cancelled them.

    Parameters
    ----------
    tables : Tables
        Where they are.
    tasks : sequence of str
        Those to cancel, of any state; only pending, paused and running ones are changed.
    """
    message = f"{CANCELLED}{_person(tables)}"
    edit = _Edit(
        ("pending", "ignore"),
        "status = 'error', error_message = %s, error_stack = NULL",
        (message,),
        "state = 'failed', error = %s, error_kind = 'cancelled', error_cause = %s",
        (message, CANCELLED_CAUSE),
    )
    return _change(tables, tasks, edit)


def set_priority(tables: Tables, tasks: Sequence[str], priority: int) -> Change:
    """Set the priority of tasks that have no result; lower numbers are more urgent.

    Parameters
    ----------
    tables : Tables
        Where they are.
    tasks : sequence of str
        Those to change, of any state.
    priority : int
        From -128 to 127.
    """
    return _change(tables, tasks, _Edit(("pending", "ignore", "error", "reserved"), "priority = %s", (priority,)))


def choose_tasks(tables: Tables, restriction: str = "") -> list[str]:
    """Return the tasks that a query yields, in order; without one all that are in the queue.

    Parameters
    ----------
    tables : Tables
        Where they are.
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose.
    """
    # An argument, though none is used, has the driver read "%%" in the restriction as "%".
    source = f"({restriction}) chosen" if restriction else tables.jobs_name
    sql = f"SELECT {_MD5} FROM {source} WHERE 1 = %s ORDER BY {_MD5}"
    return [str(row[0]) for row in execute(tables.connection, sql, (1,)).fetchall()]


def count_states_of(tables: Tables, tasks: Sequence[str]) -> dict[str, int]:
    """Return how many of some tasks are ``pending``, ``running``, ``error``, ``paused`` or ``finished``."""
    states: Counter[str] = Counter()
    for chunk in _chunks(tasks):
        sql = f"SELECT status, COUNT(*) FROM {tables.jobs_name} WHERE {_among(chunk)} GROUP BY status"
        found = {str(status): int(number) for status, number in execute(tables.connection, sql, chunk).fetchall()}
        states.update({_STATES[status]: number for status, number in found.items()})
        states["finished"] += len(chunk) - sum(found.values())
    return dict(+states)


def delete_results(tables: Tables, tasks: Sequence[str]) -> None:
    """Delete the results of some tasks through DataJoint, so that what depends on them goes, too."""
    for start in range(0, len(tasks), _DELETED_AT_ONCE):
        listed = ", ".join(f"'{task}'" for task in tasks[start : start + _DELETED_AT_ONCE])
        with quiet():
            (tables.TrainingResult & f"{_MD5} IN ({listed})").delete(prompt=False)


@dataclass(frozen=True)
class _Edit:
    """What to set in the jobs that are in one of some states and, with `attempt`, in running attempts and their jobs."""

    states: tuple[str, ...]
    job: str
    job_args: tuple[object, ...] = ()
    attempt: str = ""
    attempt_args: tuple[object, ...] = ()


@dataclass
class _Step:
    """What one transaction did; the tasks in `late` were claimed while it looked."""

    changed: int = 0
    running: int = 0
    left: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)


def _change(tables: Tables, tasks: Sequence[str], edit: _Edit) -> Change:
    """Apply an edit; then again to the few tasks that were claimed between the look at the attempts and at the jobs.

    Their attempts are not locked in the same transaction: with the job held already, that could stop a worker which is just
    ending the attempt and waits for the job.
    """
    remaining = sorted(set(tasks))
    changed, running, left = 0, 0, Counter[str]()
    while remaining:
        step = _apply(tables, remaining, edit)
        changed, running, remaining = changed + step.changed, running + step.running, step.late
        left += step.left
    return Change(changed, running, dict(left))


@despite_conflicts
def _apply(tables: Tables, tasks: Sequence[str], edit: _Edit) -> _Step:
    connection, jobs, attempts = tables.connection, tables.jobs_name, tables.TrainingAttempt.full_table_name
    step = _Step()
    with transaction(connection):
        claimed: set[str] = set()
        if edit.attempt:
            for chunk in _chunks(_running_among(tables, tasks)):
                sql = (
                    f"SELECT {_MD5} FROM {attempts} WHERE {_among(chunk)} AND state = 'running' "
                    f"ORDER BY {_MD5}, attempt FOR UPDATE"
                )
                claimed.update(str(row[0]) for row in execute(connection, sql, chunk).fetchall())
        stopped: list[str] = []
        for chunk in _chunks(tasks):
            sql = f"SELECT {_MD5}, status FROM {jobs} WHERE {_among(chunk)} ORDER BY {_MD5} FOR UPDATE"
            states = {str(task): str(status) for task, status in execute(connection, sql, chunk).fetchall()}
            held = [task for task, status in states.items() if status == "reserved" and task in claimed]
            chosen = held + [task for task, status in states.items() if status in edit.states]
            for changing in _chunks(chosen):
                execute(
                    connection, f"UPDATE {jobs} SET {edit.job} WHERE {_among(changing)}", (*edit.job_args, *changing)
                )
            touched = {*chosen}
            stopped += held
            step.changed += len(chosen)
            step.left["finished"] += len(chunk) - len(states)
            for task, status in states.items():
                if status == "reserved" and edit.attempt and task not in claimed:
                    step.late.append(task)
                elif task not in touched:
                    step.left[_STATES[status]] += 1
        for chunk in _chunks(stopped):
            sql = (
                f"UPDATE {attempts} SET {edit.attempt}, heartbeat_at = {now_utc(connection.adapter)} "
                f"WHERE {_among(chunk)} AND state = 'running'"
            )
            execute(connection, sql, (*edit.attempt_args, *chunk))
        step.running = len(stopped)
        # A claim is a reserved job and a running attempt at once; a reservation without one is somebody else's.
        reserved, step.late = step.late, _running_among(tables, step.late) if step.late else []
        step.left["foreign"] += len(reserved) - len(step.late)
    return step


def _running_among(tables: Tables, tasks: Sequence[str]) -> list[str]:
    sql = f"SELECT DISTINCT {_MD5} FROM {tables.TrainingAttempt.full_table_name} WHERE state = 'running'"
    running = {str(row[0]) for row in execute(tables.connection, sql).fetchall()}
    return [task for task in tasks if task in running]


def _chunks(tasks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(tasks), _AT_ONCE):
        yield tuple(tasks[start : start + _AT_ONCE])


def _among(tasks: Sequence[str]) -> str:
    return f"{_MD5} IN ({', '.join(['%s'] * len(tasks))})"


def _person(tables: Tables) -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(tables.connection.conn_info["user"])
