"""The files of a recording that is a folder or a zip file, seen alike. Nothing is ever unpacked or written."""

from __future__ import annotations

import functools
import io
import mmap
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.npy import HEAD_BYTES, array_of, header_of

__all__ = ["FolderFiles", "TreeFiles", "ZipFiles", "is_zip", "open_tree"]

_LARGEST_MEMBER = 2**30
"""Bytes; a member of a zip file is read as a whole."""

_DEFLATE_LIMIT = 1032
"""No deflated byte stands for more bytes than these."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")


class TreeFiles(Protocol):
    """Files by name, ``data/images/0.npy``. All of it raises OSError or ValueError for what cannot be read."""

    path: str

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; none where there is no such folder."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files in a folder with their sizes, without those that file managers leave behind."""

    def head(self, name: str, count: int = HEAD_BYTES) -> bytes:
        """Return the first bytes of a file."""

    def read(self, name: str) -> bytes:
        """Return a whole file."""

    def mapped(self, name: str) -> NDArray[Any]:
        """Return the array in a ``.npy`` file, of which only what is used is read, where that is possible."""

    def close(self) -> None:
        """Close what is open."""


def open_tree(path: str | Path) -> TreeFiles:
    """Open a folder or a zip file.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is a zip file with something in it that an honest one has not.
    """
    return FolderFiles(path) if Path(path).is_dir() else ZipFiles(path)


def is_zip(path: Path) -> bool:
    """Tell whether a file starts as zip files do; one that is cut off does so too."""
    try:
        # Opening a pipe would wait for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


