"""Claims: who trains what, on DataJoint's own job table, by the database's clock alone.

DataJoint's `refresh`, `reserve`, `complete` and `error` are gone around: they insert one row per statement, walk the same
list in every worker, know no heartbeat, and turn a SIGTERM into an error that nobody retries.

Whoever needs both locks a task's attempt first and its job second.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synicix_core.database.dialect import advisory_lock, age_in_seconds, now_utc, quote, seconds_later
from synicix_core.database.reconnect import despite_conflicts, execute, transaction
from synicix_core.errors import ClaimLost
from synicix_core.tables.result_rows import ResultRows
from synicix_core.tables.schema import Tables
from synicix_core.tables.store_lock import hold_store
from synicix_core.tables.tries import Tries, read_tries

__all__ = ["DEFAULT_PRIORITY", "Claim", "Exclusions", "Problem", "Queue", "storable"]

_MD5 = "training_task_md5_hash"
_ERROR_LENGTH = 2047
_REFRESH_SECONDS = 60.0
_MANY = 1000
"""Tasks queued at once after which PostgreSQL is told to count."""
_FEW, _SOME, _STRETCH = 200, 500, 200
"""Jobs looked at: those to lock one of, those at the head of the queue, and those along the key for a random one."""

DEFAULT_PRIORITY = 5
"""DataJoint's own; lower numbers are more urgent."""


@dataclass(frozen=True)
class Claim:
    """A worker's exclusive, expiring right to a task."""

    task: str
    attempt: int
    worker: str

    @property
    def key(self) -> dict[str, str]:
        """Primary key of the task."""
        return {_MD5: self.task}


@dataclass(frozen=True)
class Problem:
    """Why an attempt ended in an error.

    Attributes
    ----------
    message, stack : str
        For people; the stack is empty where there is none.
    kind : str
        ``error``, ``out_of_memory``, ``transient``, ``diverged``, ``data``, ``died``, ``hung``, ``lost`` or ``cancelled``.
    cause : str
        The same for errors of the same cause, 16 characters at most.
    """

    message: str
    stack: str = ""
    kind: str = "error"
    cause: str = ""


@dataclass(frozen=True)
class Exclusions:
    """What a worker cannot train: provider names by ``(table, column)``, and whole training and dataset configs."""

    providers: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    training_configs: Sequence[str] = ()
    dataset_configs: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.providers or self.training_configs or self.dataset_configs)


