"""The descriptor that the hook `synicix_launchers` yields. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["LauncherProvider"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class LauncherProvider:
    """One way to start workers.

    Parameters
    ----------
    name : str
        What people type behind ``synicix-run launch``, and the name of its table in ``synicix.toml``: lower-case letters,
        digits and ``-``.
    target : str or type
        A class of the shape of `Launcher`: a lazy reference ``"package.module:Class"``, imported only when it is used, or
        the class itself.
    summary : str
        One line for ``synicix-run launch --help``.
    """

    name: str
    target: str | type[Any]
    summary: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"launcher name {self.name!r} is not allowed: lower-case letters, digits and '-', starting with a letter, "
                "at most 40 characters"
            )
        if isinstance(self.target, str):
            if not _TARGET.fullmatch(self.target):
                raise ValueError(f"launcher {self.name!r}: target {self.target!r} must read 'package.module:Class'")
        elif not isinstance(self.target, type):
            raise ValueError(f"launcher {self.name!r}: the target must be a class or 'package.module:Class'")
