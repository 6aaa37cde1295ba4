"""What an example is made of: trials or clips of each part, the neurons that were chosen, normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synicix_neurodata.access import Access
from synicix_neurodata.clips import Clips
from synicix_neurodata.statistics import Normalization

__all__ = ["Examples"]

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a tier, by their place in it.

    Attributes
    ----------
    access : Access
    rows : ndarray of intp, (examples,)
        Trial of each.
    clips : Clips or None
        Of a movie recording.
    neurons : ndarray of intp or None
        Columns of the responses that are used; None for all.
    normalize : mapping of str to Normalization
        By part, of the neurons that are used; parts that are missing stay as they are.
    """

    access: Access
    rows: NDArray[np.intp]
    clips: Clips | None
    neurons: NDArray[np.intp] | None
    normalize: Mapping[str, Normalization]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def shape(self, part: str) -> tuple[int, ...]:
        """Return the shape of a part of one example."""
        shape = self.access.shape(part)
        if part == "responses" and self.neurons is not None:
            shape = (len(self.neurons),)
        return shape if self.clips is None else (shape[0], self.clips.frames, *shape[1:])

    def read(self, part: str, indices: NDArray[np.intp]) -> Tensor:
        """Return a part of several examples, float32, (len(indices), *shape); they may be in any order."""
        result = np.empty((len(indices), *self.shape(part)), np.float32)
        if self.clips is not None:
            for position, index in enumerate(indices):
                first = int(self.clips.start[index])
                clip = self.access.clip(part, int(self.clips.trial[index]), first, first + self.clips.frames)
                result[position] = self._prepared(part, clip[None])[0]
            return torch.from_numpy(result)
        # In blocks, so that what was read and what is made of it are never in memory together for a whole tier.
        step = max(1, _BLOCK_BYTES // (8 * int(np.prod(self.access.recording.shapes[part]))))
        for start in range(0, len(indices), step):
            trials = self.access.trials(part, self.rows[indices[start : start + step]])
            result[start : start + step] = self._prepared(part, trials)
        return torch.from_numpy(result)

    def _prepared(self, part: str, values: NDArray[Any]) -> NDArray[Any]:
        if part == "responses" and self.neurons is not None:
            values = values[:, self.neurons]
        applied = self.normalize.get(part)
        return values if applied is None else applied(values, frames=self.clips is not None)
