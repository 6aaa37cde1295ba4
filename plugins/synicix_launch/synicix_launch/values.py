"""Checks that options share: each returns the value, or raises ValueError with the words that complete "must be ..."."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["at_least", "duration", "matches", "seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


def at_least(least: float) -> Callable[[Any], Any]:
    """Return a check for a number that is not below `least`."""

    def check(value: Any) -> Any:
        if value < least:
            raise ValueError(f"{least:g} or more")
        return value

    return check


def matches(pattern: str, wanted: str) -> Callable[[str], str]:
    """Return a check for a text of which all matches `pattern`; `wanted` completes "must be ..."."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(wanted)
        return value

    return check


def duration(value: str) -> str:
    """Check a time such as ``90m``, ``12h``, ``2d``, ``12:00:00`` or ``1-12:00:00``."""
    if not _seconds(value):
        raise ValueError("a time such as 90m, 12h, 2d or 1-12:00:00")
    return value


def seconds_of(value: str) -> int:
    """Return the seconds of a time that `duration` accepts."""
    return _seconds(value)


def _seconds(value: str) -> int:
    if match := re.fullmatch(r"(\d{1,6})\s*([smhd])", value):
        return int(match[1]) * _UNITS[match[2]]
    if match := _CLOCK.fullmatch(value):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return 0
