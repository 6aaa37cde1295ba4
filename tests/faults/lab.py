"""Tasks that take their time, workers that things happen to, and what must be true whatever happened."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from synicix_core.runner.leftover_removal import remove_leftovers
from synicix_core.runner.leftovers import find_leftovers
from tests.rows import insert_tasks

__all__ = ["EPOCHS", "STEPS", "Lab", "Trained", "Worker", "reference", "trained", "wait_until"]

INJECTED = str(Path(__file__).parent / "injected")

EPOCHS, STEPS = 10, 6
"""Epochs of a task, and training steps of an epoch."""

TIMES = {
    "SYNICIX_WORKER_LEASE_SECONDS": "60",
    "SYNICIX_WORKER_HEARTBEAT_SECONDS": "0.5",
    "SYNICIX_WORKER_RETRY_SECONDS": "0.2",
    "SYNICIX_WORKER_CHECKPOINT_SECONDS": "0.2",
    "SYNICIX_WORKER_CHECKPOINT_EPOCHS": "1",
    "SYNICIX_WORKER_DB_TIMEOUT_SECONDS": "60",
    "FAULT_WAIT": "0.2",
}
"""What is minutes in life is seconds here; not the lease, which a slow machine would overrun, except where a test is of it."""

_DATASET = {"dataset_provider": "Points", "dataset_class_params": {"n": 8 * STEPS}}
_MODEL = {"model_provider": "Plodder"}
_TRAINING = {
    "optimizer_provider": "Adam",
    "optimizer_class_params": {"lr": 0.05},
    "trainer_class_params": {"scheduler": "plateau", "scheduler_params": {"patience": 1}, "early_stopping_patience": 9},
}


@dataclass(frozen=True)
class Trained:
    """The numbers that a training ends with; equal only if every bit is."""

    weights: Mapping[str, torch.Tensor]
    histories: Mapping[str, Any]

    def differences(self, other: Trained) -> list[str]:
        """Return the names of what differs."""
        names = [name for name in self.histories if self.histories[name] != other.histories.get(name)]
        if self.weights.keys() != other.weights.keys():
            return [*names, "the names of the weights"]
        return names + [name for name, value in self.weights.items() if not torch.equal(value, other.weights[name])]


class Worker:
    """A real worker: a supervisor, and the executor that it starts."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            command = [sys.executable, "-m", "synicix_core.cli", "populate", *arguments]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})

    @property
    def executor(self) -> int | None:
        """The process id of its executor; None while it has none."""
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if "synicix_core.runner.executor" in child.cmdline():
                        return int(child.pid)
        return None

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether its supervisor runs."""
        return self.process.poll() is None

    def signal(self, number: int, *, executor: bool = False) -> None:
        """Send a signal to the supervisor and, if asked, to the executor."""
        pids = [self.process.pid, self.executor if executor else None]
        for pid in pids:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """End the supervisor by SIGKILL; the executor ends by itself."""
        self.process.kill()
        self.process.wait()

    def end(self, timeout: float = 120.0) -> int:
        """Wait until it ends, and return the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end; it said:\n{self.said}") from None


