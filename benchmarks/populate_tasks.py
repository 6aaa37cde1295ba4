"""The tasks of the populate benchmark, and the same work without a pipeline."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

__all__ = ["BATCH_SIZE", "DATASET_FILE", "HIDDEN_SIZE", "SIZES", "by_hand", "train_bare", "write_dataset"]

DATASET_FILE = "trials.npz"
INPUTS, HIDDEN_SIZE, OUTPUTS = 64, 32, 8
SIZES = {"train": 256, "validation": 32, "test": 32}
BATCH_SIZE = 64


def write_dataset(path: Path) -> None:
    """Write the dataset file."""
    from bench_lab.parts import write_trials

    write_trials(path, inputs=INPUTS, outputs=OUTPUTS, sizes=SIZES)


def train_bare(path: str, seed: int) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
    """Run the training loop alone: build, one epoch, validate. Return model, loaders, losses and criterion."""
    import torch
    from bare_loop import train_epoch, validate
    from bench_lab.parts import Trials, TwoLayers
    from torch.utils.data import DataLoader

    torch.manual_seed(seed)
    loaders: dict[str, Any] = {
        tier: DataLoader(Trials(path, tier), batch_size=BATCH_SIZE, shuffle=tier == "train")
        for tier in ("train", "validation")
    }
    model = TwoLayers((INPUTS,), (OUTPUTS,), hidden_size=HIDDEN_SIZE)
    optimizer = torch.optim.Adam(model.parameters())
    criterion = torch.nn.MSELoss()
    loss, penalty = train_epoch(model, optimizer, criterion, loaders["train"])
    losses = {"train": loss, "penalty": penalty, "validation": validate(model, criterion, loaders["validation"])}
    return model, loaders, losses, criterion


def by_hand(path: str, seed: int, model_path: Path) -> dict[str, Any]:
    """Do all of a task's work in a plain script: train, save the model, score every tier; return a result's columns."""
    import hashlib
    import platform

    import torch
    from bare_loop import validate
    from bench_lab.parts import Trials
    from torch.utils.data import DataLoader

    started = time.monotonic()
    model, loaders, losses, criterion = train_bare(path, seed)
    seconds = time.monotonic() - started
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    model_path.write_bytes(buffer.getvalue())
    loaders["test"] = DataLoader(Trials(path, "test"), batch_size=BATCH_SIZE)
    scores = {tier: {"loss": validate(model, criterion, loader)} for tier, loader in loaders.items()}
    summary = {
        name: {"mean": float(value.mean()), "std": float(value.std()), "norm": float(value.norm())}
        for name, value in model.state_dict().items()
    }
    return {
        "test_score": scores["test"]["loss"],
        "status": "completed",
        "scores": scores,
        "best_epoch": 1,
        "epochs": 1,
        "training_epoch_loss_history": [losses["train"]],
        "validation_epoch_loss_history": [losses["validation"]],
        "regularization_loss_history": [losses["penalty"]],
        "model_class_params_history": [summary],
        "model_save_path": model_path.name,
        "model_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "train_seconds": seconds,
        "provenance": {"python": platform.python_version(), "torch": torch.__version__, "host": platform.node()},
    }
