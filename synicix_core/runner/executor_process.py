"""The supervisor's side of the executor: start it, talk to it, end it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from synicix_core.errors import ConfigurationError
from synicix_core.runner.channel import Channel

__all__ = ["Death", "ExecutorProcess"]

_START_SECONDS = 300.0
_PIPE_BYTES = 1 << 20
"""Room for thousands of epochs that the supervisor, when it waits for a database, does not read at once."""


@dataclass(frozen=True)
class Death:
    """How an executor ended.

    Attributes
    ----------
    code : int or None
        Its exit status, minus the number of the signal that ended it, or None if it still runs.
    """

    code: int | None

    def __str__(self) -> str:
        if self.code is None:
            return "it closed its pipe but still runs"
        if self.code >= 0:
            return f"it exited with status {self.code}"
        return f"it was ended by {self.cause}" + (", as the kernel does when memory runs out" if self.by_kill else "")

    @property
    def by_kill(self) -> bool:
        """Whether it was killed by SIGKILL."""
        return self.code == -signal.SIGKILL

    @property
    def cause(self) -> str:
        """The same for deaths of the same kind."""
        if self.code is None or self.code >= 0:
            return "exit" if self.code is None else f"exit {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time signal
            return f"signal {-self.code}"


class ExecutorProcess:
    """A running executor.

    Parameters
    ----------
    device : str
        Device it is to use, as torch names it, or ``auto``.
    threads : int
        CPU threads if that is the CPU; 0 leaves the choice to torch.
    devices : int
        How many devices a task is trained on, `device` and those after it.

    Attributes
    ----------
    device, description : str
        The device it found, and what people call it.
    """

    def __init__(self, device: str, threads: int, devices: int = 1) -> None:
        theirs_reads, ours_writes = os.pipe()
        ours_reads, theirs_writes = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "synicix_core.runner.executor",
                *map(str, (theirs_reads, theirs_writes, device, threads, devices)),
            ],
            stdin=subprocess.DEVNULL,
            # What a trainer prints must not mix with what the command prints.
            stdout=2,
            pass_fds=(theirs_reads, theirs_writes),
            start_new_session=True,
        )
        os.close(theirs_reads)
        os.close(theirs_writes)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # users may have used up their share of pipes
                fcntl.fcntl(ours_reads, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
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
                    "the executor cannot start", why=str(self.death()), hint="What it printed stands above."
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

    def death(self) -> Death:
        """Tell how it ended."""
        try:
            return Death(self.process.wait(5))
        except subprocess.TimeoutExpired:
            return Death(None)

    def kill(self) -> None:
        """End it and everything it started; `close` has to follow. After it there is nothing to end."""
        if self._closed:
            return  # another process may have its number
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and everything it started."""
        if self._closed:
            return
        self.kill()
        self._closed = True
        self.process.wait()
        self.channel.close()
