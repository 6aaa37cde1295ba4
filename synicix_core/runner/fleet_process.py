"""One worker of a fleet as its fleet sees it: a program of its own that reports over a pipe."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from synicix_core.runner.channel import Channel

__all__ = ["WorkerProcess"]

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 16
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class WorkerProcess:
    """A running worker.

    It has a session of its own, so that Ctrl-C on the terminal reaches it through its fleet only, and once.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments; the descriptors it reports to are appended.
    environment : mapping of str to str, optional
        What its environment has in addition to this process's.

    Attributes
    ----------
    channel : Channel
        What it reports, and what it is told.
    output : int
        Descriptor from which everything comes that it, its executor or a trainer prints.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        theirs_reads, ours_writes = os.pipe()
        ours_reads, theirs_writes = os.pipe()
        self.output, theirs_output = os.pipe()
        # The worker has the reading end of its output, too: what a trainer prints must not fail when the fleet is gone.
        passed = (theirs_reads, theirs_writes, self.output)
        try:
            self._process = subprocess.Popen(
                [*command, "--report-fds", *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=theirs_output,
                stderr=theirs_output,
                env={**os.environ, **(environment or {})},
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError:
            for descriptor in (ours_reads, ours_writes, self.output):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (theirs_reads, theirs_writes, theirs_output):
                os.close(descriptor)
        self.channel = Channel(ours_reads, ours_writes)
        self.pid = self._process.pid
        self._partial = b""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def tell(self, **message: Any) -> None:
        """Send a short message; one that is gone does not hear it."""
        with suppress(OSError):
            self.channel.send(message)

    def kill(self) -> None:
        """End it at once; its executor notices and ends, too."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; tell whether it came in time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def printed(self) -> list[str] | None:
        """Return the lines that have arrived on `output`, as people would see them; None at its end.

        Returns
        -------
        list of str or None
            Without control sequences, which would tear the display; of a line that was drawn over, its last state.
        """
        if not select.select([self.output], [], [], 0)[0]:
            return []
        data = os.read(self.output, _CHUNK)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        return [_readable(line) for line in lines]

    def last_words(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the messages and printed lines that arrived before its end, without waiting for more."""
        messages: list[dict[str, Any]] = []
        while some := self.channel.receive(0):
            messages.extend(some)
        lines: list[str] = []
        while more := self.printed():
            lines.extend(more)
        if self._partial:
            lines.append(_readable(self._partial))
        return messages, lines

    def close(self) -> None:
        """Close the descriptors, after its end."""
        self.channel.close()
        os.close(self.output)


def _readable(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    return _ESCAPES.sub("", text)
