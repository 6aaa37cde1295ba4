"""What populate adds to 200 tasks of one small epoch. Aim: 20 ms of wall time per task on the embedded database."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_project import cpu_of_worker, insert_tasks, open_project
from report import Spread, table
from stopwatch import Stopwatch

from synicix_core.runner.display import Silent

__all__ = ["run"]

TASKS, WARM_UP, BLOCKS = 200, 10, 10
SIZE = TASKS // BLOCKS
AIM_MS = 20.0
HERE = Path(__file__).parent

RIVALS = {"bare": "bare training loop", "hand": "plain script: train, save, score", "datajoint": "DataJoint's populate"}
SUPERVISOR_PARTS = {
    "waiting": "count what is pending",
    "claim": "claim",
    "fetch1": "configs of the task",
    "fetch": "dataset cache",
    "commit": "commit of the task before, while the executor trains",
    "wait": "then wait for the executor",
}
EXECUTOR_PARTS = {
    "load_parts": "find providers",
    "open_tiers": "datasets (3 tiers)",
    "make_metrics": "metrics",
    "seed_everything": "seeds",
    "prepare": "build the trainer",
    "train": "train",
    "train_epoch": "  of it: the epoch",
    "measure": "  of it: validation",
    "save": "  of it: save the model",
    "_score": "score 3 tiers, from the file",
    "make_outcome": "histories and provenance",
    "run_task": "all of it",
}


def run() -> str:
    """Measure, and return what to print."""
    with open_project() as project:
        return _measure(project)


def _measure(project: Path) -> str:
    from datajoint.expression import QueryExpression

    from synicix_core import Pipeline
    from synicix_core.runner.attendance import Attendance
    from synicix_core.runner.dataset_cache import DatasetCache
    from synicix_core.runner.supervisor import WorkerOptions
    from synicix_core.settings import load_settings
    from synicix_core.tables.queue import Queue

    # One by one: what fusing brings is measured by many_tasks.
    settings = load_settings(project)
    pipeline = Pipeline(settings=dataclasses.replace(settings, worker=settings.worker.with_fuse("off")))
    insert_tasks(pipeline, range(TASKS + WARM_UP))
    rivals = _Rivals(project)
    try:
        for name in RIVALS:
            rivals.ask(name, range(WARM_UP))
        blocks = _Blocks(rivals)
        with Stopwatch() as stopwatch:
            blocks.watch = stopwatch
            for owner, name in (
                (Queue, "waiting"),
                (Queue, "claim"),
                (QueryExpression, "fetch1"),
                (DatasetCache, "fetch"),
                (Attendance, "wait"),
                (Queue, "commit"),
            ):
                stopwatch.watch(owner, name)
            summary = pipeline.run_worker(WorkerOptions(), blocks)
        if summary.success_count != TASKS + WARM_UP or summary.error_list:
            raise RuntimeError(f"populate did not train every task: {summary}")
        parts = rivals.ask("parts", range(50))
    finally:
        rivals.close()
        pipeline.connection.close()
    return _tables(blocks, parts, rivals.refresh_seconds)


def _tables(blocks: _Blocks, parts: Mapping[str, float], refresh_seconds: float) -> str:
    wall = {name: Spread(tuple(values)) for name, values in blocks.wall.items()}
    cpu = {name: Spread(tuple(values)) for name, values in blocks.cpu.items()}
    bare = wall["bare"]
    names = {**RIVALS, "populate": "synicix populate"}
    rows = []
    for key, label in names.items():
        over = wall[key].minus(bare)
        rows.append(
            [
                label,
                wall[key].text(),
                cpu[key].text(),
                "" if key == "bare" else over.text(),
                "" if key == "bare" else f"{wall[key].least - bare.least:.1f}",
                wall["populate"].over(wall[key]).text(2),
            ]
        )
    text = table(
        ["200 tasks", "wall ms/task", "CPU ms/task", "wall over bare", "same, of minima", "populate / this"], rows
    )
    over = wall["populate"].minus(bare)
    met = "met" if over.median <= AIM_MS else "MISSED"
    theirs = wall["datajoint"].minus(bare)
    by_hand = wall["populate"].minus(wall["hand"])
    spent = cpu["populate"].minus(cpu["bare"])
    text += (
        f"\npopulate over the bare loop: {over.text()} ms per task, aim {AIM_MS:.0f}: {met}; over the same work by hand"
        f" {by_hand.text()} ms; over DataJoint's overhead {over.median / theirs.median:.2f}x.\n"
        f"CPU over the bare loop: {spent.text()} ms per task, DataJoint's {cpu['datajoint'].minus(cpu['bare']).text()} ms.\n"
        f"Median (min..max) over {BLOCKS} interleaved blocks of {SIZE} tasks; the executor and the rivals are"
        " warm. CPU is that of both processes of the worker, or of the rival's one; the server's is in the wall time only."
        f"\nNot in it: DataJoint's jobs.refresh(), {1000 * refresh_seconds / (TASKS + WARM_UP):.1f} ms per task once.\n\n"
    )
    supervisor = [
        [label, f"{1000 * blocks.parts.get(key, 0.0) / TASKS:.1f}"] for key, label in SUPERVISOR_PARTS.items()
    ]
    executor = [[label, f"{1000 * parts[key] / 50:.1f}"] for key, label in EXECUTOR_PARTS.items()]
    return (
        text
        + table(["in the supervisor", "wall ms/task (mean)"], supervisor)
        + "\n\n"
        + table(["in the executor", "CPU ms/task (mean of 50, in the rival's process)"], executor)
    )


class _Blocks(Silent):
    """Watches populate; between two blocks of its tasks, while it is held up here, the rivals do theirs."""

    def __init__(self, rivals: _Rivals) -> None:
        self.wall: dict[str, list[float]] = {name: [] for name in (*RIVALS, "populate")}
        self.cpu: dict[str, list[float]] = {name: [] for name in (*RIVALS, "populate")}
        self.parts: dict[str, float] = {}
        self.watch = Stopwatch()
        self._rivals = rivals
        self._done = 0
        self._begun = (0.0, 0.0)

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:  # noqa: ARG002 - Silent's
        """Count it; at the end of a block, take the times and let the rivals work."""
        self._done += 1
        tasks = self._done - WARM_UP
        if tasks % SIZE == 1:
            # The executor trained this one while the rivals were at work, and has just been sent the next.
            self._begun = self._now()
        if tasks < 0 or tasks % SIZE:
            return
        if tasks == 0:
            self.watch.seconds.clear()
        else:
            now = self._now()
            self.wall["populate"].append(1000 * (now[0] - self._begun[0]) / (SIZE - 1))
            self.cpu["populate"].append(1000 * (now[1] - self._begun[1]) / (SIZE - 1))
            self.parts = dict(self.watch.seconds)
        if tasks < TASKS:
            for name in RIVALS:
                took = self._rivals.ask(name, range(self._done, self._done + SIZE))
                self.wall[name].append(1000 * took["wall"] / SIZE)
                self.cpu[name].append(1000 * took["cpu"] / SIZE)

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), cpu_of_worker()


class _Rivals:
    """The other process."""

    def __init__(self, project: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "populate_rival.py"), str(project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.refresh_seconds: float = self._answer()["refresh_seconds"]

    def ask(self, rival: str, seeds: range) -> dict[str, float]:
        """Let one of them do some tasks; return what it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"rival": rival, "seeds": list(seeds)}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = self._answer()
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the rivals' process ended; what it printed stands above")
        return json.loads(line)
