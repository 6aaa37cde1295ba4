"""What an experiment file says, after it was read and before its sweeps are multiplied out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

__all__ = ["KINDS", "ConfigTable", "Distribution", "Experiment", "RandomSweep", "TaskRule"]

KINDS = ("dataset", "model", "training")
"""The kinds of config, in the order in which they are prepared, inserted and combined."""


@dataclass(frozen=True)
class Distribution:
    """Where the values of one randomly drawn key come from.

    Attributes
    ----------
    kind : {"uniform", "loguniform", "int", "choice"}
        Which distribution it is.
    values : tuple
        The two bounds; for ``choice`` everything there is to choose from.
    """

    kind: str
    values: tuple[Any, ...]

    def draw(self, seed: int, path: str, sample: int) -> Any:
        """Return the value of one sample of one key.

        The 64-bit integer ``h`` that is drawn is the first eight bytes, big-endian, of the sha256 of
        ``"{seed}/{path}/{sample}"``, and ``u = (h >> 11) / 2**53``. So a value depends on nothing but the seed, the key
        and the number of the sample: other keys, more samples and other versions of Python leave it as it is.
        Floats are rounded far above the last bit, where the logarithms of two machines may differ: `uniform` to a
        millionth of its range, `loguniform` to six significant digits.

        Parameters
        ----------
        seed : int
            The seed of the random table.
        path : str
            The key, such as ``params.l2_loss_lamda``.
        sample : int
            Number of the sample, from 0.
        """
        digest = hashlib.sha256(f"{seed}/{path}/{sample}".encode()).digest()
        drawn = int.from_bytes(digest[:8], "big")
        if self.kind == "choice":
            return self.values[drawn * len(self.values) >> 64]
        low, high = self.values
        if self.kind == "int":
            return low + (drawn * (high - low + 1) >> 64)
        fraction = (drawn >> 11) / 2**53
        if self.kind == "uniform":
            # Decimal finds the leading digit of the range exactly, which a logarithm need not.
            value = round(low + (high - low) * fraction, 6 - Decimal(high - low).adjusted())
        else:
            value = float(f"{math.exp(math.log(low) + (math.log(high) - math.log(low)) * fraction):.6g}")
        return float(min(max(value, low), high))


@dataclass(frozen=True)
class RandomSweep:
    """Keys that are drawn together.

    Attributes
    ----------
    samples : int
        How many times.
    seed : int
        Seed of the draws.
    axes : tuple of (path, Distribution)
        The keys, sorted.
    """

    samples: int
    seed: int
    axes: tuple[tuple[str, Distribution], ...]

    def draw(self, sample: int) -> tuple[tuple[str, Any], ...]:
        """Return ``(path, value)`` of every key for one sample."""
        return tuple((path, distribution.draw(self.seed, path, sample)) for path, distribution in self.axes)


@dataclass(frozen=True)
class ConfigTable:
    """One ``[[dataset]]``, ``[[model]]`` or ``[[training]]`` table.

    Attributes
    ----------
    file : str
        Name of the experiment file.
    kind : str
        One of `KINDS`.
    number : int
        Which table of that kind it is, from 1.
    name : str or None
        The label that tasks refer to.
    values : mapping
        What is written outside the sweeps; a component is a dict of ``provider`` and ``params``.
    grid : tuple of (path, values)
        Keys of which every combination is made, sorted.
    random : RandomSweep or None
        Keys that are drawn.
    """

    file: str
    kind: str
    number: int
    name: str | None
    values: Mapping[str, Any]
    grid: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    random: RandomSweep | None = None

    @property
    def label(self) -> str:
        """The name, or where there is none ``#2``."""
        return self.name or f"#{self.number}"

    @property
    def origin(self) -> str:
        """Where it stands, in full: ``sweep.toml [[model]] #2 'mlp'``."""
        return f"{self.file} [[{self.kind}]] #{self.number}" + (f" {self.name!r}" if self.name else "")

    @property
    def where(self) -> str:
        """Where it stands, in messages: ``sweep.toml, [[model]] 'mlp'``."""
        return f"{self.file}, [[{self.kind}]] " + (repr(self.name) if self.name else f"#{self.number}")

    @property
    def combinations(self) -> int:
        """How many configs its sweeps make of each dataset file, or of a model or training."""
        return math.prod(len(values) for _, values in self.grid) * (self.random.samples if self.random else 1)


@dataclass(frozen=True)
class TaskRule:
    """One ``[[task]]`` table: for each kind the labels it names, None for all."""

    dataset: tuple[str, ...] | None = None
    model: tuple[str, ...] | None = None
    training: tuple[str, ...] | None = None

    def labels(self, kind: str) -> tuple[str, ...] | None:
        """Return the labels that the rule names for one kind of config; None for all."""
        return {"dataset": self.dataset, "model": self.model, "training": self.training}[kind]


@dataclass(frozen=True)
class Experiment:
    """The content of an experiment file.

    Attributes
    ----------
    file : str
        Its name, without directories.
    tables : tuple of ConfigTable
        All configs, as written.
    rules : tuple of TaskRule
        Which combinations to train; empty for all of them.
    """

    file: str
    tables: tuple[ConfigTable, ...] = ()
    rules: tuple[TaskRule, ...] = field(default=())

    def of_kind(self, kind: str) -> tuple[ConfigTable, ...]:
        """Return the tables of one kind, in the order of the file."""
        return tuple(table for table in self.tables if table.kind == kind)
