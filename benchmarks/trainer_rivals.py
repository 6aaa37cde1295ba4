"""Training samples per second of NNTrainer over Lightning's Trainer with everything off, and over Accelerate. Aims: 2.5x, 1.4x."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from report import table
from rounds import interleave
from small_tasks import (
    BATCH,
    LEARNING_RATE,
    SIZES,
    Size,
    device_here,
    nn_trainer,
    one_thread,
    tensors,
    what_is_timed,
    write_task,
)
from tensor_loops import Trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["run"]

EPOCHS_AND_ROUNDS = {"tiny": (5, 9), "typical": (2, 5)}
AIMS = {"cpu": {"tiny": 2.5, "typical": 1.4}, "cuda": {"tiny": 3.0}}


def run() -> str:
    """Measure, and return what to print."""
    rivals = {
        name: train for name, train in (("lightning", _lightning), ("accelerate", _accelerate)) if find_spec(name)
    }
    absent = [name for name in ("lightning", "accelerate") if name not in rivals]
    lines = [f"{name} is not installed (pip install 'synicix-core[bench]'): not measured." for name in absent]
    if not rivals:
        return "\n".join(lines)
    with one_thread(), tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        rows = [row for name in EPOCHS_AND_ROUNDS for row in _rows(SIZES[name], Path(folder), rivals)]
    header = ["task, batch 64", "rival", "its samples/s", "NNTrainer's", "ratio", "of best", "aim", "losses"]
    lines = [
        table(header, rows),
        f"Ratio: their time over ours. {what_is_timed(device_here())}, median (min..max) over interleaved rounds; every epoch with",
        "its pass over a validation tier of a tenth. Losses: of that tier after the last epoch, theirs and ours, means over the",
        "rounds. The rivals train the same model, with its penalty derived by autograd, by Adam as it comes, out of a DataLoader of",
        "tensors in memory; Lightning without logger, checkpoints, bars, summary and sanity check.",
        *lines,
    ]
    return "\n".join(lines)


def _rows(size: Size, folder: Path, rivals: dict[str, Callable[..., Trained]]) -> list[list[str]]:
    device = device_here()
    epochs, rounds = EPOCHS_AND_ROUNDS[size.name]
    path = write_task(size, folder)
    # The rivals move batches to the device themselves, as their users have it.
    tiers = tensors(path, torch.device("cpu"))

    def rival(train: Callable[..., Trained]) -> Callable[[int], tuple[float, float]]:
        return lambda seed: train(size, tiers, device, epochs=epochs + 1, seed=seed).time_and_loss()

    found = interleave(
        {
            **{name: rival(train) for name, train in rivals.items()},
            "ours": lambda seed: nn_trainer(size, path, device, epochs=epochs + 1, seed=seed),
        },
        rounds,
    )
    ours = found["ours"]
    rows = []
    for name in rivals:
        theirs = found[name]
        ratio = theirs.times.over(ours.times)
        aim = AIMS[device.type].get(size.name) if name == "lightning" else None
        rows.append(
            [
                str(size),
                f"{name} {_version(name)}",
                f"{1000 * size.trials / theirs.times.median:.0f}",
                f"{1000 * size.trials / ours.times.median:.0f}",
                ratio.text(2),
                f"{theirs.times.least / ours.times.least:.2f}",
                "none" if aim is None else f"{aim:.1f}: {'met' if ratio.median >= aim else 'MISSED'}",
                f"{theirs.score:.4f} / {ours.score:.4f}",
            ]
        )
    return rows


def _lightning(size: Size, tiers: Any, device: torch.device, *, epochs: int, seed: int) -> Trained:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model, train, validation = _build(size, tiers, seed)
    trained = Trained(model, device)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _number: int) -> torch.Tensor:
            output, penalty = self.model(batch[0])
            return nn.functional.mse_loss(output, batch[1]) + penalty

        def on_validation_epoch_start(self) -> None:
            self.total, self.count = torch.zeros((), device=self.device), 0

        def validation_step(self, batch: Any, _number: int) -> None:
            output, _ = self.model(batch[0])
            self.total += nn.functional.mse_loss(output, batch[1]) * len(batch[0])
            self.count += len(batch[0])

        def on_train_epoch_end(self) -> None:
            # After the epoch's validation.
            trained.epoch((self.total / self.count).item())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        # That data-loading processes would be faster; with tensors in memory they are not.
        warnings.simplefilter("ignore")
        trainer.fit(Module(), train, validation)
    return trained


def _accelerate(size: Size, tiers: Any, device: torch.device, *, epochs: int, seed: int) -> Trained:
    from accelerate import Accelerator

    model, train, validation = _build(size, tiers, seed)
    accelerator = Accelerator(cpu=device.type == "cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model, optimizer, train, validation = accelerator.prepare(model, optimizer, train, validation)
    trained = Trained(model, device)
    for _ in range(epochs):
        model.train()
        for x, y in train:
            output, penalty = model(x)
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(output, y) + penalty)
            optimizer.step()
        model.eval()
        total, count = torch.zeros((), device=device), 0
        with torch.no_grad():
            for x, y in validation:
                total += nn.functional.mse_loss(model(x)[0], y) * len(x)
                count += len(x)
        trained.epoch((total / count).item())
    return trained


def _build(size: Size, tiers: Any, seed: int) -> tuple[Any, Any, Any]:
    from bench_lab.parts import TwoLayers

    torch.manual_seed(seed)
    model = TwoLayers((size.inputs,), (size.outputs,), hidden_size=size.hidden)
    train = DataLoader(TensorDataset(*tiers["train"]), batch_size=BATCH, shuffle=True)
    return model, train, DataLoader(TensorDataset(*tiers["validation"]), batch_size=BATCH)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
