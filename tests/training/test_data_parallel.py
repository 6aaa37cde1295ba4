"""Several processes that train one task: the numbers are those of one process, and nobody waits for one that is gone."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.errors import ConfigurationError
from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.ranks import devices_from
from synicix_core.training.saved_files import load_checksummed
from synicix_core.training.shares import Share, Whole, shared
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.conftest import TOY_LAB
from tests.training.talking import ENDS, send, until

KIT = str(Path(__file__).parents[1] / "parallel_kit")
HISTORIES = ("training_epoch_loss_history", "validation_epoch_loss_history", "regularization_loss_history")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    """Return one with two ranks, which stay for all tests that leave them alive."""
    made = start()
    yield made
    made.close()


def start(devices: int = 2, **variables: str) -> ExecutorProcess:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([KIT, TOY_LAB]))
        for name, value in variables.items():
            patch.setenv(name, value)
        made = ExecutorProcess("cpu", 1, devices)
        assert made.wait_ready(lambda: False)
    return made


def task(
    folder: Path,
    name: str = "task",
    *,
    net: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    **changes: Any,
) -> TaskSpec:
    spec = TaskSpec(
        task="0" * 32,
        attempt=1,
        dataset=Component("dataset", "parallel-kit/Doubles", data or {}),
        dataset_path=str(folder),
        samplers={"train": None, "validation": None, "test": None},
        input_shape=[6],
        output_shape=[3],
        additional_model_params={},
        model=Component("model", "parallel-kit/Net", net or {}),
        trainer=Component("trainer", "synicix-core/NNTrainer", trainer or {}),
        optimizer=Component("optimizer", "synicix-core/Adam", {"lr": 0.01}),
        criterion=Component("criterion", "synicix-core/MSELoss"),
        metrics=(Component("metric", "synicix-core/loss"), Component("metric", "synicix-core/correlation")),
        batch_size=8,
        epoch_limit=6,
        seed=3,
        device="cpu",
        num_workers=0,
        model_save_path=str(folder / f"{name}.pt"),
        checkpoint_path=str(folder / f"{name}.checkpoint"),
        devices=2,
    )
    return dataclasses.replace(spec, **changes)


def train(executor: ExecutorProcess, spec: TaskSpec) -> tuple[TaskOutcome, dict[str, torch.Tensor]]:
    send(executor, spec)
    message = until(executor, *ENDS)[-1]
    assert message["type"] == "done", message.get("stack") or message
    weights: dict[str, torch.Tensor] = torch.load(spec.model_save_path, weights_only=True)
    return TaskOutcome.from_wire(message["outcome"]), weights


def fail(executor: ExecutorProcess, spec: TaskSpec) -> dict[str, Any]:
    send(executor, spec)
    message = until(executor, *ENDS)[-1]
    assert message["type"] == "error"
    return message


def assert_alike(one: Any, other: Any, tolerance: float) -> None:
    (outcome, weights), (theirs, their_weights) = one, other
    assert weights.keys() == their_weights.keys()
    for name, value in weights.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, their_weights[name], rtol=0.0, atol=tolerance, equal_nan=True)
    for name in HISTORIES:
        assert len(getattr(outcome, name)) == len(getattr(theirs, name))
        assert getattr(outcome, name) == pytest.approx(getattr(theirs, name), rel=1e-11, abs=tolerance, nan_ok=True)
    for tier, scores in theirs.metrics.items():
        for metric, score in scores.items():
            mine = outcome.metrics[tier][metric]
            assert mine == score or mine == pytest.approx(score, rel=1e-10, abs=tolerance)
    assert (outcome.status, outcome.best_epoch, outcome.epochs) == (theirs.status, theirs.best_epoch, theirs.epochs)


def _sampler(name: str) -> dict[str, Component | None]:
    return {"train": Component("sampler", f"parallel-kit/{name}"), "validation": None, "test": None}


CASES: dict[str, dict[str, Any]] = {
    "batches of unequal size": {},
    "a last batch of one": {"data": {"n": 49}},
    "held in memory": {"dataset": Component("dataset", "parallel-kit/HeldDoubles")},
    "held, a last batch of one": {"dataset": Component("dataset", "parallel-kit/HeldDoubles", {"n": 49})},
    "batches of a sampler": {"samplers": _sampler("Batches")},
    "a sampler that draws from NumPy": {"samplers": _sampler("FromTheProcess")},
    "loading processes": {"num_workers": 1, "epoch_limit": 2},
    "a sum": {"criterion": Component("criterion", "synicix-core/MSELoss", {"reduction": "sum"})},
    "momentum": {"optimizer": Component("optimizer", "synicix-core/SGD", {"lr": 0.05, "momentum": 0.9})},
    "clipped": {"trainer": {"gradient_clip_norm": 0.3, "gradient_clip_value": 0.05}},
    "an average": {"trainer": {"ema_decay": 0.9}},
    "accumulated": {"trainer": {"accumulate_batches": 3}, "data": {"n": 49}},
    "a schedule": {"trainer": {"scheduler": "onecycle", "scheduler_params": {"max_lr": 0.05}}},
    "a schedule that follows the score": {
        "trainer": {
            "scheduler": "plateau",
            "scheduler_params": {"watch": "validation", "patience": 0, "threshold": 0.2},
            "early_stopping_metric": "correlation",
        },
        "epoch_limit": 12,
    },
    "early stopping": {
        "trainer": {"early_stopping_patience": 1},
        "optimizer": Component("optimizer", "synicix-core/Adam", {"lr": 0.3}),
        "epoch_limit": 40,
    },
    "in parts": {"micro_batches": 3, "data": {"n": 49}},
    "a layer that nothing depends on": {"net": {"spare": True, "norm": "layer"}},
    "nothing to skip": {"trainer": {"nan_policy": "skip"}},
    "a batch that one of them has to skip": {"trainer": {"nan_policy": "skip"}, "data": {"poisoned": 5}},
    "a loss that is lost": {"data": {"poisoned": 5}},
}


@slow
@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_one_process(executor: ExecutorProcess, tmp_path: Path, case: str) -> None:
    spec = task(tmp_path, **CASES[case])
    together = train(executor, spec)
    alone = train(executor, dataclasses.replace(spec, devices=1))
    assert_alike(together, alone, 1e-12)
    assert (together[0].provenance["devices"], alone[0].provenance["devices"]) == (2, 1)
    assert together[0].provenance["resident"] == case.startswith("held")
    assert case != "early stopping" or alone[0].status == "early_stopped"
    assert case != "a loss that is lost" or alone[0].status == "diverged"
    skipped = [note for note in together[0].notes if "skipped" in note]
    assert bool(skipped) == ("has to skip" in case) and skipped == [n for n in alone[0].notes if "skipped" in n]


@slow
def test_each_process_reads_its_own_examples(tmp_path: Path) -> None:
    executor = start(PARALLEL_KIT_READS=str(tmp_path / "reads"))
    train(executor, task(tmp_path, epoch_limit=1, data={"n": 48}))
    executor.close()
    reads = [tuple(map(int, line.split())) for line in (tmp_path / "reads").read_text().splitlines()]
    assert sorted({rank for rank, _ in reads}) == [0, 1]
    # Validation and scores are rank 0's, so what the other one read is its half of the training examples.
    assert len([index for rank, index in reads if rank == 1]) == 24


@slow
def test_three_processes(tmp_path: Path) -> None:
    executor = start(3)
    spec = task(tmp_path, devices=3, data={"n": 50})
    assert_alike(train(executor, spec), train(executor, dataclasses.replace(spec, devices=1)), 1e-12)
    executor.close()


@slow
def test_each_process_has_dropout_of_its_own_and_goes_on_where_it_was(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    whole = train(executor, task(tmp_path, "whole", net={"dropout": 0.3}))
    alone = train(executor, task(tmp_path, "alone", net={"dropout": 0.3}, devices=1))
    assert whole[0].training_epoch_loss_history != pytest.approx(alone[0].training_epoch_loss_history, rel=1e-4)

    # A stop in the middle of an epoch: a checkpoint is due at once, and has to hold what each rank draws from.
    spec = task(tmp_path, "stopped", net={"dropout": 0.3, "seconds": 0.02}, checkpoint_epochs=1)
    send(executor, spec)
    until(executor, "checkpoint")
    time.sleep(0.07)
    executor.channel.send({"type": "stop"})
    message = until(executor, *ENDS)[-1]
    assert message["type"] == "interrupted" and message["can_checkpoint"]
    saved = load_checksummed(Path(spec.checkpoint_path))["state"]
    assert len(saved["ranks"]) == 2 and not torch.equal(saved["ranks"][0]["dropout"], saved["ranks"][1]["dropout"])
    assert 1 <= saved["epochs"] < 6
    resumed = train(executor, spec)
    assert resumed[0].provenance["resumed_from_epoch"] == saved["epochs"]
    assert_alike(resumed, whole, 0.0)


@slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_task_can_go_on_with_another_number_of_devices(
    executor: ExecutorProcess, tmp_path: Path, first: int, then: int
) -> None:
    whole = train(executor, task(tmp_path, "whole", devices=1))
    spec = task(tmp_path, "moved", devices=first, net={"seconds": 0.02}, checkpoint_epochs=1)
    send(executor, spec)
    until(executor, "checkpoint")
    time.sleep(0.07)
    executor.channel.send({"type": "stop"})
    assert until(executor, *ENDS)[-1]["type"] == "interrupted"
    assert_alike(train(executor, dataclasses.replace(spec, devices=then)), whole, 1e-12)


@slow
def test_options_that_need_one_device_are_left_out_and_a_trainer_that_does_trains_on_one(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    outcome, _ = train(executor, task(tmp_path, trainer={"compile": "auto", "cuda_graphs": "auto"}))
    assert outcome.notes == (
        "not compiled: several devices trained this",
        "no CUDA graph: several devices trained this",
    )
    other = Component("trainer", "toy-lab/Misbehaving", {"how": "well"})
    send(executor, dataclasses.replace(task(tmp_path), trainer=other))
    heard = until(executor, *ENDS)
    assert [message["text"] for message in heard if message["type"] == "note"] == [
        "00000000 is trained on one device of 2: the trainer toy-lab/Misbehaving trains on one device; only NNTrainer can "
        "use several."
    ]
    assert heard[-1]["outcome"]["provenance"]["devices"] == 1


@slow
@pytest.mark.parametrize(
    ("changes", "kind", "can_split", "words"),
    [
        ({"net": {"norm": "batch"}}, "error", False, "it has batch normalization, and torch exchanges the statistics"),
        ({"trainer": {"compile": "on"}}, "error", False, 'compile = "on"'),
        ({"samplers": _sampler("OfTheRank")}, "error", True, "do not learn from the same batches"),
        ({"net": {"how": "raise", "step": 9}}, "error", True, "rank 1 of 2: ValueError: the net failed as asked"),
        ({"net": {"how": "raise", "rank": 0}}, "error", True, "ValueError: the net failed as asked"),
        ({"net": {"how": "memory"}}, "out_of_memory", True, "rank 1 of 2: OutOfMemoryError: CUDA out of memory."),
        ({"net": {"how": "die", "step": 9}}, "died", True, "rank 1 of 2 died: it was ended by SIGKILL"),
    ],
)
def test_what_goes_wrong_on_any_device_ends_the_task_soon(
    tmp_path: Path, changes: dict[str, Any], kind: str, can_split: bool, words: str
) -> None:
    executor = start()
    begun = time.monotonic()
    message = fail(executor, task(tmp_path, **changes))
    assert time.monotonic() - begun < 15
    assert (message["kind"], message["can_split"], message["restart"]) == (kind, can_split, True)
    assert words in message["error"] and len(message["cause"]) >= 3
    assert message["error"].startswith("rank") == words.startswith("rank")
    executor.close()


@slow
def test_a_rank_that_dies_is_noticed_while_rank_0_waits_for_something_else(tmp_path: Path) -> None:
    executor = start()
    # Rank 0 hangs in its model, as it would wait for a GPU that waits for the other one.
    send(executor, task(tmp_path, net={"how": "hang", "rank": 0}))
    (rank,) = ranks_of(executor)
    time.sleep(1.0)
    os.kill(rank, 9)
    message = until(executor, *ENDS)[-1]
    assert message["error"] == "rank 1 of 2 died: it was ended by SIGKILL, as the kernel does when memory runs out"
    executor.close()


@slow
def test_the_ranks_die_with_the_executor() -> None:
    executor = start()
    (rank,) = ranks_of(executor)
    os.kill(executor.process.pid, 9)
    deadline = time.monotonic() + 10
    while is_alive(rank):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    executor.close()


def ranks_of(executor: ExecutorProcess) -> list[int]:
    import psutil

    children = psutil.Process(executor.process.pid).children()
    return [child.pid for child in children if "synicix_core.runner.rank" in child.cmdline()]


def is_alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("device", "why"), [("cuda:0", "this machine shows 1 GPU"), ("mps", "mps is one device")])
def test_too_few_devices_are_told(monkeypatch: pytest.MonkeyPatch, device: str, why: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match=f"2 devices from {device} on, and there are not so many") as error:
        devices_from(device, 2)
    assert error.value.why == why


def test_ranks_take_the_devices_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices_from("cuda:1", 3) == ["cuda:1", "cuda:2", "cuda:3"]
    assert devices_from("cpu", 2) == ["cpu", "cpu"]


def test_the_parts_of_a_batch_are_the_batch() -> None:
    for size in range(1, 12):
        for ranks in range(2, 5):
            parts = [Share(rank, ranks).of(list(range(size))) for rank in range(ranks)]
            if size < ranks:
                assert parts == [list(range(size))] * ranks
            else:
                assert [index for part in parts for index in part] == list(range(size))
                assert {len(part) for part in parts} <= {size // ranks, -(-size // ranks)}


def test_a_batch_is_known_by_its_examples_and_their_order() -> None:
    def noted(batch: Any) -> Whole:
        wholes: list[Whole] = []
        list(shared([batch], Share(0, 2), wholes.append))
        return wholes[0]

    assert noted([1, 2, 3]) == noted((1, 2, 3)) and noted([1, 2, 3]).size == 3
    assert noted(torch.tensor([1, 2])) == noted([1, 2]) and noted([object()]) == noted([object()])
    assert len({noted(batch).digest for batch in ([1, 2], [2, 1], [1, 3], ["a", "b"])}) == 4
