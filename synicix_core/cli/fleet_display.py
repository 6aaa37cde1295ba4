"""The joint progress of several workers: on a terminal a line for each and their totals, else plain lines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from shutil import get_terminal_size
from typing import Any, TextIO

from synicix_core.cli.group_progress import GroupProgress
from synicix_core.cli.live import Bottom, bar, losses
from synicix_core.cli.text_table import shorten
from synicix_core.cli.wording import duration, number
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.lines import Lines, short_name

__all__ = ["FleetLines", "FleetLive"]

_BAR = 10
_WIDE = 100
_ABOUT_A_TASK = re.compile(r"(Tasks like )?[0-9a-f]{8}\b")


class FleetLines:
    """The lines of several workers, each with the worker's name in front; a sentence that many say is printed once.

    Parameters
    ----------
    stream : text file, optional
        Standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._lines = Lines(stream)
        self._stream = stream
        self._said: set[str] = set()

    def of(self, worker: str) -> WorkerDisplay:
        """Return where one worker's progress is shown."""
        return _WorkerLines(self, worker, self._stream)

    def note(self, worker: str, text: str) -> None:
        """Print what happened to a worker."""
        self._lines.message(_named(worker, text))

    def printed(self, worker: str, line: str) -> None:
        """Print what a worker printed."""
        self._lines.message(_named(worker, line))

    def said(self, worker: str, text: str) -> None:
        """Print what a worker said: with its name if it is about a task of its own, else what was not printed before."""
        self.message(_named(worker, text) if _ABOUT_A_TASK.match(text) else text)

    def message(self, text: str) -> None:
        """Print a sentence that was not printed before."""
        if text not in self._said:
            self._said.add(text)
            self._lines.message(text)

    def close(self) -> None:
        """Flush."""
        self._lines.close()


