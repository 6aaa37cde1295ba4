"""Synicix trains many PyTorch models and keeps every choice and every result in a database.

Plugins import their public names from here. Each is imported when it is first used, so that importing the package, as every
command does, costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synicix_core.version import __version__

if TYPE_CHECKING:
    from synicix_core.errors import DatasetError, SynicixError
    from synicix_core.hookspecs import hookimpl
    from synicix_core.pipeline import Pipeline
    from synicix_core.providers import (
        CriterionProvider,
        DatasetProvider,
        MetricProvider,
        ModelProvider,
        OptimizerProvider,
        SamplerProvider,
        TrainerProvider,
    )
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
    "__version__",
    "hookimpl",
]

_MODULES = {
    "errors": ("DatasetError", "SynicixError"),
    "hookspecs": ("hookimpl",),
    "pipeline": ("Pipeline",),
    "providers": (
        "CriterionProvider",
        "DatasetProvider",
        "MetricProvider",
        "ModelProvider",
        "OptimizerProvider",
        "SamplerProvider",
        "TrainerProvider",
    ),
    "training.contract": ("Trainer", "TrainingContext", "TrainingInterrupted"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"synicix_core.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
