"""What heartbeats and checkpoints add to the time of training. Aim: less than one percent."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import Spread, table
from torch import nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parent / "lab"))

__all__ = ["run"]

AIM = 1.01
SECONDS = 12.0
ROUNDS = 5
BATCH = 64
MODELS = (
    # name, inputs, hidden units, outputs, trials
    ("small, 27 thousand parameters", 256, 64, 100, 5000),
    ("typical, 0.9 million parameters", 2309, 256, 1000, 5000),
)


def run() -> str:
    """Measure, and return what to print."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [_row(*model) for model in MODELS]
        files = _files()
    finally:
        torch.set_num_threads(threads)
    header = ["model", "off: ms/step", "on: ms/step", "ratio", "ratio of minima", "checkpoints", "aim"]
    return (
        table(header, rows)
        + f"\nWall time per step of one thread over {SECONDS:.0f} s of training, median (min..max) of {ROUNDS} rounds in turns."
        "\nOff: no checkpoint is ever due, and messages go nowhere. On: a checkpoint is due each second at most (30 s is"
        "\nthe default), as far as writing costs one percent, and each message goes through a pipe to another thread.\n\n"
        + files
    )


def _row(name: str, inputs: int, hidden: int, outputs: int, trials: int) -> list[str]:
    off: list[float] = []
    on: list[float] = []
    counts: list[int] = []
    for turn in range(ROUNDS):
        variants: list[Callable[[], None]] = [
            lambda: off.append(_train(inputs, hidden, outputs, trials, on=False)[0]),
            lambda: _keep(_train(inputs, hidden, outputs, trials, on=True), on, counts),
        ]
        for variant in variants if turn % 2 else reversed(variants):
            variant()
    without, with_them = Spread(tuple(off)), Spread(tuple(on))
    ratio = with_them.over(without)
    met = "met" if ratio.median < AIM else "MISSED"
    written = f"{min(counts)}..{max(counts)}"
    of_minima = f"{with_them.least / without.least:.3f}"
    return [name, without.text(3), with_them.text(3), ratio.text(3), of_minima, written, met]


def _keep(measured: tuple[float, int], times: list[float], counts: list[int]) -> None:
    times.append(measured[0])
    counts.append(measured[1])


def _train(inputs: int, hidden: int, outputs: int, trials: int, *, on: bool) -> tuple[float, int]:
    """Return the milliseconds of a step, and how many checkpoints were written."""
    from bench_lab.parts import TwoLayers

    from synicix_core.training.checkpoints import CheckpointPlan
    from synicix_core.training.context import TaskContext
    from synicix_core.training.loaders import make_loader
    from synicix_core.training.nn_trainer import NNTrainer
    from synicix_core.training.precision import resolve_precision

    torch.manual_seed(0)
    device = torch.device("cpu")
    observer = _Speaking() if on else _Timer()
    with tempfile.TemporaryDirectory() as folder:
        context = TaskContext(
            checkpoints=CheckpointPlan("0" * 32, Path(folder) / "checkpoint", seconds=1.0 if on else 1e9),
            seed=0,
            epoch_limit=10**6,
            metrics={},
            make_precision=lambda: resolve_precision("auto", device),
            observer=observer,
        )
        loaders = {
            tier: make_loader(
                TensorDataset(torch.randn(count, inputs), torch.randn(count, outputs)),
                tier,
                seed=0,
                batch_size=BATCH,
                after_batch=context.progress,
            )
            for tier, count in (("train", trials), ("validation", trials // 10))
        }
        assert loaders["train"] is not None and loaders["validation"] is not None
        trainer = NNTrainer(
            train_dataloader=loaders["train"],
            validation_dataloader=loaders["validation"],
            test_dataloader=None,
            device=device,
            model_class=TwoLayers,
            model_class_params={"input_shape": (inputs,), "output_shape": (outputs,), "hidden_size": hidden},
            optimizer_class=torch.optim.Adam,
            optimizer_class_params={},
            criterion_class=nn.MSELoss,
            criterion_class_params={},
            model_save_path=f"{folder}/model.pt",
            max_epoch=10**6,
            context=context,
            early_stopping_patience=None,
        )
        context.start()
        try:
            trainer.train()
        except _TimeIsUp:
            pass
        finally:
            observer.close()
    return 1000 * observer.seconds / observer.steps, observer.saved


class _TimeIsUp(BaseException):
    """Ends a training at the end of an epoch."""


class _Timer:
    """Counts steps, and ends the training when the time is up."""

    def __init__(self) -> None:
        self.steps = self.saved = 0
        self.seconds = 0.0
        self._began: float | None = None
        self._before = 0

    def stop_requested(self) -> bool:
        """Count a step."""
        self.steps += 1
        return False

    def epoch_finished(self, **_fields: Any) -> None:
        """Let the first epoch warm up, and end after the last."""
        now = time.perf_counter()
        if self._began is None:
            self._began, self.steps, self.saved = now, 0, 0
        elif now - self._began >= SECONDS:
            self.seconds = now - self._began
            raise _TimeIsUp

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Count it."""
        self.saved += 1

    def checkpoint_failed(self, message: str) -> None:
        """Do not go on as if it cost nothing."""
        raise RuntimeError(message)

    def progress(self) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Have nothing to close."""


class _Speaking(_Timer):
    """Does what the executor's observer does: a message each second, each epoch and each checkpoint."""

    def __init__(self) -> None:
        from synicix_core.runner.channel import Channel

        super().__init__()
        theirs, ours = os.pipe()
        back_reads, back_writes = os.pipe()
        self._channel, self._other = Channel(back_reads, ours), Channel(theirs, back_writes)
        self._listener = threading.Thread(target=lambda: list(self._other.messages()), daemon=True)
        self._listener.start()

    def epoch_finished(self, **fields: Any) -> None:
        """Tell the numbers."""
        self._channel.send({"type": "epoch", **fields})
        super().epoch_finished()

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Tell the path."""
        super().checkpoint_saved(path, epoch)
        self._channel.send({"type": "checkpoint", "path": path, "epoch": epoch})

    def progress(self) -> None:
        """Tell that it is alive."""
        self._channel.send({"type": "progress"})

    def close(self) -> None:
        """End the listener."""
        self._channel.close()
        self._listener.join()
        self._other.close()


def _files() -> str:
    """Measure writing and reading a checkpoint of 100 MB against torch's own."""
    from synicix_core.training.saved_files import load_checksummed, save_checksummed

    state = {str(index): torch.randn(2_500_000) for index in range(10)}
    writing: tuple[list[float], list[float]] = ([], [])
    reading: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        for turn in range(ROUNDS + 1):
            pairs = [
                (_seconds(lambda: save_checksummed(state, ours)), _seconds(lambda: _save_and_sync(state, theirs))),
                (
                    _seconds(lambda: load_checksummed(ours)),
                    _seconds(lambda: torch.load(theirs, map_location="cpu", weights_only=True)),
                ),
            ]
            if turn:  # the first round warms up
                for times, pair in zip((writing, reading), pairs, strict=True):
                    for kept, seconds in zip(times, pair, strict=True):
                        kept.append(seconds)
    rows = []
    for name, (mine, plain) in zip(("write", "read"), (writing, reading), strict=True):
        one, other = Spread(tuple(mine)), Spread(tuple(plain))
        interval = f"{100 * one.median:.0f} s" if name == "write" else ""
        rows.append([name, one.text(2), other.text(2), one.over(other).text(2), interval])
    return table(["100 MB", "checkpoint: s", "torch with fsync: s", "ratio", "at most every"], rows)


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _save_and_sync(state: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    from report import machine

    print(machine())
    print(run())
