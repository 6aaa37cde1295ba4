"""The ends of claims on tasks that were trained together: many results, or many releases, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synicix_core.database.dialect import seconds_later
from synicix_core.database.reconnect import despite_conflicts, execute, is_conflict, is_connection_lost, transaction
from synicix_core.errors import ClaimLost
from synicix_core.tables.queue import Claim, Problem, Queue, storable
from synicix_core.tables.queue_groups import case, marks
from synicix_core.tables.result_rows import ResultRows
from synicix_core.tables.store_lock import hold_store

__all__ = ["Committed", "Given", "GroupEnds"]

_MD5 = "training_task_md5_hash"


@dataclass(frozen=True)
class Committed:
    """What became of results that were to be written.

    Attributes
    ----------
    lost : dict of str to ClaimLost
        By task, why its claim was gone; nothing was written of it.
    failed : dict of str to Exception
        By task, why its row could not be written; its claim is still held.
    """

    lost: dict[str, ClaimLost] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """A claim that is given back.

    Attributes
    ----------
    claim : Claim
        The claim.
    checkpoint : str, optional
        File name of its latest checkpoint.
    epoch : int, optional
        How far it came.
    """

    claim: Claim
    checkpoint: str | None = None
    epoch: int | None = None


class GroupEnds:
    """The queue, for claims that end together.

    Parameters
    ----------
    queue : Queue
        The queue, for single tasks.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._tables = queue.tables
        self._connection = queue.connection
        self._jobs = queue.tables.jobs_name
        self._attempts = queue.tables.TrainingAttempt.full_table_name
        self._results = queue.tables.TrainingResult.full_table_name
        self._rows = ResultRows(queue.tables)

    @despite_conflicts
    def commit(self, results: Sequence[tuple[Claim, Mapping[str, Any]]]) -> Committed:
        """Write results, end the attempts and take the jobs off the queue, in one transaction.

        A row that cannot be written, and a claim that is gone, leave the others alone. A result that is there already, of
        the same attempt, counts as written: a connection that was lost during a commit leaves open whether it took effect.

        Parameters
        ----------
        results : sequence of (Claim, dict)
            At most one for each task; the columns are those that `Queue.commit` takes.
        """
        committed = Committed()
        if not results:
            return committed
        with transaction(self._connection):
            claims = {claim.task: claim for claim, _ in results}
            held, now = self._hold(claims)
            gone = [claim for task, claim in claims.items() if task not in held]
            if gone:
                written = self._written(gone)
                committed.lost.update({c.task: self._lost(c) for c in gone if c.task not in written})
            rows = {
                claim.task: {**claim.key, **row, "by_attempt": claim.attempt, "utc_insert_time": now}
                for claim, row in results
                if claim.task in held
            }
            if rows:
                hold_store(self._connection, self._tables)
                committed.failed.update(self._insert(rows))
            done = [task for task in rows if task not in committed.failed]
            if done:
                execute(self._connection, f"DELETE FROM {self._jobs} WHERE {_MD5} IN ({marks(done)})", done)
                self._end([claims[task] for task in done], "finished", {task: rows[task]["epochs"] for task in done})
        return committed

    @despite_conflicts
    def release(self, given: Sequence[Given], problem: Problem | None = None) -> dict[str, ClaimLost]:
        """Give claims back, so that their tasks are pending again at once, in one transaction.

        Parameters
        ----------
        given : sequence of Given
            At most one for each task.
        problem : Problem, optional
            Why, if it was not wanted; it is recorded, and counts as no failure of theirs.

        Returns
        -------
        dict of str to ClaimLost
            By task, why its claim was gone.
        """
        with transaction(self._connection):
            claims = {one.claim.task: one.claim for one in given}
            held, _ = self._hold(claims)
            tasks = [task for task in claims if task in held]
            if tasks:
                execute(
                    self._connection,
                    f"UPDATE {self._jobs} SET status = 'pending', "
                    f"scheduled_time = {seconds_later(self._connection.adapter)}, "
                    f"reserved_time = NULL, host = '', pid = 0 WHERE {_MD5} IN ({marks(tasks)}) AND status = 'reserved'",
                    (0.0, *tasks),
                )
                self._end(
                    [claims[task] for task in tasks],
                    "released",
                    {one.claim.task: one.epoch for one in given},
                    {one.claim.task: one.checkpoint for one in given},
                    problem,
                )
            return {task: self._lost(claim) for task, claim in claims.items() if task not in held}

    def _hold(self, claims: Mapping[str, Claim]) -> tuple[set[str], Any]:
        """Lock the attempts; return the tasks whose claims are still ours, and the database's time."""
        tasks = sorted(claims)
        sql = (
            f"SELECT {_MD5}, attempt, state, worker, {self._queue.now} FROM {self._attempts} "
            # In order, so that nobody waits for this transaction with a lock that it wants.
            f"WHERE {_MD5} IN ({marks(tasks)}) AND state = 'running' ORDER BY {_MD5}, attempt FOR UPDATE"
        )
        held, now = set[str](), None
        for task, attempt, state, worker, time in execute(self._connection, sql, tasks).fetchall():
            claim = claims[str(task)]
            if state == "running" and worker == claim.worker and int(attempt) == claim.attempt:
                held.add(claim.task)
                now = time.replace(tzinfo=None)
        return held, now

    def _written(self, claims: Sequence[Claim]) -> set[str]:
        tasks = [claim.task for claim in claims]
        sql = f"SELECT {_MD5}, by_attempt FROM {self._results} WHERE {_MD5} IN ({marks(tasks)})"
        found = {(str(task), int(by)) for task, by in execute(self._connection, sql, tasks).fetchall()}
        return {claim.task for claim in claims if (claim.task, claim.attempt) in found}

    def _lost(self, claim: Claim) -> ClaimLost:
        return ClaimLost(
            "this worker no longer holds its claim",
            where=f"task {claim.task}",
            why=self._queue.why_lost(claim),
            hint="Nothing was written.",
        )

    def _insert(self, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Exception]:
        """Insert all rows at once; where that fails, one after the other, and return those that fail by themselves."""
        if self._attempt(list(rows.values())) is None:
            return {}
        failures = {task: self._attempt([row]) for task, row in rows.items()}
        return {task: failure for task, failure in failures.items() if failure is not None}

    def _attempt(self, rows: Sequence[Mapping[str, Any]]) -> Exception | None:
        """Insert rows behind a savepoint; return the error that undid it."""
        execute(self._connection, "SAVEPOINT result")
        try:
            self._rows.insert(rows)
        except Exception as error:
            # Such an error ends the whole transaction.
            if is_conflict(error) or is_connection_lost(self._connection, error):
                raise
            execute(self._connection, "ROLLBACK TO SAVEPOINT result")
            return error
        execute(self._connection, "RELEASE SAVEPOINT result")
        return None

    def _end(
        self,
        claims: Sequence[Claim],
        state: str,
        epochs: Mapping[str, int | None],
        checkpoints: Mapping[str, str | None] | None = None,
        problem: Problem | None = None,
    ) -> None:
        sets, args = [f"state = %s, heartbeat_at = {self._queue.now}"], list[Any]([state])
        if problem is not None:
            sets.append("error = %s, error_kind = %s, error_cause = %s")
            args += [storable(problem.message), problem.kind, problem.cause or None]
        per_task: dict[str, Mapping[str, Any]] = {"epoch": epochs, "checkpoint_path": checkpoints or {}}
        for column, values in per_task.items():
            known = {claim.task: values[claim.task] for claim in claims if values.get(claim.task) is not None}
            text, theirs = case(column, known)
            sets, args = [*sets, *text], [*args, *theirs]
        tasks = [claim.task for claim in claims]
        execute(
            self._connection,
            f"UPDATE {self._attempts} SET {', '.join(sets)} "
            f"WHERE {_MD5} IN ({marks(tasks)}) AND worker = %s AND state = 'running'",
            (*args, *tasks, claims[0].worker),
        )
