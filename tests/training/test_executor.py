"""The executor as a real process: what it says of a task that ends in any way, and that it never outlives its supervisor."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.conftest import TOY_LAB
from tests.training.talking import ENDS, send, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    """Return one that stays warm for all tests that leave it alive."""
    made = start()
    yield made
    made.close()


def start() -> ExecutorProcess:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([TOY_LAB, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
        made = ExecutorProcess("cpu", 1)
        assert made.wait_ready(lambda: False)
    return made


def toy(folder: Path, how: str | None = None, **changes: Any) -> TaskSpec:
    (folder / "line.txt").write_text("2.0")
    trainer = Component("trainer", "synicix-core/NNTrainer", {"early_stopping_patience": 0})
    if how is not None:
        trainer = Component("trainer", "toy-lab/Misbehaving", {"how": how})
    spec = TaskSpec(
        task="0" * 32,
        attempt=1,
        dataset=Component("dataset", "toy-lab/Points"),
        dataset_path=str(folder / "line.txt"),
        samplers={"train": None, "validation": None, "test": None},
        input_shape=[3],
        output_shape=[1],
        additional_model_params={},
        model=Component("model", "toy-lab/Line"),
        trainer=trainer,
        optimizer=Component("optimizer", "synicix-core/Adam"),
        criterion=Component("criterion", "synicix-core/MSELoss"),
        metrics=(Component("metric", "synicix-core/loss"),),
        batch_size=8,
        epoch_limit=2,
        seed=1,
        device="cpu",
        num_workers=0,
        model_save_path=str(folder / "models" / "0.1.pt"),
        checkpoint_path=str(folder / "models" / "0.1.checkpoint"),
    )
    return dataclasses.replace(spec, **changes)


@pytest.mark.parametrize(
    ("how", "kind", "restart", "words"),
    [
        ("raise", "error", False, "ValueError: the toy trainer failed \0 as asked"),
        ("exit", "error", False, "SystemExit: 3"),
        ("memory", "out_of_memory", True, "MemoryError"),
        ("disk", "transient", False, "OSError: [Errno 5] Input/output error"),
        ("diverge", "diverged", False, "training diverged (epoch 1): as asked."),
        ("data", "data", False, "the file is not what it was (line.txt)."),
    ],
)
def test_an_error_is_told_with_its_kind(
    executor: ExecutorProcess, tmp_path: Path, how: str, kind: str, restart: bool, words: str
) -> None:
    send(executor, toy(tmp_path, how))
    (*_, message) = until(executor, *ENDS)
    stack, cause = message.pop("stack"), message.pop("cause")
    assert message == {"type": "error", "error": words, "kind": kind, "restart": restart, "can_split": False}
    assert "parts.py" in stack and len(cause) == 8
    assert list((tmp_path / "models").iterdir()) == []


def test_memory_that_runs_out_is_told_of_a_trainer_that_can_split(executor: ExecutorProcess, tmp_path: Path) -> None:
    tight = Component("model", "toy-lab/Tight", {"fits": 2})
    send(executor, toy(tmp_path, model=tight))
    (*_, message) = until(executor, *ENDS)
    assert (message["kind"], message["restart"], message["can_split"]) == ("out_of_memory", True, True)
    send(executor, toy(tmp_path, model=tight, micro_batches=4))
    (*_, message) = until(executor, *ENDS)
    outcome = TaskOutcome.from_wire(message["outcome"])
    assert outcome.provenance["micro_batches"] == 4 and "4 micro-batches" in outcome.notes[0]


def test_a_stop_is_told_with_what_it_left(executor: ExecutorProcess, tmp_path: Path) -> None:
    spec = toy(tmp_path, model=Component("model", "toy-lab/Slow"), epoch_limit=10**6, checkpoint_epochs=1)
    send(executor, spec)
    heard = until(executor, "checkpoint")
    assert heard[-1] == {"type": "checkpoint", "path": spec.checkpoint_path, "epoch": 1}
    executor.channel.send({"type": "stop"})
    (*_, message) = until(executor, *ENDS)
    assert message.pop("epoch") >= 1
    assert message == {"type": "interrupted", "can_checkpoint": True}
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["0.1.checkpoint"]


def test_a_checkpoint_that_cannot_be_written_is_told(executor: ExecutorProcess, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    spec = toy(tmp_path, checkpoint_epochs=1, checkpoint_path=str(tmp_path / "a file" / "checkpoint"))
    send(executor, spec)
    heard = until(executor, *ENDS)
    told = [message for message in heard if message["type"] == "checkpoint_failed"]
    assert len(told) == 1 and "cannot be written" in told[0]["error"] and heard[-1]["type"] == "done"


def children(pid: int) -> list[int]:
    """Return the data-loading processes of an executor."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and "spawn_main" in command:
            found.append(int(entry.name))
    return found


def test_data_loading_processes_are_deaf_and_die_with_the_executor(tmp_path: Path) -> None:
    executor = start()
    try:
        slow = Component("model", "toy-lab/Slow", {"seconds": 0.05})
        send(executor, toy(tmp_path, model=slow, epoch_limit=10**6, num_workers=1))
        until(executor, "epoch")
        loading = children(executor.process.pid)
        assert loading
        for number in (signal.SIGTERM, signal.SIGINT):
            os.killpg(executor.process.pid, number)
        for _ in range(3):
            until(executor, "epoch")
        assert children(executor.process.pid) == loading
        executor.process.kill()
        executor.process.wait(10)
        deadline = time.monotonic() + 2  # torch alone would take five seconds
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in loading):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        executor.close()


def test_it_ends_quietly_when_the_supervisor_is_gone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executor = start()
    # It hears of the end when it speaks, not only when it listens.
    send(executor, toy(tmp_path, model=Component("model", "toy-lab/Slow"), epoch_limit=10**6))
    until(executor, "epoch")
    os.close(executor.channel.reads)
    assert executor.process.wait(30) == -signal.SIGKILL
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    os.close(executor.channel._writes)
