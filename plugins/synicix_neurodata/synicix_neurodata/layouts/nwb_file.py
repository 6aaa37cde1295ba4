"""What an NWB file holds, as pynwb understands it; nothing outside of the file is ever followed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.hdf5_file import get_array, is_hdf5, open_for_reading, opened, read_values

__all__ = ["NwbFile", "bad_nwb", "kinds", "looks_like_nwb", "opened_nwb", "scalar_columns"]

_LISTED = 20
_LARGE = 2**30
_WIDEST_COLUMN = 16
_MASKS = ("image_mask", "pixel_mask", "voxel_mask")


@dataclass(frozen=True, eq=False)
class NwbFile:
    """An NWB file that is open.

    Attributes
    ----------
    file : h5py.File
    content : Any
        The `pynwb.NWBFile`.
    objects : dict of str to Any
        Every object of pynwb by its path in the file, without a slash at its start.
    """

    file: h5py.File
    content: Any
    objects: dict[str, Any]

    @property
    def path(self) -> str:
        """Path of the file."""
        return str(self.file.filename)

    def find(self, *types: str, under: str = "") -> dict[str, Any]:
        """Return the objects of these neurodata types, or of types made from them, by path in alphabetical order."""
        return {
            path: found
            for path, found in sorted(self.objects.items())
            if path.startswith(under) and kinds(found) & set(types)
        }

    def path_of(self, wanted: Any) -> str:
        """Return the path of an object."""
        return next(path for path, found in self.objects.items() if found is wanted)

    def at(self, path: str, option: str, candidates: Mapping[str, Any], what: str) -> Any:
        """Return the candidate that an option names.

        Raises
        ------
        DatasetError
            If there is none at that path; it lists the candidates.
        """
        name = path.strip("/")
        if name in candidates:
            return candidates[name]
        # Beside its own path, an object may be named by that of a link to it.
        named = self.file.get(name) if name else None
        same = [found for place, found in candidates.items() if named is not None and self.file.get(place) == named]
        if same:
            return same[0]
        raise bad_nwb(
            self.path,
            f"{option} = {path!r} is no {what} of the file; {self.listing(candidates, what)}",
            "Set it in layout_params to one of the paths that the file has.",
        )

    def listing(self, found: Mapping[str, Any], what: str) -> str:
        """Say which objects there are, with type and shape, for messages."""
        if not found:
            return f"the file holds no {what}"
        told = [f"{path} ({_described(thing)})" for path, thing in list(found.items())[:_LISTED]]
        return f"the file holds {', '.join(told)}" + (
            f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        )

    def numbers(self, data: Any, owner: str) -> h5py.Dataset:
        """Return the array of an object, checked to be numbers that are in this file.

        Raises
        ------
        DatasetError
            If it is something else.
        """
        if not isinstance(data, h5py.Dataset):
            raise bad_nwb(self.path, f"{owner} holds {type(data).__name__}, not an array of numbers")
        array = get_array(self.file, str(data.name).strip("/"))
        if array is None or array.shape is None or array.dtype.kind not in "fiub":
            raise bad_nwb(self.path, f"{owner} holds {data.dtype} values, not numbers")
        return array


def looks_like_nwb(path: Path) -> bool:
    """Tell by its content whether a file is an NWB file, of any version."""
    if not path.is_file() or not is_hdf5(path):
        return False
    try:
        with open_for_reading(path) as file:
            # Not `in`, which follows a link into another file.
            old = isinstance(file.get("nwb_version", getlink=True), h5py.HardLink)
            return old or "nwb_version" in file.attrs or _text(file.attrs, "neurodata_type") == "NWBFile"
    except (OSError, RuntimeError):
        return False


@contextmanager
def opened_nwb(path: Path) -> Iterator[NwbFile]:
    """Open an NWB file with pynwb for as long as the context lasts; what pynwb warns of is not passed on.

    Raises
    ------
    DatasetError
        If pynwb is missing, the file is NWB 1, is damaged, has links into other files, or pynwb cannot read it.
    """
    with opened(path) as file, warnings.catch_warnings():
        # They speak of cached schema versions and of good style: nothing that a user of the recording can act on.
        warnings.simplefilter("ignore")
        _check_version(file)
        _check_inside(file)
        try:
            from pynwb import NWBHDF5IO
        except ImportError as error:
            raise DatasetError(
                "The NWB file cannot be read",
                file=str(path),
                why="pynwb is not installed",
                hint="Run: pip install 'synicix-neurodata[nwb]'",
            ) from error
        try:
            io = NWBHDF5IO(file=file, mode="r", load_namespaces=True)
            content = io.read()
            objects = {
                builder.path.strip("/").removeprefix("root").strip("/"): found
                for found in content.objects.values()
                if (builder := io.manager.get_builder(found)) is not None
            }
        except Exception as error:
            # A file that breaks the schema makes pynwb raise errors of any type, from KeyError to its own.
            why = f"pynwb cannot make sense of it: {_reason(error)}"
            raise bad_nwb(str(path), why, "Check it with: pynwb-validate FILE") from error
        yield NwbFile(file, content, objects)


def kinds(found: Any) -> set[str]:
    """Return the neurodata types that an object has: its own and those it is made from."""
    return {kind.__name__ for kind in type(found).__mro__}


def scalar_columns(nwb: NwbFile, table: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of a table that have one number or text per row, or a few numbers: (rows, ...)."""
    ragged = {index.target.name for index in table.columns if "VectorIndex" in kinds(index)}
    place = nwb.path_of(table)
    found = {}
    for column in table.columns:
        if column.name in ragged or kinds(column) & {"VectorIndex", "DynamicTableRegion", "EnumData"}:
            continue
        stored = nwb.file.get(f"{place}/{column.name}")
        if not isinstance(stored, h5py.Dataset) or column.name in _MASKS:
            continue
        text = h5py.check_string_dtype(stored.dtype) is not None
        narrow = stored.ndim == 1 or (stored.ndim == 2 and stored.shape[1] <= _WIDEST_COLUMN)
        if not narrow or not (text or stored.dtype.kind in "fiub"):
            continue
        found[column.name] = read_values(stored)
    return found


