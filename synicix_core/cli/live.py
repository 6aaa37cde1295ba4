"""A worker's progress on a terminal: what is over scrolls up, what goes on stands in two lines at the bottom."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from shutil import get_terminal_size
from typing import Any, TextIO

from synicix_core.cli.text_table import shorten
from synicix_core.cli.wording import duration, number
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.lines import Lines

__all__ = ["Live", "Once", "can_redraw"]

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
        self.epoch_finished = display.epoch_finished
        self.task_finished = display.task_finished
        self.task_ended = display.task_ended
        self.close = display.close

    def message(self, text: str) -> None:
        """Show a sentence that was not shown before."""
        if text not in self._said:
            self._said.add(text)
            self._display.message(text)


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
        self._stream = stream
        self._lines = Lines(stream)
        self._max_tasks = max_tasks
        self._drawn = 0
        self._drawn_at = float("-inf")
        self._title = ""
        self._epoch: Mapping[str, Any] = {}
        self._done = self._failed = self._pending = 0
        self._seconds = 0.0

    def message(self, text: str) -> None:
        """Show a sentence above the present state."""
        self._erase()
        self._lines.message(text)
        self._draw()

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins."""
        again = f", attempt {attempt}" if attempt > 1 else ""
        model = configs["model_provider"].rpartition("/")[2]
        self._title = f"{task[:8]}{again}: {model} on {configs['dataset_file_name']}"
        self._epoch = {"epoch_limit": configs["epoch_limit"]}
        self._pending = pending
        self._redraw()

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:  # noqa: ARG002 - one task at a time
        """Show an epoch, at most ten a second."""
        self._epoch = fields
        if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._redraw()

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the score for good."""
        self._done += 1
        self._seconds += seconds
        self._end(lambda: self._lines.task_finished(task, result, seconds))

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show for good why there is no result."""
        self._failed += how == "failed"
        # What is released is pending again.
        self._end(lambda: self._lines.task_ended(task, how, why), pending=how == "released")

    def close(self) -> None:
        """Take the present state away; what was shown for good stays."""
        self._erase()
        self._title = ""
        self._stream.flush()

    def _end(self, show: Callable[[], None], *, pending: bool = False) -> None:
        self._erase()
        self._pending = max(self._pending - (not pending), 0)
        self._title = ""
        show()
        self._draw()

    def _redraw(self) -> None:
        self._erase()
        self._draw()

    def _draw(self) -> None:
        lines = ([self._title, self._progress()] if self._title else []) + [self._counts()]
        width = get_terminal_size().columns - 1
        text = "".join(f"{shorten(line, width)}\n" for line in lines)
        self._stream.write(text)
        self._stream.flush()
        self._drawn = len(lines)
        self._drawn_at = time.monotonic()

    def _erase(self) -> None:
        if self._drawn:
            # Up to the first of our lines, and clear from there to the end of the screen.
            self._stream.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._drawn = 0

    def _progress(self) -> str:
        epoch, limit = int(self._epoch.get("epoch", 0)), int(self._epoch["epoch_limit"])
        filled = round(_BAR * min(epoch / limit, 1.0))
        losses = [
            f"{name} {number(self._epoch[key])}"
            for name, key in (("train", "train_loss"), ("validation", "validation_loss"))
            if self._epoch.get(key) is not None
        ]
        return f"  [{'#' * filled}{'.' * (_BAR - filled)}] epoch {epoch}/{limit}  {'  '.join(losses)}".rstrip()

    def _counts(self) -> str:
        text = f"  {self._done:,} done, {self._failed:,} failed, {self._pending:,} pending"
        left = self._pending
        if self._max_tasks is not None:
            left = min(left, self._max_tasks - self._done - self._failed)
        if self._done and left > 0:
            text += f", done in {duration(left * self._seconds / self._done)}"
        return text
