"""SIGTERM and SIGINT as a flag that the worker looks at; a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption"]


class Interruption:
    """Whether somebody asked the worker to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.signal is not None

    @contextmanager
    def handled(self, last_words: Callable[[], None]) -> Iterator[None]:
        """Take over both signals inside the block.

        Parameters
        ----------
        last_words : callable
            Called at a second signal, before the process ends with 128 plus the signal's number.
        """
        if threading.current_thread() is not threading.main_thread():
            # Python delivers signals to the main thread only; there whoever runs this thread decides.
            yield
            return

        def handler(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                try:
                    last_words()
                finally:
                    os._exit(128 + number)
            self.signal = number

        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, previous in old.items():
                signal.signal(number, previous)
