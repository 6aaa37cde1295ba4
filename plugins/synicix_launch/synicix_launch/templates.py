"""The files of deploy/ that launchers start from: inside an installed package, in the checkout of an editable one."""

from __future__ import annotations

from pathlib import Path

from synicix_launch.errors import LaunchError

__all__ = ["read_template"]


def read_template(shipped: str, own: Path | None = None) -> tuple[str, str]:
    """Return the text of a template, and what to call it in messages.

    Parameters
    ----------
    shipped : str
        Which file of deploy/, such as ``slurm/worker.sbatch``.
    own : Path, optional
        A file of the user's to take instead.

    Raises
    ------
    LaunchError
        If the user's file cannot be read.
    """
    if own is None:
        inside = Path(__file__).parent / "deploy"
        deploy = inside if inside.is_dir() else Path(__file__).parents[3] / "deploy"
        return (deploy / shipped).read_text(encoding="utf-8"), f"deploy/{shipped}"
    try:
        return own.read_text(encoding="utf-8"), str(own)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise LaunchError("The template cannot be read", where=str(own), why=why or str(error)) from error
