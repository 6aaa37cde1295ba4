"""Synicix trains many PyTorch models and keeps every choice and every result in a database.

Plugins import their public names from here; nothing heavy is loaded until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synicix_core.hookspecs import hookimpl
from synicix_core.providers import (
    CriterionProvider,
    DatasetProvider,
    MetricProvider,
    ModelProvider,
    OptimizerProvider,
    SamplerProvider,
    TrainerProvider,
)

if TYPE_CHECKING:
    from synicix_core.errors import DatasetError, SynicixError
    from synicix_core.pipeline import Pipeline
    from synicix_core.training.contract import Trainer, TrainingContext, TrainingInterrupted

__all__ = [
    "CriterionProvider",
    "DatasetError",
    "DatasetProvider",
    "MetricProvider",
    "ModelProvider",
    "OptimizerProvider",
    "Pipeline",
    "SamplerProvider",
    "SynicixError",
    "Trainer",
    "TrainerProvider",
    "TrainingContext",
    "TrainingInterrupted",
    "hookimpl",
]

_LAZY = {
    "DatasetError": "synicix_core.errors",
    "Pipeline": "synicix_core.pipeline",
    "SynicixError": "synicix_core.errors",
    "Trainer": "synicix_core.training.contract",
    "TrainingContext": "synicix_core.training.contract",
    "TrainingInterrupted": "synicix_core.training.contract",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
