"""What the lab provides."""

from __future__ import annotations

from collections.abc import Iterator

from synicix_core import DatasetProvider, ModelProvider, TrainerProvider, hookimpl


@hookimpl
def synicix_datasets() -> Iterator[DatasetProvider]:
    """Provide the dataset."""
    yield DatasetProvider("Trials", target="bench_lab.parts:Trials", summary="Inputs and targets of an npz file")


@hookimpl
def synicix_models() -> Iterator[ModelProvider]:
    """Provide the model."""
    yield ModelProvider("TwoLayers", target="bench_lab.parts:TwoLayers", summary="Two hidden layers, L1 and L2 penalty")
    yield ModelProvider("FirstStep", target="bench_lab.parts:FirstStep", summary="TwoLayers that tells when it began")


@hookimpl
def synicix_trainers() -> Iterator[TrainerProvider]:
    """Provide the trainer that rests."""
    yield TrainerProvider("Sleeper", target="bench_lab.sleeper:Sleeper", summary="Sleeps a second an epoch")
