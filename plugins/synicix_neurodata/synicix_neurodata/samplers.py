"""Which trials are read, and in which order: balanced over classes, repeats together, random clips of movies.

Every sampler draws from `generator` alone (torch's global one without it) and keeps nothing from one epoch to the next, so
that the state of the generator says what an epoch is and a training that was killed can go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from synicix_core.errors import DatasetError, ParamsError

__all__ = ["BalancedSampler", "ContiguousClips", "RepeatsBatchSampler"]


class BalancedSampler(Sampler[int]):
    """Every class of a column equally often in each epoch, in random order. Yields indices.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Has ``column(name)``.
    column : str
        Names the class of each example.
    mode : {"shortest", "longest"}
        ``shortest``: as many of each class as the rarest one has, no example twice; which ones changes from epoch to
        epoch. ``longest``: as many as the most frequent one has; examples of the rarer classes are drawn with
        replacement.
    generator : torch.Generator, optional

    Raises
    ------
    DatasetError
        If the dataset has no such column.
    ParamsError
        If there is no such mode.
    """

    def __init__(
        self,
        dataset: Any,
        column: str,
        mode: Literal["shortest", "longest"] = "shortest",
        generator: torch.Generator | None = None,
    ) -> None:
        if mode not in ("shortest", "longest"):
            raise ParamsError(
                "BalancedSampler cannot be built", [("mode", f"expected shortest or longest, got {mode!r}")]
            )
        self.generator = generator
        self._classes = _groups("BalancedSampler", dataset, column)
        sizes = [len(members) for members in self._classes]
        self._each = min(sizes, default=0) if mode == "shortest" else max(sizes, default=0)

    def __len__(self) -> int:
        """Return the number of indices in an epoch."""
        return self._each * len(self._classes)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one epoch."""
        if not self._classes:
            return iter(())
        chosen = torch.cat([self._draw(members) for members in self._classes])
        order = torch.randperm(len(chosen), generator=self.generator)
        return iter(chosen[order].tolist())

    def _draw(self, members: Tensor) -> Tensor:
        if len(members) < self._each:
            return members[torch.randint(len(members), (self._each,), generator=self.generator)]
        return members[torch.randperm(len(members), generator=self.generator)[: self._each]]


class RepeatsBatchSampler(Sampler[list[int]]):
    """All trials of one stimulus at a time, for stimuli that are shown repeatedly. Yields batches.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Has ``column(name)``.
    column : str
        Equal where the same stimulus was shown.
    min_repeats : int
        Stimuli shown less often are left out; 1 keeps all.
    shuffle : bool
        Whether the stimuli come in random order; else in that of their first trials. The trials of a stimulus are
        always in the order of the dataset.
    generator : torch.Generator, optional

    Raises
    ------
    DatasetError
        If the dataset has no such column, or no stimulus is shown so often.
    ParamsError
        If `min_repeats` is below 1.
    """

    def __init__(
        self,
        dataset: Any,
        column: str = "stimulus_id",
        min_repeats: int = 2,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if min_repeats < 1:
            raise ParamsError(
                "RepeatsBatchSampler cannot be built", [("min_repeats", f"expected 1 or more, got {min_repeats}")]
            )
        self.generator = generator
        self._shuffle = shuffle
        groups = _groups("RepeatsBatchSampler", dataset, column)
        repeated = [members.tolist() for members in groups if len(members) >= min_repeats]
        if not repeated:
            most = max((len(members) for members in groups), default=0)
            raise DatasetError(
                "RepeatsBatchSampler cannot be used",
                file=_file(dataset),
                why=f"no value of the column {column!r} comes {min_repeats} times in this tier; the most is {most}",
                hint="Training tiers seldom have repeats: name this sampler for another tier, or set min_repeats.",
            )
        self._batches: list[list[int]] = sorted(repeated)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch."""
        order = torch.randperm(len(self), generator=self.generator).tolist() if self._shuffle else range(len(self))
        return iter([list(self._batches[index]) for index in order])


class ContiguousClips(Sampler[int]):
    """From each trial of a movie dataset some clips at random places, all in random order. Yields indices.

    The examples of the dataset are the clips to choose from: contiguous frames of one trial, overlapping ones where it
    was told to cut them closer than they are long. Each trial counts the same, however long it is, and what an epoch
    shows of it changes from epoch to epoch.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Has ``column(name)``.
    clips_per_trial : int
        How many of each trial in an epoch. No clip comes twice before all of its trial came once.
    column : str
        Names the trial of each clip.
    generator : torch.Generator, optional

    Raises
    ------
    DatasetError
        If the dataset has no such column.
    ParamsError
        If `clips_per_trial` is below 1.
    """

    def __init__(
        self,
        dataset: Any,
        clips_per_trial: int = 1,
        column: str = "trial",
        generator: torch.Generator | None = None,
    ) -> None:
        if clips_per_trial < 1:
            raise ParamsError(
                "ContiguousClips cannot be built", [("clips_per_trial", f"expected 1 or more, got {clips_per_trial}")]
            )
        self.generator = generator
        self._clips_per_trial = clips_per_trial
        self._trials = _groups("ContiguousClips", dataset, column)

    def __len__(self) -> int:
        """Return the number of indices in an epoch."""
        return self._clips_per_trial * len(self._trials)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one epoch."""
        if not self._trials:
            return iter(())
        chosen = torch.cat([self._draw(clips) for clips in self._trials])
        order = torch.randperm(len(chosen), generator=self.generator)
        return iter(chosen[order].tolist())

    def _draw(self, clips: Tensor) -> Tensor:
        rounds = -(-self._clips_per_trial // len(clips))
        orders = [torch.randperm(len(clips), generator=self.generator) for _ in range(rounds)]
        return clips[torch.cat(orders)[: self._clips_per_trial]]


def _groups(sampler: str, dataset: Any, column: str) -> list[Tensor]:
    """Return the indices of equal values of a column, in increasing order, one group after the other."""
    if not hasattr(dataset, "column"):
        raise DatasetError(
            f"{sampler} cannot be used",
            file=_file(dataset),
            why=f"it needs the column {column!r}, and the dataset {type(dataset).__name__} has no column(name)",
        )
    values = np.asarray(dataset.column(column))
    if values.shape != (len(dataset),):
        raise DatasetError(
            f"{sampler} cannot be used",
            file=_file(dataset),
            why=f"the column {column!r} has shape {values.shape}, and there are {len(dataset)} examples",
        )
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    return [torch.from_numpy(indices) for indices in members] if len(values) else []


def _file(dataset: Any) -> str:
    return str(getattr(dataset, "path", ""))