@dataclass
class Lab:
    """A project with a pipeline, and workers on it.

    Attributes
    ----------
    pipeline : Pipeline
        Of the test itself.
    folder : Path
        For logs and for the files by which faults are asked for.
    step_seconds : float
        How long a training step takes.
    """

    pipeline: Any
    folder: Path
    step_seconds: float = 0.03
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("faults", "disasters"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def insert(
        self, *seeds: int, mark: int = 0, model: Mapping[str, Any] | None = None, epochs: int = EPOCHS
    ) -> list[str]:
        """Insert a task for each seed, 0 by default, and return them."""
        file = self.pipeline.settings.dataset_dir / "line.txt"
        if not file.exists():
            file.write_text("2.0")
        return insert_tasks(
            self.pipeline,
            datasets=[_DATASET],
            models=[{**_MODEL, "model_class_params": {"mark": mark, **(model or {})}}],
            trainings=[{**_TRAINING, "epoch_limit": epochs, "seed": seed} for seed in seeds or (0,)],
        )

    def start(self, *arguments: str, **environment: str) -> Worker:
        """Start a worker; `environment` is added to what all workers here have."""
        path = os.pathsep.join([INJECTED, os.environ["PYTHONPATH"]])
        places = {
            "FAULTS": str(self.folder / "faults"),
            "TOY_LAB_DISASTERS": str(self.folder / "disasters"),
            "TOY_LAB_STEPS": str(self.folder / "steps"),
            "TOY_LAB_STEP_SECONDS": str(self.step_seconds),
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker(arguments, {**TIMES, "PYTHONPATH": path, **places, **environment}, log)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End every worker that still runs."""
        for worker in self.workers:
            if worker.alive:
                worker.signal(signal.SIGCONT, executor=True)
                worker.kill()

    def ask_for(self, disaster: str) -> None:
        """Have a disaster strike at the next training step."""
        (self.folder / "disasters" / disaster).touch()

    @contextlib.contextmanager
    def fault(self, name: str, content: str = "") -> Iterator[None]:
        """Have a fault inside the block; see `tests/faults/injected`."""
        file = self.folder / "faults" / name
        file.write_text(content)
        yield
        file.unlink()

    def steps(self) -> int:
        """Return how many training steps were made so far, by all workers together."""
        file = self.folder / "steps"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def wait_for_steps(self, number: int) -> None:
        """Wait until so many more training steps have been made."""
        before = self.steps()
        self.wait_until(lambda: self.steps() >= before + number)

    def wait_for_state(self, task: str, attempt: int, state: str) -> None:
        """Wait until an attempt at a task is there and in a state."""
        self.wait_until(lambda: self.states(task)[attempt - 1 : attempt] == [state])

    def wait_for_end(self, tasks: Sequence[str]) -> None:
        """Wait until every task has a result or an error."""
        self.wait_until(lambda: self.results(tasks) + self.errors(tasks) == len(tasks))

    def wait_until(self, condition: Callable[[], bool], timeout: float = 120.0) -> None:
        """Wait, and show what the workers said if it was in vain."""
        wait_until(
            condition, timeout, lambda: "\n".join(f"{worker.log.name}: {worker.said}" for worker in self.workers)
        )

    def results(self, tasks: Sequence[str]) -> int:
        """Return how many of these tasks have a result."""
        return len(self.pipeline.TrainingResult & [{_MD5: task} for task in tasks])

    def errors(self, tasks: Sequence[str]) -> int:
        """Return how many of these tasks ended in an error."""
        return len(self.pipeline.TrainingResult.jobs.errors & [{_MD5: task} for task in tasks])

    def attempts(self, task: str) -> list[dict[str, Any]]:
        """Return the attempts at a task, the first one first."""
        rows: list[dict[str, Any]] = (self.pipeline.TrainingAttempt & {_MD5: task}).to_dicts(order_by="attempt")
        return rows

    def repeated(self, task: str) -> int:
        """Return how many training steps were made twice, if this is the only task."""
        return self.steps() - STEPS * int((self.pipeline.TrainingResult & {_MD5: task}).fetch1("epochs"))

    def states(self, task: str) -> list[str]:
        """Return how the attempts at a task ended."""
        return [attempt["state"] for attempt in self.attempts(task)]

    def check_states(self, task: str, states: Sequence[str]) -> None:
        """Assert how the attempts at a task ended."""
        attempts = self.attempts(task)
        found = [attempt["state"] for attempt in attempts]
        assert found == list(states), [attempt["error"] for attempt in attempts]

    def check(self, tasks: Sequence[str], *, failed: Mapping[str, str] | None = None, micro_batches: int = 1) -> None:
        """Assert what must be true after every fault.

        Parameters
        ----------
        tasks : sequence of str
            Tasks that are at their end.
        failed : mapping of str to str
            Those of them that end in an error, and a regular expression for the reason. All others have a result, whose
            weights and histories are those of a training that nothing happened to.
        micro_batches : int
            Into how many parts the batches of all these tasks were split.
        """
        failed = failed or {}
        self.check_queue(tasks)
        for task in tasks:
            attempts = self.attempts(task)
            finished = [attempt["attempt"] for attempt in attempts if attempt["state"] == "finished"]
            if task in failed:
                assert not finished and not self.results([task])
                error = (self.pipeline.TrainingResult.jobs & {_MD5: task}).fetch1()
                assert error["status"] == "error"
                assert re.search(failed[task], error["error_message"]), error["error_message"]
                assert attempts[-1]["error"] == error["error_message"]
                assert attempts[-1]["error_kind"] and attempts[-1]["error_cause"]
                continue
            by = (self.pipeline.TrainingResult & {_MD5: task}).fetch1("by_attempt")
            assert finished == [by]
            expected = reference(self.pipeline, task, micro_batches=micro_batches)
            assert not trained(self.pipeline, task).differences(expected)
        self.check_files(tasks)

    def check_queue(self, tasks: Collection[str]) -> None:
        """Assert that no claim is left, and nothing in the queue but errors."""
        keys = [{_MD5: task} for task in tasks]
        assert len(self.pipeline.TrainingAttempt & keys & "state = 'running'") == 0
        assert {job["status"] for job in (self.pipeline.TrainingResult.jobs & keys).to_dicts()} <= {"error"}

    def check_files(self, tasks: Collection[str]) -> None:
        """Assert that `gc` leaves, of the files of these tasks, the models of the results and nothing else."""
        tables, folder = self.pipeline.tables, self.pipeline.settings.model_save_dir
        removal = remove_leftovers(tables, folder, find_leftovers(tables, folder))
        assert not removal.errors
        assert not find_leftovers(tables, folder).leftovers
        keys = [{_MD5: task} for task in tasks]
        models = set((self.pipeline.TrainingResult & keys).to_arrays("model_save_path"))
        files = {path.name for path in folder.iterdir() if any(task in path.name for task in tasks)}
        assert files == models


def trained(pipeline: Any, task: str) -> Trained:
    """Return the numbers of a result."""
    row = (pipeline.TrainingResult & {_MD5: task}).fetch1()
    weights = torch.load(pipeline.settings.model_save_dir / row["model_save_path"], weights_only=True)
    return Trained(weights, _histories(row))


def reference(pipeline: Any, task: str, *, micro_batches: int = 1) -> Trained:
    """Return the numbers of a training of this task that nothing happens to, in this process."""
    spec = pipeline.spec(task)
    key = (
        spec.seed,
        spec.epoch_limit,
        micro_batches,
    )  # what else differs between these tasks does not change the numbers
    if key not in _REFERENCES:
        _REFERENCES[key] = _train(pipeline, spec, micro_batches)
    return _REFERENCES[key]


def wait_until(condition: Callable[[], bool], timeout: float = 120.0, why: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain\n{why()}"
        time.sleep(0.02)


_MD5 = "training_task_md5_hash"
_HISTORIES = (
    *("training_epoch_loss_history", "validation_epoch_loss_history", "regularization_loss_history"),
    *("model_class_params_history", "status", "best_epoch", "epochs", "test_score"),
)
_REFERENCES: dict[tuple[int, int, int], Trained] = {}


class _Nobody:
    def stop_requested(self) -> bool:
        return False

    def epoch_finished(self, **fields: Any) -> None: ...

    def checkpoint_saved(self, path: str, epoch: int) -> None: ...

    def checkpoint_failed(self, message: str) -> None:
        raise AssertionError(message)

    def progress(self) -> None: ...


def _train(pipeline: Any, spec: Any, micro_batches: int) -> Trained:
    from synicix_core.training.run import run_task

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as executors do
    try:
        with tempfile.TemporaryDirectory() as folder:
            spec = dataclasses.replace(
                spec,
                model=dataclasses.replace(spec.model, params={}),
                model_save_path=f"{folder}/model.pt",
                checkpoint_path=f"{folder}/checkpoint",
                resume_from=(),
                micro_batches=micro_batches,
            )
            outcome = run_task(spec, pipeline.registry, _Nobody())
            return Trained(torch.load(spec.model_save_path, weights_only=True), _histories(vars(outcome)))
    finally:
        torch.set_num_threads(threads)


def _histories(row: Mapping[str, Any]) -> dict[str, Any]:
    # As JSON, because lists come back from the database as arrays.
    return {name: json.dumps(row[name], default=lambda value: value.tolist()) for name in _HISTORIES}
