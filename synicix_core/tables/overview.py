"""What the tables hold, for people who look: counted and joined by the database, and no blob fetched that nobody sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synicix_core.database.dialect import age_in_seconds, now_utc, seconds_ago
from synicix_core.database.reconnect import execute
from synicix_core.tables.overview_configs import CONFIG_KINDS
from synicix_core.tables.result_histories import HISTORIES
from synicix_core.tables.schema import Tables

__all__ = [
    "STATES",
    "Pace",
    "Reservation",
    "RunningAttempt",
    "attempts_of",
    "count_states",
    "foreign_reservations",
    "measure_pace",
    "result_of",
    "running_attempts",
    "state_of",
]

STATES = ("pending", "scheduled", "running", "finished", "error", "paused")
"""What a task can be: ``scheduled`` is pending, but due later only."""

_MD5 = "training_task_md5_hash"


@dataclass(frozen=True)
class RunningAttempt:
    """A task that a worker holds; ages are by the database's clock, in seconds."""

    task: str
    attempt: int
    worker: str
    host: str
    pid: int
    device: str
    epoch: int | None
    epoch_limit: int
    train_loss: float | None
    validation_loss: float | None
    seconds: float
    heartbeat_age: float
    dataset: str
    model: str


@dataclass(frozen=True)
class Pace:
    """How fast results come: how many in the last hour, and the mean seconds of the last hundred attempts that made one."""

    finished_last_hour: int
    mean_seconds: float | None


@dataclass(frozen=True)
class Reservation:
    """A job that somebody reserved without an attempt, as DataJoint's own `populate` does."""

    task: str
    host: str
    pid: int
    seconds: float | None


def count_states(tables: Tables) -> dict[str, int]:
    """Return how many tasks are in each of `STATES`; a task that no job stands for yet is pending."""
    task, now = tables.TrainingTask.full_table_name, now_utc(tables.connection.adapter)
    results = tables.TrainingResult.full_table_name
    # Most tasks are finished or pending: the ones are counted by themselves, and the others are what is left. Only the jobs
    # of the rest are looked at. In one statement, so that no task is counted twice.
    sql = (
        f"SELECT 'tasks' AS state, COUNT(*) AS number FROM {task} "
        f"UNION ALL SELECT 'finished', COUNT(*) FROM {results} "
        f"UNION ALL SELECT CASE WHEN j.status = 'error' THEN 'error' WHEN j.status = 'reserved' THEN 'running' "
        f"WHEN j.status = 'ignore' THEN 'paused' ELSE 'scheduled' END, COUNT(*) "
        f"FROM {tables.jobs_name} j JOIN {task} t ON t.{_MD5} = j.{_MD5} "
        f"WHERE (j.status IN ('error', 'reserved', 'ignore') OR (j.status = 'pending' AND j.scheduled_time > {now})) "
        f"AND NOT EXISTS (SELECT 1 FROM {results} r WHERE r.{_MD5} = j.{_MD5}) GROUP BY 1"
    )
    found = {str(state): int(number) for state, number in execute(tables.connection, sql).fetchall()}
    found["pending"] = found.pop("tasks") - sum(found.values())
    return {state: found.get(state, 0) for state in STATES}


def state_of(tables: Tables, task: str) -> tuple[str, float | None]:
    """Return the state of one task and, where it is scheduled, in how many seconds it is due."""
    due = age_in_seconds(tables.connection.adapter, "j.scheduled_time")
    sql = f"SELECT {_state(tables)}, {due} {_tasks_with_jobs(tables)} WHERE t.{_MD5} = %s"
    state, age = execute(tables.connection, sql, (task,)).fetchone()
    return str(state), -float(age) if state == "scheduled" and age is not None else None