class Queue:
    """The job table of TrainingResult, as workers use it.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.connection = tables.connection
        self._adapter = tables.connection.adapter
        self._postgres = self._adapter.backend == "postgresql"
        self.now = now_utc(self._adapter)
        self._jobs = tables.jobs_name
        self._task = tables.TrainingTask.full_table_name
        self._attempts = tables.TrainingAttempt.full_table_name
        self._results = tables.TrainingResult.full_table_name
        self._result_table = tables.TrainingResult()

    @despite_conflicts
    def enqueue(self) -> int:
        """Queue every task that has neither a result nor a job, in one statement; drop jobs of deleted tasks.

        A task that was deleted while it was trained, and added again, is no longer reserved.

        Returns
        -------
        int
            How many were queued.
        """
        execute(
            self.connection,
            f"DELETE FROM {self._jobs} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self._task} t WHERE t.{_MD5} = {self._jobs}.{_MD5})",
        )
        self._free_reserved()
        ignore, conflict = ("", " ON CONFLICT DO NOTHING") if self._postgres else ("IGNORE ", "")
        cursor = execute(
            self.connection,
            f"INSERT {ignore}INTO {self._jobs} ({_MD5}, status, priority) "
            f"SELECT t.{_MD5}, 'pending', {DEFAULT_PRIORITY} FROM {self._task} t "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self._results} r WHERE r.{_MD5} = t.{_MD5}) "
            f"AND NOT EXISTS (SELECT 1 FROM {self._jobs} j WHERE j.{_MD5} = t.{_MD5}) "
            # All is read before anything is written: PostgreSQL would otherwise, where the job table was empty at its last
            # vacuum, read for each task all that it has inserted so far. No index has this order, so it has to sort.
            f"ORDER BY CONCAT(t.{_MD5}, ''){conflict}",
        )
        count = max(int(cursor.rowcount), 0)
        if self._postgres and count >= _MANY:
            # A planner that takes the queue for empty sorts all of it for each claim; MySQL counts by itself.
            tables = self.tables
            configs = (tables.DatasetConfig, tables.ModelConfig, tables.TrainingConfig)
            for name in (self._jobs, self._task, *(config.full_table_name for config in configs)):
                execute(self.connection, f"ANALYZE {name}")
        return count

    def _free_reserved(self) -> None:
        """Make jobs pending that a claim left reserved although its attempt is gone: their tasks were deleted meanwhile."""
        # A claim makes the job reserved and the attempt in one transaction; DataJoint's own reservations name their user.
        orphans = (
            f"SELECT j.{_MD5} FROM {self._jobs} j WHERE j.status = 'reserved' AND j.{quote(self._adapter, 'user')} = '' "
            f"AND NOT EXISTS (SELECT 1 FROM {self._attempts} a WHERE a.{_MD5} = j.{_MD5} AND a.state = 'running')"
        )
        for (task,) in execute(self.connection, orphans).fetchall():
            with transaction(self.connection):
                # Looked at again with the job locked: MySQL reads a row that it updates later than those it compares it with.
                held = f"SELECT {_MD5} FROM {self._jobs} WHERE {_MD5} = %s AND status = 'reserved' FOR UPDATE"
                running = f"SELECT 1 FROM {self._attempts} WHERE {_MD5} = %s AND state = 'running'"
                if execute(self.connection, held, (task,)).fetchone() is not None and (
                    execute(self.connection, running, (task,)).fetchone() is None
                ):
                    self._to_pending(str(task), 0.0)

    def refresh(self) -> None:
        """Queue what was inserted past us, or wait for whoever is just doing so; for workers that found nothing."""
        name = f"synicix/refresh/{self.tables.schema_name}"
        with advisory_lock(self.connection, name, timeout=0, required=False) as held:
            if held:
                self.enqueue()
        if not held:
            with advisory_lock(self.connection, name, timeout=_REFRESH_SECONDS, required=False):
                pass

    @despite_conflicts
    def claim(
        self,
        worker: str,
        host: str,
        pid: int,
        device: str,
        *,
        process: str = "",
        restriction: str = "",
        exclusions: Exclusions | None = None,
        order: str = "original",
    ) -> Claim | None:
        """Claim one pending task, or return None where there is none to claim.

        Parameters
        ----------
        worker : str
            The worker's incarnation, 32 hexadecimal digits.
        host, pid, device : str, int, str
            For people who look.
        process : str
            Names the worker's process on its machine for ever (see `synicix_core.runner.process`), so that another worker
            there can prove that it is gone.
        restriction : str
            SQL of a query that yields the md5s of the tasks to choose from.
        exclusions : Exclusions, optional
            What this worker cannot train.
        order : {"original", "random"}
            By priority and age, or at random within the highest priority.
        """
        lock = self._lock_random if order == "random" else self._lock_first
        with transaction(self.connection):
            task = lock(restriction, exclusions or Exclusions())
            if task is None:
                return None
            execute(
                self.connection,
                f"UPDATE {self._jobs} SET status = 'reserved', reserved_time = {self.now}, host = %s, pid = %s "
                f"WHERE {_MD5} = %s",
                (host[:255], pid, task),
            )
            row = execute(
                self.connection, f"SELECT COALESCE(MAX(attempt), 0) FROM {self._attempts} WHERE {_MD5} = %s", (task,)
            ).fetchone()
            attempt = int(row[0]) + 1
            execute(
                self.connection,
                f"INSERT INTO {self._attempts} "
                f"({_MD5}, attempt, worker, host, pid, process, device, state, started_at, heartbeat_at) "
                f"VALUES (%s, %s, %s, %s, %s, %s, %s, 'running', {self.now}, {self.now})",
                (task, attempt, worker, host[:255], pid, process[:160], device[:64]),
            )
        return Claim(task, attempt, worker)

    @despite_conflicts
    def heartbeat(self, claim: Claim, progress: Mapping[str, Any] | None = None) -> bool:
        """Tell the database that the claim is alive.

        Parameters
        ----------
        claim : Claim
            The claim.
        progress : mapping, optional
            ``epoch``, ``train_loss`` and ``validation_loss`` so far.

        Returns
        -------
        bool
            Whether this worker still holds the claim.
        """
        columns = [
            name for name in ("epoch", "train_loss", "validation_loss") if progress and progress.get(name) is not None
        ]
        sets = "".join(f", {name} = %s" for name in columns)
        cursor = execute(
            self.connection,
            f"UPDATE {self._attempts} SET heartbeat_at = {self.now}{sets} "
            f"WHERE {_MD5} = %s AND attempt = %s AND worker = %s AND state = 'running'",
            (*(progress[name] for name in columns if progress), claim.task, claim.attempt, claim.worker),
        )
        # MySQL counts changed rows only, and two beats may fall into one millisecond.
        return cursor.rowcount == 1 or self._state(claim)[0] == "running"

    def has_ended(self, claim: Claim, state: str) -> bool:
        """Tell whether this worker's attempt is in a state already: released, failed or finished."""
        return self._state(claim)[0] == state

    def why_lost(self, claim: Claim) -> str:
        """Say, for people, what became of a claim that this worker holds no longer."""
        state, kind = self._state(claim)
        if state is None:
            return "the task was deleted"
        if kind == "cancelled":
            return "the task was cancelled"
        return {"released": "the task was paused", "lost": "this worker was taken for lost"}.get(
            state, f"its attempt {claim.attempt} is marked {state}"
        )

    @despite_conflicts
    def commit(self, claim: Claim, row: Mapping[str, Any]) -> None:
        """Write the result of a claim, end the attempt and take the job off the queue, all or nothing.

        Raises
        ------
        ClaimLost
            If this worker no longer holds the claim; nothing is written then.
        """
        with transaction(self.connection):
            now = self._hold(claim)
            hold_store(self.connection, self.tables)
            whole = {**claim.key, **row, "by_attempt": claim.attempt, "utc_insert_time": now}
            ResultRows(self.tables).insert([whole])
            execute(self.connection, f"DELETE FROM {self._jobs} WHERE {_MD5} = %s", (claim.task,))
            self._end(claim, "finished", epoch=row["epochs"])

    @despite_conflicts
    def release(
        self, claim: Claim, checkpoint: str | None = None, delay: float = 0.0, *, epoch: int | None = None
    ) -> None:
        """Give a claim back: the task is pending again, at once or after `delay` seconds; `epoch` is how far it came.

        Raises
        ------
        ClaimLost
            If this worker no longer holds it.
        """
        with transaction(self.connection):
            self._hold(claim)
            self._to_pending(claim.task, delay)
            self._end(claim, "released", checkpoint, epoch=epoch)

    @despite_conflicts
    def fail(self, claim: Claim, problem: Problem) -> None:
        """End a claim in an error, which stays until somebody retries the task.

        Raises
        ------
        ClaimLost
            If this worker no longer holds it.
        """
        with transaction(self.connection):
            self._hold(claim)
            self.set_error(claim.task, problem)
            self._end(claim, "failed", problem=problem)

    @despite_conflicts
    def retry_later(self, claim: Claim, problem: Problem, delay: float) -> None:
        """End an attempt in an error, but let the task be tried again after `delay` seconds.

        Raises
        ------
        ClaimLost
            If this worker no longer holds the claim.
        """
        with transaction(self.connection):
            self._hold(claim)
            self._to_pending(claim.task, delay)
            self._end(claim, "failed", problem=problem)

    def take_back(self, task: str, attempt: int, problem: Problem, *, final: bool) -> None:
        """Mark a running attempt, whose row is locked, as lost: its task is pending again, or in error if that is final."""
        execute(
            self.connection,
            f"UPDATE {self._attempts} SET state = 'lost', error = %s, error_kind = %s, error_cause = %s "
            f"WHERE {_MD5} = %s AND attempt = %s",
            (storable(problem.message), problem.kind, problem.cause or None, task, attempt),
        )
        if final:
            self.set_error(task, problem)
        else:
            self._to_pending(task, 0.0)

    def tries(self, task: str) -> Tries:
        """Return how the attempts at a task went since it was queued or last retried by hand."""
        return read_tries(self.tables, task)

    def retry(self, tasks: Sequence[str]) -> int:
        """Make tasks that ended in an error pending again, with all their attempts before them; return how many."""
        return sum(self._retry(tasks[start : start + 1000]) for start in range(0, len(tasks), 1000))

    @despite_conflicts
    def _retry(self, tasks: Sequence[str]) -> int:
        marks = ", ".join(["%s"] * len(tasks))
        cursor = execute(
            self.connection,
            f"UPDATE {self._jobs} SET status = 'pending', created_time = {self.now}, scheduled_time = {self.now}, "
            f"error_message = '', error_stack = NULL WHERE status = 'error' AND {_MD5} IN ({marks})",
            tuple(tasks),
        )
        return int(cursor.rowcount)

    def waiting(self, restriction: str = "", exclusions: Exclusions | None = None, limit: int | None = None) -> int:
        """Return how many tasks are pending, counting no further than `limit`."""
        where, args = self._claimable(restriction, exclusions or Exclusions(), due=False)
        # What the planner need not sort it need not read to the end.
        counted = f"SELECT 1 AS one {where}" + ("" if limit is None else f" LIMIT {int(limit)}")
        # An argument, though none may be needed, has the driver read "%%" in the restriction as "%".
        sql = f"SELECT COUNT(*) FROM ({counted}) counted WHERE 1 = %s"
        return int(execute(self.connection, sql, (*args, 1)).fetchone()[0])

    def next_due(self, restriction: str = "", exclusions: Exclusions | None = None) -> float | None:
        """Return in how many seconds the next pending task is due (0 or less: now), or None where none is pending."""
        where, args = self._claimable(restriction, exclusions or Exclusions())
        if execute(self.connection, f"SELECT 1 {where} AND 1 = %s LIMIT 1", (*args, 1)).fetchone() is not None:
            return 0.0
        where, args = self._claimable(restriction, exclusions or Exclusions(), due=False)
        age = age_in_seconds(self._adapter, "MIN(j.scheduled_time)")
        row = execute(self.connection, f"SELECT {age} {where} AND 1 = %s", (*args, 1)).fetchone()
        return None if row[0] is None else -float(row[0])

    def set_error(self, task: str, problem: Problem) -> None:
        """Write an error into the job of a task, unless somebody deleted it; part of a transaction."""
        if not self._result_table.jobs & {_MD5: task}:
            return
        self._result_table.jobs.update1(
            {
                _MD5: task,
                "status": "error",
                "error_message": storable(problem.message),
                "error_stack": problem.stack or None,
            }
        )

    def _claimable(
        self, restriction: str, exclusions: Exclusions, *, due: bool = True, among: str = ""
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the FROM and WHERE clauses, and their arguments, of the tasks that this worker may claim.

        `among` is SQL that yields the md5s of the only jobs to look at.
        """
        aliases = {"DatasetConfig": "d", "ModelConfig": "m", "TrainingConfig": "c"}
        columns = {"d": "dataset_config_md5_hash", "m": "model_config_md5_hash", "c": "training_config_md5_hash"}
        jobs = f"({among}) n JOIN {self._jobs} j ON j.{_MD5} = n.{_MD5}" if among else f"{self._jobs} j"
        joins = f"FROM {jobs} JOIN {self._task} t ON t.{_MD5} = j.{_MD5}"
        where, args = "j.status = 'pending'", list[Any]()
        if due:
            where += f" AND j.scheduled_time <= {self.now}"
        for table in dict.fromkeys(table for table, _ in exclusions.providers):
            alias = aliases[table]
            full_name = getattr(self.tables, table).full_table_name
            joins += f" JOIN {full_name} {alias} ON {alias}.{columns[alias]} = t.{columns[alias]}"
        for (table, column), names in exclusions.providers.items():
            where += f" AND {aliases[table]}.{column} NOT IN ({', '.join(['%s'] * len(names))})"
            args.extend(names)
        for kind, configs in (("training", exclusions.training_configs), ("dataset", exclusions.dataset_configs)):
            if configs:
                where += f" AND t.{kind}_config_md5_hash NOT IN ({', '.join(['%s'] * len(configs))})"
                args.extend(configs)
        if restriction:
            where += f" AND t.{_MD5} IN ({restriction})"
        return f"{joins} WHERE {where}", tuple(args)

    def _lock_first(self, restriction: str, exclusions: Exclusions) -> str | None:
        """Lock the first task that nobody else is just claiming."""
        if not restriction and not exclusions:
            where, args = self._claimable(restriction, exclusions)
            # MySQL would otherwise start from the tasks and lock what it reads of the queue.
            straight = "" if self._postgres else "STRAIGHT_JOIN "
            row = execute(
                self.connection,
                f"SELECT {straight}j.{_MD5} {where} ORDER BY j.priority, j.scheduled_time LIMIT 1 "
                "FOR UPDATE OF j SKIP LOCKED",
                args,
            ).fetchone()
            return None if row is None else str(row[0])
        # Under a condition a lock on all that is read would keep others from what they may claim.
        for rows in self._looks(restriction, exclusions, _FEW):
            first, priority = rows[0]
            if task := self._lock([first]) or self._lock([task for task, urgency in rows if urgency == priority]):
                return task
        return None

    def _lock_random(self, restriction: str, exclusions: Exclusions) -> str | None:
        """Lock a task at random among those of the highest priority."""
        first = next(self._looks(restriction, exclusions, _FEW), None)
        if first is None:
            return None
        priority = first[0][1]
        # A stretch of the job table along its key, which reads no more than that whatever the planner knows.
        among = f"SELECT {_MD5} FROM {self._jobs} WHERE {_MD5} >= %s ORDER BY {_MD5} LIMIT {_STRETCH}"
        near, args = self._claimable(restriction, exclusions, among=among)
        for _ in range(3):
            sql = f"SELECT j.{_MD5} {near} AND j.priority = %s"
            rows = execute(self.connection, sql, (secrets.token_hex(16), *args, priority)).fetchall()
            if rows and (task := self._lock([secrets.choice(rows)[0]])):
                return task
        # Few are claimable, or none of them near: at random among the first ones, whose order no longer matters.
        for found in self._looks(restriction, exclusions, _SOME):
            tasks = [task for task, urgency in found if urgency == found[0][1]]
            if task := self._lock([secrets.choice(tasks)]) or self._lock(tasks):
                return task
        return None

    def _looks(self, restriction: str, exclusions: Exclusions, limit: int) -> Iterator[list[tuple[str, int]]]:
        """Yield the first claimable tasks and their priorities, taking no lock: of the head of the queue, then of all of it."""
        head = (
            f"SELECT {_MD5} FROM {self._jobs} WHERE status = 'pending' AND scheduled_time <= {self.now} "
            f"ORDER BY priority, scheduled_time LIMIT {_SOME if restriction or exclusions else limit}"
        )
        # Where none of these will do, or others were faster with all of them, few will do: then the planner may begin at the
        # queue or at what meets the condition.
        for among in (head, ""):
            where, args = self._claimable(restriction, exclusions, among=among)
            sql = f"SELECT j.{_MD5}, j.priority {where} AND 1 = %s ORDER BY j.priority, j.scheduled_time LIMIT {limit}"
            rows = execute(self.connection, sql, (*args, 1)).fetchall()
            if rows:
                yield [(str(task), int(priority)) for task, priority in rows]

    def _lock(self, tasks: Sequence[str]) -> str | None:
        """Lock one of these jobs that is still pending and nobody else's; no order, so that no others are locked for it."""
        marks = ", ".join(["%s"] * len(tasks))
        row = execute(
            self.connection,
            f"SELECT {_MD5} FROM {self._jobs} WHERE {_MD5} IN ({marks}) AND status = 'pending' "
            "LIMIT 1 FOR UPDATE SKIP LOCKED",
            tuple(tasks),
        ).fetchone()
        return None if row is None else str(row[0])

    def _hold(self, claim: Claim) -> Any:
        """Lock the attempt and make sure that it is still ours; return the database's time."""
        row = execute(
            self.connection,
            f"SELECT state, worker, {self.now} FROM {self._attempts} WHERE {_MD5} = %s AND attempt = %s FOR UPDATE",
            (claim.task, claim.attempt),
        ).fetchone()
        if row is None or row[0] != "running" or row[1] != claim.worker:
            raise ClaimLost(
                "this worker no longer holds its claim",
                where=f"task {claim.task}",
                why=self.why_lost(claim),
                hint="Nothing was written.",
            )
        return row[2].replace(tzinfo=None)

    def _state(self, claim: Claim) -> tuple[str | None, str | None]:
        row = execute(
            self.connection,
            f"SELECT state, error_kind FROM {self._attempts} WHERE {_MD5} = %s AND attempt = %s AND worker = %s",
            (claim.task, claim.attempt, claim.worker),
        ).fetchone()
        return (None, None) if row is None else (str(row[0]), row[1])

    def _end(
        self,
        claim: Claim,
        state: str,
        checkpoint: str | None = None,
        problem: Problem | None = None,
        epoch: int | None = None,
    ) -> None:
        execute(
            self.connection,
            f"UPDATE {self._attempts} SET state = %s, heartbeat_at = {self.now}, checkpoint_path = %s, "
            f"epoch = COALESCE(%s, epoch) WHERE {_MD5} = %s AND attempt = %s",
            (state, checkpoint, epoch, claim.task, claim.attempt),
        )
        if problem is not None:
            ended = {**claim.key, "attempt": claim.attempt, "error": storable(problem.message)}
            ended |= {"error_kind": problem.kind, "error_cause": problem.cause or None}
            self.tables.TrainingAttempt().update1(ended | {"error_stack": problem.stack or None})

    def _to_pending(self, task: str, delay: float) -> None:
        execute(
            self.connection,
            f"UPDATE {self._jobs} SET status = 'pending', scheduled_time = {seconds_later(self._adapter)}, "
            f"reserved_time = NULL, host = '', pid = 0 WHERE {_MD5} = %s AND status = 'reserved'",
            (delay, task),
        )


def storable(text: str) -> str:
    """Fit a message into its column; PostgreSQL takes no NUL."""
    text = text.replace("\0", "\\0")
    return text if len(text) <= _ERROR_LENGTH else text[: _ERROR_LENGTH - 2] + " …"
