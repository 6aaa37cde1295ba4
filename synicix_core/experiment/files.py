"""Find the dataset files that an experiment file names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from synicix_core.experiment.fields import Mistakes

__all__ = ["find_files"]

_MAGIC = frozenset("*?[")
_LISTED = 10


def find_files(
    dataset_dir: Path, patterns: Sequence[str], where: str, mistakes: Mistakes, *, follow_symlinks: bool = False
) -> tuple[str, ...]:
    """Return the datasets that names and glob patterns match.

    A pattern matches files and directories (some formats are directories), but no directory that holds another match.
    ``**`` stands for any number of directories and does not follow links to directories; hidden files and directories
    are skipped unless a pattern names them literally.

    Parameters
    ----------
    dataset_dir : Path
        Where datasets lie. May be a link itself.
    patterns : sequence of str
        Relative to it, with forward slashes.
    where : str
        Full name of the place, for the messages.
    mistakes : list
        Receives patterns that match nothing or lead out of `dataset_dir`.
    follow_symlinks : bool
        Whether links may lead out of `dataset_dir`.

    Returns
    -------
    tuple of str
        Names relative to `dataset_dir` with forward slashes, sorted, each once.
    """
    if not dataset_dir.is_dir():
        problem = "is not a directory" if dataset_dir.exists() else "does not exist"
        mistakes.append((where, f"the dataset directory {dataset_dir} {problem}"))
        return ()
    found: set[str] = set()
    for pattern in patterns:
        problem = _pattern_problem(pattern)
        if problem:
            mistakes.append((where, f"{pattern!r} {problem}"))
            continue
        names = _match(dataset_dir, pattern)
        if not names:
            mistakes.append((where, _nothing_matches(dataset_dir, pattern)))
        for name in names:
            problem = _link_problem(dataset_dir, name, follow_symlinks)
            if problem:
                mistakes.append((where, f"{name!r} {problem}"))
            else:
                found.add(name)
    return tuple(sorted(found))


def _pattern_problem(pattern: str) -> str:
    if "\\" in pattern:
        return "has a backslash; separate directories with forward slashes"
    if "\0" in pattern:
        return "has a NUL character"
    if PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).is_absolute():
        return "is an absolute path; names are relative to the dataset directory"
    parts = PurePosixPath(pattern).parts
    if ".." in parts:
        return "leads out of the dataset directory with '..'"
    if not parts:
        return "names nothing"
    if any("**" in part and part != "**" for part in parts):
        return "has '**' beside other characters; it stands alone between slashes"
    return ""


def _match(dataset_dir: Path, pattern: str) -> list[str]:
    parts = PurePosixPath(pattern).parts
    literal = dataset_dir.joinpath(*parts)
    # A name that exists is meant literally, whatever characters it has; a broken link is reported, not skipped.
    if literal.exists() or literal.is_symlink():
        return ["/".join(parts)]
    if not _MAGIC & set(pattern):
        return []
    # Python 3.13 changed what a final `**` alone matches.
    ending = ("*",) if parts[-1] == "**" else ()
    names = {
        path.relative_to(dataset_dir)
        for path in dataset_dir.glob("/".join(parts + ending))
        if not any(part.startswith(".") and part not in parts for part in path.relative_to(dataset_dir).parts)
    }
    holders = {parent for name in names for parent in name.parents}
    return sorted(name.as_posix() for name in names - holders)


def _link_problem(dataset_dir: Path, name: str, follow_symlinks: bool) -> str:
    path = dataset_dir / name
    if not path.exists():
        return "is a link to nothing"
    if follow_symlinks:
        return ""
    # Not Path.resolve, which raises at a loop of links in some versions of Python.
    root, real = os.path.realpath(dataset_dir), os.path.realpath(path)
    if real == root or not Path(real).is_relative_to(root):
        return "is a link that leads out of the dataset directory; set follow_symlinks = true to allow it"
    return ""


def _nothing_matches(dataset_dir: Path, pattern: str) -> str:
    """Return what a pattern misses and what there is instead, in the deepest directory that it names literally."""
    verb = "matches nothing" if _MAGIC & set(pattern) else "does not exist"
    directory, shown = dataset_dir, ""
    for part in PurePosixPath(pattern).parts[:-1]:
        if _MAGIC & set(part) or not (directory / part).is_dir():
            break
        directory, shown = directory / part, f"{shown}{part}/"
    try:
        entries = sorted(e.name + ("/" if e.is_dir() else "") for e in directory.iterdir() if e.name[0] != ".")
    except OSError as error:
        return f"{pattern!r} {verb}: {error.strerror or error}"
    place = f"{shown} in the dataset directory" if shown else f"the dataset directory {dataset_dir}"
    if not entries:
        return f"{pattern!r} {verb}; {place} is empty"
    near = difflib.get_close_matches(PurePosixPath(pattern).name, entries, 1)
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    listed = ", ".join(entries[:_LISTED]) + more
    return f"{pattern!r} {verb}; " + (f"did you mean {shown + near[0]!r}? " if near else "") + f"{place} holds {listed}"
