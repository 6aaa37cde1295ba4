"""Find the dataset file that a row names, and refuse what leads out of `dataset_dir`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from synicix_core.errors import DatasetError, DatasetMissing

__all__ = ["resolve_dataset_file"]


def resolve_dataset_file(dataset_dir: Path, name: str, *, follow_symlinks: bool = False) -> Path:
    """Return the path of a dataset file on this machine.

    Parameters
    ----------
    dataset_dir : Path
        Where this machine keeps dataset files; may itself be a symbolic link.
    name : str
        Name relative to it, with forward slashes.
    follow_symlinks : bool
        Whether links that lead out of `dataset_dir` are allowed.

    Raises
    ------
    DatasetError
        If the name is absolute, contains ``..`` or a backslash, or leads out through a link.
    DatasetMissing
        If there is no such file.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or PureWindowsPath(name).drive or ".." in parts or "\\" in name:
        raise DatasetError(
            f"the dataset file name {name!r} is not allowed",
            why="names are relative to dataset_dir, with forward slashes and without '..'",
            hint=f"Put the file below {dataset_dir} and name it from there.",
        )
    if not dataset_dir.is_dir():
        raise DatasetError(
            "dataset_dir is not a directory",
            file=str(dataset_dir),
            hint="Set dataset_dir in synicix.toml, SYNICIX_DATASET_DIR or --dataset-dir.",
        )
    path = dataset_dir.joinpath(*parts)
    if not path.exists():
        raise DatasetMissing(
            f"there is no dataset file {name!r}", file=str(path), hint=_what_there_is(dataset_dir, path)
        )
    real = path.resolve()
    if not follow_symlinks and not real.is_relative_to(dataset_dir.resolve()):
        raise DatasetError(
            f"the dataset file {name!r} is a link that leads out of dataset_dir",
            file=str(path),
            why=f"it points to {real}",
            hint="Set follow_symlinks = true in synicix.toml if that is meant.",
        )
    return path


def _what_there_is(dataset_dir: Path, path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else dataset_dir
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"{folder} is empty."
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{folder} holds: {', '.join(names[:5])}{more}."
