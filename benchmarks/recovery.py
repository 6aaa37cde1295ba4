"""From ``kill -9`` of a worker to its task running in another one. Aim: lease + 5 s; epochs repeated: a checkpoint's interval."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queueing import MD5, Place, on_each_engine
from report import Spread, table

from synicix_core.runner.display import Silent

__all__ = ["run"]

LEASE, HEARTBEAT, INTERVAL = 4.0, 1.0, 10
"""Seconds, seconds, and epochs from checkpoint to checkpoint."""
REPETITIONS, EPOCHS, TRIALS = 3, 20, 4_000
"""Kills of each kind, epochs before each and half an interval more, and training trials: 0.1 s for an epoch or so."""
AIM = LEASE + 5.0
PATIENCE = 60.0

WHERE = {"here": "the same machine", "elsewhere": "as if on another machine"}


def run() -> str:
    """Measure, and return what to print."""
    return on_each_engine(_measure)


@dataclass(frozen=True)
class Recovery:
    """How one task went on after its worker was killed.

    Attributes
    ----------
    claimed, trained : float
        Seconds from the kill until the other worker held the task, and until it had finished an epoch of it.
    repeated : int
        Epochs that were trained twice.
    """

    claimed: float
    trained: float
    repeated: int


@dataclass(frozen=True)
class _Report:
    """What a worker told."""

    what: str
    task: str
    attempt: int
    epoch: int
    seconds: float


class _Worker:
    """A worker as a process of its own, and what it reports."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, __file__, str(log.parent)], stdout=output)

    def reports(self, task: str) -> list[_Report]:
        """Return what it told of one task, the first first."""
        whole = self._log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        return [report for report in (_Report(**json.loads(line)) for line in whole) if report.task == task]

    def epochs(self, task: str) -> list[_Report]:
        """Return its reports of epochs."""
        return [report for report in self.reports(task) if report.what == "epoch"]

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()


def _measure(engine: str, place: Place) -> str:
    from synicix_core.settings import load_settings

    place.enter()
    os.environ |= {
        "SYNICIX_WORKER_LEASE_SECONDS": str(LEASE),
        "SYNICIX_WORKER_HEARTBEAT_SECONDS": str(HEARTBEAT),
        "SYNICIX_WORKER_CHECKPOINT_EPOCHS": str(INTERVAL),
        "SYNICIX_WORKER_CHECKPOINT_SECONDS": "3600",
        "SYNICIX_WORKER_MAX_ATTEMPTS": "100",
    }
    pipeline = place.pipeline()
    pipeline.settings = load_settings(place.project)
    found: dict[str, list[Recovery]] = {where: [] for where in WHERE}
    heir = _Worker(place.project / "worker-0.log")
    try:
        # Once trained, its executor is up, as in a worker that has been at work.
        warm = _insert(pipeline, seed=0)
        _wait(lambda: heir.epochs(warm))
        _delete(pipeline, warm)
        for number in range(1, REPETITIONS * len(WHERE) + 1):
            where = list(WHERE)[number % len(WHERE)]
            found[where].append(_kill_one(pipeline, heir, where, number))
    finally:
        heir.kill()
        pipeline.connection.close()
    return _table(engine, found)


