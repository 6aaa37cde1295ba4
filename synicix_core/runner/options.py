"""What a worker is asked to do, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["EXIT_DONE", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_MISCONFIGURED", "WorkerOptions", "WorkerSummary"]

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 75
EXIT_MISCONFIGURED = 78


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is asked to do.

    Attributes
    ----------
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose from; empty for all.
    order : {"original", "random"}
        In which order tasks are claimed.
    device : str
        As torch names it, or ``auto``.
    max_tasks, max_seconds : int, float or None
        When to stop although work is left.
    wait : bool
        Stay when nothing is pending, for tasks that come later.
    may_start : callable, optional
        Asked before each claim; False ends the worker like `max_tasks`.
    may_start_more : callable, optional
        Asked how many more tasks, of so many, may be claimed to be trained together with one that may start.
    returned : callable, optional
        Called when a task that either of them allowed ended without a result or an error; with ``failed=True`` where an
        attempt at it failed, as the display is told, and is made again.
    workers : int
        Workers that were started together, this one included: none of them claims so much that nothing is left for the others.
    owns_process : bool
        Whether the process may be ended when the worker does not stop in time, or at a second signal; not in a notebook.
    project_commit : str
        git commit of the project, for the provenance.
    profile : Path, optional
        Absolute path of a ``.json`` file, or of a directory, to which a profile of the first task's training is written.
    """

    restriction: str = ""
    order: str = "original"
    device: str = "auto"
    max_tasks: int | None = None
    max_seconds: float | None = None
    wait: bool = False
    may_start: Callable[[], bool] | None = None
    may_start_more: Callable[[int], int] | None = None
    returned: Callable[..., None] | None = None
    workers: int = 1
    owns_process: bool = False
    project_commit: str = ""
    profile: Path | None = None


@dataclass
class WorkerSummary:
    """What a worker did, and how it ended.

    Attributes
    ----------
    success_count : int
        Results that it committed.
    error_list : list of (key, message)
        Tasks that ended in an error.
    exit_code : int
        0: nothing pending now or later, or `max_tasks` reached. 75: interrupted with work left. 78: the configuration is
        broken.
    reason : str
        The same in words.
    """

    success_count: int = 0
    error_list: list[tuple[dict[str, str], str]] = field(default_factory=list)
    exit_code: int = EXIT_DONE
    reason: str = ""
