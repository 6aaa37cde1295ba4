"""Run benchmarks: ``python benchmarks/run.py [name ...]``; all of them without a name."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

# One thread, for numbers that repeat; set before torch is imported here or in any process started from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NAMES = (
    "help",
    "populate_overhead",
    "trainer_epoch",
    "trainer_rivals",
    "fused_sweep",
    "many_tasks",
    "precision",
    "queueing",
    "claims",
    "database_load",
    "recovery",
    "checkpoints",
    "views",
    "neurodata_fits",
    "neurodata_reading",
)


def main(names: list[str]) -> int:
    """Print the tables of the benchmarks called `names`."""
    from report import machine

    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    # Ended from outside, a benchmark still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = dict(os.environ)
    for name in names or NAMES:
        os.environ.clear()
        os.environ.update(environment)
        module = importlib.import_module(name)
        started = time.monotonic()
        print(f"\n## {name}: {module.__doc__}", flush=True)
        print(module.run(), flush=True)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
