"""The supervisor's side of the executor: start it, talk to it, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

from synicix_core.errors import ConfigurationError
from synicix_core.runner.channel import Channel

__all__ = ["ExecutorProcess"]

_START_SECONDS = 300.0


class ExecutorProcess:
    """A running executor.

    Parameters
    ----------
    device : str
        Device it is to use, as torch names it, or ``auto``.
    threads : int
        CPU threads if that is the CPU; 0 leaves the choice to torch.

    Attributes
    ----------
    device, description : str
        The device it found, and what people call it.
    """

    def __init__(self, device: str, threads: int) -> None:
        theirs_reads, ours_writes = os.pipe()
        ours_reads, theirs_writes = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "synicix_core.runner.executor",
                *map(str, (theirs_reads, theirs_writes, device, threads)),
            ],
            stdin=subprocess.DEVNULL,
            # What a trainer prints must not mix with what the command prints.
            stdout=2,
            pass_fds=(theirs_reads, theirs_writes),
            start_new_session=True,
        )
        os.close(theirs_reads)
        os.close(theirs_writes)
        self.channel = Channel(ours_reads, ours_writes)
        self.device = device
        self.description = ""
        self._closed = False

    def wait_ready(self, interrupted: Any) -> bool:
        """Wait until it has imported torch and found its device.

        Parameters
        ----------
        interrupted : callable
            Asked a few times a second whether to give up.

        Returns
        -------
        bool
            False if it was interrupted.

        Raises
        ------
        ConfigurationError
            If it cannot work on this machine.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and not interrupted():
            messages = self.channel.receive(0.2)
            if messages is None:
                self.close()
                raise ConfigurationError(
                    "the executor cannot start", why=self.death(), hint="What it printed stands above."
                )
            for message in messages:
                if message["type"] == "unusable":
                    self.close()
                    raise ConfigurationError("the executor cannot train on this machine", why=message["error"])
                self.device, self.description = message["device"], message["description"]
                return True
        if interrupted():
            return False
        self.close()
        raise ConfigurationError(
            "the executor did not start", why=f"it took longer than {_START_SECONDS:.0f} s to import torch"
        )

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._closed and self.process.poll() is None

    def death(self) -> str:
        """Say how it ended."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe but still runs"
        if code >= 0:
            return f"it exited with status {code}"
        name = signal.Signals(-code).name
        return f"it was killed by {name}" + (", as the kernel does when memory runs out" if name == "SIGKILL" else "")

    def close(self) -> None:
        """End it and everything it started."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.channel.close()
