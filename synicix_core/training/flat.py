"""Tensors of several models in one block of memory: a row for each model, its tensors one behind the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["Flat"]

_ALIGNED = 32
"""Numbers to which a row is filled up. So every row begins alike in memory, and vectors of any width end with it: then the
last numbers of a row are computed as the others are, and no model's depend on how many there are."""


class Flat:
    """A block of shape (models, numbers), and its parts by name, (models, *shape).

    Parameters
    ----------
    parts : mapping of str to Tensor, (models, *shape)
        Of one dtype and device; copied. Or, with `like`, taken apart in the same way and zero.
    """

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        first = next(iter(parts.values()))
        self._shapes = {name: part.shape[1:] for name, part in parts.items()}
        width = sum(shape.numel() for shape in self._shapes.values())
        self.width = width
        self.block = torch.zeros(len(first), -(-width // _ALIGNED) * _ALIGNED, dtype=first.dtype, device=first.device)
        self.parts = self.views(self.block)
        for name, part in parts.items():
            self.parts[name].copy_(part)

    def views(self, block: Tensor) -> dict[str, Tensor]:
        """Return the parts of a block that is laid out like this one."""
        found = {}
        start = 0
        for name, shape in self._shapes.items():
            size = shape.numel()
            found[name] = torch.unflatten(block[:, start : start + size], 1, shape) if shape else block[:, start]
            start += size
        return found

    def gathered(self, parts: Sequence[Tensor], out: Tensor) -> Tensor:
        """Copy parts, in the order of the names, into a block."""
        torch.cat([part.flatten(1) if part.dim() > 1 else part[:, None] for part in parts], 1, out=out[:, : self.width])
        return out
