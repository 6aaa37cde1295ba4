"""What the tables hold, for people who look: counted and joined by the database, and no blob fetched that nobody sees."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from synicix_core.database.dialect import age_in_seconds, now_utc, seconds_ago
from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import Tables

__all__ = [
    "CONFIG_KINDS",
    "STATES",
    "ErrorGroup",
    "Pace",
    "Reservation",
    "ResultRow",
    "RunningAttempt",
    "attempts_of",
    "config_rows",
    "count_states",
    "error_tasks",
    "foreign_reservations",
    "group_errors",
    "list_results",
    "measure_pace",
    "noise_ceilings",
    "result_of",
    "running_attempts",
    "scores_of",
    "state_of",
]

CONFIG_KINDS = {"dataset": "DatasetConfig", "model": "ModelConfig", "training": "TrainingConfig"}
"""The config table of each kind."""

STATES = ("pending", "scheduled", "running", "finished", "error", "ignored")
"""What a task can be: ``scheduled`` is pending, but due later only."""

_MD5 = "training_task_md5_hash"
_BLOBS = ("additional_model_params",)


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
class ErrorGroup:
    """Tasks that ended in an error of the same first line; `tasks` holds the first few of them."""

    message: str
    count: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Reservation:
    """A job that somebody reserved without an attempt, as DataJoint's own `populate` does."""

    task: str
    host: str
    pid: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The scalars of one result."""

    task: str
    dataset: str
    model: str
    training: str
    score: float | None
    status: str
    epochs: int
    best_epoch: int | None
    seconds: float
    finished_at: datetime


def count_states(tables: Tables) -> dict[str, int]:
    """Return how many tasks are in each of `STATES`; a task that no job stands for yet is pending."""
    sql = f"SELECT {_state(tables)} AS state, COUNT(*) {_tasks_with_jobs(tables)} GROUP BY 1"
    found = {str(state): int(number) for state, number in execute(tables.connection, sql).fetchall()}
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


def group_errors(tables: Tables, *, examples: int = 5) -> list[ErrorGroup]:
    """Return the tasks that ended in an error by the first line of its message, the most frequent first."""
    line = _first_line(tables, "j.error_message")
    sql = (
        f"SELECT line, amount, {_MD5} FROM (SELECT {line} AS line, j.{_MD5}, "
        f"COUNT(*) OVER (PARTITION BY {line}) AS amount, "
        f"ROW_NUMBER() OVER (PARTITION BY {line} ORDER BY j.{_MD5}) AS place "
        f"FROM {tables.jobs_name} j JOIN {tables.TrainingTask.full_table_name} t ON t.{_MD5} = j.{_MD5} "
        f"WHERE j.status = 'error') numbered WHERE place <= %s ORDER BY amount DESC, line, place"
    )
    groups: dict[str, tuple[int, list[str]]] = {}
    for message, amount, task in execute(tables.connection, sql, ("\n",) * 3 + (examples,)).fetchall():
        groups.setdefault(str(message), (int(amount), []))[1].append(str(task))
    return [ErrorGroup(message, amount, tuple(tasks)) for message, (amount, tasks) in groups.items()]


def error_tasks(tables: Tables, containing: str | None = None) -> list[str]:
    """Return the tasks that ended in an error, or those whose message contains a text, whatever its case."""
    sql = f"SELECT {_MD5} FROM {tables.jobs_name} WHERE status = 'error'"
    args: tuple[Any, ...] = ()
    if containing is not None:
        escaped = containing.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
        sql += " AND LOWER(error_message) LIKE %s ESCAPE '!'"
        args = (f"%{escaped}%",)
    return [str(row[0]) for row in execute(tables.connection, f"{sql} ORDER BY {_MD5}", args).fetchall()]


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


def list_results(tables: Tables, restriction: str = "") -> list[ResultRow]:
    """Return the scalars of all results, in no order.

    Parameters
    ----------
    tables : Tables
        Where they are.
    restriction : str
        SQL of a query that yields the md5s of the tasks to list.
    """
    where = f" WHERE t.{_MD5} IN ({restriction})" if restriction else ""
    sql = (
        f"SELECT r.{_MD5}, t.dataset_config_md5_hash, t.model_config_md5_hash, t.training_config_md5_hash, r.test_score, "
        f"r.status, r.epochs, r.best_epoch, r.train_seconds, r.utc_insert_time "
        f"FROM {tables.TrainingResult.full_table_name} r "
        f"JOIN {tables.TrainingTask.full_table_name} t ON t.{_MD5} = r.{_MD5}{where}"
    )
    # An argument, though none is used, has the driver read "%%" in the restriction as "%".
    rows = execute(tables.connection, sql + " AND 1 = %s" if where else sql, (1,) if where else ()).fetchall()
    return [ResultRow(*row) for row in rows]


def scores_of(tables: Tables, tasks: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the scores of results, ``{task: {tier: {name: value}}}``."""
    found = {}
    for start in range(0, len(tasks), 1000):
        chunk = tuple(tasks[start : start + 1000])
        marks = ", ".join(["%s"] * len(chunk))
        sql = f"SELECT {_MD5}, scores FROM {tables.TrainingResult.full_table_name} WHERE {_MD5} IN ({marks})"
        for task, scores in execute(tables.connection, sql, chunk).fetchall():
            found[str(task)] = json.loads(scores) if isinstance(scores, str | bytes) else scores
    return found


def config_rows(tables: Tables, kind: str) -> dict[str, dict[str, Any]]:
    """Return the configs of one kind by md5, without their blobs."""
    table = getattr(tables, CONFIG_KINDS[kind])
    names = [name for name in table.heading.names if name not in _BLOBS]
    return {row[f"{kind}_config_md5_hash"]: row for row in table.proj(*names).to_dicts()}


def noise_ceilings(tables: Tables, datasets: Collection[str]) -> dict[str, Mapping[str, float]]:
    """Return ``{md5 of a DatasetConfig: {metric name: ceiling}}`` for the datasets that state a noise ceiling."""
    table = tables.DatasetConfig
    ceilings: dict[str, Mapping[str, float]] = {}
    for md5 in datasets:
        stated = (table & {"dataset_config_md5_hash": md5}).fetch1("additional_model_params").get("noise_ceiling")
        if isinstance(stated, Mapping):
            ceilings[md5] = {str(name): float(value) for name, value in stated.items() if value is not None}
    return ceilings


def attempts_of(tables: Tables, task: str) -> list[dict[str, Any]]:
    """Return the attempts at a task, stacks of errors included, the first one first."""
    rows: list[dict[str, Any]] = (tables.TrainingAttempt & {_MD5: task}).to_dicts()
    return sorted(rows, key=lambda row: int(row["attempt"]))


def result_of(tables: Tables, task: str) -> dict[str, Any] | None:
    """Return the whole row of a result, histories included; None where there is none."""
    rows: list[dict[str, Any]] = (tables.TrainingResult & {_MD5: task}).to_dicts()
    return rows[0] if rows else None


def _state(tables: Tables) -> str:
    now = now_utc(tables.connection.adapter)
    return (
        f"CASE WHEN r.{_MD5} IS NOT NULL THEN 'finished' WHEN j.status = 'error' THEN 'error' "
        f"WHEN j.status = 'reserved' THEN 'running' WHEN j.status = 'ignore' THEN 'ignored' "
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


def _first_line(tables: Tables, column: str) -> str:
    function = "split_part" if tables.connection.adapter.backend == "postgresql" else "SUBSTRING_INDEX"
    return f"{function}({column}, %s, 1)"