def bad_nwb(path: str, why: str, hint: str = "docs/recordings.md tells what is read of an NWB file.") -> DatasetError:
    """Return the error for an NWB file that cannot be used as a recording."""
    return DatasetError("The NWB file cannot be used as a recording", file=path, why=why, hint=hint)


def _check_version(file: h5py.File) -> None:
    old = None if "nwb_version" in file.attrs else get_array(file, "nwb_version")
    version = _text(file.attrs, "nwb_version") if old is None else str(np.ravel(read_values(old))[0])
    if version.removeprefix("NWB-").startswith(("0", "1")):
        raise bad_nwb(
            file.filename,
            f"it is NWB of version {version.removeprefix('NWB-')}, and pynwb reads version 2 only",
            "Write it anew as NWB 2, or take the NWB 2 release of the recording.",
        )


def _check_inside(file: h5py.File) -> None:
    """Refuse links into other files before pynwb follows them, and arrays that claim more than a file can hold."""
    outside: list[tuple[str, str]] = []
    suspects: list[str] = []

    # What HDF5 calls may not raise, or the error would be lost.
    def note_link(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            outside.append((name, link.filename))

    def note_array(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual or item.nbytes > _LARGE):
            suspects.append(name)

    file.visititems_links(note_link)
    for name, other in outside:
        raise bad_nwb(
            file.filename,
            f"'{name}' is a link into the file {other!r}, which is never followed",
            "Export the recording into one file.",
        )
    file.visititems(note_array)
    for name in suspects:
        get_array(file, name)


def _described(found: Any) -> str:
    data = getattr(found, "data", None)
    shape = getattr(data, "shape", None)
    if shape is None and hasattr(found, "colnames"):
        return f"{type(found).__name__}, {len(found.id)} rows: {', '.join(found.colnames)}"
    return type(found).__name__ + (f", {tuple(shape)}" if shape is not None else "")


def _text(attributes: Any, name: str) -> str:
    value = attributes.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _reason(error: BaseException) -> str:
    # pynwb wraps what is wrong into errors that print all that they were given; each knows the place in the file.
    place = ""
    while error.__cause__ is not None:
        place = getattr(error.args[0] if error.args else None, "path", place)
        error = error.__cause__
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{place.removeprefix('root/')}{': ' if place else ''}{type(error).__name__}: {first}"
