"""The DataLoaders of the three tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from synicix_core.training.random_state import derive_seed, new_generator

__all__ = ["TaskDataLoader", "make_loader"]


class TaskDataLoader(DataLoader[Any]):
    """A DataLoader that tells, after each batch, that the task is alive.

    Attributes
    ----------
    after_batch : callable or None
        Called before each batch is handed out. It may raise to end the loop.
    """

    after_batch: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of one epoch."""
        batches = super().__iter__()
        if self.after_batch is None:
            return batches
        return _watched(batches, self.after_batch)


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
            "worker_init_fn": _SeedWorker(derive_seed(seed, f"workers:{tier}")),
        }
    loader = TaskDataLoader(
        dataset,
        # Without it each epoch, of any tier, would take a number from torch's global generator.
        generator=new_generator(seed, f"loader:{tier}"),
        pin_memory=device is not None and device.type == "cuda",
        **how,
    )
    loader.after_batch = after_batch
    return loader


class _SeedWorker:
    """Seeds a data-loading process from the task and its own number; a class, so that spawn can send it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, worker: int) -> None:
        from synicix_core.training.random_state import seed_everything

        seed_everything(derive_seed(self.seed, str(worker)))
        # The processes share the machine's cores already.
        torch.set_num_threads(1)


def _watched(batches: Iterator[Any], after_batch: Callable[[], None]) -> Iterator[Any]:
    for batch in batches:
        after_batch()
        yield batch
