"""Files that are whole or not there: a temporary name, fsync, rename. Read back without running code.

A checkpoint file begins with a header of 52 bytes: the eight bytes ``SYNICIXC``, the number of the format (4 bytes), the
length of the payload (8 bytes) and its sha256 (32 bytes), numbers in big-endian order. The payload is what ``torch.save``
wrote. Model files are plain ``torch.save`` files, because people load them; their sha256 stands in the database.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from synicix_core.errors import CheckpointError

__all__ = [
    "SavedState",
    "load_checksummed",
    "load_plain",
    "publish",
    "require_plain",
    "save_atomically",
    "save_checksummed",
    "save_state_dict",
]

_PLAIN = (torch.Tensor, bool, int, float, str, type(None), torch.Size, torch.dtype, torch.device)
_HEADER = struct.Struct(">8sIQ32s")
_MAGIC = b"SYNICIXC"
_FORMAT = 1
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)


@dataclass(frozen=True)
class SavedState:
    """A ``state_dict`` that was written, and what its file must look like.

    Attributes
    ----------
    state : dict
        With its tensors on the CPU.
    sha256 : str
        Of what was written, taken while it was: a file of this digest holds `state`.
    on_disk : bool
        Whether the file is known to be on the disk, and not only in the system's memory.
    """

    state: dict[str, Any]
    sha256: str
    on_disk: bool


def save_atomically(value: Any, path: str | Path, *, on_disk: bool = True) -> str:
    """Write `value` by ``torch.save``, and return the sha256 of the file.

    A crash at any time leaves the old file or the new one, unless not `on_disk`: then it is for whoever gives the file its
    final name, by `publish`, to wait for the disk.

    Raises
    ------
    CheckpointError
        If it cannot be written. Its cause is the OSError where the disk refused.
    """
    digest = ""

    def write(file: BinaryIO) -> None:
        nonlocal digest
        payload = _Payload(file)
        _save(value, payload)
        digest = payload.sha256.hexdigest()

    _replace(Path(path), write, on_disk=on_disk)
    return digest


def save_checksummed(value: Any, path: str | Path) -> None:
    """Do the same with a checksum in front of it, for `load_checksummed`; it is taken while the payload is written.

    Raises
    ------
    CheckpointError
        If it cannot be written. Its cause is the OSError where the disk refused.
    """

    def write(file: BinaryIO) -> None:
        file.write(bytes(_HEADER.size))
        payload = _Payload(file)
        _save(value, payload)
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, _FORMAT, payload.size, payload.sha256.digest()))

    _replace(Path(path), write)


def save_state_dict(state: Mapping[str, Any], path: str | Path, *, on_disk: bool = True) -> SavedState:
    """Write a ``state_dict`` with its tensors on the CPU, so that it loads on any machine; see `save_atomically`."""
    plain = {key: value.detach().cpu() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    return SavedState(plain, save_atomically(plain, path, on_disk=on_disk), on_disk)


def publish(partial: str | Path, path: str | Path, *, on_disk: bool = False) -> None:
    """Give a file that somebody else wrote its final name, once it is on the disk, which it may be known to be.

    Raises
    ------
    CheckpointError
        If that fails.
    """
    partial, path = Path(partial), Path(path)
    try:
        if not on_disk:
            handle = os.open(partial, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def load_plain(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, tensors on the CPU; nothing in it is run.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or holds objects that would have to be run to be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _unreadable(path, _why(error)) from error


def load_checksummed(path: str | Path) -> Any:
    """Read a file that `save_checksummed` wrote, tensors on the CPU; not a byte is interpreted before all are verified.

    Raises
    ------
    CheckpointError
        If it is missing, cut short, changed, or holds objects that would have to be run to be read.
    """
    try:
        with Path(path).open("rb") as file:
            header = file.read(_HEADER.size)
            if not header.startswith(_MAGIC) or len(header) < _HEADER.size:
                raise _unreadable(path, "it does not begin as a checkpoint does, or was cut short")
            _, version, length, expected = _HEADER.unpack(header)
            if version != _FORMAT:
                raise _unreadable(path, f"it is of format {version}, and only format {_FORMAT} is known here")
            found = os.fstat(file.fileno()).st_size - _HEADER.size
            if found != length:
                raise _unreadable(path, f"it was cut short: {found} of {length} bytes are there")
            if hashlib.file_digest(file, "sha256").digest() != expected:
                raise _unreadable(path, "it was damaged: its sha256 is not the one that was written")
            file.seek(_HEADER.size)
            return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _unreadable(path, _why(error)) from error


def require_plain(value: Any, path: str) -> None:
    """Refuse what `load_plain` could not read back.

    Raises
    ------
    CheckpointError
        Names the first value that is not a tensor, number, string, None, dict, list or tuple by its path.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_plain(key, f"{path} key")
            require_plain(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            require_plain(item, f"{path}[{index}]")
    elif not isinstance(value, _PLAIN):
        raise CheckpointError(
            "the checkpoint holds something that cannot be read back safely",
            why=f"{path} is of type {type(value).__module__}.{type(value).__qualname__}",
            hint="Save tensors, numbers, strings, dicts, lists and tuples; torch.from_numpy turns an array into a tensor.",
        )


class _Payload:
    """What ``torch.save`` writes to: counts and digests what goes by.

    It keeps the error of the disk instead of raising it: torch hides an error that is raised while it writes behind one of
    its own, and aborts the process if that happens late enough.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None
        self._file = file

    def write(self, data: memoryview | bytes) -> int:
        if self.error is None and not self._file.closed:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            self.sha256.update(data)
            self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is left is written when the file is closed, where an error can be told."""


def _save(value: Any, payload: _Payload) -> None:
    torch.save(value, payload)  # type: ignore[arg-type]  # torch asks for a whole IO, uses this much of it
    if payload.error is not None:
        raise payload.error


def _replace(path: Path, write: Callable[[BinaryIO], None], *, on_disk: bool = True) -> None:
    # Not tempfile, whose files are private: models are read by other people.
    temporary = path.parent / f".{path.name.lstrip('.')}.{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                write(file)
                if on_disk:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if on_disk:
            _sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError | RuntimeError) -> CheckpointError:
    return CheckpointError(
        "the file cannot be written",
        where=str(path),
        why=getattr(error, "strerror", None) or str(error),
        hint="Check the free space and the permissions of the directory.",
    )


def _unreadable(path: str | Path, why: str) -> CheckpointError:
    return CheckpointError("the file cannot be read", where=str(path), why=why)


def _why(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot do this for a directory
                raise
        finally:
            os.close(handle)
