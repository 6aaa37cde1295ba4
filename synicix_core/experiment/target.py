"""What `add` and `check` need of a pipeline; the pipeline itself lies above this package."""

from __future__ import annotations

from typing import Any, Protocol

from synicix_core.registry import Registry
from synicix_core.settings import Settings

__all__ = ["Target"]


class Target(Protocol):
    """The part of `synicix_core.Pipeline` that experiment files use."""

    @property
    def settings(self) -> Settings:
        """Directories of this machine."""

    @property
    def registry(self) -> Registry:
        """The installed plugins."""

    @property
    def DatasetConfig(self) -> Any:
        """The bound table."""

    @property
    def ModelConfig(self) -> Any:
        """The bound table."""

    @property
    def TrainingConfig(self) -> Any:
        """The bound table."""

    @property
    def TrainingTask(self) -> Any:
        """The bound table."""
