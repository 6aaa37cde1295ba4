"""The DataLoaders of the three tiers."""

from __future__ import annotations

import operator
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from synicix_core.errors import SynicixError
from synicix_core.training.parent_death import die_with
from synicix_core.training.random_state import derive_seed, new_generator, seed_cpu
from synicix_core.training.resident import ResidentTier
from synicix_core.training.shares import Share, Whole, shared

__all__ = ["TaskDataLoader", "make_loader"]


class TaskDataLoader(DataLoader[Any]):
    """A DataLoader that tells, after each batch, that the task is alive, and whose processes can be gone on with.

    It also knows which examples it read, so that a metric can be told what belongs to each row of the outputs: see `column`.

    Where the tier is on the device, batches are gathered there, the same ones in the same order, and no process is started.

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
    resident : ResidentTier or None
        The tier on the device.
    share : Share or None
        The part of each batch that is read and handed out, where several processes learn from it together; None is all of it.
    """

    after_batch: Callable[[], None] | None = None
    batch_seeds: torch.Generator | None = None
    further_generators: tuple[torch.Generator, ...] = ()
    resident: ResidentTier | None = None
    share: Share | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._passes = _Passes()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of one epoch."""
        if self.resident is not None:
            positions = self.positions()
            if self.share is not None:
                positions = shared(positions, self.share, self._passes.latest.wholes.append)
            return map(self.resident.take, positions)
        self._passes.latest = reading = _Pass()
        return _watched(super().__iter__(), reading, self.after_batch)

    def positions(self) -> Iterator[torch.Tensor]:
        """Yield, in place of the batches of an epoch, which examples they consist of: int64, (examples,).

        Nothing is asked of the sampler before it would be for the batch itself, and nothing random is drawn otherwise.

        Raises
        ------
        SynicixError
            If the sampler does not yield positions.
        """
        self._passes.latest = reading = _Pass()
        return _handed_out(_orders(self), reading, self.after_batch)

    def order(self) -> torch.Tensor | None:
        """Begin an epoch and return the positions of all its examples, or None where the sampler gives them only bit by bit.

        What the sampler draws at the end of an epoch is drawn by `end_order`, to be called before the last batch if that is
        a smaller one, and else after it.
        """
        size = len(self.dataset)  # type: ignore[arg-type]  # every dataset of a task has a length
        sampler, batches = self.sampler, self.batch_sampler
        if type(batches) is not BatchSampler or batches.drop_last:
            return None
        if type(sampler) is SequentialSampler and len(sampler) == size:
            order = torch.arange(size)
        elif type(sampler) is RandomSampler and _draws_a_permutation(sampler, size):
            order = torch.randperm(size, generator=sampler.generator)
        else:
            return None
        self._passes.latest = reading = _Pass()
        reading.batches.append(order.numpy())
        reading.handed_out = 1
        return order

    def end_order(self) -> None:
        """Draw what the sampler draws when it finds that it is through."""
        if type(self.sampler) is RandomSampler:
            torch.randperm(len(self.sampler), generator=self.sampler.generator)

    def wholes(self, count: int) -> list[Whole]:
        """Return what the last batches that were handed out, so many, were before they were cut; only with a `share`."""
        latest = self._passes.latest
        return latest.wholes[latest.handed_out - count : latest.handed_out]

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the dataset for the examples that were handed out in the latest pass, in their order.

        So it fits the outputs of a model that were collected in that pass, whatever the sampler, the number of
        data-loading processes and the size of the batches.

        Parameters
        ----------
        name : str
            What ``dataset.column`` knows.

        Returns
        -------
        ndarray, (examples handed out,)

        Raises
        ------
        SynicixError
            If the dataset has no ``column``, what it returns is not one value per example, nothing was read yet, or the
            sampler does not yield positions.
        """
        if not hasattr(self.dataset, "column"):
            raise SynicixError(
                f"there is no column {name!r}", why=f"the dataset {type(self.dataset).__name__} has no column(name)"
            )
        values = np.asarray(self.dataset.column(name))
        size = len(self.dataset)  # type: ignore[arg-type]  # every dataset of a task has a length
        if values.shape != (size,):
            raise SynicixError(
                f"the column {name!r} cannot be used",
                why=f"the dataset {type(self.dataset).__name__} has {size} examples and gives an array of shape "
                f"{values.shape}",
            )
        return values[self._passes.latest.indices()]

    @property
    def _index_sampler(self) -> Any:
        # What DataLoader reads, or sends to its processes, batch by batch.
        indices: Any = _Recorded(super()._index_sampler, self._passes)
        if self.share is not None:
            indices = _Shared(indices, self.share, self._passes)
        if not self.num_workers or self.batch_seeds is None:
            return indices
        return _Seeded(indices, self.batch_seeds, self.share.rank if self.share is not None else 0)


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
    resident: ResidentTier | None = None,
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
    resident : ResidentTier, optional
        The tier, if it is on the device.
    """
    if len(dataset) == 0:
        return None
    if sampler is None:
        shuffled = tier == "train"
        generator = new_generator(seed, f"sampler:{tier}")
        sampler = RandomSampler(dataset, generator=generator) if shuffled else SequentialSampler(dataset)
    how: dict[str, Any] = {"batch_sampler": sampler} if batches else {"sampler": sampler, "batch_size": batch_size}
    if num_workers > 0 and resident is None:
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
        pin_memory=resident is None and device is not None and device.type == "cuda",
        **how,
    )
    loader.after_batch = after_batch
    loader.batch_seeds = new_generator(seed, f"batches:{tier}")
    loader.further_generators = (loader.batch_seeds, *generators)
    loader.resident = resident
    return loader


class _Pass:
    """What one pass over a loader has read."""

    def __init__(self) -> None:
        self.batches: list[NDArray[np.int64] | None] = []
        self.wholes: list[Whole] = []
        self.handed_out = 0

    def indices(self) -> NDArray[np.int64]:
        """Return the positions of the examples handed out; data-loading processes are ahead of that."""
        batches = self.batches[: self.handed_out]
        if not batches or any(batch is None for batch in batches):
            raise SynicixError(
                "it is not known which examples were read",
                why="the sampler yields something other than positions" if batches else "no batch was read yet",
            )
        return np.concatenate([batch for batch in batches if batch is not None])


class _Passes:
    """The latest pass. Kept apart from the loader, because a loader that its own processes refer to is never freed."""

    def __init__(self) -> None:
        self.latest = _Pass()


class _Recorded:
    """The index lists of a sampler, noted down as they are asked for."""

    def __init__(self, indices: Any, passes: _Passes) -> None:
        self._indices = indices
        self._passes = passes

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        # The pass is looked up now and not at the first batch: another may have begun by then.
        return _noting(self._indices, self._passes.latest)


class _Shared:
    """The part of each of a sampler's index lists that one of several processes reads."""

    def __init__(self, indices: Any, share: Share, passes: _Passes) -> None:
        self._indices = indices
        self._share = share
        self._passes = passes

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        return shared(self._indices, self._share, self._passes.latest.wholes.append)


