"""What a file tree tells about its trials and neurons, beside the arrays themselves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.npy import NUMBERS, PythonObjects, array_of, header_of
from synicix_neurodata.layouts.tree_files import TreeFiles

__all__ = ["CEILING_FILE", "bad_tree", "read_json", "read_noise_ceiling", "read_table", "read_tiers"]

CEILING_FILE = "meta/noise_ceiling.json"
"""The highest mean single-trial correlation by mode; an addition to the layout, which states none."""

_LARGEST_CONFIG = 2**20


def read_tiers(files: TreeFiles) -> NDArray[np.str_] | None:
    """Return the tier of each trial, or None where there is no ``meta/trials/tiers.npy``.

    Raises
    ------
    DatasetError
        If it is no list of names.
    OSError, ValueError
        If it is damaged.
    """
    name = "meta/trials/tiers.npy"
    if "tiers.npy" not in files.sizes("meta/trials"):
        return None
    tiers = _text(array_of(name, files.read(name)))
    if tiers.ndim != 1 or tiers.dtype.kind != "U":
        raise bad_tree(files, f"'{name}' is no list of names: shape {tiers.shape}, {tiers.dtype}")
    return tiers


def read_table(files: TreeFiles, folder: str, length: int) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Read every array of a folder that has one row for each of `length` things, and tell which others there are.

    Raises
    ------
    OSError, ValueError
        If a file is damaged.
    """
    table, unused = {}, []
    for file, size in sorted(files.sizes(folder).items()):
        if not file.endswith(".npy"):
            continue
        name = f"{folder}/{file}"
        try:
            header = header_of(name, files.head(name), size)
        except PythonObjects:
            unused.append(f"{name} (Python objects)")
            continue
        if header.shape[:1] != (length,) or header.dtype.kind not in f"{NUMBERS}US":
            unused.append(f"{name} ({header})")
            continue
        table[file.removesuffix(".npy")] = _text(array_of(name, files.read(name)))
    if not unused:
        return table, ()
    return table, (f"not used, because they have not one value for each of {length}: {'; '.join(unused)}",)


def read_noise_ceiling(files: TreeFiles) -> dict[str, float]:
    """Return what `CEILING_FILE` states.

    Raises
    ------
    DatasetError
        If it states no correlations above 0.
    """
    stated = read_json(files, CEILING_FILE)
    for mode, ceiling in stated.items():
        if isinstance(ceiling, bool) or not isinstance(ceiling, int | float) or not 0 < ceiling <= 1:
            raise bad_tree(files, f"the noise ceiling for {mode} is {ceiling!r}, expected 0 < ceiling <= 1")
    return {mode: float(ceiling) for mode, ceiling in stated.items()}


def read_json(files: TreeFiles, name: str) -> dict[str, Any]:
    """Return the table in a JSON file; an empty one where there is no such file.

    Raises
    ------
    DatasetError
        If it is no table.
    OSError, ValueError
        If it cannot be read.
    """
    folder, _, own = name.rpartition("/")
    size = files.sizes(folder).get(own)
    if size is None:
        return {}
    if size > _LARGEST_CONFIG:
        raise bad_tree(files, f"'{name}' has {size} bytes, too many to be what it should be")
    try:
        content = json.loads(files.read(name))
    except (ValueError, RecursionError) as error:
        raise bad_tree(files, f"'{name}' is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise bad_tree(files, f"'{name}' is no table of names")
    return content


def bad_tree(files: TreeFiles, why: str) -> DatasetError:
    """Return the error for a tree that does not have the layout that it seems to have."""
    held = [f"data/{name} ({len(files.sizes(f'data/{name}'))} files)" for name in files.folders("data")[:12]]
    if not held:
        held = [*(f"{name}/" for name in files.folders("")[:12]), *sorted(files.sizes(""))[:12]]
    return DatasetError(
        "The recording does not have the layout that it seems to have",
        file=files.path,
        why=f"{why}; it holds {', '.join(held) or 'nothing'}",
        hint="docs/recordings.md describes the layouts.",
    )


def _text(values: NDArray[Any]) -> NDArray[Any]:
    """Return values of one's own, bytes as str."""
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values.copy()
