"""Connections and statements of many workers. What 110 and 1,000 would ask of a server follows, with the arithmetic shown."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
from populate_tasks import DATASET_FILE, write_dataset
from queueing import Place, on_each_engine
from report import table

from synicix_core.database.quiet import quiet

__all__ = ["run"]

WORKERS = (1, 8, 32)
MANY_WORKERS = (110, 1000)
IDLE, LONG, SHORT = "nothing pending", "tasks of an hour", "tasks of 5 s"
EPOCHS = {LONG: 3600, SHORT: 5}
TASKS_OF = {LONG: 1, SHORT: 60}
"""Tasks for each worker: enough for the window."""
WINDOW = 60.0
"""Seconds of one count: four heartbeats."""
START_SECONDS = 400.0
TASK_SECONDS = (5, 60, 600, 3600)


def run() -> str:
    """Measure, and return what to print."""
    return on_each_engine(_measure)


@dataclass(frozen=True)
class Load:
    """What some workers asked of the server in a while.

    Attributes
    ----------
    connections : int
        Of the workers alone.
    statements : float
        Per second, BEGIN and COMMIT among them.
    results : int
        Tasks that were finished meanwhile.
    cpu : float
        Cores that the server used.
    """

    connections: int
    statements: float
    results: int
    cpu: float


def _measure(engine: str, place: Place) -> str:
    pipeline = place.pipeline()
    write_dataset(pipeline.settings.dataset_dir / DATASET_FILE)
    watch = _Watch(engine, place, pipeline)
    loads: dict[tuple[int, str], Load] = {}
    try:
        for workers in WORKERS:
            for what in (IDLE, LONG, SHORT):
                print(f"{engine}: {workers} workers, {what}", file=sys.stderr, flush=True)
                _insert(pipeline, workers, what)
                with _fleet(place, workers):
                    watch.wait_for(workers, running=0 if what == IDLE else workers)
                    loads[workers, what] = watch.count()
                with quiet():
                    pipeline.TrainingTask().delete(prompt=False)
    finally:
        pipeline.connection.close()
    return _tables(engine, loads)


def _insert(pipeline: Any, workers: int, what: str) -> None:
    from bench_project import insert_tasks

    if what != IDLE:
        seeds = range(workers * TASKS_OF[what])
        insert_tasks(pipeline, seeds, trainer_provider="Sleeper", epoch_limit=EPOCHS[what])


@contextmanager
def _fleet(place: Place, workers: int) -> Iterator[None]:
    command = [sys.executable, "-m", "synicix_core.cli", "--project", str(place.project), "populate", "--wait"]
    command += ["--workers", str(workers), "--fuse", "off", "--device", "cpu"]
    log = (place.project / "fleet.log").open("w")
    fleet = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
        if fleet.poll() is not None:
            raise RuntimeError(f"the workers ended: {(place.project / 'fleet.log').read_text()[-2000:]}")
    finally:
        fleet.send_signal(signal.SIGTERM)
        fleet.wait(120)
        log.close()


class _Watch:
    """Looks at the server from a connection of its own, which it leaves out of every count but for one statement a look."""

    def __init__(self, engine: str, place: Place, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._postgres = engine == "PostgreSQL"
        if self._postgres:
            from synicix_core.database import embedded

            status = embedded.status(place.project)
            self._log, self._server = status.log, psutil.Process(status.pid)
            # Counted in the log: no extension has to be there, and what is prepared counts, too.
            for setting in ("log_statement = 'all'", "log_line_prefix = ''"):
                self._ask(f"ALTER SYSTEM SET {setting}")
            self._ask("SELECT pg_reload_conf()")
        else:
            pid = str(self._ask("SHOW VARIABLES LIKE 'pid_file'")[1])
            self._server = psutil.Process(int(open(pid).read()))  # noqa: PTH123, SIM115 - one number, read once

    def wait_for(self, workers: int, running: int) -> None:
        """Wait until so many workers are connected and so many tasks run, and a little longer for the rest to settle."""
        deadline = time.monotonic() + START_SECONDS
        while self._connections() < workers or self._pipeline.counts()["running"] < running:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{workers} workers were not at work after {START_SECONDS:g} s")
            time.sleep(1)
        # Who waits looks for tasks more often in the first minute.
        time.sleep(5 if running else 65)

    def count(self) -> Load:
        """Count for a while."""
        results, cpu, statements, begun = self._results(), self._cpu(), self._statements(), time.monotonic()
        time.sleep(WINDOW)
        connections = self._connections()
        asked, seconds = self._statements() - statements, time.monotonic() - begun
        return Load(connections, asked / seconds, self._results() - results, (self._cpu() - cpu) / seconds)

    def _results(self) -> int:
        return int(self._pipeline.counts()["finished"])

    def _connections(self) -> int:
        if self._postgres:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return int(self._ask(sql)[0]) - 1
        return int(self._ask("SHOW GLOBAL STATUS LIKE 'Threads_connected'")[1]) - 1

    def _statements(self) -> int:
        if not self._postgres:
            return int(self._ask("SHOW GLOBAL STATUS LIKE 'Questions'")[1])
        return len(re.findall(r"^LOG:  (?:statement|execute )", self._log.read_text(errors="replace"), re.MULTILINE))

    def _cpu(self) -> float:
        """Seconds of CPU; a connection's process that ended meanwhile is in its parent's."""
        times = self._server.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._server.children(recursive=True):
            theirs = child.cpu_times()
            total += theirs.user + theirs.system
        return float(total)

    def _ask(self, sql: str) -> Any:
        cursor = self._pipeline.connection.query(sql)
        return cursor.fetchone() if cursor.description else None


def _tables(engine: str, loads: dict[tuple[int, str], Load]) -> str:
    rows = [
        [
            str(workers),
            what,
            str(load.connections),
            f"{load.statements:.2f}",
            f"{load.statements / workers:.3f}",
            str(load.results) if what == SHORT else "",
            f"{load.cpu:.3f}",
        ]
        for (workers, what), load in loads.items()
    ]
    measured = table(
        ["workers", "while", "connections", "statements/s", "of one worker", "results", "server's cores"], rows
    )
    most = max(WORKERS)
    steady, busy = loads[most, LONG], loads[most, SHORT]
    beat = steady.statements / most
    task = (busy.statements - steady.statements) * WINDOW / max(busy.results, 1)
    cost = busy.cpu / busy.statements if busy.statements else 0.0
    header = ["workers", "connections", *(f"tasks of {seconds} s" for seconds in TASK_SECONDS)]
    extrapolated = []
    for workers in MANY_WORKERS:
        rates = [workers * (beat + task / seconds) for seconds in TASK_SECONDS]
        extrapolated.append([str(workers), str(workers), *(f"{rate:.0f}/s, {rate * cost:.2f} cores" for rate in rates)])
    return (
        f"{engine}\n{measured}\n"
        f"Counted by the server over {WINDOW:g} s, BEGIN and COMMIT included. From {most} workers: a worker that trains asks\n"
        f"h = {beat:.3f} statements/s (a heartbeat every 15 s), a task costs k = {task:.1f} more, and a statement c = "
        f"{1000 * cost:.2f} ms of the server's CPU.\n"
        f"n workers with tasks of T seconds ask n (h + k/T) statements/s and n (h + k/T) c cores:\n"
        f"{table(header, extrapolated)}"
    )
