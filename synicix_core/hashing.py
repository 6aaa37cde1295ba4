"""Canonical content and its md5: the same content has the same hash in every process, machine and database."""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

from synicix_core.errors import DatasetError, ParamsError

__all__ = ["canonical_json", "content_md5", "file_sha256", "jsonable"]

_LARGEST = 2**63


def jsonable(value: Any, path: str = "") -> Any:
    """Return `value` as plain JSON data that survives a round trip through either database.

    Tuples become lists. Everything else that is not JSON is refused, all places at once.

    Parameters
    ----------
    value : object
        Nested dict, list, tuple, str, bool, int, float or None.
    path : str
        Name of the value in error messages.

    Raises
    ------
    ParamsError
        For NaN, infinities, sets, arrays, objects, keys that are not strings, integers beyond 64 bit and strings with
        a NUL or a lone surrogate, which PostgreSQL cannot store.
    """
    mistakes: list[tuple[str, str]] = []
    plain = _plain(value, path, mistakes)
    if mistakes:
        raise ParamsError(
            "not every value can be stored", mistakes, hint="Use numbers, strings, booleans, lists and dicts."
        )
    return plain


def canonical_json(value: Any) -> str:
    """Serialise JSON data so that equal content gives equal text.

    Keys are sorted; types stay apart (``1``, ``1.0``, ``"1"``, ``true``, ``[]`` and ``{}`` all differ). What the databases
    change is levelled out: ``-0.0`` is ``0.0``, and a float of 1e16 or more is written as the integer that PostgreSQL
    returns for it.
    """
    return _dump(value)


def content_md5(value: Any) -> str:
    """Return the md5, as 32 hexadecimal digits, of the canonical form of `value`."""
    return hashlib.md5(canonical_json(jsonable(value)).encode(), usedforsecurity=False).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file, or of a directory.

    A directory's digest covers its files' relative paths and their digests in sorted order; hidden files, which file
    browsers leave behind, do not count.

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for member in sorted(path.rglob("*"), key=lambda member: member.relative_to(path).as_posix()):
            relative = member.relative_to(path)
            if member.is_file() and not any(part.startswith(".") for part in relative.parts):
                digest.update(f"{relative.as_posix()}\0{file_sha256(member)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise DatasetError(
            "the dataset cannot be read",
            file=str(path),
            why=error.strerror or str(error),
            hint="Check the path and its permissions.",
        ) from error


def _plain(value: Any, path: str, mistakes: list[tuple[str, str]]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\0" in value:
            mistakes.append((path, "a string with a NUL character cannot be stored"))
        elif any("\ud800" <= character <= "\udfff" for character in value):
            mistakes.append((path, "a string with a lone surrogate cannot be stored"))
        return str(value)
    if isinstance(value, int):
        if not -_LARGEST <= value < _LARGEST:
            mistakes.append((path, f"the integer {value} does not fit into 64 bits"))
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            mistakes.append((path, f"{value} is not a JSON number"))
        return float(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                mistakes.append((f"{path}[{key!r}]", f"the key is of type {type(key).__name__}; keys are strings"))
        return {
            _plain(key, f"{path}.{key}", mistakes): _plain(item, f"{path}.{key}" if path else str(key), mistakes)
            for key, item in value.items()
            if isinstance(key, str)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", mistakes) for index, item in enumerate(value)]
    mistakes.append((path, f"a value of type {type(value).__name__} cannot be stored"))
    return None


def _dump(value: Any) -> str:
    if isinstance(value, float):
        if value == 0:
            return "0.0"
        if abs(value) >= 1e16:
            return str(int(Decimal(repr(value))))
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(key)}:{_dump(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_dump, value)) + "]"
    return json.dumps(value, ensure_ascii=True)
