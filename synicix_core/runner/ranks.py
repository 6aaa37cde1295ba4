"""The other ranks of an executor that trains with several devices: start them, hear what goes wrong, and not wait in vain."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synicix_core.errors import ConfigurationError, SynicixError
from synicix_core.runner.channel import Channel
from synicix_core.runner.executor_process import Death
from synicix_core.runner.memory_kills import count_memory_kills
from synicix_core.training.launch import launch_variables

if TYPE_CHECKING:
    from synicix_core.training.data_parallel import DataParallel

__all__ = ["QUIET", "Loss", "Ranks", "devices_from"]

QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Environment of ranks: torch warns, in the first step, that all weights might turn out to be used in every step."""

_START_SECONDS = 300.0
_LOOK_SECONDS = 0.05
_TOGETHER_SECONDS = 0.3


@dataclass(frozen=True)
class Loss:
    """A rank that is gone.

    Attributes
    ----------
    rank : int
        Which.
    error, stack : str
        Why.
    kind, cause : str
        As `synicix_core.training.failures.describe_failure` says it of an error; ``"died"``, or ``"out_of_memory"``, of a rank
        that could not say anything.
    """

    rank: int
    error: str
    stack: str
    kind: str
    cause: str


class Ranks:
    """The ranks from 1 on. They are started at once, and stay for task after task.

    Parameters
    ----------
    count : int
        Of all ranks, this process, which is rank 0, included.

    Attributes
    ----------
    variables : dict
        After `join`, what ``torchrun`` would have put into the environment of this rank.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory_kills = count_memory_kills()
        self.variables: dict[str, str] = {}
        self._losses: list[Loss] = []
        self._ready = [threading.Event() for _ in range(count)]
        self._on_loss: Callable[[Loss], None] | None = None
        self._members = [self._start(rank) for rank in range(1, count)]
        for rank, (process, channel) in enumerate(self._members, 1):
            threading.Thread(target=self._listen, args=(rank, process, channel), daemon=True).start()

    def join(self, device: str, threads: int) -> DataParallel:
        """Have all ranks find each other, this one too.

        Parameters
        ----------
        device : str
            Of rank 0, as torch names it; the others take those that follow, or the CPU as well.
        threads : int
            CPU threads of each rank, if that is the CPU.

        Raises
        ------
        ConfigurationError
            If there are too few devices.
        SynicixError
            If a rank does not start.
        """
        import torch

        from synicix_core.training.data_parallel import join, listen

        names = devices_from(device, self.count)
        deadline = time.monotonic() + _START_SECONDS
        for rank in range(1, self.count):
            while not self._ready[rank].wait(_LOOK_SECONDS):
                if (loss := self.loss()) is not None:
                    raise SynicixError("the processes of the other devices do not start", why=loss.error)
                if time.monotonic() > deadline:
                    raise SynicixError(
                        "the processes of the other devices do not start",
                        why=f"rank {rank} took longer than {_START_SECONDS:.0f} s to import torch",
                    )
        store, port = listen(self.count)
        for name, (_, channel) in zip(names[1:], self._members, strict=True):
            channel.send({"type": "join", "device": name, "threads": threads, "port": port})
        self.variables = {**launch_variables(0, self.count), "MASTER_PORT": str(port)}
        return join(0, self.count, torch.device(device), port, store)

    def train(self, spec: dict[str, Any], on_loss: Callable[[Loss], None]) -> None:
        """Have the other ranks begin a task.

        Parameters
        ----------
        spec : dict
            Its specification, on the wire.
        on_loss : callable
            Called in another thread when a rank is gone, until `rest`.
        """
        self._on_loss = on_loss
        for loss in self._losses:
            on_loss(loss)
        for _, channel in self._members:
            channel.send({"type": "task", "spec": spec})

    def rest(self) -> None:
        """Note that nobody waits for the others any more."""
        self._on_loss = None

    def loss(self, seconds: float = 0.0) -> Loss | None:
        """Return which rank is gone, if one is, waiting so long for the news; of several the one that the others miss."""
        deadline = time.monotonic() + seconds
        while not self._losses and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if not self._losses:
            return None
        time.sleep(_TOGETHER_SECONDS)
        # One that was killed said nothing, and others that lost their connection to it may have been faster to say so.
        return next((loss for loss in self._losses if not loss.stack), self._losses[0])

    def close(self) -> None:
        """End the other ranks."""
        for process, _ in self._members:
            process.kill()

    def _start(self, rank: int) -> tuple[subprocess.Popen[bytes], Channel]:
        theirs_reads, ours_writes = os.pipe()
        ours_reads, theirs_writes = os.pipe()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "synicix_core.runner.rank",
                *map(str, (theirs_reads, theirs_writes, os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs_reads, theirs_writes),
            env={**QUIET, **os.environ, **launch_variables(rank, self.count)},
        )
        os.close(theirs_reads)
        os.close(theirs_writes)
        return process, Channel(ours_reads, ours_writes)

    def _listen(self, rank: int, process: subprocess.Popen[bytes], channel: Channel) -> None:
        said: dict[str, Any] | None = None
        for message in channel.messages():
            if message["type"] == "ready":
                self._ready[rank].set()
            else:
                said = message
                self._lost(self._loss_of(rank, said))
        death = Death(process.wait())
        if said is None:
            self._lost(self._loss_of_dead(rank, death))

    def _lost(self, loss: Loss) -> None:
        self._losses.append(loss)
        if (on_loss := self._on_loss) is not None:
            on_loss(loss)

    def _loss_of(self, rank: int, said: dict[str, Any]) -> Loss:
        return Loss(rank, f"{self._name(rank)}: {said['error']}", said["stack"], said["kind"], said["cause"])

    def _loss_of_dead(self, rank: int, death: Death) -> Loss:
        if death.by_kill and count_memory_kills() > self._memory_kills:
            why = "was killed by the kernel because memory ran out"
            return Loss(rank, f"{self._name(rank)} {why}", "", "out_of_memory", "killed")
        return Loss(rank, f"{self._name(rank)} died: {death}", "", "died", death.cause)

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.count}"


def devices_from(device: str, count: int) -> list[str]:
    """Return the devices of so many ranks, of which the first is given.

    Parameters
    ----------
    device : str
        As torch names it, in full.
    count : int
        How many.

    Raises
    ------
    ConfigurationError
        If this machine has not so many of its kind, from the given one on.
    """
    import torch

    kind, _, index = device.partition(":")
    if kind == "cpu":
        return [device] * count
    first = int(index or 0)
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if kind != "cuda" or first + count > there:
        gpus = "1 GPU" if there == 1 else f"{there} GPUs"
        raise ConfigurationError(
            f"a task is to be trained on {count} devices from {device} on, and there are not so many",
            why=f"this machine shows {gpus}" if kind == "cuda" else f"{kind} is one device",
            hint="Lower devices_per_task, or begin with another --device; CUDA_VISIBLE_DEVICES hides GPUs.",
        )
    return [f"cuda:{number}" for number in range(first, first + count)]
