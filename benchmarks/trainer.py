"""An NNTrainer as a task makes one, for the benchmarks that time it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

__all__ = ["BATCH", "open_trainer"]

BATCH = 64


@contextmanager
def open_trainer(
    tiers: Mapping[str, TensorDataset], hidden: int, observer: Any, *, epochs: int, seed: int = 0, **plan: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield a trainer of two hidden layers, by Adam and the mean squared error, and its context, which is yet to be started.

    Parameters
    ----------
    tiers : mapping
        ``train`` and ``validation``, of inputs and outputs, (trials, columns) each.
    hidden : int
        Units of a layer.
    observer : TaskObserver
        Who is told.
    epochs, seed : int
        How long, and what begins the random numbers.
    **plan
        Of the `CheckpointPlan`.
    """
    from bench_lab.parts import TwoLayers

    from synicix_core.training.checkpoints import CheckpointPlan
    from synicix_core.training.context import TaskContext
    from synicix_core.training.loaders import make_loader
    from synicix_core.training.nn_trainer import NNTrainer
    from synicix_core.training.precision import resolve_precision

    torch.manual_seed(seed)
    device = torch.device("cpu")
    inputs, outputs = (tensor.shape[1:] for tensor in tiers["train"].tensors)
    with tempfile.TemporaryDirectory() as folder:
        context = TaskContext(
            checkpoints=CheckpointPlan("0" * 32, Path(folder) / "checkpoint", **plan),
            seed=seed,
            epoch_limit=epochs,
            metrics={},
            make_precision=lambda: resolve_precision("auto", device),
            observer=observer,
        )
        loaders = {
            tier: make_loader(dataset, tier, seed=seed, batch_size=BATCH, device=device, after_batch=context.progress)
            for tier, dataset in tiers.items()
        }
        assert loaders["train"] is not None and loaders["validation"] is not None
        trainer = NNTrainer(
            train_dataloader=loaders["train"],
            validation_dataloader=loaders["validation"],
            test_dataloader=None,
            device=device,
            model_class=TwoLayers,
            model_class_params={
                "input_shape": tuple(inputs),
                "output_shape": tuple(outputs),
                "hidden_size": hidden,
            },
            optimizer_class=torch.optim.Adam,
            optimizer_class_params={},
            criterion_class=nn.MSELoss,
            criterion_class_params={},
            model_save_path=f"{folder}/model.pt",
            max_epoch=epochs,
            context=context,
            early_stopping_patience=None,
        )
        yield trainer, context
