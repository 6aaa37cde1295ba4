"""A curve in one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=+*#"


def sparkline(
    values: Sequence[float | None],
    *,
    width: int = 60,
    encoding: str = "utf-8",
    bounds: tuple[float, float] | None = None,
) -> str:
    """Draw values as blocks of eight heights.

    Parameters
    ----------
    values : sequence of float
        The curve; values that are None or not finite are drawn as a space.
    width : int
        The most characters; longer curves are averaged over neighbours.
    encoding : str
        Of the terminal; where it has no blocks, ASCII stands in.
    bounds : (float, float), optional
        Values of the lowest and the highest block; by default the curve's own.
    """
    points = _shrink([value if value is not None and math.isfinite(value) else None for value in values], width)
    known = [point for point in points if point is not None]
    if not known:
        return " " * len(points)
    low, high = bounds or (min(known), max(known))
    blocks = _BLOCKS if _can_show(_BLOCKS, encoding) else _ASCII
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(
        " " if point is None else blocks[min(max(round((point - low) * scale), 0), len(blocks) - 1)] for point in points
    )


def _shrink(values: list[float | None], width: int) -> list[float | None]:
    if len(values) <= width:
        return values
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [_mean(values[start:end]) for start, end in itertools.pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _can_show(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
