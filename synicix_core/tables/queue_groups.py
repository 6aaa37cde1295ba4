"""Claims on tasks that are trained together: find the siblings of a claimed task, claim them, and keep all claims alive.

A statement for the whole group does what `Queue` does for one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core.database.dialect import seconds_ago
from synicix_core.database.quiet import datajoint
from synicix_core.database.reconnect import despite_conflicts, execute, transaction
from synicix_core.tables.queue import Claim, Queue

__all__ = ["ALONE", "Candidate", "GroupQueue", "Likeness", "case", "marks"]

_MD5 = "training_task_md5_hash"
_SOME = 500
"""Pending tasks looked at."""

ALONE = ("group", "out_of_memory", "died", "hung", "lost")
"""Kinds of the end of an attempt after which a task is trained by itself: its worker or executor may have died of it."""


@dataclass(frozen=True)
class Likeness:
    """What SQL can tell of the tasks that are like a claimed one.

    Attributes
    ----------
    task : str
        The claimed one, which is as urgent as the others are to be.
    dataset_config : str
        Their dataset config.
    model_provider : str
        Their model.
    model_configs : sequence of str
        The model configs among which theirs are; empty where they are too many to list.
    providers : tuple of str
        Their trainer, optimizer and criterion.
    batch_size : int
        Theirs.
    """

    task: str
    dataset_config: str
    model_provider: str
    model_configs: Sequence[str]
    providers: tuple[str, str, str]
    batch_size: int


@dataclass(frozen=True)
class Candidate:
    """A pending task that may be like the claimed one, and the configs that tell."""

    task: str
    model_config: str
    training_config: str


class GroupQueue:
    """The queue, for groups.

    Parameters
    ----------
    queue : Queue
        The queue, for single tasks.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._tables = queue.tables
        self._connection = queue.connection
        self._now = queue.now
        self._jobs = queue.tables.jobs_name
        self._task = queue.tables.TrainingTask.full_table_name
        self._attempts = queue.tables.TrainingAttempt.full_table_name

    def is_alone(self, claim: Claim) -> bool:
        """Tell whether a task is to be trained by itself because of how an attempt at it ended."""
        if claim.attempt == 1:
            return False
        sql = (
            f"SELECT 1 FROM {self._attempts} a JOIN {self._jobs} j ON j.{_MD5} = a.{_MD5} "
            f"WHERE a.{_MD5} = %s AND {_ended_badly()} LIMIT 1"
        )
        return execute(self._connection, sql, (claim.task, *ALONE)).fetchone() is not None

    def candidates(self, like: Likeness, restriction: str, limit: int, *, whole_queue: bool = False) -> list[Candidate]:
        """Return pending tasks that may be like a claimed one.

        Parameters
        ----------
        like : Likeness
            The claimed one.
        restriction : str
            SQL of a query that yields the md5s of the tasks to choose from.
        limit : int
            The most to return.
        whole_queue : bool
            Whether to look at all pending tasks and not only at the first 500.
        """
        where, args = self._where(like, restriction, whole_queue=whole_queue)
        sql = f"SELECT t.{_MD5}, t.model_config_md5_hash, t.training_config_md5_hash {where} LIMIT {int(limit)}"
        return [Candidate(*map(str, row)) for row in execute(self._connection, sql, args).fetchall()]

    def count(self, like: Likeness, restriction: str, enough: int) -> int:
        """Return how many pending tasks may be like a claimed one, counting no further than `enough`."""
        where, args = self._where(like, restriction, whole_queue=True)
        sql = f"SELECT COUNT(*) FROM (SELECT 1 AS one {where} LIMIT {int(enough)}) counted"
        return int(execute(self._connection, sql, args).fetchone()[0])

    def is_longer_than_a_look(self) -> bool:
        """Tell whether more tasks are pending than `candidates` looks at."""
        sql = f"SELECT 1 FROM {self._jobs} WHERE status = 'pending' LIMIT 1 OFFSET {_SOME}"
        return execute(self._connection, sql).fetchone() is not None

    def workers_alive(self, lease_seconds: float) -> int:
        """Return how many workers hold a claim with a fresh heartbeat."""
        fresh = seconds_ago(self._connection.adapter)
        sql = f"SELECT COUNT(DISTINCT worker) FROM {self._attempts} WHERE state = 'running' AND heartbeat_at >= {fresh}"
        return int(execute(self._connection, sql, (lease_seconds,)).fetchone()[0])

    def claim(
        self,
        tasks: Sequence[str],
        number: int,
        *,
        worker: str,
        host: str,
        pid: int,
        device: str,
        process: str = "",
    ) -> list[Claim]:
        """Claim some tasks, in one transaction: `number` at most of those that are still pending and nobody else's.

        Parameters
        ----------
        tasks : sequence of str
            Those to choose from, the most wanted ones first.
        number : int
            How many.
        worker, host, pid, device, process
            As for `Queue.claim`.
        """
        if not tasks or number < 1:
            return []
        try:
            return self._claim(tasks, number, worker, (host[:255], pid, process[:160], device[:64]))
        except datajoint.errors.IntegrityError:
            # One of them was deleted between two statements; nothing was written, and the others are pending still.
            return []

    @despite_conflicts
    def _claim(self, tasks: Sequence[str], number: int, worker: str, place: tuple[str, int, str, str]) -> list[Claim]:
        with transaction(self._connection):
            # No order in SQL, so that no others are locked for it.
            sql = (
                f"SELECT j.{_MD5} FROM {self._jobs} j JOIN {self._task} t ON t.{_MD5} = j.{_MD5} "
                f"WHERE j.{_MD5} IN ({marks(tasks)}) AND j.status = 'pending' AND j.scheduled_time <= {self._now} "
                f"LIMIT {int(number)} FOR UPDATE OF j SKIP LOCKED"
            )
            locked = {str(row[0]) for row in execute(self._connection, sql, tuple(tasks)).fetchall()}
            taken = [task for task in tasks if task in locked]
            if not taken:
                return []
            execute(
                self._connection,
                f"UPDATE {self._jobs} SET status = 'reserved', reserved_time = {self._now}, host = %s, pid = %s "
                f"WHERE {_MD5} IN ({marks(taken)})",
                (*place[:2], *taken),
            )
            earlier = (
                f"SELECT {_MD5}, MAX(attempt) FROM {self._attempts} WHERE {_MD5} IN ({marks(taken)}) GROUP BY {_MD5}"
            )
            last = {str(task): int(attempt) for task, attempt in execute(self._connection, earlier, taken).fetchall()}
            claims = [Claim(task, last.get(task, 0) + 1, worker) for task in taken]
            row = f"(%s, %s, %s, %s, %s, %s, %s, 'running', {self._now}, {self._now})"
            same = (worker, *place)
            execute(
                self._connection,
                f"INSERT INTO {self._attempts} "
                f"({_MD5}, attempt, worker, host, pid, process, device, state, started_at, heartbeat_at) "
                f"VALUES {', '.join([row] * len(claims))}",
                [value for claim in claims for value in (claim.task, claim.attempt, *same)],
            )
        return claims

    @despite_conflicts
    def heartbeat(self, claims: Sequence[Claim], progress: Mapping[str, Mapping[str, Any]]) -> list[Claim]:
        """Tell the database that claims of one worker are alive.

        Parameters
        ----------
        claims : sequence of Claim
            The claims.
        progress : mapping
            By task, what `Queue.heartbeat` takes.

        Returns
        -------
        list of Claim
            Those that this worker holds no longer.
        """
        if not claims:
            return []
        sets, args = [f"heartbeat_at = {self._now}"], list[Any]()
        for column in ("epoch", "train_loss", "validation_loss"):
            values = {claim.task: progress.get(claim.task, {}).get(column) for claim in claims}
            text, theirs = case(column, {task: value for task, value in values.items() if value is not None})
            sets, args = [*sets, *text], [*args, *theirs]
        tasks = [claim.task for claim in claims]
        ours = f"{_MD5} IN ({marks(tasks)}) AND worker = %s AND state = 'running'"
        cursor = execute(
            self._connection,
            f"UPDATE {self._attempts} SET {', '.join(sets)} WHERE {ours}",
            (*args, *tasks, claims[0].worker),
        )
        if cursor.rowcount == len(claims):
            return []
        # MySQL counts changed rows only, and two beats may fall into one millisecond.
        sql = f"SELECT {_MD5}, attempt FROM {self._attempts} WHERE {ours}"
        rows = execute(self._connection, sql, (*tasks, claims[0].worker)).fetchall()
        held = {(str(task), int(attempt)) for task, attempt in rows}
        return [claim for claim in claims if (claim.task, claim.attempt) not in held]

    def _where(self, like: Likeness, restriction: str, *, whole_queue: bool) -> tuple[str, tuple[Any, ...]]:
        """Return the FROM and WHERE clauses of `candidates`, and their arguments."""
        tables = self._tables
        head = (
            f"(SELECT {_MD5} FROM {self._jobs} WHERE status = 'pending' AND scheduled_time <= {self._now} "
            f"ORDER BY priority, scheduled_time LIMIT {_SOME}) n JOIN {self._jobs} j ON j.{_MD5} = n.{_MD5}"
        )
        joins = (
            f"FROM {f'{self._jobs} j' if whole_queue else head} JOIN {self._task} t ON t.{_MD5} = j.{_MD5} "
            f"JOIN {tables.TrainingConfig.full_table_name} c ON c.training_config_md5_hash = t.training_config_md5_hash"
        )
        where = (
            f"j.status = 'pending' AND j.scheduled_time <= {self._now} "
            f"AND j.priority = (SELECT priority FROM {self._jobs} WHERE {_MD5} = %s) AND t.dataset_config_md5_hash = %s "
            "AND c.trainer_provider = %s AND c.optimizer_provider = %s AND c.criterion_provider = %s AND c.batch_size = %s"
        )
        args: tuple[Any, ...] = (like.task, like.dataset_config, *like.providers, like.batch_size)
        if like.model_configs:
            where += f" AND t.model_config_md5_hash IN ({marks(like.model_configs)})"
            args += tuple(like.model_configs)
        else:
            models = f"SELECT model_config_md5_hash FROM {tables.ModelConfig.full_table_name} WHERE model_provider = %s"
            where += f" AND t.model_config_md5_hash IN ({models})"
            args += (like.model_provider,)
        where += f" AND NOT EXISTS (SELECT 1 FROM {self._attempts} a WHERE a.{_MD5} = t.{_MD5} AND {_ended_badly()})"
        args += ALONE
        if restriction:
            where += f" AND t.{_MD5} IN ({restriction})"
        return f"{joins} WHERE {where}", args


def case(column: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Return the SQL, and its arguments, that sets a column of attempts to a value by task and leaves the others alone."""
    if not values:
        return [], []
    whens = " ".join([f"WHEN {_MD5} = %s THEN %s"] * len(values))
    # The column's own name gives the value its type, which PostgreSQL cannot tell otherwise.
    return [f"{column} = CASE {whens} ELSE {column} END"], [part for pair in values.items() for part in pair]


def _ended_badly() -> str:
    return f"a.error_kind IN ({marks(ALONE)}) AND a.started_at >= j.created_time"


def marks(values: Sequence[Any]) -> str:
    """Return the placeholders of so many arguments."""
    return ", ".join(["%s"] * len(values))
