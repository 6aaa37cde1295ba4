"""How much time goes into functions of a running program."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Stopwatch"]


class Stopwatch:
    """Replaces functions by ones that take the time; puts them back at the end of its block.

    Parameters
    ----------
    clock : callable
        `time.monotonic`, or `time.process_time` for the CPU time of this process.

    Attributes
    ----------
    seconds : dict of str to float
        By name of the function; what it calls is included.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)

    def watch(self, owner: Any, name: str) -> None:
        """Take the time of ``owner.name``; an AttributeError tells that the code has moved on."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._clock()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[name] += self._clock() - started

        self._originals.append((owner, name, original))
        setattr(owner, name, timed)
