"""The DataLoaders of the three tiers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from synicix_core.training.random_state import derive_seed, new_generator, seed_cpu

__all__ = ["TaskDataLoader", "make_loader"]


class TaskDataLoader(DataLoader[Any]):
    """A DataLoader that tells, after each batch, that the task is alive, and whose processes can be gone on with.

    A data-loading process is seeded anew for each batch. So what an example looks like follows from the generator
    `batch_seeds` and the batch's number in its epoch, not from what the process read before, and a training that was
    killed in the middle of an epoch sees the same examples afterwards, with any number of processes.

    Attributes
    ----------
    after_batch : callable or None
        Called before each batch is handed out. It may raise to end the loop.
    batch_seeds : torch.Generator or None
        Draws one number for each epoch read with data-loading processes.
    further_generators : tuple of torch.Generator
        Everything random that the loader draws from besides its own ``generator`` and those of its samplers.
    """

    after_batch: Callable[[], None] | None = None
    batch_seeds: torch.Generator | None = None
    further_generators: tuple[torch.Generator, ...] = ()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of one epoch."""
        batches = super().__iter__()
        if self.after_batch is None:
            return batches
        return _watched(batches, self.after_batch)

    @property
    def _index_sampler(self) -> Any:
        # What DataLoader sends to its processes, batch by batch.
        indices = super()._index_sampler
        return indices if not self.num_workers or self.batch_seeds is None else _Seeded(indices, self.batch_seeds)


def make_loader(
    dataset: Any,
    tier: str,
    *,
    seed: int,
    batch_size: int,
    sampler: Sampler[Any] | None = None,
    batches: bool = False,
    num_workers: int = 0,
    device: torch.device | None = None,
    after_batch: Callable[[], None] | None = None,
    generators: tuple[torch.Generator, ...] = (),
) -> TaskDataLoader | None:
    """Return the loader of a tier, or None for an empty one.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        The examples of the tier.
    tier : {"train", "validation", "test"}
        Without a sampler, ``train`` is shuffled and the others are read in order.
    seed : int
        Seed of the task; every tier draws from a generator of its own, so that reading one leaves the others alone.
    batch_size : int
        Examples in a batch; the last one may be smaller.
    sampler : torch.utils.data.Sampler, optional
        Which examples, in which order.
    batches : bool
        Whether the sampler yields lists of indices that are batches already; `batch_size` does not count then.
    num_workers : int
        Data-loading processes. They are started by spawn, once, and stay for all epochs.
    device : torch.device, optional
        Where the batches go; for a GPU they are put into pinned memory.
    after_batch : callable, optional
        See `TaskDataLoader`.
    generators : tuple of torch.Generator
        What `sampler` draws from.
    """
    if len(dataset) == 0:
        return None
    if sampler is None:
        shuffled = tier == "train"
        generator = new_generator(seed, f"sampler:{tier}")
        sampler = RandomSampler(dataset, generator=generator) if shuffled else SequentialSampler(dataset)
    how: dict[str, Any] = {"batch_sampler": sampler} if batches else {"sampler": sampler, "batch_size": batch_size}
    if num_workers > 0:
        how |= {
            "num_workers": num_workers,
            "multiprocessing_context": "spawn",
            "persistent_workers": True,
            "worker_init_fn": _WorkerStart(derive_seed(seed, f"workers:{tier}")),
        }
    loader = TaskDataLoader(
        dataset,
        # Without it each epoch, of any tier, would take a number from torch's global generator.
        generator=new_generator(seed, f"loader:{tier}"),
        pin_memory=device is not None and device.type == "cuda",
        **how,
    )
    loader.after_batch = after_batch
    loader.batch_seeds = new_generator(seed, f"batches:{tier}")
    loader.further_generators = (loader.batch_seeds, *generators)
    return loader


class _Seeded:
    """The index lists of a sampler, each with a seed for the process that will read it."""

    def __init__(self, indices: Any, generator: torch.Generator) -> None:
        self._indices = indices
        self._generator = generator

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[_SeededBatch]:
        # Nothing is drawn before the first batch is asked for: DataLoader makes one iterator that it throws away.
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=self._generator))
        for number, batch in enumerate(self._indices):
            yield _SeededBatch(batch, derive_seed(seed, str(number)))


class _SeededBatch:
    """Indices on their way to a data-loading process, which receives them plain and is seeded as they arrive."""

    def __init__(self, indices: Any, seed: int) -> None:
        self._indices = indices
        self._seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._indices, self._seed)


def _arrive(indices: Any, seed: int) -> Any:
    seed_cpu(seed)
    return indices


class _WorkerStart:
    """Prepares a data-loading process; a class, so that spawn can send it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._parent = os.getpid()
        self._deaf_to = [number for number in (signal.SIGINT, signal.SIGTERM) if _is_ignored(number)]

    def __call__(self, worker: int) -> None:
        # A scheduler signals every process of a job; the loader installs a handler of SIGTERM that ends the process.
        for number in self._deaf_to:
            signal.signal(number, signal.SIG_IGN)
        _die_with(self._parent)
        # Again for each batch; here for whatever a dataset draws before the first.
        seed_cpu(derive_seed(self._seed, str(worker)))
        # The processes share the machine's cores already.
        torch.set_num_threads(1)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _die_with(parent: int) -> None:
    """Let the kernel end this process with its parent, where it can; torch's own watch looks every five seconds only."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def _watched(batches: Iterable[Any], after_batch: Callable[[], None]) -> Iterator[Any]:
    for batch in batches:
        after_batch()
        yield batch