def running_attempts(tables: Tables) -> list[RunningAttempt]:
    """Return what is being trained, the longest-running first."""
    adapter = tables.connection.adapter
    sql = (
        f"SELECT a.{_MD5}, a.attempt, a.worker, a.host, a.pid, a.device, a.epoch, c.epoch_limit, a.train_loss, "
        f"a.validation_loss, {age_in_seconds(adapter, 'a.started_at')}, {age_in_seconds(adapter, 'a.heartbeat_at')}, "
        f"d.dataset_file_name, m.model_provider FROM {tables.TrainingAttempt.full_table_name} a "
        f"JOIN {tables.TrainingTask.full_table_name} t ON t.{_MD5} = a.{_MD5} {_join_configs(tables)} "
        f"WHERE a.state = 'running' ORDER BY a.started_at"
    )
    rows = execute(tables.connection, sql).fetchall()
    return [RunningAttempt(*row[:10], *map(float, row[10:12]), *row[12:]) for row in rows]


def measure_pace(tables: Tables) -> Pace:
    """Measure how fast results come."""
    connection, adapter = tables.connection, tables.connection.adapter
    sql = f"SELECT COUNT(*) FROM {tables.TrainingResult.full_table_name} WHERE utc_insert_time > {seconds_ago(adapter)}"
    finished = int(execute(connection, sql, (3600,)).fetchone()[0])
    started, ended = age_in_seconds(adapter, "started_at"), age_in_seconds(adapter, "heartbeat_at")
    sql = (
        f"SELECT AVG(seconds) FROM (SELECT {started} - {ended} AS seconds "
        f"FROM {tables.TrainingAttempt.full_table_name} WHERE state = 'finished' ORDER BY heartbeat_at DESC LIMIT 100) last"
    )
    mean = execute(connection, sql).fetchone()[0]
    return Pace(finished, None if mean is None else float(mean))


def foreign_reservations(tables: Tables) -> list[Reservation]:
    """Return the jobs that are reserved although no attempt is running; workers leave them alone."""
    age = age_in_seconds(tables.connection.adapter, "j.reserved_time")
    sql = (
        f"SELECT j.{_MD5}, j.host, j.pid, {age} FROM {tables.jobs_name} j WHERE j.status = 'reserved' AND NOT EXISTS "
        f"(SELECT 1 FROM {tables.TrainingAttempt.full_table_name} a WHERE a.{_MD5} = j.{_MD5} AND a.state = 'running')"
    )
    rows = execute(tables.connection, sql).fetchall()
    return [
        Reservation(str(task), host, int(pid), None if seconds is None else float(seconds))
        for task, host, pid, seconds in rows
    ]


def attempts_of(tables: Tables, task: str) -> list[dict[str, Any]]:
    """Return the attempts at a task, stacks of errors included, the first one first."""
    rows: list[dict[str, Any]] = (tables.TrainingAttempt & {_MD5: task}).to_dicts()
    return sorted(rows, key=lambda row: int(row["attempt"]))


def result_of(tables: Tables, task: str) -> dict[str, Any] | None:
    """Return the row of a result without its histories; None where there is none."""
    names = [name for name in tables.TrainingResult.heading.names if name not in HISTORIES]
    rows: list[dict[str, Any]] = (tables.TrainingResult & {_MD5: task}).proj(*names).to_dicts()
    return rows[0] if rows else None


def _state(tables: Tables) -> str:
    now = now_utc(tables.connection.adapter)
    return (
        f"CASE WHEN r.{_MD5} IS NOT NULL THEN 'finished' WHEN j.status = 'error' THEN 'error' "
        f"WHEN j.status = 'reserved' THEN 'running' WHEN j.status = 'ignore' THEN 'paused' "
        f"WHEN j.status = 'pending' AND j.scheduled_time > {now} THEN 'scheduled' ELSE 'pending' END"
    )


def _tasks_with_jobs(tables: Tables) -> str:
    return (
        f"FROM {tables.TrainingTask.full_table_name} t "
        f"LEFT JOIN {tables.TrainingResult.full_table_name} r ON r.{_MD5} = t.{_MD5} "
        f"LEFT JOIN {tables.jobs_name} j ON j.{_MD5} = t.{_MD5}"
    )


def _join_configs(tables: Tables) -> str:
    letters = {"dataset": "d", "model": "m", "training": "c"}
    joins = []
    for kind, letter in letters.items():
        column, table = f"{kind}_config_md5_hash", getattr(tables, CONFIG_KINDS[kind]).full_table_name
        joins.append(f"JOIN {table} {letter} ON {letter}.{column} = t.{column}")
    return " ".join(joins)
