"""Synicix trains many PyTorch models and keeps every choice and every result in a database.

Plugins import their public names from here. Each is imported when it is first used, so that importing the package, as every
command does, costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synicix_core.version import __version__

if TYPE_CHECKING:
    from synicix_core.cli.project import Place, pass_place
    from synicix_core.database.server import ServerAddress, configured_server, datajoint_config
    from synicix_core.errors import ConfigurationError, DatasetError, SynicixError
    from synicix_core.hookspecs import hookimpl, hookspec
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
    from synicix_core.registry import get_registry
    from synicix_core.settings import Settings, load_settings
    from synicix_core.training.contract import Trainer, TrainingContext, TrainingInterrupted

__all__ = [
    "ConfigurationError",
    "CriterionProvider",
    "DatasetError",
    "DatasetProvider",
    "MetricProvider",
    "ModelProvider",
    "OptimizerProvider",
    "Pipeline",
    "Place",
    "SamplerProvider",
    "ServerAddress",
    "Settings",
    "SynicixError",
    "Trainer",
    "TrainerProvider",
    "TrainingContext",
    "TrainingInterrupted",
    "__version__",
    "configured_server",
    "datajoint_config",
    "get_registry",
    "hookimpl",
    "hookspec",
    "load_settings",
    "pass_place",
]

_MODULES = {
    "cli.project": ("Place", "pass_place"),
    "database.server": ("ServerAddress", "configured_server", "datajoint_config"),
    "errors": ("ConfigurationError", "DatasetError", "SynicixError"),
    "hookspecs": ("hookimpl", "hookspec"),
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
    "registry": ("get_registry",),
    "settings": ("Settings", "load_settings"),
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
