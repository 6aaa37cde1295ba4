"""A training that is killed by SIGKILL again and again: ``python -m tests.training.killed_run FOLDER KILLS SEED``.

The processes that are killed are forks of this one, which computes nothing itself, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from synicix_core.training import checkpoints
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskSpec
from tests.training.test_resume import attempt, numbers
from tests.training.toys import Recorder, nn_spec, toy_registry


def main(folder: Path, kills: int, seed: int) -> None:
    """Print, as JSON, the outcome without a kill and with them, and what each attempt went on from."""
    torch.set_num_threads(1)
    checkpoints._WRITING_COSTS = 0
    whole = json.loads(_ends(_start(_spec(folder / "whole", checkpoint_seconds=1000.0))))
    chance = random.Random(seed)
    found = []
    number = 1
    for number in range(1, kills + 1):
        spec = attempt(_spec(folder / "killed"), number)
        found.append(_place(spec))
        process, output = _start(spec)
        for _ in range(chance.randrange(1, 10)):
            os.read(output, 1)
        time.sleep(chance.uniform(0.0, 0.02))  # now it makes a step, or writes a checkpoint
        os.kill(process, signal.SIGKILL)
        assert os.waitpid(process, 0)[1] == signal.SIGKILL, "it ended before it was killed"
    found.append(_place(attempt(_spec(folder / "killed"), number + 1)))
    killed = json.loads(_ends(_start(attempt(_spec(folder / "killed"), number + 1))))
    print(json.dumps({"whole": whole, "killed": killed, "found": found}))


class _Announcing(Recorder):
    """Says when a step was made."""

    def __init__(self, output: int) -> None:
        super().__init__()
        self._output = output

    def stop_requested(self) -> bool:
        os.write(self._output, b" ")
        return super().stop_requested()


def _spec(folder: Path, checkpoint_seconds: float = 0.0) -> TaskSpec:
    params = {"scheduler": "cosine", "warmup_epochs": 1.0, "early_stopping_patience": 0}
    dataset = Component("dataset", "toys/Linear", {"augment": True, "sizes": {"train": 60}})
    return nn_spec(folder, params, dataset=dataset, epoch_limit=12, checkpoint_seconds=checkpoint_seconds)


def _start(spec: TaskSpec) -> tuple[int, int]:
    reads, writes = os.pipe()
    process = os.fork()
    if process:
        os.close(writes)
        return process, reads
    outcome = run_task(spec, toy_registry(), _Announcing(writes))
    os.write(writes, json.dumps(numbers(outcome)).encode())
    os._exit(0)


def _ends(started: tuple[int, int]) -> bytes:
    process, output = started
    with os.fdopen(output, "rb") as file:
        data = file.read()
    assert os.waitpid(process, 0)[1] == 0
    return data


def _place(spec: TaskSpec) -> Any:
    """Return epochs and steps of the checkpoint that an attempt will find, or None."""
    for path in (spec.checkpoint_path, *spec.resume_from):
        if Path(path).exists():
            content = checkpoints.load_checksummed(path)
            return [content["epochs"], content["state"]["step"]]
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
