"""What this plugin provides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from synicix_core import CriterionProvider, DatasetProvider, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def synicix_datasets() -> Iterator[DatasetProvider]:
    """Provide NeuroDataDataset."""
    yield DatasetProvider(
        "NeuroDataDataset",
        target="synicix_neurodata.dataset:NeuroDataDataset",
        summary="Images, responses, behaviour and pupil of one recording in an HDF5 file",
        neutral=("memory_limit_mb",),
    )


@hookimpl
def synicix_criteria() -> Iterator[CriterionProvider]:
    """Provide PoissonLoss."""
    yield CriterionProvider(
        "PoissonLoss",
        target="synicix_neurodata.losses:PoissonLoss",
        summary="Poisson negative log-likelihood of responses given rates",
    )


@hookimpl
def synicix_commands() -> Iterator[click.Command]:
    """Provide `synicix-run neurodata`."""
    from synicix_neurodata.commands import neurodata

    yield neurodata
