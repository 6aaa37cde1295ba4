"""The soak: many tasks, several workers, and a fault every second from a schedule that the seed decides.

Run by ``make soak``, or as ``python -m tests.faults.soak --tasks 200 --workers 8 --seconds 120 --seed 1``. It has a
database server and a project of its own. Ends with 1 if a task has two results or none and no error, is stuck, or has other
weights than a training that nothing happened to; and if too few of the faults struck for that to mean anything.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from synicix_core import Pipeline
from synicix_core.database import embedded, ensure_connected, execute, is_connection_lost
from synicix_core.settings import create_project
from tests.conftest import TOY_LAB
from tests.faults.lab import Lab, Worker, reference, trained
from tests.rows import insert_tasks

__all__ = ["KINDS", "Fault", "Report", "Soak", "plan"]

T = TypeVar("T")

KINDS = {
    "supervisor killed": 8,
    "executor killed": 14,
    "SIGTERM": 8,
    "frozen": 18,
    "connections cut": 20,
    "database killed": 4,
    "checkpoint torn": 20,
    "disk full": 8,
}
"""How often each kind of fault comes, in relation to the others."""

LEASE = 6.0
FROZEN = 1.5 * LEASE
FULL = 2.0
START_PAUSE = 2.0
"""Seconds between two starts of workers: importing torch takes as long on a slow core."""
START = 120.0
"""Seconds that the workers have until they train, before the faults begin."""
DRAIN = 150.0
"""Seconds that the tasks have to come to an end in, once the faults are over."""

OFTEN = 5
"""A kind of fault that is planned so often has to strike."""

SEEDS = 20
EPOCHS = 4
POISONED = 40
"""One task in so many ends in an error of its own."""

ENVIRONMENT = {
    "SYNICIX_WORKER_LEASE_SECONDS": str(LEASE),
    "SYNICIX_WORKER_HEARTBEAT_SECONDS": "1",
    "SYNICIX_WORKER_GRACE_SECONDS": "15",
    "SYNICIX_WORKER_STALL_TIMEOUT_SECONDS": "90",
    "SYNICIX_WORKER_MAX_ATTEMPTS": "100",
    "FAULT_WAIT": "0.5",
}


@dataclass(frozen=True)
class Fault:
    """One entry of the schedule.

    Attributes
    ----------
    second : int
        When.
    kind : str
        One of `KINDS`.
    draw : float
        From 0 to 1: decides whom it strikes, among those that are there.
    """

    second: int
    kind: str
    draw: float


def plan(seed: int, seconds: int) -> list[Fault]:
    """Return a fault for every second; the same for the same seed."""
    dice = random.Random(seed)
    return [
        Fault(second, dice.choices(list(KINDS), list(KINDS.values()))[0], dice.random())
        for second in range(1, seconds + 1)
    ]


@dataclass
class Report:
    """What came of a soak.

    Attributes
    ----------
    planned_faults, faults : Counter
        Scheduled and injected, by kind. One that finds nobody to strike becomes another that always does, so that a kind
        may strike more often than planned.
    tasks, results, errors, planned_errors : int
        Counts; `planned_errors` is how many tasks are made to end in an error.
    attempts : Counter
        By the state that they ended in.
    duplicates, lost, stuck, different, files : list of str
        What must not be: tasks that finished more than once, that have neither result nor error nor are queued, that did
        not come to an end, whose numbers are others than those of an undisturbed training; and files that gc leaves.
    """

    planned_faults: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    results: int = 0
    errors: int = 0
    planned_errors: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def struck(self) -> int:
        """How many faults were injected as planned."""
        return (self.faults & self.planned_faults).total()

    @property
    def wrong(self) -> list[str]:
        """What is not as promised, in a word or two each."""
        wrong = [name for name in _ITEMS if getattr(self, name)]
        if self.errors != self.planned_errors:
            wrong.append("errors")
        if not self.faults.total() or 2 * self.struck < self.planned_faults.total():
            wrong.append("too few faults")
        wrong += [f"never {kind}" for kind in KINDS if self.planned_faults[kind] >= OFTEN and not self.faults[kind]]
        return wrong

    @property
    def good(self) -> bool:
        """Whether everything is as promised, after faults enough to tell."""
        return not self.wrong

    @property
    def verdict(self) -> str:
        """``good``, or ``BAD`` and why."""
        return "good" if self.good else f"BAD ({', '.join(self.wrong)})"

    def lines(self) -> list[str]:
        """Return it for people."""
        faults = ", ".join(f"{kind} {self.faults[kind]}" for kind in KINDS)
        attempts = ", ".join(f"{state} {number}" for state, number in sorted(self.attempts.items()))
        lines = [
            f"faults injected: {self.faults.total()} ({faults}), as planned {self.struck} of "
            f"{self.planned_faults.total()}",
            f"tasks: {self.tasks}, results: {self.results}, errors: {self.errors} ({self.planned_errors} planned), "
            f"attempts: {self.attempts.total()} ({attempts})",
            f"duplicates: {len(self.duplicates)}, lost: {len(self.lost)}, stuck: {len(self.stuck)}, "
            f"files left: {len(self.files)}, weights different: {len(self.different)}",
        ]
        for name in _ITEMS:
            lines += [f"  {name}: {item}" for item in getattr(self, name)]
        return lines


_ITEMS = ("duplicates", "lost", "stuck", "files", "different")


class Soak:
    """A lab whose workers are struck and started again.

    Parameters
    ----------
    lab : Lab
        In a project with a PostgreSQL of its own.
    workers : int
        How many are kept running.
    tasks : int
        How many there are at first; more come when they run out before the faults do.
    """

    def __init__(self, lab: Lab, workers: int, tasks: int) -> None:
        self.lab = lab
        self.report = Report()
        self._size = workers
        self._workers: list[Worker] = []
        self._frozen: dict[Worker, float] = {}
        self._full_until = 0.0
        self._started = float("-inf")
        self._looked = float("inf")
        self._number = tasks
        self._tasks: dict[str, bool] = {}

    def run(self, faults: list[Fault]) -> Report:
        """Inject the faults, wait until all tasks are at their end, and look at what they left."""
        self.report.planned_faults = Counter(fault.kind for fault in faults)
        self._insert(self._number)
        self._looked = time.monotonic()
        deadline = self._looked + START
        while len(self._ready()) < self._size and time.monotonic() < deadline:
            self._keep_going()
        begun = time.monotonic()
        for fault in faults:
            while time.monotonic() - begun < fault.second:
                self._keep_going()
            # While there is nobody to strike, there are always connections.
            kind = fault.kind if _STRIKES[fault.kind](self, fault.draw) else "connections cut"
            if kind == fault.kind or self._cut(fault.draw):
                self.report.faults[kind] += 1
        self._drain()
        self._judge()
        return self.report

    def _keep_going(self) -> None:
        now = time.monotonic()
        self._workers = [worker for worker in self._workers if worker.alive]
        for worker, until in list(self._frozen.items()):
            if now >= until:
                self._thaw(worker)
        if now >= self._full_until:
            self._set_full(False)
        if len(self._workers) < self._size and now - self._started >= START_PAUSE:
            self._started = now
            self._workers.append(self.lab.start("--wait", **ENVIRONMENT))
        if now - self._looked >= 5:
            self._looked = now
            if self._ask(lambda: self.lab.pipeline.queue.waiting(limit=self._size)) < self._size:
                self._insert(5 * self._size)
        time.sleep(0.05)

    def _insert(self, number: int) -> None:
        for index in range(len(self._tasks), len(self._tasks) + number, SEEDS):
            left = min(SEEDS, number, len(self._tasks) + number - index)
            tasks = self._ask(lambda index=index, left=left: self._insert_some(index, left))
            self._tasks |= tasks

    def _insert_some(self, mark: int, number: int) -> dict[str, bool]:
        tasks = dict.fromkeys(self.lab.insert(*range(number), mark=mark, epochs=EPOCHS), False)
        if mark % POISONED == 0:
            how = {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "raise", "seconds": float(mark)}}
            tasks |= dict.fromkeys(insert_tasks(self.lab.pipeline, trainings=[how]), True)
        return tasks

    def _drain(self) -> None:
        for worker in list(self._frozen):
            self._thaw(worker)
        self._set_full(False)
        deadline = time.monotonic() + DRAIN
        self._looked = float("inf")  # no more tasks
        while self._ask(self._unfinished) and time.monotonic() < deadline:
            for _ in range(20):
                self._keep_going()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        for worker in self._workers:
            worker.end(30)

    def _unfinished(self) -> list[str]:
        """Return the tasks that are queued or claimed."""
        pipeline = self.lab.pipeline
        jobs = (pipeline.TrainingResult.jobs & "status <> 'error'").to_dicts()
        running = (pipeline.TrainingAttempt & "state = 'running'").to_dicts()
        return sorted({row["training_task_md5_hash"] for row in [*jobs, *running]})

    def _judge(self) -> None:
        report, pipeline = self.report, self.lab.pipeline
        attempts = pipeline.TrainingAttempt().to_dicts()
        results = set(pipeline.TrainingResult().to_arrays("training_task_md5_hash"))
        errors = {row["training_task_md5_hash"]: row for row in pipeline.TrainingResult.jobs.errors.to_dicts()}
        finished = Counter(row["training_task_md5_hash"] for row in attempts if row["state"] == "finished")
        report.tasks, report.results, report.errors = len(self._tasks), len(results), len(errors)
        report.planned_errors = sum(self._tasks.values())
        report.attempts = Counter(row["state"] for row in attempts)
        report.duplicates = [task for task, number in finished.items() if number > 1 or task in errors]
        report.stuck = self._unfinished()
        report.lost = sorted(set(self._tasks) - results - set(errors) - set(report.stuck))
        report.lost += sorted(task for task in errors if not errors[task]["error_message"])
        for task in results:
            try:
                differences = trained(pipeline, task).differences(reference(pipeline, task))
            except FileNotFoundError:
                differences = ["the model is not there"]
            if differences:
                report.different.append(f"{task}: {', '.join(differences)}")
        try:
            self.lab.check_files(list(self._tasks))
        except AssertionError as error:
            # The interpreter's own assertions have no message.
            report.files = str(error).splitlines() or ["other files than the models of the results"]

    def _ask(self, action: Callable[[], T]) -> T:
        """Ask the database, again and again while it is away."""
        connection = self.lab.pipeline.connection
        for _ in range(100):
            try:
                ensure_connected(connection)
                return action()
            except Exception as error:
                if not is_connection_lost(connection, error):
                    raise
                time.sleep(0.2)
        raise AssertionError("the database does not come back")

    def _choose(self, draw: float) -> Worker | None:
        ready = self._ready()
        return ready[int(draw * len(ready))] if ready else None

    def _ready(self) -> list[Worker]:
        """Return the workers that train or could, and are not frozen; one that is just starting has nothing to lose."""
        awake = [worker for worker in self._workers if worker.alive and worker not in self._frozen]
        return [worker for worker in awake if "training runs on" in worker.said]

    def _kill_supervisor(self, draw: float) -> bool:
        worker = self._choose(draw)
        if worker is not None:
            worker.kill()
        return worker is not None

    def _kill_executor(self, draw: float) -> bool:
        worker = self._choose(draw)
        executor = None if worker is None else worker.executor
        if executor is not None:
            os.kill(executor, signal.SIGKILL)
        return executor is not None

    def _terminate(self, draw: float) -> bool:
        worker = self._choose(draw)
        if worker is not None:
            worker.signal(signal.SIGTERM)
        return worker is not None

    def _freeze(self, draw: float) -> bool:
        worker = self._choose(draw)
        if worker is not None:
            worker.signal(signal.SIGSTOP, executor=True)
            self._frozen[worker] = time.monotonic() + FROZEN
        return worker is not None

    def _thaw(self, worker: Worker) -> None:
        del self._frozen[worker]
        if worker.alive:
            worker.signal(signal.SIGCONT, executor=True)

    def _cut(self, draw: float) -> bool:
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
        return len(self._ask(lambda: execute(self.lab.pipeline.connection, sql).fetchall())) > 0

    def _kill_database(self, draw: float) -> bool:
        project = self.lab.pipeline.settings.project_dir
        server = embedded.status(project).pid
        if server is not None:
            os.kill(server, signal.SIGQUIT)
        # Until it is gone it may still take the connection by which `start` sees that it runs.
        while server is not None and embedded.status(project).pid == server:
            time.sleep(0.02)
        embedded.start(project)
        return server is not None

    def _tear(self, draw: float) -> bool:
        files = sorted(self.lab.pipeline.settings.model_save_dir.glob("*.checkpoint"))
        if not files:
            return False
        file = files[int(draw * len(files))]
        try:
            whole = bytearray(file.read_bytes())
            if int(draw * 1000) % 3 == 0:
                file.unlink()
            elif int(draw * 1000) % 3 == 1:
                os.truncate(file, len(whole) // 2)
            else:
                whole[int(draw * len(whole))] ^= 0xFF
                with file.open("r+b") as opened:
                    opened.write(whole)
        except FileNotFoundError:  # its task is at its end
            return False
        return True

    def _fill_disk(self, draw: float) -> bool:
        self._set_full(True)
        self._full_until = time.monotonic() + FULL
        return True

    def _set_full(self, full: bool) -> None:
        for name in ("full-checkpoint", "full-model"):
            file = self.lab.folder / "faults" / name
            if full:
                file.touch()
            else:
                file.unlink(missing_ok=True)


_STRIKES: dict[str, Callable[[Soak, float], bool]] = {
    "supervisor killed": Soak._kill_supervisor,
    "executor killed": Soak._kill_executor,
    "SIGTERM": Soak._terminate,
    "frozen": Soak._freeze,
    "connections cut": Soak._cut,
    "database killed": Soak._kill_database,
    "checkpoint torn": Soak._tear,
    "disk full": Soak._fill_disk,
}
"""Each tells whether there was anything to strike."""


def main() -> int:
    """Run a soak, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}: {options.tasks} tasks, {options.workers} workers, {options.seconds} s of faults", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="synicix-soak-"))
    report, seconds = soak(folder, options.workers, options.tasks, plan(seed, options.seconds))
    print("\n".join(report.lines()))
    print(f"seed {seed}: {report.verdict} after {seconds:.0f} s")
    if not report.good:
        print(f"what the workers said, and the database, is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def soak(folder: Path, workers: int, tasks: int, faults: list[Fault]) -> tuple[Report, float]:
    """Run a soak in a folder; return what came of it, and how many seconds it took."""
    begun = time.monotonic()
    for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_"))]:
        del os.environ[name]
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([TOY_LAB, str(Path.cwd())])
    project = create_project(folder / "project").project_dir
    os.chdir(project)
    # As a server that is configured: else each worker would start it when it is away, and one that is frozen while it does
    # so keeps all others from it.
    host = embedded.start(project)
    os.environ |= {"DJ_HOST": host, "DJ_USER": "postgres", "DJ_PASS": "", "DJ_BACKEND": "postgresql"}
    pipeline: Any = Pipeline(declare=True)
    lab = Lab(pipeline, folder / "lab", step_seconds=0.04)
    try:
        report = Soak(lab, workers, tasks).run(faults)
    finally:
        lab.close()
        pipeline.connection.close()
        embedded.stop(project)
    return report, time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
