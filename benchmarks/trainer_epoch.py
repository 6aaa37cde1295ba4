"""Epoch time of NNTrainer, as a task runs it, over bare loops on tensors in memory. Aims: 0.80x an ordinary one, 1.05x a tuned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from report import table
from rounds import interleave
from small_tasks import SIZES, Size, device_here, nn_trainer, one_thread, tensors, what_is_timed, write_task
from tensor_loops import Trained, train_ordinary, train_tuned

__all__ = ["run"]

EPOCHS_AND_ROUNDS = {"micro": (6, 11), "tiny": (6, 11), "typical": (2, 9)}
AIMS = {"cpu": (0.80, 1.05), "cuda": (0.50, 1.05)}


def run() -> str:
    """Measure, and return what to print."""
    with one_thread() as kept, tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        rows = [row for name, size in SIZES.items() for row in _rows(size, Path(folder), *EPOCHS_AND_ROUNDS[name])]
    header = ["task, batch 64", "bare loop", "its ms/epoch", "NNTrainer's", "ratio", "of minima", "aim", "losses"]
    return (
        table(header, rows)
        + f"\n{what_is_timed(device_here())}, median (min..max) over interleaved rounds that change who goes first; every epoch"
        "\nwith its pass over a validation tier of a tenth. Losses: of that tier after the last epoch, the loop's and ours, means over"
        "\nthe rounds. NNTrainer's epochs hold all that a task's do: losses, penalties and parameter summaries, best weights, early"
        "\nstopping, reports, looking for a stop and for a checkpoint. The allocator "
        + ("keeps freed memory, for all." if kept else "does as it pleases with freed memory.")
    )


def _rows(size: Size, folder: Path, epochs: int, rounds: int) -> list[list[str]]:
    device = device_here()
    path = write_task(size, folder)
    tiers = tensors(path, device)

    def loop(train: Callable[..., Trained]) -> Callable[[int], tuple[float, float]]:
        return lambda seed: train(size, tiers, device, epochs=epochs + 1, seed=seed).time_and_loss()

    found = interleave(
        {
            "ordinary": loop(train_ordinary),
            "tuned": loop(train_tuned),
            "ours": lambda seed: nn_trainer(size, path, device, epochs=epochs + 1, seed=seed),
        },
        rounds,
    )
    ours = found["ours"]
    rows = []
    for rival, aim in zip(("ordinary", "tuned"), AIMS[device.type], strict=True):
        theirs = found[rival]
        ratio = ours.times.over(theirs.times)
        rows.append(
            [
                str(size),
                rival,
                theirs.times.text(),
                ours.times.text(),
                ratio.text(2),
                f"{ours.times.least / theirs.times.least:.2f}",
                "none" if size.name == "micro" else f"{aim:.2f}: {'met' if ratio.median <= aim else 'MISSED'}",
                f"{theirs.score:.4f} / {ours.score:.4f}",
            ]
        )
    return rows
