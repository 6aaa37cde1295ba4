"""Several processes, each with a device of its own, that train one model together: what they tell each other."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from synicix_core.errors import ConfigurationError, SynicixError
from synicix_core.training.launch import ADDRESS
from synicix_core.training.shares import Share

__all__ = ["DataParallel", "join", "left_out", "listen", "synchronised"]

_store: Any = dist.TCPStore  # type: ignore[attr-defined]  # it is public, which torch's stubs do not say
_START = timedelta(seconds=120)
_FOREVER = timedelta(days=30)
"""A process that dies closes its connections, and whoever waits for it hears of that at once. How long one that lives takes is
for the supervisor to judge, by the progress that it is told of: a pass over a large validation tier, say, is no error."""


class DataParallel:
    """One of the processes, which are called ranks.

    What it says concerns all ranks: each of them has to call the same methods in the same order.

    Parameters
    ----------
    rank, ranks : int
        Which one, from 0, and of how many. Rank 0 measures, decides and writes.
    device : torch.device
        Of this rank.
    host_group : torch.distributed.ProcessGroup
        For what the hosts tell each other, beside the gradients: nobody waits for a GPU.
    """

    def __init__(self, rank: int, ranks: int, device: torch.device, host_group: Any) -> None:
        self.rank = rank
        self.ranks = ranks
        self.device = device
        self._hosts = host_group

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """What this rank learns from."""
        return Share(self.rank, self.ranks)

    def any(self, *flags: bool, same: int = 0) -> tuple[bool, ...]:
        """Return of each flag whether it is set on any rank.

        Parameters
        ----------
        *flags : bool
            As many on each rank.
        same : int
            Is to be the same number on all ranks.

        Raises
        ------
        SynicixError
            If that number differs: they do not read the same batches.
        """
        told = torch.tensor([*flags, same, -same], dtype=torch.int64)
        dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self._hosts)
        *found, highest, lowest = told.tolist()
        if highest != -lowest:
            raise SynicixError(
                "the devices of this task do not learn from the same batches",
                why="each has a sampler of its own, and these did not yield the same examples in the same order",
                hint="Let a sampler draw from the generator that it is given, and from nothing else.",
            )
        return tuple(map(bool, found))

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sum over all ranks of each value, in double precision."""
        told = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(told, group=self._hosts)
        sums: list[float] = told.tolist()
        return sums

    def from_first(self, value: Any = None) -> Any:
        """Return what rank 0 gives; what others give is not looked at."""
        told = [value]
        dist.broadcast_object_list(told, src=0, group=self._hosts)
        return told[0]

    def to_first(self, value: Any) -> list[Any]:
        """Return on rank 0 what each rank gives, in their order, and on others nothing."""
        told: list[Any] | None = [None] * self.ranks if self.is_first else None
        dist.gather_object(value, told, dst=0, group=self._hosts)
        return told or []

    def averaging(self, model: nn.Module) -> DistributedDataParallel:
        """Return what runs a model so that its gradients become the mean of those of all ranks.

        Weights that a loss does not depend on keep no gradient, as they do on one device.
        """
        on_gpu = self.device.type == "cuda"
        return DistributedDataParallel(model, device_ids=[self.device] if on_gpu else None, find_unused_parameters=True)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a model whose batch normalization takes its means and variances from the whole batch, and not from one rank's part.

    Raises
    ------
    ConfigurationError
        If torch cannot do that: it can between GPUs only, and for its own layers only.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return model
    foreign = next((type(layer) for layer in layers if not type(layer).__module__.startswith("torch.nn.")), None)
    if device.type == "cuda" and foreign is None:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's
        return converted
    why = "torch exchanges the statistics of a batch between GPUs only"
    if foreign is not None:
        why = f"{foreign.__name__} is a batch normalization of its own, which torch cannot have exchange its statistics"
    raise ConfigurationError(
        "this model cannot be trained on several devices",
        why=f"it has batch normalization, and {why}",
        hint="Train it on one device (devices_per_task = 1), or with another normalization, such as GroupNorm or LayerNorm.",
    )


def left_out(compile: str, cuda_graphs: str) -> tuple[str, ...]:
    """Return what a reader of the result should know of options of `NNTrainer` that several devices do without.

    Raises
    ------
    ConfigurationError
        If ``compile`` is ``"on"``.
    """
    if compile == "on":
        raise ConfigurationError(
            "this task cannot be trained on several devices",
            why='its trainer is to compile the model (compile = "on"), which is done on one device only',
            hint='Set compile to "auto" or "off", or train it on one device (devices_per_task = 1).',
        )
    notes = []
    if compile == "auto":
        notes.append("not compiled: several devices trained this")
    if cuda_graphs == "auto":
        notes.append("no CUDA graph: several devices trained this")
    return tuple(notes)


def listen(ranks: int) -> tuple[Any, int]:
    """Open, on rank 0, the store at which the ranks find each other; return it and its port, which the system chose."""
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        # By default torch listens on every address of the machine, to whoever calls.
        store = _store(ADDRESS, port, ranks, True, _START, wait_for_workers=False, master_listen_fd=server.detach())
    return store, port


def join(rank: int, ranks: int, device: torch.device, port: int, store: Any | None = None) -> DataParallel:
    """Become one of the ranks, for as long as this process lives; returns when all have.

    Parameters
    ----------
    rank, ranks : int
        Which one, and of how many.
    device : torch.device
        Of this rank; gradients go between GPUs by NCCL, and by gloo otherwise.
    port : int
        Where rank 0 listens.
    store : TCPStore, optional
        On rank 0, what `listen` returned.
    """
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store if store is not None else _store(ADDRESS, port, ranks, False, _START),
        rank=rank,
        world_size=ranks,
        timeout=None if device.type == "cuda" else _FOREVER,
    )
    return DataParallel(rank, ranks, device, dist.new_group(backend="gloo", timeout=_FOREVER))
