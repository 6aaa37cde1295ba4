"""What becomes of a claim: a result, another try, an error, or back to the queue."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import random
from collections.abc import Callable
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from synicix_core.errors import ClaimLost, DatasetError, SynicixError
from synicix_core.events import TaskFailed, TaskFinished
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.observers import Observers
from synicix_core.runner.options import WorkerSummary
from synicix_core.runner.patience import Patience
from synicix_core.settings import Settings
from synicix_core.tables.code_digest import code_digest
from synicix_core.tables.queue import Claim, Problem, Queue
from synicix_core.tables.tries import TRIED_AGAIN
from synicix_core.training.task_specs import checkpoint_path, latest_checkpoint, model_path

if TYPE_CHECKING:
    from synicix_core.training.spec import TaskOutcome

__all__ = ["STORE_PAUSES", "Endings", "problem_of", "refused"]

STORE_PAUSES = (0.1, 0.5, 2.0, 5.0, None)
"""Seconds until a store that refused results is tried again; None is the end of it."""
_LONGEST_DELAY = 3600.0
_JITTER = 0.25
_logger = logging.getLogger("synicix")


class Endings:
    """Writes how claims end, tells who is to be told, and removes the files that nobody needs any more.

    Parameters
    ----------
    queue : Queue
        Where claims are.
    settings : Settings
        Directories and the worker's times.
    patience : Patience
        Waits for the database.
    observers : Observers
        Of plugins.
    display : WorkerDisplay
        For people.
    summary : WorkerSummary
        Counts.
    returned : callable, optional
        Called when a claim ended without a result or an error; see `WorkerOptions`.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        patience: Patience,
        observers: Observers,
        display: WorkerDisplay,
        summary: WorkerSummary,
        returned: Callable[..., None] | None,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._times = settings.worker
        self._patience = patience
        self._observers = observers
        self._display = display
        self._summary = summary
        self._returned = returned or (lambda **_: None)

    def finish(self, claim: Claim, outcome: dict[str, Any], seconds: float) -> None:
        """Commit a result.

        Raises
        ------
        ClaimLost
            If this worker no longer holds the claim; nothing is written then.
        """
        from synicix_core.training.spec import TaskOutcome

        result = TaskOutcome.from_wire(outcome)
        row = self.row_of(claim, result)
        self._patience(lambda: self._commit(claim, row))
        self.finished(claim, result, row, seconds)

    @staticmethod
    def row_of(claim: Claim, result: TaskOutcome) -> dict[str, Any]:
        """Return the columns of a result, as `Queue.commit` takes them."""
        return {
            "test_score": result.test_score,
            "status": result.status,
            "scores": result.metrics,
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "training_epoch_loss_history": result.training_epoch_loss_history,
            "validation_epoch_loss_history": result.validation_epoch_loss_history,
            "regularization_loss_history": result.regularization_loss_history,
            "model_class_params_history": result.model_class_params_history,
            "model_save_path": model_path(claim.task, claim.attempt),
            "model_sha256": result.model_sha256,
            "train_seconds": result.train_seconds,
            "code_sha256": code_digest(result.provenance["providers"]),
            "provenance": {**result.provenance, "notes": list(result.notes)},
        }

    def finished(self, claim: Claim, result: TaskOutcome, row: dict[str, Any], seconds: float) -> None:
        """Count a result that was committed, remove its checkpoints, and tell whoever is to be told; never raise."""
        self._summary.success_count += 1
        try:
            self._tell_finished(claim, result, row, seconds)
            for attempt in range(claim.attempt, 0, -1):
                (self._settings.model_save_dir / checkpoint_path(claim.task, attempt)).unlink(missing_ok=True)
        except Exception as error:
            # The result is there. What goes wrong now must not pass for the end of its task.
            text = "%s: the result is stored, but then: %s: %s"
            _logger.warning(text, claim.task[:8], type(error).__name__, error)

    def _tell_finished(self, claim: Claim, result: TaskOutcome, row: dict[str, Any], seconds: float) -> None:
        for note in result.notes:
            self._display.message(note)
        self._display.task_finished(claim.task, row, seconds)
        event = TaskFinished(
            **_whose(claim),
            status=result.status,
            test_score=result.test_score,
            metrics=result.metrics,
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            model_path=str(self._settings.model_save_dir / row["model_save_path"]),
            train_seconds=result.train_seconds,
        )
        self._observers.notify("synicix_task_finished", event)

    def release(
        self,
        claim: Claim,
        why: str = "it is pending again",
        *,
        trained: bool = False,
        can_checkpoint: bool | None = None,
        epochs: int | None = None,
    ) -> None:
        """Give a claim back, with its latest checkpoint.

        Parameters
        ----------
        claim : Claim
            The claim.
        why : str
            For people.
        trained : bool
            Whether its training had begun.
        can_checkpoint : bool, optional
            Whether the trainer saves checkpoints, if it said so.
        epochs : int, optional
            How far it came, if it came anywhere.

        Raises
        ------
        ClaimLost
            If this worker no longer holds it.
        """
        checkpoint = self.checkpoint_of(claim)
        self._end(claim, "released", lambda: self._queue.release(claim, checkpoint, epoch=epochs))
        self.released(claim, checkpoint, why, trained=trained, can_checkpoint=can_checkpoint)

    def checkpoint_of(self, claim: Claim) -> str | None:
        """Return the file name of the checkpoint that the next attempt goes on from, if there is one."""
        checkpoint = latest_checkpoint(self._settings, claim.task, claim.attempt)
        return None if checkpoint is None else checkpoint.name

    def released(
        self, claim: Claim, checkpoint: str | None, why: str, *, trained: bool, can_checkpoint: bool | None
    ) -> None:
        """Say that a claim was given back; the arguments are those of `release`."""
        if checkpoint is not None:
            why += ", with a checkpoint"
        elif can_checkpoint is False:
            why += "; its trainer saves no checkpoints, so it starts again from the beginning"
        elif trained:
            why += "; it has no checkpoint, so it starts again from the beginning"
        self._display.task_ended(claim.task, "released", why)
        self._returned()

    def lose(self, claim: Claim, error: ClaimLost) -> None:
        """Say that a claim is not ours any more, and take away what was trained for it, unless it has a result."""
        if self._patience(lambda: self._queue.has_ended(claim, "finished")):
            return
        wanted = error.why.endswith(("paused", "cancelled"))
        self.discard(claim)
        self._display.task_ended(claim.task, "stopped" if wanted else "lost", error.why if wanted else str(error))
        self._returned()

    def discard(self, claim: Claim) -> None:
        """Take away what was trained for a claim that was not to have a result; what the disk keeps, `gc` finds."""
        with contextlib.suppress(OSError):
            (self._settings.model_save_dir / model_path(claim.task, claim.attempt)).unlink()

    def fail(self, claim: Claim, problem: Problem, *, can_split: bool = False) -> None:
        """End an attempt in an error, and have the task tried again if that kind of error makes it sensible.

        Raises
        ------
        ClaimLost
            If this worker no longer holds the claim.
        """
        delay = self._patience(lambda: self._delay(claim, problem, can_split=can_split))
        if delay is None:
            self._end(claim, "failed", lambda: self._queue.fail(claim, problem))
            self._summary.error_list.append((claim.key, problem.message))
            again = ""
        else:
            self._end(claim, "failed", lambda: self._queue.retry_later(claim, problem, delay))
            smaller = problem.kind == "out_of_memory"
            again = "; it is tried again " + ("in smaller parts of a batch" if smaller else f"in {delay:.0f} s")
            self._returned(failed=True)
        self.discard(claim)
        self._display.task_ended(claim.task, "failed", problem.message.rstrip(".") + again)
        event = TaskFailed(**_whose(claim), error=problem.message, error_stack=problem.stack)
        self._observers.notify("synicix_task_failed", event)

    def _delay(self, claim: Claim, problem: Problem, *, can_split: bool) -> float | None:
        """Return in how many seconds a task is tried again; None if it is not."""
        if problem.kind == "out_of_memory":
            return 0.0 if can_split and not self._queue.tries(claim.task).out_of_memory else None
        if problem.kind not in TRIED_AGAIN:
            return None
        failures = self._queue.tries(claim.task).failures + 1
        if failures >= self._times.max_attempts:
            return None
        # Not all tasks that a broken disk threw out come back at the same instant.
        longest = _LONGEST_DELAY / (1 + _JITTER)
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
        return min(self._times.retry_seconds * 2.0 ** (failures - 1), longest) * jitter

    def _end(self, claim: Claim, state: str, write: Callable[[], None]) -> None:
        """Have the end of an attempt written; one that the database wrote without an answer is not lost."""
        tries = 0

        def write_once_more() -> None:
            nonlocal tries
            tries += 1
            try:
                write()
            except ClaimLost:
                if tries == 1 or not self._queue.has_ended(claim, state):
                    raise

        self._patience(write_once_more)

    def _commit(self, claim: Claim, row: dict[str, Any]) -> None:
        for pause in STORE_PAUSES:
            try:
                self._queue.commit(claim, row)
                return
            except ClaimLost:
                # A connection lost during COMMIT leaves open whether it took effect; the row tells.
                if not len(self._queue.tables.TrainingResult & {**claim.key, "by_attempt": claim.attempt}):
                    raise
                return
            except OSError as error:
                # Network disks have hiccups.
                if pause is None:
                    raise refused(error) from error
                self._patience.sleep(pause)