class FleetLive:
    """The display of several workers on a terminal.

    Parameters
    ----------
    stream : text file
        The terminal.
    workers : sequence of str
        Their names.
    max_tasks : int, optional
        How many tasks they do at most; the time left is estimated accordingly.
    """

    def __init__(self, stream: TextIO, workers: tuple[str, ...], max_tasks: int | None = None) -> None:
        self._past = FleetLines(stream)
        self._bottom = Bottom(stream)
        self._max_tasks = max_tasks
        self._states = {name: _State("starting") for name in workers}
        self._reported: dict[str, int] = {}
        self._begun: float | None = None
        self._done = self._failed = self._waiting = 0

    def of(self, worker: str) -> WorkerDisplay:
        """Return where one worker's progress is shown."""
        return _WorkerLine(self, worker)

    def note(self, worker: str, text: str) -> None:
        """Show for good what happened to a worker, and in its line until it goes on."""
        state = self._states[worker]
        # What it had begun is nobody's any more.
        self._waiting += state.in_training
        state.rest(text)
        self._show(lambda: self._past.note(worker, text))

    def printed(self, worker: str, line: str) -> None:
        """Show what a worker printed above the present state."""
        self._show(lambda: self._past.printed(worker, line))

    def said(self, worker: str, text: str) -> None:
        """Show what a worker said above the present state, as lines show it."""
        self._show(lambda: self._past.said(worker, text))

    def message(self, text: str) -> None:
        """Show a sentence above the present state, the first time that it is said."""
        self._show(lambda: self._past.message(text))

    def close(self) -> None:
        """Take the present state away; what was shown for good stays."""
        self._bottom.erase()
        self._bottom.stream.flush()

    def begun(self, worker: str, title: str, epoch_limit: int, pending: int) -> None:
        """Show that a worker begins a task; `pending` tasks were waiting then, this one included."""
        self._take(worker, 1, pending - 1)
        self._states[worker].train(title, {"epoch_limit": epoch_limit})
        self._bottom.draw(self._present())

    def group_begun(self, worker: str, group: GroupProgress, pending: int) -> None:
        """Show that a worker begins tasks which are trained as one; `pending` others are waiting."""
        self._take(worker, len(group), pending)
        self._states[worker].train_together(group)
        self._bottom.draw(self._present())

    def _take(self, worker: str, tasks: int, left: int) -> None:
        self._begun = time.monotonic() if self._begun is None else self._begun
        # A worker counts now and then, and in between counts down what it takes itself, not what the others take.
        counted_down = left == self._reported.get(worker, -1) - tasks
        self._reported[worker] = left
        self._waiting = max(self._waiting - tasks, 0) if counted_down else left

    def went_on(self, worker: str, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch, at most ten a second for all workers together."""
        self._states[worker].went_on(task, fields)
        if self._bottom.is_due():
            self._bottom.draw(self._present())

    def ended(self, worker: str, tasks: Sequence[str], how: str, show: Callable[[WorkerDisplay], None]) -> None:
        """Show for good how tasks ended: ``finished``, ``failed``, ``released`` or ``lost``."""
        self._done += len(tasks) * (how == "finished")
        self._failed += len(tasks) * (how == "failed")
        # What is released is pending again.
        self._waiting += len(tasks) * (how == "released")
        self._states[worker].ended(tasks)
        self._show(lambda: show(self._past.of(worker)))

    def _show(self, show: Callable[[], None]) -> None:
        self._bottom.erase()
        show()
        self._bottom.draw(self._present())

    def _present(self) -> list[str]:
        size = get_terminal_size()
        width = size.columns - 1
        # What is taller than the terminal could not be drawn again.
        room = max(size.lines - 3, 1)
        states = list(self._states.items())
        if len(states) > room:
            states.sort(key=lambda each: not each[1].is_training)
        lines = [_line(name, state, width) for name, state in states[:room]]
        if (hidden := len(self._states) - len(lines)) > 0:
            lines.append(f"  and {hidden:,} more")
        return [*lines, shorten(self._totals(), width)]

    def _totals(self) -> str:
        states = self._states.values()
        together = sum(state.in_training for state in states if state.group is not None)
        training = f"{together:,} in training, " if together else ""
        pending = self._waiting + sum(state.is_training for state in states if state.group is None)
        text = f"  {self._done:,} done, {self._failed:,} failed, {training}{pending:,} pending"
        ended = self._done + self._failed
        left = pending + together if self._max_tasks is None else min(pending + together, self._max_tasks - ended)
        if ended and self._begun is not None:
            pace = ended / max(time.monotonic() - self._begun, 1e-3)
            text += f", {_rate(pace)}" + (f", done in {duration(left / pace)}" if left > 0 else "")
        return text


@dataclass
class _State:
    """What a worker's line says: a task, a group of them, or words."""

    words: str
    title: str = ""
    epoch: Mapping[str, Any] = field(default_factory=dict)
    group: GroupProgress | None = None

    @property
    def is_training(self) -> bool:
        return bool(self.title)

    @property
    def in_training(self) -> int:
        return len(self.group) if self.group is not None else int(self.is_training)

    def train(self, title: str, epoch: Mapping[str, Any]) -> None:
        self.title, self.epoch, self.group = title, epoch, None

    def train_together(self, group: GroupProgress) -> None:
        self.title, self.group = group.title, group

    def went_on(self, task: str, fields: Mapping[str, Any]) -> None:
        self.epoch = fields
        if self.group is not None:
            self.group.went_on(task, fields)

    def ended(self, tasks: Sequence[str]) -> None:
        if self.group is not None:
            self.group.ended(tasks)
        if not self.group:
            self.rest("")

    def rest(self, words: str) -> None:
        self.title, self.words, self.group = "", words, None

    def progress(self, *, only_one: bool) -> str:
        if self.group is not None:
            return f"{bar(self.group.epoch(), _BAR)}  {self.group.left()}"
        return f"{bar(self.epoch, _BAR)}  {losses(self.epoch, only_one=only_one)}".rstrip()


class _WorkerLines(Lines):
    """One worker's progress as lines."""

    def __init__(self, fleet: FleetLines, worker: str, stream: TextIO | None) -> None:
        super().__init__(stream, prefix=f"[{worker}] ")
        self._fleet = fleet
        self._worker = worker

    def message(self, text: str) -> None:
        """Print a sentence; without the name of the worker that is the first to say it, unless it is about a task."""
        self._fleet.said(self._worker, text)


class _WorkerLine:
    """One worker's progress in its line of the terminal."""

    def __init__(self, fleet: FleetLive, worker: str) -> None:
        self._fleet = fleet
        self._worker = worker

    def message(self, text: str) -> None:
        self._fleet.said(self._worker, text)

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        again = f", attempt {attempt}" if attempt > 1 else ""
        title = f"{task[:8]}{again}: {short_name(configs['model_provider'])} on {configs['dataset_file_name']}"
        self._fleet.begun(self._worker, title, int(configs["epoch_limit"]), pending)

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        self._fleet.group_begun(self._worker, GroupProgress(group), pending)

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        self._fleet.went_on(self._worker, task, fields)

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        self._fleet.ended(self._worker, [task], "finished", lambda past: past.task_finished(task, result, seconds))

    def task_ended(self, task: str, how: str, why: str) -> None:
        self._fleet.ended(self._worker, [task], how, lambda past: past.task_ended(task, how, why))

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        self._fleet.ended(self._worker, tasks, how, lambda past: past.group_ended(tasks, how, text))

    def close(self) -> None:
        """Leave the terminal to the fleet."""


def _line(name: str, state: _State, width: int) -> str:
    if not state.is_training:
        return shorten(_named(name, state.words), width)
    right = f"  {state.progress(only_one=width < _WIDE)}"
    return shorten(_named(name, shorten(state.title, max(width - len(name) - 3 - len(right), 12))) + right, width)


def _named(worker: str, text: str) -> str:
    return f"[{worker}] {text}".rstrip()


def _rate(per_second: float) -> str:
    units = ((1, "second"), (60, "minute"), (3600, "hour"))
    size, unit = next((each for each in units if per_second * each[0] >= 1), units[-1])
    return f"{number(per_second * size, 3)} tasks a {unit}"
