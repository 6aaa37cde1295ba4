"""1,000 tasks of 4 steps through populate: CPU per task beyond the training. Aims: 10 ms, 3 ms fused; first step within 50 ms."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_project import cpu_of_worker, insert_tasks, open_project
from report import Spread, table
from stopwatch import Stopwatch

from synicix_core.runner.display import Silent
from synicix_core.training.spec import Unheard

__all__ = ["run"]

GROUP, GROUPS = 64, 16
TASKS = GROUP * GROUPS
PROCESSES, WARM_TASKS = 4, 30
AIMS = {"off": 10.0, "auto": 3.0}
AIM_TIMES, AIM_FIRST_STEP = 200.0, 50.0
MODEL = {
    "model_provider": "SimpleMLP",
    "model_class_params": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "l1_loss_lamda": 1e-5,
        "l2_loss_lamda": 1e-5,
    },
}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Cost:
    """What a task costs, in milliseconds.

    Attributes
    ----------
    cpu : float
        Of the worker's two processes.
    wall : float
        By the clock, the database server's share included.
    training : float
        CPU of building its model, optimizer and loaders, of its epoch and its validation pass alone.
    """

    cpu: float
    wall: float
    training: float


def run() -> str:
    """Measure, and return what to print."""
    with open_project() as project:
        costs, scores = _costs(project)
        processes = _processes(project)
        first_steps = _first_steps(project)
    rows = [
        [
            f"--fuse {fuse}",
            f"{cost.cpu:.1f}",
            f"{cost.training:.1f}",
            f"{cost.cpu - cost.training:.1f}",
            f"{AIMS[fuse]:.0f}: {'met' if cost.cpu - cost.training <= AIMS[fuse] else 'MISSED'}",
            f"{cost.wall:.1f}",
            f"{processes.median / cost.cpu:.0f}x",
            f"{AIM_TIMES:.0f}x: {'met' if processes.median / cost.cpu >= AIM_TIMES else 'MISSED'}",
            f"{scores[fuse]:.4f}",
        ]
        for fuse, cost in costs.items()
    ]
    header = [
        f"{TASKS} tasks",
        "CPU ms/task",
        "training",
        "beyond it",
        "aim",
        "wall ms",
        "process/this",
        "aim",
        "test loss",
    ]
    second, later = first_steps.values[0], Spread(first_steps.values[1:])
    return (
        table(header, rows)
        + "\nCPU of both processes of a warm worker, without the database server. Training: CPU of building model, optimizer and"
        f"\nloaders, and of the epoch of four steps with its validation pass, of a task or in a group of {GROUP}. Beyond it: provider"
        "\nlookup, scores of three tiers, files, rows, claims. Test loss: mean of the tasks, the same ones in both rows."
        f"\nA process for each task (import torch, train, validate, save, score; no database): {processes.text(0)} ms of CPU,"
        f"\n{PROCESSES} of them. DataJoint's populate: see populate_overhead. nnfabrik's own populate, on another machine: 20-36 ms"
        "\nof wall time per task, 15-17 of them CPU of the client (quoted)."
        f"\n\nFrom claim to first step in a warm worker: second task of a shape {second:.0f} ms, later ones {later.text(0)} ms; aim"
        f" {AIM_FIRST_STEP:.0f}: {'met' if max(second, later.median) <= AIM_FIRST_STEP else 'MISSED'}."
    )


def _costs(project: Path) -> tuple[dict[str, _Cost], dict[str, float]]:
    from synicix_core import Pipeline
    from synicix_core.runner.supervisor import WorkerOptions
    from synicix_core.settings import load_settings

    costs: dict[str, _Cost] = {}
    scores: dict[str, float] = {}
    settings = load_settings(project)
    for fuse in AIMS:
        pipeline = Pipeline(settings=dataclasses.replace(settings, worker=settings.worker.with_fuse(fuse)))
        try:
            # A group to warm up, and one that is still at work when the clock stops.
            keys = insert_tasks(pipeline, range(GROUP + TASKS + GROUP), MODEL)
            pipeline.TrainingResult.delete(prompt=False)  # of the other way: the same tasks again
            pipeline.queue.refresh()
            display = _Groups()
            summary = pipeline.run_worker(WorkerOptions(device="cpu"), display)
            if summary.success_count != len(keys) or summary.error_list:
                raise RuntimeError(f"populate did not train every task: {summary}")
            scores[fuse] = float((pipeline.TrainingResult & keys).to_arrays("test_score").mean())
            specs = [pipeline.spec(key) for key in keys[:GROUP]]
            cpu, wall = (
                1000 * (last - first) / TASKS for first, last in zip(display.marks[1], display.marks[-1], strict=True)
            )
            costs[fuse] = _Cost(cpu, wall, 1000 * _training(pipeline, specs, project, fused=fuse != "off"))
        finally:
            pipeline.connection.close()
    return costs, scores


class _Groups(Silent):
    """Notes CPU of both processes and the time at the first result of each group: always the same point of a group's way."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self._done = 0

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:  # noqa: ARG002 - Silent's
        """Count it."""
        if self._done % GROUP == 0:
            self.marks.append((cpu_of_worker(), time.monotonic()))
        self._done += 1


