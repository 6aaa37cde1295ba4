"""Which files in `model_save_dir` are ours, by their names, and which of a task's files nobody needs any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synicix_core.tables.housekeeping import TaskRows

__all__ = ["SavedFile", "find_saved_files", "is_unchanged", "unneeded"]

_NAMED = r"(?P<task>[0-9a-f]{32})\.(?P<attempt>[1-9][0-9]{0,9})\."
_KINDS = {
    "model": re.compile(_NAMED + "pt"),
    "checkpoint": re.compile(_NAMED + "checkpoint"),
    # What a trainer has not finished, and what lies beside a file while it is saved.
    "temporary": re.compile(rf"\.{_NAMED}(?:partial\.pt|(?:partial\.pt|pt|checkpoint)\.[0-9a-f]{{16}}\.tmp)"),
}


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of an attempt, as it was when the directory was listed."""

    name: str
    kind: str
    """``model``, ``checkpoint`` or ``temporary``."""
    task: str
    attempt: int
    size: int
    stamp: tuple[int, int]
    """Its number on the disk and when it was written, by which another file of the same name is told from it."""


def find_saved_files(directory: Path) -> Iterator[SavedFile]:
    """Yield the files of attempts in `model_save_dir`; whatever is not named exactly as ours is passed over.

    Raises
    ------
    OSError
        If the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            for kind, pattern in _KINDS.items():
                match = pattern.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    if entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        task, attempt = match["task"], int(match["attempt"])
                        yield SavedFile(entry.name, kind, task, attempt, found.st_size, _stamp(found))
                except FileNotFoundError:
                    pass  # a worker gave it its final name, or removed it, just now
                break


def is_unchanged(directory: Path, file: SavedFile) -> bool:
    """Tell whether the file is still there, and still the one that was listed."""
    try:
        return _stamp((directory / file.name).lstat()) == file.stamp
    except FileNotFoundError:
        return False


def unneeded(files: Sequence[SavedFile], rows: TaskRows | None) -> Iterator[tuple[SavedFile, str]]:
    """Yield which of one task's files nobody needs, and why; the reason is empty where no row knows of the file at all.

    Parameters
    ----------
    files : sequence of SavedFile
        All files of the task that are there.
    rows : TaskRows or None
        What the rows said after the directory was listed, so that a file always comes with its rows; None where there is no
        such task.
    """
    attempts = rows.attempts if rows else {}
    running = {attempt for attempt, state in attempts.items() if state == "running"}
    checkpoints = {file.attempt for file in files if file.kind == "checkpoint" and file.attempt in attempts}
    latest = max(checkpoints, default=0)
    # A running attempt may go on from any of them until it has saved one of its own.
    any_may_serve = any(attempt not in checkpoints for attempt in running)
    for file in files:
        if rows is not None and file.name == rows.model:
            continue
        if rows is None or file.attempt not in attempts:
            yield file, ""
        elif file.attempt in running:
            continue
        elif file.kind == "model":
            yield file, "not the model of a result"
        elif file.kind == "temporary":
            yield file, "its attempt has ended"
        elif rows.model is not None:
            yield file, "the task has a result"
        elif file.attempt != latest and not any_may_serve:
            yield file, "there is a later one"


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns
