"""Who is told how far a long move of rows has come."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Is told of one stage after the other."""

    def start(self, label: str, total: int) -> None:
        """Begin a stage that takes so many steps; the one before has ended."""

    def advance(self, steps: int) -> None:
        """Note that so many more steps are done."""


class Silent:
    """Tells nobody."""

    def start(self, label: str, total: int) -> None:
        """Begin a stage."""

    def advance(self, steps: int) -> None:
        """Note steps."""