def _kill_one(pipeline: Any, heir: _Worker, where: str, number: int) -> Recovery:
    """Have a new worker train a task, kill it, and wait until the other one goes on with it."""
    heir.process.send_signal(signal.SIGSTOP)
    victim = _Worker(pipeline.settings.project_dir / f"worker-{number}.log")
    try:
        task = _insert(pipeline, seed=number)
        _wait(lambda: len(victim.epochs(task)) >= EPOCHS)
        heir.process.send_signal(signal.SIGCONT)
        _wait(lambda: len(victim.epochs(task)) >= EPOCHS + INTERVAL // 2)
        if where == "elsewhere":
            _move_away(pipeline, task)
        victim.kill()
        killed = time.monotonic()
        _wait(lambda: heir.epochs(task))
    finally:
        heir.process.send_signal(signal.SIGCONT)
        victim.kill()
    last, first = victim.epochs(task)[-1].epoch, heir.epochs(task)[0]
    started = next(report for report in heir.reports(task) if report.what == "start")
    _delete(pipeline, task)
    return Recovery(started.seconds - killed, first.seconds - killed, last - first.epoch + 1)


def _insert(pipeline: Any, seed: int) -> str:
    """Insert a task that takes for ever."""
    from bench_lab.parts import write_trials

    path = pipeline.settings.dataset_dir / "trials.npz"
    if not path.exists():
        write_trials(path, inputs=64, outputs=8, sizes={"train": TRIALS, "validation": 64, "test": 64})
    training = {"criterion_provider": "MSELoss", "batch_size": 64, "epoch_limit": 1_000_000, "seed": seed}
    reports = (
        pipeline.DatasetConfig.insert_tuples([{"dataset_file_name": path.name, "dataset_provider": "Trials"}]),
        pipeline.ModelConfig.insert_tuples(
            [{"model_provider": "TwoLayers", "model_class_params": {"hidden_size": 32}}]
        ),
        pipeline.TrainingConfig.insert_tuples([training]),
    )
    keys: dict[str, str] = {}
    for report in reports:
        keys |= [*report.new, *report.existing][0]
    task: str = pipeline.TrainingTask.insert_tuples([keys]).new[0][MD5]
    return task


def _delete(pipeline: Any, task: str) -> None:
    """Delete a task, which its worker notices, and wait until that has happened."""
    from synicix_core.database import execute

    tables = pipeline.tables
    for name in (tables.jobs_name, tables.TrainingAttempt.full_table_name, tables.TrainingTask.full_table_name):
        execute(pipeline.connection, f"DELETE FROM {name} WHERE {MD5} = %s", (task,))
    time.sleep(2 * HEARTBEAT)


def _move_away(pipeline: Any, task: str) -> None:
    """Write another machine into the attempt, so that nobody here can tell whether its process lives."""
    from synicix_core.database import execute

    attempts = pipeline.tables.TrainingAttempt.full_table_name
    sql = f"UPDATE {attempts} SET process = %s WHERE {MD5} = %s AND state = 'running'"
    if execute(pipeline.connection, sql, ("another-boot:1/1/1", task)).rowcount != 1:
        raise RuntimeError("the task has no running attempt")


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing happened for {PATIENCE:.0f} s")
        time.sleep(0.01)


def _table(engine: str, found: Mapping[str, list[Recovery]]) -> str:
    rows = []
    slowest, most = 0.0, 0
    for where, recoveries in found.items():
        claimed, trained = (
            Spread(tuple(getattr(recovery, name) for recovery in recoveries)) for name in ("claimed", "trained")
        )
        repeated = Spread(tuple(float(recovery.repeated) for recovery in recoveries))
        slowest, most = max(slowest, *claimed.values), max(most, *(recovery.repeated for recovery in recoveries))
        rows.append([WHERE[where], claimed.text(), trained.text(), repeated.text(0)])
    text = table([f"{engine}, killed on", "s until it runs again", "s until its next epoch", "epochs repeated"], rows)
    in_time, in_few = slowest <= AIM, most <= INTERVAL
    return (
        f"{text}\nrecovery: aim {AIM:.0f} s (lease {LEASE:.0f} s + 5): {'met' if in_time else 'MISSED'} (slowest"
        f" {slowest:.1f} s). Epochs repeated: aim {INTERVAL}, a checkpoint's interval: {'met' if in_few else 'MISSED'}"
        f" (most {most}).\nHeartbeat {HEARTBEAT:.0f} s; the other worker is idle (--wait) and its executor up. Median"
        f" (min..max) of {REPETITIONS} kills each."
    )


class _Reporter(Silent):
    """Writes what happens as JSON lines with the machine's monotonic time, which is that of all its processes."""

    def __init__(self) -> None:
        self._attempt = 0

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:  # noqa: ARG002 - Silent's
        """Report that it runs."""
        self._attempt = attempt
        self._report("start", task, 0)

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Report an epoch."""
        self._report("epoch", task, int(fields["epoch"]))

    def _report(self, what: str, task: str, epoch: int) -> None:
        report = {"what": what, "task": task, "attempt": self._attempt, "epoch": epoch, "seconds": time.monotonic()}
        print(json.dumps(report), flush=True)


def main(project: Path) -> int:
    """Be a worker that waits for tasks."""
    from synicix_core import Pipeline
    from synicix_core.runner.options import WorkerOptions
    from synicix_core.settings import load_settings

    options = WorkerOptions(wait=True, owns_process=True, device="cpu")
    summary = Pipeline(settings=load_settings(project)).run_worker(options, _Reporter())
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
