"""Files that are whole or not there: a temporary name, fsync, rename. Read back without running code."""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synicix_core.errors import CheckpointError

__all__ = ["load_plain", "require_plain", "save_atomically", "save_state_dict"]

_PLAIN = (torch.Tensor, bool, int, float, str, type(None), torch.Size, torch.dtype, torch.device)


def save_atomically(value: Any, path: str | Path) -> None:
    """Write `value` by ``torch.save`` so that a crash at any time leaves the old file or the new one.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    path = Path(path)
    # Not tempfile, whose files are private: models are read by other people.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                torch.save(value, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            "the file cannot be written",
            where=str(path),
            why=getattr(error, "strerror", None) or str(error),
            hint="Check the free space and the permissions of the directory.",
        ) from error


def save_state_dict(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a ``state_dict`` with its tensors on the CPU, so that it loads on any machine."""
    plain = {key: value.detach().cpu() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    save_atomically(plain, path)


def load_plain(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, tensors on the CPU; nothing in it is run.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or holds objects that would have to be run to be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        text = "there is no such file" if isinstance(error, FileNotFoundError) else _first_line(error)
        raise CheckpointError("the file cannot be read", where=str(path), why=text) from error


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
    elif type(value) not in _PLAIN and not isinstance(value, torch.Tensor):
        raise CheckpointError(
            "the checkpoint holds something that cannot be read back safely",
            why=f"{path} is of type {type(value).__module__}.{type(value).__qualname__}",
            hint="Save tensors, numbers, strings, dicts, lists and tuples; torch.from_numpy turns an array into a tensor.",
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
