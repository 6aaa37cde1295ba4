"""What a launcher is: the shape of its class, what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from synicix_core import Settings
    from synicix_launch.database import Database

__all__ = ["LaunchRequest", "Launcher", "RenderedFile", "Submission"]


@dataclass(frozen=True)
class RenderedFile:
    """A file for the scheduler: its name, without a folder, and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class LaunchRequest:
    """What is to be launched.

    Attributes
    ----------
    settings : Settings
        The project's.
    options : object
        An instance of the launcher's ``options`` with what flags and ``synicix.toml`` say.
    workers : int
        How many workers to start, at least 1.
    grace_seconds : float or None
        Time that a worker takes to stop after a signal, where a flag or the project says; give it this and half a minute more.
        None leaves it to the launcher, which has to tell the workers: by the variable SYNICIX_WORKER_GRACE_SECONDS.
    pending : int
        Tasks that wait to be trained.
    needs : mapping of str to str
        Distributions of plugins that these tasks need, and their versions here; ``""`` for one that is not installed here.
    database : Database
        Where the project's database is; never holds the password.
    folder : Path
        Where rendered files are kept on this machine, of this launcher alone.
    again : bool
        Whether to submit although the same is queued or running.
    """

    settings: Settings
    options: Any
    workers: int
    grace_seconds: float | None
    pending: int
    needs: Mapping[str, str]
    database: Database
    folder: Path
    again: bool = False


@dataclass(frozen=True)
class Submission:
    """What was submitted.

    Attributes
    ----------
    job : str
        The name or number by which the scheduler knows it.
    said : str
        What the scheduler's program has printed.
    follow : sequence of (str, str)
        Commands with which to follow it, each behind what it does: ``("its log", "tail -f …")``.
    """

    job: str
    said: str = ""
    follow: Sequence[tuple[str, str]] = field(default_factory=tuple)


class Launcher(Protocol):
    """The shape of a launcher; nothing is subclassed. It is built without arguments.

    One whose workers train several tasks at once may also have ``slots(options, settings) -> int``, which says how many; there are
    fewer workers then.

    Attributes
    ----------
    options : type
        A frozen dataclass; see `option`. Each field is a flag and a key of the launcher's table in ``synicix.toml``.
    """

    options: ClassVar[type[Any]]

    def render(self, request: LaunchRequest) -> Sequence[RenderedFile]:
        """Return the files that the scheduler gets. Nothing is asked of the scheduler, and nothing written.

        Raises
        ------
        LaunchError
            If it cannot be done with these options.
        """
        ...

    def warnings(self, request: LaunchRequest) -> Sequence[str]:
        """Return sentences that the user should read before submitting."""
        ...

    def diff(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> str:
        """Return how the files differ from what is there; empty where they do not."""
        ...

    def submit(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> Submission:
        """Hand the files to the scheduler.

        Raises
        ------
        LaunchError
            If its program is missing, or the same is running and ``request.again`` is not set.
        SchedulerError
            If the scheduler refuses.
        """
        ...
