"""A worker's progress on a terminal: what is over scrolls up, what goes on stands in two lines at the bottom."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from shutil import get_terminal_size
from typing import Any, TextIO

from synicix_core.cli.group_progress import GroupProgress
from synicix_core.cli.text_table import shorten
from synicix_core.cli.wording import duration, number
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.lines import Lines

__all__ = ["Bottom", "Live", "Once", "bar", "can_redraw", "losses"]

_BAR = 20
_REDRAW_SECONDS = 0.1


def can_redraw(stream: TextIO) -> bool:
    """Tell whether `stream` is a terminal on which lines can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and sys.platform != "win32"


class Once:
    """Passes everything on to another display, but each sentence only the first time: trainers repeat theirs.

    Parameters
    ----------
    display : WorkerDisplay
        Who shows it.
    """

    def __init__(self, display: WorkerDisplay) -> None:
        self._display = display
        self._said: set[str] = set()
        self.task_started = display.task_started
        self.group_started = display.group_started
        self.epoch_finished = display.epoch_finished
        self.task_finished = display.task_finished
        self.task_ended = display.task_ended
        self.group_ended = display.group_ended
        self.close = display.close

    def message(self, text: str) -> None:
        """Show a sentence that was not shown before."""
        if text not in self._said:
            self._said.add(text)
            self._display.message(text)


class Bottom:
    """The lines at the bottom of a terminal that are drawn again and again.

    Parameters
    ----------
    stream : text file
        The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._drawn = 0
        self._drawn_at = float("-inf")

    def draw(self, lines: Sequence[str]) -> None:
        """Draw these lines in the place of those that stand there; none may be wider than the terminal."""
        # In one piece, so that nobody sees the moment in between.
        self.stream.write(self._up() + "".join(f"{line}\n" for line in lines))
        self.stream.flush()
        self._drawn = len(lines)
        self._drawn_at = time.monotonic()

    def erase(self) -> None:
        """Take the lines away, to write there what stays."""
        self.stream.write(self._up())
        self._drawn = 0

    def is_due(self) -> bool:
        """Tell whether the lines are old enough for small changes to be drawn."""
        return time.monotonic() - self._drawn_at >= _REDRAW_SECONDS

    def _up(self) -> str:
        # Up to the first of our lines, and clear from there to the end of the screen.
        return f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""


def bar(fields: Mapping[str, Any], size: int) -> str:
    """Return how far a training is: a bar of `size` characters, the epoch and its limit."""
    epoch, limit = int(fields.get("epoch", 0)), int(fields["epoch_limit"])
    filled = round(size * min(epoch / limit, 1.0))
    return f"[{'#' * filled}{'.' * (size - filled)}] epoch {epoch}/{limit}"


def losses(fields: Mapping[str, Any], *, only_one: bool = False) -> str:
    """Return the losses of an epoch that are known, or the more telling one of them."""
    known = [
        f"{name} {number(fields[key])}"
        for name, key in (("train", "train_loss"), ("validation", "validation_loss"))
        if fields.get(key) is not None
    ]
    return "  ".join(known[-1:] if only_one else known)


class Live:
    """The display of a worker on a terminal.

    Parameters
    ----------
    stream : text file
        The terminal.
    max_tasks : int, optional
        How many tasks the worker does at most; the time left is estimated accordingly.
    """

    def __init__(self, stream: TextIO, max_tasks: int | None = None) -> None:
        self._lines = Lines(stream)
        self._bottom = Bottom(stream)
        self._max_tasks = max_tasks
        self._title = ""
        self._epoch: Mapping[str, Any] = {}
        self._group: GroupProgress | None = None
        self._done = self._failed = self._pending = 0
        self._seconds = 0.0

    def message(self, text: str) -> None:
        """Show a sentence above the present state."""
        self._bottom.erase()
        self._lines.message(text)
        self._draw()

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins."""
        again = f", attempt {attempt}" if attempt > 1 else ""
        model = configs["model_provider"].rpartition("/")[2]
        self._title = f"{task[:8]}{again}: {model} on {configs['dataset_file_name']}"
        self._epoch = {"epoch_limit": configs["epoch_limit"]}
        self._group = None
        self._pending = pending
        self._draw()

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Show that tasks begin which are trained as one."""
        self._group = GroupProgress(group)
        self._title = self._group.title
        self._pending = pending + len(group)
        self._draw()

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch, at most ten a second."""
        self._epoch = fields
        if self._group is not None:
            self._group.went_on(task, fields)
        if self._bottom.is_due():
            self._draw()

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the score for good."""
        self._done += 1
        self._seconds += seconds
        self._end([task], lambda: self._lines.task_finished(task, result, seconds))

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show for good why there is no result."""
        self._failed += how == "failed"
        # What is released is pending again.
        self._end([task], lambda: self._lines.task_ended(task, how, why), pending=how == "released")

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Show for good why there are no results of several tasks."""
        self._end(tasks, lambda: self._lines.group_ended(tasks, how, text), pending=how == "released")

    def close(self) -> None:
        """Take the present state away; what was shown for good stays."""
        self._bottom.erase()
        self._title = ""
        self._bottom.stream.flush()

    def _end(self, tasks: Sequence[str], show: Callable[[], None], *, pending: bool = False) -> None:
        self._bottom.erase()
        self._pending = max(self._pending - (0 if pending else len(tasks)), 0)
        if self._group is not None:
            self._group.ended(tasks)
        if not self._group:
            self._title, self._group = "", None
        show()
        self._draw()

    def _draw(self) -> None:
        lines = ([self._title, self._progress()] if self._title else []) + [self._counts()]
        width = get_terminal_size().columns - 1
        self._bottom.draw([shorten(line, width) for line in lines])

    def _progress(self) -> str:
        if self._group is not None:
            return f"  {bar(self._group.epoch(), _BAR)}  {self._group.left()}"
        return f"  {bar(self._epoch, _BAR)}  {losses(self._epoch)}".rstrip()

    def _counts(self) -> str:
        together = len(self._group) if self._group is not None else 0
        training = f"{together:,} in training, " if together else ""
        pending = max(self._pending - together, 0)
        text = f"  {self._done:,} done, {self._failed:,} failed, {training}{pending:,} pending"
        left = self._pending
        if self._max_tasks is not None:
            left = min(left, self._max_tasks - self._done - self._failed)
        if self._done and left > 0:
            text += f", done in {duration(left * self._seconds / self._done)}"
        return text
