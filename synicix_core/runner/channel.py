"""JSON lines over a pair of pipes, between supervisor and executor."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Channel"]


class Channel:
    """One end of the conversation.

    Parameters
    ----------
    reads, writes : int
        File descriptors, which the channel owns.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self.reads = reads
        self._writes = writes
        self._buffer = b""
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Write a message whole.

        Raises
        ------
        BrokenPipeError
            If the other end is gone, or this one is closed.
        """
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._writes < 0:
                raise BrokenPipeError("the channel is closed")
            view = memoryview(data)
            while view:
                view = view[os.write(self._writes, view) :]

    def receive(self, timeout: float | None) -> list[dict[str, Any]] | None:
        """Return the messages that have arrived, waiting at most `timeout` seconds for the first.

        Returns
        -------
        list of dict or None
            Empty after the timeout; None when the other end is gone.
        """
        if not select.select([self.reads], [], [], timeout)[0]:
            return []
        data = os.read(self.reads, 1 << 20)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the other end is gone."""
        while (arrived := self.receive(None)) is not None:
            yield from arrived

    def close(self) -> None:
        """Close both descriptors; their numbers may be somebody else's then."""
        with self._lock:
            for descriptor in (self.reads, self._writes):
                os.close(descriptor)
            self._writes = -1
