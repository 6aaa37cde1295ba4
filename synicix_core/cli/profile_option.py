"""The ``--profile`` option of `populate`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["profile_option", "profile_path"]

profile_option = click.option(
    "--profile",
    is_flag=False,
    flag_value=".",
    metavar="[FILE|DIR]",
    help="Write a trace of the first task's training, for ui.perfetto.dev, to a .json file or into a directory.",
)


def profile_path(value: str | None, *, workers: int) -> Path | None:
    """Return what a worker is told about a profile; None without one.

    Parameters
    ----------
    value : str or None
        What was typed; relative to the working directory.
    workers : int
        How many workers there are, each of which writes a file of its own.

    Raises
    ------
    ValueError
        If it cannot be; the message says what to type.
    """
    if value is None:
        return None
    path = Path(value).expanduser().absolute()
    if path.suffix == ".json":
        if workers > 1:
            raise ValueError(f"--profile {value} is one file for {workers} workers: name a directory.")
        if path.is_dir():
            raise ValueError(f"--profile {value} is a directory: name one that does not end in .json, or a file.")
    elif path.exists() and not path.is_dir():
        raise ValueError(f"--profile {value} is a file that is there: name one that ends in .json, or a directory.")
    return path
