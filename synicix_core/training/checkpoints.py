"""The checkpoint files of one attempt at a task: when to write, what can be gone on from, what may be removed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core.errors import CheckpointError
from synicix_core.training.failures import is_transient
from synicix_core.training.saved_files import load_checksummed, require_plain, save_checksummed

__all__ = ["CheckpointPlan", "Checkpoints"]

_FORMAT = 2
_WRITING_COSTS = 100
"""Training takes at least so many times what writing takes: one percent of the time goes into it."""


@dataclass(frozen=True)
class CheckpointPlan:
    """Where the checkpoints of an attempt lie, and how often they are written.

    Attributes
    ----------
    task : str
        md5 of the task; a checkpoint of another task is refused.
    path : Path
        The file of this attempt.
    resume_from : tuple of Path
        Files of earlier attempts, the latest first. They are removed once this attempt has one of its own.
    seconds : float
        Time between checkpoints. Long ones come less often: writing takes at most one percent of the time.
    epochs : int
        One is due after so many epochs as well, whatever it costs; 0 leaves it to the time.
    code : str
        Digest of the code that the task is made of. A checkpoint that other code wrote is passed over, because half of a
        training by one code and half by another would be the result of neither.
    """

    task: str
    path: Path
    resume_from: tuple[Path, ...] = ()
    seconds: float = 30.0
    epochs: int = 0
    code: str = ""


class Checkpoints:
    """Writes and reads them.

    Parameters
    ----------
    plan : CheckpointPlan
        Where and how often.

    Attributes
    ----------
    notes : list of str
        What a reader of the result should know.
    """

    def __init__(self, plan: CheckpointPlan) -> None:
        self.notes: list[str] = []
        self._plan = plan
        self._earlier = plan.resume_from
        self._started = self._saved_at = time.monotonic()
        self._saved_epochs = 0
        self._last_write = self._writes = 0.0

    def start(self) -> None:
        """Count the time from now."""
        self._started = self._saved_at = time.monotonic()

    def due(self, epochs: int) -> bool:
        """Tell whether it is time, with so many epochs finished."""
        if self._plan.epochs and epochs - self._saved_epochs >= self._plan.epochs:
            return True
        now = time.monotonic()
        if now - self._saved_at < self._plan.seconds:
            return False
        # All that was written so far, and the next one, which will take as long as the last.
        return now - self._started >= _WRITING_COSTS * (self._writes + self._last_write)

    def write(self, content: Mapping[str, Any]) -> CheckpointError | None:
        """Write a checkpoint; then the earlier attempts' files go.

        Parameters
        ----------
        content : mapping
            ``epochs``, the number finished; ``state``, what the trainer saves; and what else `read` is to return.

        Returns
        -------
        CheckpointError or None
            What the disk said if it refused: the file from before is still there, and training need not end.

        Raises
        ------
        CheckpointError
            If the state holds something that could not be read back.
        """
        started = time.monotonic()
        require_plain(content["state"], "state")
        refusal: CheckpointError | None = None
        try:
            save_checksummed(
                {"format": _FORMAT, "task": self._plan.task, "code": self._plan.code, **content}, self.path
            )
        except CheckpointError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            refusal = error
        else:
            self._forget_earlier()
        # After a failure as well, so that a disk that is full is not asked again at each step.
        self._saved_at = time.monotonic()
        self._last_write = self._saved_at - started
        self._writes += self._last_write
        self._saved_epochs = content["epochs"]
        return refusal

    def read(self) -> dict[str, Any] | None:
        """Return the content of this attempt's checkpoint, or of the latest earlier one that is whole; None without any.

        Raises
        ------
        CheckpointError
            If a file belongs to another task, or the disk does not answer just now.
        """
        for path in (self.path, *self._earlier):
            content = self._read(path) if path.exists() else None
            if content is not None:
                self._saved_epochs = content["epochs"]
                return content
        if self.notes:
            self.notes.append("no checkpoint could be used, so training started over")
        return None

    @property
    def path(self) -> Path:
        """The file of this attempt."""
        return self._plan.path

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            content = load_checksummed(path)
        except CheckpointError as error:
            if is_transient(error):  # it may be whole, and worth waiting for
                raise
            self.notes.append(f"the checkpoint {path.name} could not be read: {error.why}")
            return None
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            self.notes.append(f"the checkpoint {path.name} was written by another version of Synicix and is not used")
            return None
        if content["task"] != self._plan.task:
            raise CheckpointError(
                "the checkpoint belongs to another task",
                where=str(path),
                hint="Move the file away to train from the start.",
            )
        if content["code"] != self._plan.code:
            self.notes.append(f"the checkpoint {path.name} was written by other code and is not used")
            return None
        return content

    def _forget_earlier(self) -> None:
        for path in self._earlier:
            with contextlib.suppress(OSError):  # what stays is found by `synicix-run gc`
                path.unlink(missing_ok=True)
        self._earlier = ()
