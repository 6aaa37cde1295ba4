"""One JSON document on standard output, whatever the values are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

__all__ = ["plain", "print_json"]


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    # Escaped, so that it can be written in any locale.
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """Return `value` as JSON data.

    Times become ISO 8601 in UTC, paths strings, arrays nested lists, and numbers that are not finite null.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        stamp = value if value.tzinfo else value.replace(tzinfo=UTC)
        return stamp.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    # NumPy's arrays and scalars, without importing NumPy.
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)
