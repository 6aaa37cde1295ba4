"""An observer of training for benchmarks that need none."""

from __future__ import annotations

from typing import Any

__all__ = ["Nobody"]


class Nobody:
    """Is told everything and says nothing."""

    def stop_requested(self) -> bool:
        """Return False."""
        return False

    def epoch_finished(self, **_fields: Any) -> None:
        """Pass over it."""

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Pass over it."""

    def checkpoint_failed(self, message: str) -> None:
        """Pass over it."""

    def progress(self) -> None:
        """Pass over it."""
