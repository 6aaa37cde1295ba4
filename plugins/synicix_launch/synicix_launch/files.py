"""Rendered files on this machine: written, kept when they are submitted, and compared with those of the last time."""

from __future__ import annotations

import difflib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from synicix_launch.contract import RenderedFile
from synicix_launch.errors import LaunchError

__all__ = ["compare", "keep", "write"]


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
    elsewhere = "Name another folder with --output."
    with _placed(folder, files, elsewhere, elsewhere):
        pass
    return [folder / file.name for file in files]


@contextmanager
def keep(
    folder: Path,
    files: Sequence[RenderedFile],
    hint: str = "Nothing was submitted: what is submitted is kept there. Make it a folder that you may write to.",
) -> Iterator[None]:
    """Keep `files` in `folder` if they are submitted: submit them in the block of this ``with``.

    They are written under other names before the block and get their own when it ends without an error. So a folder that
    cannot be written is found out before anything is submitted, and what the scheduler refuses replaces nothing. Where this
    program is killed between the two, the files of the time before stay.

    Parameters
    ----------
    folder : Path
        Made if need be.
    files : sequence of RenderedFile
        What is submitted.
    hint : str
        What to do where they cannot be written.

    Raises
    ------
    LaunchError
        If something is in the way or the folder is not writable.
    """
    with _placed(folder, files, hint, "They were submitted all the same; what stays there is of the time before."):
        yield


@contextmanager
def _placed(folder: Path, files: Sequence[RenderedFile], hint_before: str, hint_after: str) -> Iterator[None]:
    with ExitStack() as stack:
        with _told(folder, hint_before):
            folder.mkdir(parents=True, exist_ok=True)
            staged = [(_stage(folder / file.name, file.text, stack), folder / file.name) for file in files]
        yield
        with _told(folder, hint_after):
            for temporary, path in staged:
                temporary.replace(path)


@contextmanager
def _told(folder: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise LaunchError(
            "The rendered files cannot be written",
            where=str(error.filename2 or error.filename or folder),
            why=why or str(error),
            hint=hint,
        ) from error


def _diff(path: Path, text: str) -> str:
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError("The file written last time cannot be read", where=str(path), why=str(error)) from error
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(path), f"{path.name} now", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _stage(path: Path, text: str, stack: ExitStack) -> Path:
    """Write what is to become `path` under another name beside it, which is gone when `stack` is left."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        # It names the file that it tried to make, which says nothing to anybody.
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    temporary = Path(name)
    stack.callback(temporary.unlink, missing_ok=True)
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    # mkstemp keeps others out; these files hold no secret, and a colleague may want to read them.
    temporary.chmod(0o666 & ~_umask())
    return temporary


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
