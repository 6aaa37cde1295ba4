"""Which examples of each batch a process learns from, where several train one model."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Share", "Whole", "shared"]


@dataclass(frozen=True)
class Share:
    """The part of every batch that belongs to one process.

    The parts of a batch are as equal as they can be and lie one after the other. A batch of fewer examples than there are
    processes is not cut: all of them learn from the whole of it, and what they find is averaged. So no process is ever without
    examples, on which a loss would not be a number.

    Attributes
    ----------
    rank, ranks : int
        Which process, from 0, and of how many.
    """

    rank: int
    ranks: int

    def cuts(self, size: int) -> bool:
        """Tell whether a batch of so many examples is cut."""
        return size >= self.ranks

    def of(self, batch: Any) -> Any:
        """Return the part of a batch, given as a list of keys or as a tensor of positions."""
        size = len(batch)
        if not self.cuts(size):
            return batch
        return batch[size * self.rank // self.ranks : size * (self.rank + 1) // self.ranks]


@dataclass(frozen=True)
class Whole:
    """A batch before it was cut.

    Attributes
    ----------
    size : int
        Examples.
    digest : int
        Of positions or names: equal for equal ones in the same order, 32 bits. Of keys of another kind: 0.
    """

    size: int
    digest: int


def shared(batches: Iterable[Any], share: Share, note: Callable[[Whole], None]) -> Iterator[Any]:
    """Yield the part of each batch, and tell what the whole was.

    Parameters
    ----------
    batches : iterable
        Tensors of positions, int64, (examples,), or what else a sampler yields: sequences of keys.
    share : Share
        Which part.
    note : callable
        Takes each batch's `Whole`, before its part is yielded.
    """
    for batch in batches:
        keys = batch if isinstance(batch, torch.Tensor | Sequence) else list(batch)
        note(Whole(len(keys), zlib.crc32(_content(keys))))
        yield share.of(keys)


def _content(keys: Any) -> bytes:
    try:
        return np.fromiter(map(operator.index, keys), np.int64).tobytes()
    except (TypeError, OverflowError):
        # What others look like may differ between processes although they are equal.
        return repr(list(keys)).encode() if all(isinstance(key, str) for key in keys) else b""
