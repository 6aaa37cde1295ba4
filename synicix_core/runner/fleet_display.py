"""What a fleet shows while its workers work. The command line has the displays."""

from __future__ import annotations

from typing import Protocol

from synicix_core.runner.display import WorkerDisplay

__all__ = ["FleetDisplay"]


class FleetDisplay(Protocol):
    """Something that shows a person how several workers are doing."""

    def of(self, worker: str) -> WorkerDisplay:
        """Return where that worker's own progress is shown."""

    def note(self, worker: str, text: str) -> None:
        """Show something that happened to a worker."""

    def printed(self, worker: str, line: str) -> None:
        """Show a line that a worker, its executor or a trainer printed."""

    def message(self, text: str) -> None:
        """Show a sentence about the fleet."""

    def close(self) -> None:
        """Leave the terminal tidy."""