def _noting(indices: Iterable[Any], reading: _Pass) -> Iterator[Any]:
    for batch in indices:
        reading.batches.append(_positions(batch))
        yield batch


def _positions(batch: Any) -> NDArray[np.int64] | None:
    try:
        return np.fromiter(map(operator.index, batch), np.int64)
    except (TypeError, OverflowError):
        return None  # keys of another kind are the dataset's own affair, as long as nobody asks for a column


def _orders(loader: TaskDataLoader) -> Iterator[torch.Tensor]:
    """Yield the positions of each batch as the sampler gives them; torch's own samplers without a list of numbers."""
    latest = loader._passes.latest
    order = loader.order()
    loader._passes.latest = latest
    if order is not None:
        assert isinstance(loader.batch_sampler, BatchSampler)
        length, size = loader.batch_sampler.batch_size, len(order)
        for start in range(0, size, length):
            if start + length > size:
                loader.end_order()
            yield order[start : start + length]
        if size % length == 0:
            loader.end_order()
        return
    size = len(loader.dataset)  # type: ignore[arg-type]  # every dataset of a task has a length
    for batch in loader.batch_sampler if loader.batch_sampler is not None else loader.sampler:
        positions = _positions(batch)
        if positions is None:
            raise SynicixError(
                "the sampler does not yield positions",
                where=type(loader.sampler).__name__,
                hint="A sampler for a dataset with tensors() yields integers, or lists of them.",
            )
        yield torch.from_numpy(np.where(positions < 0, positions + size, positions))


def _draws_a_permutation(sampler: RandomSampler, size: int) -> bool:
    return sampler.generator is not None and not sampler.replacement and sampler.num_samples == size


def _handed_out(
    batches: Iterable[torch.Tensor], reading: _Pass, after_batch: Callable[[], None] | None
) -> Iterator[torch.Tensor]:
    for positions in batches:
        reading.batches.append(positions.numpy())
        if after_batch is not None:
            after_batch()
        reading.handed_out += 1
        yield positions


class _Seeded:
    """The index lists of a sampler, each with a seed for the process that will read it, another one for each rank."""

    def __init__(self, indices: Any, generator: torch.Generator, rank: int) -> None:
        self._indices = indices
        self._generator = generator
        self._suffix = f":{rank}" if rank else ""

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[_SeededBatch]:
        # Nothing is drawn before the first batch is asked for: DataLoader makes one iterator that it throws away.
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=self._generator))
        for number, batch in enumerate(self._indices):
            yield _SeededBatch(batch, derive_seed(seed, f"{number}{self._suffix}"))


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
        # Torch's own watch looks every five seconds only.
        die_with(self._parent)
        # Again for each batch; here for whatever a dataset draws before the first.
        seed_cpu(derive_seed(self._seed, str(worker)))
        # The processes share the machine's cores already.
        torch.set_num_threads(1)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _watched(batches: Iterable[Any], reading: _Pass, after_batch: Callable[[], None] | None) -> Iterator[Any]:
    for batch in batches:
        if after_batch is not None:
            after_batch()
        reading.handed_out += 1
        yield batch
