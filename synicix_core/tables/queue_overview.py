"""What is in the queue, for people who look: how much of which priority, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass

from synicix_core.database.dialect import age_in_seconds, now_utc
from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import Tables

__all__ = ["QUEUE_STATES", "NextTask", "QueueCounts", "count_queue", "next_tasks"]

QUEUE_STATES = ("pending", "scheduled", "running", "error", "paused")
"""What a task in the queue can be: ``scheduled`` is pending, but due later only."""

_MD5 = "training_task_md5_hash"
_STATES = {"pending": "pending", "reserved": "running", "error": "error", "ignore": "paused"}


@dataclass(frozen=True)
class QueueCounts:
    """How many tasks are queued.

    Attributes
    ----------
    priorities : dict
        ``{priority: {state: number}}`` with all of `QUEUE_STATES`, the most urgent first.
    not_queued : int
        Tasks without a result that are not in the queue yet; they count as pending.
    """

    priorities: dict[int, dict[str, int]]
    not_queued: int


@dataclass(frozen=True)
class NextTask:
    """A pending task, due in so many seconds; 0 is now."""

    task: str
    priority: int
    due_in_seconds: float
    dataset: str
    model: str


def count_queue(tables: Tables) -> QueueCounts:
    """Count what is in the queue, by priority and state."""
    task, jobs, now = tables.TrainingTask.full_table_name, tables.jobs_name, now_utc(tables.connection.adapter)
    later = f"CASE WHEN j.status = 'pending' AND j.scheduled_time > {now} THEN 1 ELSE 0 END"
    sql = (
        f"SELECT j.priority, j.status, {later}, COUNT(*) FROM {jobs} j JOIN {task} t ON t.{_MD5} = j.{_MD5} "
        f"WHERE j.status <> 'success' GROUP BY 1, 2, 3 ORDER BY 1"
    )
    priorities: dict[int, dict[str, int]] = {}
    for priority, status, is_later, number in execute(tables.connection, sql).fetchall():
        states = priorities.setdefault(int(priority), dict.fromkeys(QUEUE_STATES, 0))
        states["scheduled" if is_later else _STATES[status]] += int(number)
    results = tables.TrainingResult.full_table_name
    sql = (
        f"SELECT COUNT(*) FROM {task} t WHERE NOT EXISTS (SELECT 1 FROM {results} r WHERE r.{_MD5} = t.{_MD5}) "
        f"AND NOT EXISTS (SELECT 1 FROM {jobs} j WHERE j.{_MD5} = t.{_MD5})"
    )
    return QueueCounts(priorities, int(execute(tables.connection, sql).fetchone()[0]))


def next_tasks(tables: Tables, limit: int) -> list[NextTask]:
    """Return the first pending tasks in the order in which workers claim them; those that are due later come last."""
    adapter = tables.connection.adapter
    joined = (
        f"FROM {tables.jobs_name} j JOIN {tables.TrainingTask.full_table_name} t ON t.{_MD5} = j.{_MD5} "
        f"JOIN {tables.DatasetConfig.full_table_name} d ON d.dataset_config_md5_hash = t.dataset_config_md5_hash "
        f"JOIN {tables.ModelConfig.full_table_name} m ON m.model_config_md5_hash = t.model_config_md5_hash "
        f"WHERE j.status = 'pending'"
    )
    found: list[NextTask] = []
    for due, order in (("<=", "j.priority, j.scheduled_time"), (">", "j.scheduled_time")):
        sql = (
            f"SELECT j.{_MD5}, j.priority, {age_in_seconds(adapter, 'j.scheduled_time')}, d.dataset_file_name, "
            f"m.model_provider {joined} AND j.scheduled_time {due} {now_utc(adapter)} ORDER BY {order} LIMIT %s"
        )
        for task, priority, age, dataset, model in execute(tables.connection, sql, (limit - len(found),)).fetchall():
            found.append(NextTask(str(task), int(priority), max(-float(age), 0.0), dataset, model))
    return found