def _training(pipeline: Any, specs: list[Any], project: Path, *, fused: bool) -> float:
    """Return the CPU seconds that building and training one of these tasks takes by itself, as one of a group or alone."""
    from synicix_core.training.group import Member, plan_group, run_group
    from synicix_core.training.run import run_task
    from synicix_core.training.stack import Stack
    from synicix_core.training.task_run import TaskRun
    from synicix_core.training.training_run import TrainingRun

    folder = project / "training-alone"
    folder.mkdir(exist_ok=True)
    specs = [
        dataclasses.replace(
            spec, model_save_path=str(folder / f"{index}.pt"), checkpoint_path=str(folder / f"{index}.checkpoint")
        )
        for index, spec in enumerate(specs)
    ]
    size = plan_group(specs[0], pipeline.registry, None).size if fused else 1

    def ended(_index: int, how: Any) -> None:
        if isinstance(how, BaseException):
            raise how

    def train() -> None:
        if size > 1:
            run_group([Member(spec, Unheard()) for spec in specs], pipeline.registry, size=size, ended=ended)
        else:
            for spec in specs:
                run_task(spec, pipeline.registry, Unheard())

    train()
    with Stopwatch(time.process_time) as stopwatch:
        stopwatch.watch(TaskRun, "prepare")
        for name in ("train_epoch", "finish_epoch"):
            stopwatch.watch(Stack if size > 1 else TrainingRun, name)
        train()
    return sum(stopwatch.seconds.values()) / len(specs)


def _processes(project: Path) -> Spread:
    """Return the CPU milliseconds of processes of their own that do a task's work by hand."""
    from populate_tasks import DATASET_FILE

    from synicix_core.settings import load_settings

    path = load_settings(project).dataset_dir / DATASET_FILE
    code = f"""
import sys; sys.path[:0] = {[str(HERE), str(HERE / "lab")]!r}
from pathlib import Path
from populate_tasks import by_hand
by_hand({str(path)!r}, 0, Path({str(project / "by_hand.pt")!r}))
"""
    times = []
    for turn in range(PROCESSES + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if turn:  # the first reads torch from the disk
            times.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return Spread(tuple(times))


def _first_steps(project: Path) -> Spread:
    """Return milliseconds from the claim to the first output of the model, of all tasks but the first, in their order."""
    from synicix_core import Pipeline
    from synicix_core.runner.supervisor import WorkerOptions
    from synicix_core.settings import load_settings
    from synicix_core.tables.queue import Queue

    settings = load_settings(project)
    pipeline = Pipeline(settings=dataclasses.replace(settings, worker=settings.worker.with_fuse("off")))
    claimed: dict[str, float] = {}
    original = Queue.claim

    def claim(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        if found is not None:
            claimed[found.task] = time.monotonic()
        return found

    try:
        model = {"model_provider": "FirstStep", "model_class_params": {"hidden_size": 32}}
        keys = insert_tasks(pipeline, range(WARM_TASKS), model)
        Queue.claim = claim  # type: ignore[method-assign]  # to take the time of each
        try:
            summary = pipeline.run_worker(WorkerOptions(device="cpu"), Silent())
        finally:
            Queue.claim = original  # type: ignore[method-assign]  # what was there
        if summary.success_count != len(keys):
            raise RuntimeError(f"populate did not train every task: {summary}")
        rows = (pipeline.TrainingResult & keys).to_dicts()
        began = {row["training_task_md5_hash"]: row["model_class_params_history"][0]["first_step"] for row in rows}
    finally:
        pipeline.connection.close()
    return Spread(tuple(1000 * (began[task] - claimed[task]) for task in list(claimed)[1:]))
