"""Rows as aligned text that fits the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from shutil import get_terminal_size

__all__ = ["fit_width", "format_table", "shorten"]

_GAP = "  "
_LEAST = 6
_NUMBER = re.compile(r"(-|-?[\d,]*\.?\d+(e[+-]?\d+)?( ?(%|s|min|h|d)( \d+ (h|min|s))?| ± .*)?)?", re.IGNORECASE)


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = (), width: int | None = None
) -> str:
    """Align cells in columns.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        Their cells.
    left : collection of str
        Names of the columns that are aligned to the left although they may look like numbers, and never shortened.
    width : int, optional
        The most characters of a line. Long texts are shortened to fit; numbers never are. None: no limit.
    """
    columns = [list(column) for column in zip(header, *rows, strict=True)]
    to_the_right = [column[0] not in left and all(map(_NUMBER.fullmatch, column[1:])) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        may_shrink = [not flag and name not in left for flag, name in zip(to_the_right, header, strict=True)]
        widths = _squeeze(widths, may_shrink, width - len(_GAP) * (len(widths) - 1))
    lines = []
    for row in zip(*columns, strict=True):
        cells = [shorten(cell, limit) for cell, limit in zip(row, widths, strict=True)]
        aligned = [
            cell.rjust(limit) if flag else cell.ljust(limit)
            for cell, limit, flag in zip(cells, widths, to_the_right, strict=True)
        ]
        lines.append(_GAP.join(aligned).rstrip())
    return "\n".join(lines)


def fit_width() -> int | None:
    """Return the width of the terminal; None for a pipe or a file, where nothing is shortened."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def shorten(text: str, limit: int) -> str:
    """Return `text` within `limit` characters; what is left out is in the middle, where names differ least."""
    if len(text) <= limit:
        return text
    if limit < 5:
        return text[: max(limit, 0)]
    tail = (limit - 2) // 2
    return f"{text[: limit - 2 - tail]}..{text[-tail:]}"


def _squeeze(widths: list[int], may_shrink: list[bool], room: int) -> list[int]:
    """Take from the widest text columns, one character at a time, until the line fits."""
    widths = list(widths)
    while sum(widths) > room:
        shrinkable = [i for i, flag in enumerate(may_shrink) if flag and widths[i] > _LEAST]
        if not shrinkable:
            break
        widths[max(shrinkable, key=lambda i: widths[i])] -= 1
    return widths
