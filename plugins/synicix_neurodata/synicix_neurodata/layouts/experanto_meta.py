"""The YAML and JSON files of experanto's layout, read with care: they say where everything is, and may say it wrongly."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from synicix_core.errors import DatasetError

__all__ = ["bad_experiment", "has_modality", "read_mapping", "stated_integer", "stated_number"]

_LARGEST = 256 * 2**20
"""Bytes of a file of this kind; a megabyte describes thousands of trials."""

_DEEPEST, _MOST_VALUES = 200, 2**22
"""Levels within levels, and values written out where a file names some once and uses them again and again."""

# The C library reads ten times faster, which counts with a file for each trial; some builds of PyYAML lack it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]  # which of the two it is is known only at run time
    """Makes plain values; refuses ``<<``, which can double a mapping with each line."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "mappings are not merged", key.start_mark)


def read_mapping(recording: Path, name: str) -> dict[str, Any]:
    """Read a YAML or JSON file whose top level is a mapping; tags that would make Python objects are refused.

    Raises
    ------
    DatasetError
        If the file is missing or is not of this kind.
    """
    place = recording / name
    try:
        status = place.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for ever.
            raise bad_experiment(recording, f"'{name}' is not a file")
        if size > _LARGEST:
            raise bad_experiment(recording, f"'{name}' has {size} bytes, too many to describe an experiment")
        content = place.read_bytes()
    except FileNotFoundError as error:
        held = ", ".join(sorted(child.name for child in recording.iterdir())[:12]) or "nothing"
        raise bad_experiment(recording, f"'{name}' is missing; the folder holds {held}") from error
    except OSError as error:
        raise bad_experiment(recording, f"'{name}' cannot be read ({error.strerror or error})") from error
    try:
        read = json.loads(content) if name.endswith(".json") else _plain_yaml(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise bad_experiment(recording, f"'{name}' is not {_kind(name)} ({told[:200]})") from error
    if not isinstance(read, dict):
        what = "is empty" if read is None else f"holds a {type(read).__name__}"
        raise bad_experiment(recording, f"'{name}' {what}, expected names with values")
    return {str(key): value for key, value in read.items()}


def has_modality(folder: Path) -> bool:
    """Tell by a short look whether a folder is one of experanto's devices."""
    try:
        place = folder / "meta.yml"
        # Opening a pipe would wait for ever.
        if not place.is_file():
            return False
        with place.open("rb") as file:
            return b"modality" in file.read(65536)
    except OSError:
        return False


def _plain_yaml(content: bytes) -> Any:
    # Every level takes a bracket or one more column.
    if content.count(b"[") + content.count(b"{") + max(map(len, content.splitlines()), default=0) > _DEEPEST:
        _check_depth(content)
    # Either loader is a safe one: it makes plain values only.
    read = yaml.load(content, _Loader)
    if b"*" in content and _values(read, 0) > _MOST_VALUES:
        raise ValueError("it uses the same values again and again, and stands for millions")
    return read


def _check_depth(content: bytes) -> None:
    """Refuse what is nested so deeply that the C library would use up the stack and end the process."""
    depth = 0
    for event in yaml.parse(content, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _values(value: object, depth: int) -> int:
    """Return how many values there are, written out; counting ends soon after there are too many."""
    if not isinstance(value, dict | list):
        return 1
    if depth > _DEEPEST:
        return _MOST_VALUES + 1
    count = 1
    for one in value.values() if isinstance(value, dict) else value:
        count += _values(one, depth + 1)
        if count > _MOST_VALUES:
            break
    return count


def stated_number(recording: Path, name: str, said: Mapping[str, Any], key: str) -> float:
    """Return a finite number that the file `name` must state.

    Raises
    ------
    DatasetError
        If it states none, or something else.
    """
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_experiment(recording, _not_stated(name, key, value, "a number"))
    return float(value)


def stated_integer(recording: Path, name: str, said: Mapping[str, Any], key: str, least: int = 0) -> int:
    """Return a whole number of at least `least` that the file `name` must state; raises as `stated_number`."""
    value = said.get(key)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value < 2**53
        or value != value // 1
    ):
        raise bad_experiment(recording, _not_stated(name, key, value, f"a whole number of at least {least}"))
    return int(value)


def bad_experiment(
    recording: Path,
    why: str,
    hint: str = "Copy it again, or check how it was exported; docs/recordings.md describes it.",
) -> DatasetError:
    """Return the error for a folder that does not hold what the layout asks for."""
    return DatasetError("The experiment cannot be read", file=str(recording), why=why, hint=hint)


def _not_stated(name: str, key: str, value: object, expected: str) -> str:
    if value is None:
        return f"'{name}' does not state {key}, {expected}"
    return f"'{name}' states {key} {str(value)[:60]!r}, expected {expected}"


def _kind(name: str) -> str:
    return "JSON" if name.endswith(".json") else "YAML with plain values"
