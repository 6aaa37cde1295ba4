"""Rendered files on this machine: written, and compared with those written before."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from synicix_launch.contract import RenderedFile
from synicix_launch.errors import LaunchError

__all__ = ["compare", "write"]


def compare(folder: Path, files: Sequence[RenderedFile]) -> str:
    """Return a unified diff from the files in `folder` to `files`; one that is not there counts as empty."""
    return "".join(_diff(folder / file.name, file.text) for file in files)


def write(folder: Path, files: Sequence[RenderedFile]) -> list[Path]:
    """Write `files` into `folder`, which is made if need be; each appears whole or not at all.

    Raises
    ------
    LaunchError
        If something is in the way or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            _replace(folder / file.name, file.text)
    except OSError as error:
        why = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise LaunchError(
            "The rendered files cannot be written",
            where=str(error.filename2 or error.filename or folder),
            why=why or str(error),
            hint="Name another folder with --output.",
        ) from error
    return [folder / file.name for file in files]


def _diff(path: Path, text: str) -> str:
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError("The file written last time cannot be read", where=str(path), why=str(error)) from error
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(path), f"{path.name} now", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # mkstemp keeps others out; these files hold no secret, and a colleague may want to read them.
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
