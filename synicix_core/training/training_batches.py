"""The training batches of one epoch after the other, from the beginning of one or from its middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from synicix_core.training import random_state
from synicix_core.training.loaders import TaskDataLoader

__all__ = ["TrainingBatches"]


class TrainingBatches:
    """Reads a loader in such a way that an epoch can be gone on with.

    The order of an epoch, and what its examples look like, follow from the random state at its start. So that state is
    kept, and to go on in the middle the batches that were used are read, and passed over, once more.

    Parameters
    ----------
    loader : DataLoader
        Of the train tier.
    generators : mapping of str to torch.Generator
        What it draws from besides the global generators.
    keep_place : bool
        Whether the state at the start of each epoch is kept at all.

    Attributes
    ----------
    loader : DataLoader
        As given.
    process_state : mapping or None
        State of the process's generators, where nothing of this training draws from them.
    """

    def __init__(self, loader: DataLoader[Any], generators: Mapping[str, torch.Generator], *, keep_place: bool) -> None:
        self.loader = loader
        self.process_state: Mapping[str, Any] | None = None
        self._generators = generators
        self._keep_place = keep_place
        self._at_start: dict[str, Any] | None = None
        self._read_whole = False

    def epoch(self, number: int, skip: int, while_skipping: Callable[[], None]) -> Iterator[Any]:
        """Return the batches of an epoch.

        Parameters
        ----------
        number : int
            Epochs finished before; told to samplers that have a ``set_epoch``.
        skip : int
            Batches that were used before; with 0 the epoch begins.
        while_skipping : callable
            Called for each of them. It may raise.
        """
        for sampler in (self.loader.sampler, self.loader.batch_sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(number)
        if skip and self._read_whole:
            return iter(())
        self._read_whole = False
        if not skip or self._at_start is None:
            self._at_start = self._state() if self._keep_place else None
            return iter(self.loader)
        now = random_state.capture(self._generators)
        random_state.restore(self._at_start, self._generators)
        batches = iter(self.loader)
        for _ in islice(batches, skip):
            while_skipping()
        # Whatever else drew random numbers since, dropout for one, goes on from where it was.
        random_state.restore(now, self._generators)
        return batches

    def order(self, skip: int) -> torch.Tensor:
        """Return, in place of the batches of an epoch, the positions of all its examples; see `TaskDataLoader.order`.

        Parameters
        ----------
        skip : int
            Batches that were used before; with 0 the epoch begins. They are in the order all the same, unless the epoch was
            read to its end: then it is empty.
        """
        assert isinstance(self.loader, TaskDataLoader)
        if skip and self._read_whole:
            return torch.empty(0, dtype=torch.int64)
        self._read_whole = False
        now = None
        if skip and self._at_start is not None:
            now = self._state()
            random_state.restore(self._at_start, self._generators)
        else:
            self._at_start = self._state() if self._keep_place else None
        order = self.loader.order()
        assert order is not None, "only samplers whose order is known at once are stacked"
        if now is not None:
            random_state.restore(now, self._generators)
        return order

    def _state(self) -> dict[str, Any]:
        return random_state.capture(self._generators, self.process_state)

    @property
    def read_whole(self) -> bool:
        """Whether the epoch was read to its end."""
        return self._read_whole

    def finish(self) -> None:
        """Note that the epoch was read to its end, at which samplers may draw numbers, too."""
        self._read_whole = True

    def state_dict(self) -> dict[str, Any]:
        """Return the random state at the start of the epoch that is being read, and whether it was read to its end."""
        return {"at_start": self._at_start, "read_whole": self._read_whole}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._at_start, self._read_whole = state["at_start"], state["read_whole"]