class FolderFiles:
    """The files of a folder; see `TreeFiles`."""

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        place = Path(self.path, folder)
        return sorted(child.name for child in place.iterdir() if child.is_dir()) if place.is_dir() else []

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files in a folder with their sizes."""
        sizes: dict[str, int] = {}
        place = Path(self.path, folder)
        if not place.is_dir():
            return sizes
        with os.scandir(place) as entries:
            for entry in entries:
                if _is_litter(entry.name) or entry.is_dir():
                    continue
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    # Opening a pipe would wait for ever.
                    raise ValueError(f"'{Path(folder, entry.name)}' is not a file")
                sizes[entry.name] = status.st_size
        return sizes

    def head(self, name: str, count: int = HEAD_BYTES) -> bytes:
        """Return the first bytes of a file."""
        with self._opened(name) as file:
            return file.read(count) or b""

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        with self._opened(name) as file:
            return file.read() or b""

    def mapped(self, name: str) -> NDArray[Any]:
        """Return an array that is backed by its file."""
        with io.FileIO(f"{self.path}/{name}", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"'{name}' is not a file")
            size = status.st_size
            header = header_of(name, file.read(HEAD_BYTES) or b"", size)
            with_values = header.offset < size
            content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if with_values else b""
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.ndarray(header.shape, header.dtype, content, header.offset if with_values else 0, order=order)

    def close(self) -> None:
        """Do nothing: every file is closed as soon as it is read."""

    def _opened(self, name: str) -> io.FileIO:
        # A path object takes longer to make than the file to read, and there are thousands.
        return io.FileIO(f"{self.path}/{name}")


def _open_at_once(path: str, flags: int) -> int:
    # Without this flag, which means nothing for files and does not exist on Windows, opening a pipe waits for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Member(NamedTuple):
    """Where a member of a zip file is."""

    offset: int
    packed: int
    size: int
    checksum: int
    deflated: bool


class ZipFiles:
    """The files of a zip file, at its top or in the one folder there; see `TreeFiles`.

    `zipfile` reads the directory, once for a file, because that takes half a second for 24000 members. Members are
    inflated here, from what that directory says, and to no byte more than the size it states.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)
        status = Path(path).stat()
        self._folders = _directory(self.path, status.st_ino, status.st_size, status.st_mtime_ns)
        self._file = Path(path).open("rb")  # noqa: SIM115 - it stays open for as long as the object does

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        start = f"{folder}/" if folder else ""
        return sorted({name[len(start) :].split("/")[0] for name in self._folders if name.startswith(start) and name})

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files in a folder with their sizes."""
        return {name: member.size for name, member in self._folders.get(folder, {}).items()}

    def head(self, name: str, count: int = HEAD_BYTES) -> bytes:
        """Return the first bytes of a file."""
        member = self._member(name)
        # Deflate may lengthen what cannot be packed, by 5 bytes in 16 KiB and a few at the start.
        packed = self._packed(name, member, min(member.packed, 2 * count + 64))
        if not member.deflated:
            return packed[:count]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, min(count, member.size) or 1)
        except zlib.error as error:
            raise ValueError(f"'{name}' is damaged ({error})") from error

    def read(self, name: str) -> bytes:
        """Return a whole file, checked against the checksum that the zip file has of it."""
        member = self._member(name)
        if member.size > _LARGEST_MEMBER:
            raise ValueError(f"'{name}' has {member.size} bytes, too many to be read from a zip file: unpack it")
        content = self._packed(name, member, member.packed)
        if member.deflated:
            inflating = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                content = inflating.decompress(content, member.size + 1)
            except zlib.error as error:
                raise ValueError(f"'{name}' is damaged ({error})") from error
        if len(content) != member.size:
            raise ValueError(f"'{name}' does not have the {member.size} bytes that the zip file states")
        if zlib.crc32(content) != member.checksum:
            raise ValueError(f"'{name}' is damaged: its checksum is another than the zip file states")
        return content

    def mapped(self, name: str) -> NDArray[Any]:
        """Return an array; all of it is read, because a packed file has no parts."""
        return array_of(name, self.read(name))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _member(self, name: str) -> _Member:
        folder, _, own = name.rpartition("/")
        member = self._folders.get(folder, {}).get(own)
        if member is None:
            raise ValueError(f"the zip file has no '{name}'")
        return member

    def _packed(self, name: str, member: _Member, count: int) -> bytes:
        self._file.seek(member.offset)
        start = self._file.read(_LOCAL_HEADER.size)
        if len(start) < _LOCAL_HEADER.size or not start.startswith(b"PK\x03\x04"):
            raise ValueError(f"'{name}' is not where the directory of the zip file says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(start)
        self._file.seek(name_length + extra_length, os.SEEK_CUR)
        packed = self._file.read(count)
        if len(packed) < count:
            raise ValueError(f"'{name}' is cut off")
        return packed


@functools.lru_cache(maxsize=8)
def _directory(path: str, *_state: int) -> dict[str, dict[str, _Member]]:
    """Return the members of a zip file by folder, then name, after every check that needs no more than its directory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, EOFError) as error:
        raise ValueError(f"the zip file is cut off or damaged ({error})") from error
    members: dict[str, _Member] = {}
    for entry in entries:
        _refuse_hostile(entry)
        name = entry.filename
        if name in members:
            raise ValueError(f"the zip file has '{name}' twice")
        members[name] = _Member(
            entry.header_offset,
            entry.compress_size,
            entry.file_size,
            entry.CRC,
            entry.compress_type == zipfile.ZIP_DEFLATED,
        )
    size = Path(path).stat().st_size
    if sum(member.packed for member in members.values()) > size:
        raise ValueError(f"the files in the zip file overlap: they claim more than its {size} bytes")
    kept = [name for name in members if not name.endswith("/") and not any(map(_is_litter, name.split("/")))]
    top = _top_folder(kept)
    folders: dict[str, dict[str, _Member]] = {}
    for name in kept:
        if name.startswith(top):
            folder, _, own = name[len(top) :].rpartition("/")
            folders.setdefault(folder, {})[own] = members[name]
    return folders


def _refuse_hostile(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    steps = name.removesuffix("/").split("/")
    if "\\" in name or "\0" in name or name[1:2] == ":" or any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"the zip file names {name!r}, which is no plain path within it")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"'{name}' in the zip file is a link or a device, not a file")
    # Bits of the zip format: encrypted, strongly encrypted, directory encrypted.
    if entry.flag_bits & (0x1 | 0x40 | 0x2000):
        raise ValueError(f"'{name}' in the zip file is encrypted: unpack it with its password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{name}' in the zip file is neither stored nor deflated: unpack it")
    most = entry.compress_size * (_DEFLATE_LIMIT if entry.compress_type == zipfile.ZIP_DEFLATED else 1)
    if entry.file_size > most:
        raise ValueError(
            f"'{name}' in the zip file claims {entry.file_size} bytes, more than its {entry.compress_size} can hold"
        )


def _top_folder(names: list[str]) -> str:
    """Return ``""`` or the folder, with a slash, in which everything is."""
    inside = {name.split("/")[0] for name in names if name.split("/")[1:2] in (["data"], ["meta"])}
    if any(name.startswith(("data/", "meta/")) for name in names) or not inside:
        return ""
    if len(inside) > 1:
        raise ValueError(f"the zip file holds several recordings: {', '.join(sorted(inside)[:5])}; unpack it")
    return f"{inside.pop()}/"


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")