def refused(error: OSError) -> SynicixError:
    """Return the error that says that the store took no result."""
    why = error.strerror or str(error)
    result = SynicixError("the result cannot be stored", why=why, hint="Run: synicix-run doctor")
    result.__cause__ = error
    return result


def problem_of(error: Exception) -> Problem:
    """Describe an error that the supervisor met itself: with a dataset file, the store, a row that is gone."""
    ours = isinstance(error, SynicixError)
    kind = "data" if isinstance(error, DatasetError) else "error"
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and not isinstance(link, FileExistsError | IsADirectoryError | NotADirectoryError):
            # A disk that is full or does not answer; what is wrong with a file itself comes without one.
            kind = "transient" if link.errno != errno.EACCES else kind
        link = link.__cause__
    what = error.what if isinstance(error, SynicixError) else ""
    text = "".join(char for char in what.partition("'")[0] if not char.isdigit())
    cause = hashlib.sha256(f"{kind}:{type(error).__name__}:{text}".encode()).hexdigest()[:8]
    message = str(error) if ours else f"{type(error).__name__}: {error}"
    return Problem(message, "" if ours else format_exc(), kind, cause)


def _whose(claim: Claim) -> dict[str, Any]:
    return {"task": claim.task, "attempt": claim.attempt, "worker": claim.worker}
