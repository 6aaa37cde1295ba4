"""What heartbeats and checkpoints add to the time of training. Aim: less than one percent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import Spread, table
from torch.utils.data import TensorDataset
from trainer import open_trainer

sys.path.insert(0, str(Path(__file__).parent / "lab"))

__all__ = ["run"]

AIM = 0.01
STEPS = 200
CHECKPOINTS = 3
LONGEST = 40.0
ROUNDS = 3
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
    header = ["model", "off: CPU ms/step", "on: CPU ms/step", "ratio", "share: writing", "share: telling", "aim < 1 %"]
    return (
        table(header, rows)
        + f"\nMedian (min..max) of {ROUNDS} rounds in turns, one thread. Off: no checkpoint is ever due, messages go nowhere. On: one"
        "\nis due every 5 s at most (30 s is the default), as far as writing costs one percent, and each message goes"
        f"\nto another process. Shares are of the wall time of a run with {CHECKPOINTS} checkpoints or {LONGEST:.0f} s; waiting"
        "\nfor the disk is in them, and not in the CPU time.\n\n" + files
    )


def _row(name: str, inputs: int, hidden: int, outputs: int, trials: int) -> list[str]:
    off: list[float] = []
    on: list[float] = []
    writing: list[float] = []
    telling: list[float] = []
    for turn in range(ROUNDS):
        for speaks in (False, True) if turn % 2 else (True, False):
            observer = _train(inputs, hidden, outputs, trials, on=speaks)
            (on if speaks else off).append(observer.milliseconds)
            if isinstance(observer, _Speaking):
                writing.append(100 * observer.share_of_writing)
                telling.append(100 * observer.share_of_telling)
    without, with_them = Spread(tuple(off)), Spread(tuple(on))
    shares = Spread(tuple(writing)), Spread(tuple(telling))
    met = "met" if shares[0].median + shares[1].median < 100 * AIM else "MISSED"
    ratio = with_them.over(without).text(3)
    return [name, without.text(2), with_them.text(2), ratio, *(f"{share.text(2)} %" for share in shares), met]


def _train(inputs: int, hidden: int, outputs: int, trials: int, *, on: bool) -> _Timer:
    """Train, and return the observer, which took the time."""
    observer: _Timer = _Speaking() if on else _Timer()
    tiers = {
        tier: TensorDataset(torch.randn(count, inputs), torch.randn(count, outputs))
        for tier, count in (("train", trials), ("validation", trials // 10))
    }
    with open_trainer(tiers, hidden, observer, epochs=10**6, seconds=5.0 if on else 1e9) as (trainer, context):
        if isinstance(observer, _Speaking):
            observer.time_writing(context)
        context.start()
        try:
            trainer.train()
        except _TimeIsUp:
            pass
        finally:
            observer.close()
    return observer


class _TimeIsUp(BaseException):
    """Ends a training at the end of an epoch."""


class _Timer:
    """Takes the CPU time of steps, and ends the training when there are enough."""

    def __init__(self) -> None:
        self.milliseconds = 0.0
        self._steps = 0
        self._began: float | None = None

    def stop_requested(self) -> bool:
        """Count a step."""
        self._steps += 1
        return False

    def epoch_finished(self, **_fields: Any) -> None:
        """Let the first epoch warm up, and end after the last."""
        now = time.process_time()
        if self._began is None:
            self._began, self._steps = now, 0
        elif self.enough(self._steps):
            self.milliseconds = 1000 * (now - self._began) / self._steps
            raise _TimeIsUp

    def enough(self, steps: int) -> bool:
        """Tell whether to end."""
        return steps >= STEPS

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Be told of none."""

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
        self._supervisor = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._supervisor.stdin is not None
        self._channel = Channel(-1, self._supervisor.stdin.fileno())
        self._writing = self._telling = 0.0
        self._written = 0
        self.share_of_writing = self.share_of_telling = 0.0
        self._started = time.monotonic()

    def time_writing(self, context: Any) -> None:
        """Take the time of `context.save_checkpoint`."""
        save = context.save_checkpoint

        def timed(state: Any) -> None:
            began = time.monotonic()
            save(state)
            self._writing += time.monotonic() - began
            self._written += 1

        context.save_checkpoint = timed

    def enough(self, steps: int) -> bool:
        """Wait for some checkpoints."""
        late = time.monotonic() - self._started > LONGEST and self._written
        return super().enough(steps) and bool(late or self._written >= CHECKPOINTS)

    def epoch_finished(self, **fields: Any) -> None:
        """Tell the numbers."""
        self._tell({"type": "epoch", **fields})
        super().epoch_finished()

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Tell the path."""
        self._tell({"type": "checkpoint", "path": path, "epoch": epoch})

    def progress(self) -> None:
        """Tell that it is alive."""
        self._tell({"type": "progress"})

    def close(self) -> None:
        """Note the shares, and end the other process."""
        elapsed = time.monotonic() - self._started
        self.share_of_writing, self.share_of_telling = self._writing / elapsed, self._telling / elapsed
        self._supervisor.communicate()

    def _tell(self, message: dict[str, Any]) -> None:
        began = time.monotonic()
        self._channel.send(message)
        self._telling += time.monotonic() - began


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
