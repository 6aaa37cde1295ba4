"""CPU time of ``synicix-run --help`` over that of an interpreter that does nothing. Aim: below 150 ms, below 8 times."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from report import Spread, table

__all__ = ["run"]

RUNS = 15
AIM_MS, AIM_RATIO = 150.0, 8.0


def run() -> str:
    """Measure, and return what to print."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "synicix-run --help": [str(Path(sys.executable).with_name("synicix-run")), "--help"],
        "synicix-run --version": [str(Path(sys.executable).with_name("synicix-run")), "--version"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            spent = _cpu_ms(command)
            if turn:  # the first round fills the disk cache
                times[name].append(spent)
    spreads = {name: Spread(tuple(values)) for name, values in times.items()}
    nothing = spreads["python -c pass"]
    rows = [
        [name, spread.text(0), "1" if spread is nothing else spread.over(nothing).text(1)]
        for name, spread in spreads.items()
    ]
    help_ms, ratio = spreads["synicix-run --help"], spreads["synicix-run --help"].over(nothing)
    met = "met" if help_ms.median < AIM_MS and ratio.median < AIM_RATIO else "MISSED"
    return (
        table(["command", "CPU ms: median (min..max)", "ratio to python -c pass"], rows)
        + f"\n--help: aim below {AIM_MS:.0f} ms of CPU and {AIM_RATIO:.0f}x: {met}"
        + f" ({help_ms.median:.0f} ms, {ratio.median:.1f}x; minima {help_ms.least:.0f} ms,"
        + f" {help_ms.least / nothing.least:.1f}x). {RUNS} interleaved runs each."
    )


def _cpu_ms(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
