"""Variants of one thing, measured turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from report import Spread

__all__ = ["Measured", "interleave"]


@dataclass(frozen=True)
class Measured:
    """One variant.

    Attributes
    ----------
    times : Spread
        Of the rounds, in their order.
    score : float
        Mean of what the rounds scored.
    """

    times: Spread
    score: float


def interleave(variants: Mapping[str, Callable[[int], tuple[float, float]]], rounds: int) -> dict[str, Measured]:
    """Run every variant once in each round, in turns forwards and backwards, after a round to warm up.

    Parameters
    ----------
    variants : mapping of str to callable
        Gets the number of the round, which serves as a seed, and returns a time and a score.
    rounds : int
        How many count.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, measure in list(variants.items())[:: 1 if turn % 2 else -1]:
            result = measure(turn)
            if turn:
                found[name].append(result)
    return {
        name: Measured(Spread(tuple(time for time, _ in results)), sum(score for _, score in results) / rounds)
        for name, results in found.items()
    }
