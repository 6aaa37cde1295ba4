"""How numbers, durations and counts are written for people."""

from __future__ import annotations

from typing import Any

__all__ = ["count", "duration", "number", "percent", "value_text"]


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with four significant digits; ``-`` where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage with one decimal."""
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def duration(seconds: float | None) -> str:
    """Return a time in the two units that matter: ``0.4 s``, ``42 s``, ``3 min 20 s``, ``5 h 12 min``, ``2 d 3 h``."""
    if seconds is None:
        return "-"
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def count(amount: int, noun: str, plural: str = "") -> str:
    """Return ``1 task``, ``2 tasks``, ``1,000 tasks``."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def value_text(value: Any) -> str:
    """Return a parameter's value in a few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return str(value)
