"""SIGTERM and SIGINT: a flag that the worker looks at, and a watch that acts when the worker cannot look."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_OVER = b"\0"
# Slurm says it twice where it preempts without a notice, 6 to 26 ms apart: to the steps of the job, then to all of it.
_SAME_SECONDS = 1.0


class Interruption:
    """Whether somebody asked the worker to stop.

    Signals are received by a thread of their own, because the main thread may be inside a driver that waits for a silent
    database, where Python runs no handler.

    Parameters
    ----------
    grace_seconds : float
        Time to stop in, from the first signal on.
    exits : bool
        Whether the process is ended when the time is over (with 75), and at a second signal (with 128 plus its number).
        If not, only `last_words` is called then. A SIGTERM within a second of the first is none.

    Attributes
    ----------
    signal : int or None
        The first signal.
    """

    def __init__(self, grace_seconds: float, *, exits: bool) -> None:
        self.signal: int | None = None
        self._grace = grace_seconds
        self._exits = exits
        self._since = self._deadline = float("inf")

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.signal is not None

    @property
    def seconds_left(self) -> float:
        """Time left to stop in; endless before the first signal."""
        return self._deadline - time.monotonic()

    @contextmanager
    def handled(self, first_words: Callable[[], None], last_words: Callable[[], None]) -> Iterator[None]:
        """Take over both signals inside the block.

        Parameters
        ----------
        first_words : callable
            Called at the first signal, in another thread.
        last_words : callable
            Called, in another thread, at a second signal and when the time to stop is over.
        """
        if threading.current_thread() is not threading.main_thread():
            # Python receives signals in the main thread only; there whoever runs this thread decides.
            yield
            return
        reads, writes = os.pipe()
        os.set_blocking(writes, False)
        watch = threading.Thread(target=self._watch, args=(reads, first_words, last_words), daemon=True)
        watch.start()
        # Python's own part of the handler writes the number there at once, whatever the main thread is doing.
        old_wakeup = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        old = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, previous in old.items():
                signal.signal(number, previous)
            signal.set_wakeup_fd(old_wakeup)
            os.write(writes, _OVER)
            watch.join(5)
            os.close(writes)
            os.close(reads)

    def _watch(self, reads: int, first_words: Callable[[], None], last_words: Callable[[], None]) -> None:
        while True:
            timeout = None if self.signal is None else max(self.seconds_left, 0.0)
            if not select.select([reads], [], [], timeout)[0]:
                self._end(last_words, 75)
                return
            for number in os.read(reads, 1):
                if number == _OVER[0]:
                    return
                if number not in _SIGNALS:
                    continue
                if self.signal is None:
                    self._since = time.monotonic()
                    self._deadline = self._since + self._grace
                    self.signal = number
                    first_words()
                elif not number == self.signal == signal.SIGTERM or time.monotonic() > self._since + _SAME_SECONDS:
                    self._end(last_words, 128 + number)

    def _end(self, last_words: Callable[[], None], code: int) -> None:
        try:
            last_words()
        finally:
            if self._exits:
                # Past everything that may be blocked, and would print it in order.
                os.write(2, b"Ended at once; what was trained goes on when another worker takes it back.\n")
                os._exit(code)
