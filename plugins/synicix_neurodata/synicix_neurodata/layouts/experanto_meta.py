"""The YAML and JSON files of experanto's layout, read with care: they say where everything is, and may say it wrongly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from synicix_core.errors import DatasetError

__all__ = ["bad_experiment", "has_modality", "read_mapping", "stated_integer", "stated_number"]

_LARGEST = 256 * 2**20
"""Bytes of a file of this kind; a megabyte describes thousands of trials."""

# The C library reads ten times faster, which counts with a file for each trial; some builds of PyYAML lack it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_mapping(recording: Path, name: str) -> dict[str, Any]:
    """Read a YAML or JSON file whose top level is a mapping; tags that would make Python objects are refused.

    Raises
    ------
    DatasetError
        If the file is missing or is not of this kind.
    """
    place = recording / name
    try:
        size = place.stat().st_size
        if size > _LARGEST:
            raise bad_experiment(recording, f"'{name}' has {size} bytes, too many to describe an experiment")
        content = place.read_bytes()
    except FileNotFoundError as error:
        held = ", ".join(sorted(child.name for child in recording.iterdir())[:12]) or "nothing"
        raise bad_experiment(recording, f"'{name}' is missing; the folder holds {held}") from error
    except OSError as error:
        raise bad_experiment(recording, f"'{name}' cannot be read ({error.strerror or error})") from error
    try:
        # Either loader is a safe one: it makes plain values only.
        read = json.loads(content) if name.endswith(".json") else yaml.load(content, _LOADER)
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
        with (folder / "meta.yml").open("rb") as file:
            return b"modality" in file.read(65536)
    except OSError:
        return False


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
    hint: str = "Copy it again, or check how it was exported; docs/neurodata.md describes it.",
) -> DatasetError:
    """Return the error for a folder that does not hold what the layout asks for."""
    return DatasetError("The experiment cannot be read", file=str(recording), why=why, hint=hint)


def _not_stated(name: str, key: str, value: object, expected: str) -> str:
    if value is None:
        return f"'{name}' does not state {key}, {expected}"
    return f"'{name}' states {key} {str(value)[:60]!r}, expected {expected}"


def _kind(name: str) -> str:
    return "JSON" if name.endswith(".json") else "YAML with plain values"
