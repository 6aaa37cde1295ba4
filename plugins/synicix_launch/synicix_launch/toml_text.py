"""Write TOML, which the standard library only reads: the tables of a ``synicix.toml``, and what plugins keep in theirs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["toml_text"]


def toml_text(document: Mapping[str, Any]) -> str:
    """Return a document as TOML; `tomllib` reads the same from it again.

    Parameters
    ----------
    document : mapping
        What `tomllib` can return: texts, numbers, booleans, times, lists, mappings.
    """
    return "\n".join(_table(document, "")).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: str) -> list[str]:
    """Return the lines of a table: its values, then the tables in it, each under its heading."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = ["", f"[{path}]"] if path and (values or not tables) else []
    lines += [f"{_text(key)} = {_value(value)}" for key, value in values.items()]
    for key, value in tables.items():
        lines += _table(value, f"{path}.{_text(key)}" if path else _text(key))
    return lines


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str):
        # A JSON string is a TOML string, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(key: str) -> str:
    plain = key.isascii() and key.replace("-", "a").replace("_", "a").isalnum()
    return key if plain else _value(key)
