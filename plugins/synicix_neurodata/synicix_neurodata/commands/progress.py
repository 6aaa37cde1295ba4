"""How far a long command is: a bar on a terminal, a line now and then elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress"]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(label: str, length: int) -> Iterator[Callable[[int], object]]:
    """Give a function that is told how much has just been done, of `length` in all."""
    if not sys.stderr.isatty():
        yield _Lines(label, length).add
        return
    steps = max(1, length // 200)
    with click.progressbar(length=length, label=label, file=sys.stderr, update_min_steps=steps) as bar:
        yield bar.update


class _Lines:
    def __init__(self, label: str, length: int) -> None:
        self._label, self._length, self._done = label, length, 0
        self._start = self._told = time.monotonic()

    def add(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < _SECONDS_BETWEEN_LINES or not 0 < self._done < self._length:
            return
        self._told = now
        left = (now - self._start) * (self._length - self._done) / self._done
        click.echo(f"{self._label}: {self._done / self._length:.0%}, about {left:.0f} s left", err=True)
