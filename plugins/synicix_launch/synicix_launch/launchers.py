"""Which launchers are installed, and which one somebody means."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from synicix_core import get_registry
from synicix_launch.contract import Launcher
from synicix_launch.errors import LaunchError
from synicix_launch.options import Option, declared_options
from synicix_launch.provider import LauncherProvider

__all__ = ["COMMON", "OURS", "Installed", "choose", "installed_launchers"]

COMMON = (
    "workers",
    "max_workers",
    "grace",
    "output",
    "diff",
    "submit",
    "again",
    "json",
    "as_json",
    "project",
    "schema",
    "verbose",
)
"""What every launcher has; no option of its own may have one of these names."""

OURS = "synicix-launch"
"""This distribution."""

_METHODS = ("render", "warnings", "diff", "submit")


@dataclass(frozen=True)
class Installed:
    """A launcher and the plugin that it comes from.

    Attributes
    ----------
    provider : LauncherProvider
        As the plugin declares it.
    distribution, version : str
        Of the plugin.
    """

    provider: LauncherProvider
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """The short name."""
        return self.provider.name

    @property
    def qualified(self) -> str:
        """``distribution/name``."""
        return f"{self.distribution}/{self.name}"

    @property
    def table(self) -> str:
        """Its table in ``synicix.toml``."""
        return f"plugins.{self.distribution}.{self.name}"

    def load(self) -> tuple[Launcher, tuple[Option, ...]]:
        """Import the target, build it, and return it with its options.

        Raises
        ------
        LaunchError
            If it cannot be imported or is no launcher.
        """
        try:
            target = self.provider.target
            launcher = (_import(target) if isinstance(target, str) else target)()
            missing = [name for name in _METHODS if not callable(getattr(launcher, name, None))]
            if missing:
                raise TypeError(f"it has no method {missing[0]}()")
            options = declared_options(launcher.options)
            if taken := [each.name for each in options if each.name in COMMON]:
                raise TypeError(f"every launcher has an option {taken[0]!r} already")
        except (Exception, SystemExit) as error:
            raise LaunchError(
                f"The launcher {self.name!r} cannot be used",
                where=f"{self.distribution} {self.version}",
                why=f"{type(error).__name__}: {' '.join(str(error).split())}",
                hint="Install another version of it, or tell its authors.",
            ) from error
        return cast(Launcher, launcher), options


def installed_launchers() -> tuple[list[Installed], list[str]]:
    """Return the launchers that installed plugins yield, ours first, and what is wrong with others."""
    found: dict[str, Installed] = {}
    problems = []
    for plugin, provider in get_registry().collect("synicix_launchers"):
        where = f"{plugin.distribution} {plugin.version}"
        if not isinstance(provider, LauncherProvider):
            problems.append(f"{where}: synicix_launchers yielded {provider!r}, which is no LauncherProvider")
            continue
        each = Installed(provider, plugin.distribution, plugin.version)
        if found.setdefault(each.qualified, each) is not each:
            problems.append(f"{where}: synicix_launchers yields {each.name!r} twice; the first is used")
    return sorted(found.values(), key=lambda each: (each.distribution != OURS, each.qualified)), problems


def choose(name: str, installed: Sequence[Installed]) -> Installed:
    """Return the launcher that somebody means who types `name`, short or as ``distribution/name``.

    Raises
    ------
    LaunchError
        If there is none of that name, or several plugins have one.
    """
    matches = [each for each in installed if name in (each.name, each.qualified)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LaunchError(
            f"The launcher {name!r} is provided by several plugins",
            why=", ".join(each.qualified for each in matches),
            hint=f"Name the one you mean. Run: synicix-run launch {matches[0].qualified}",
        )
    known = [each.name for each in installed]
    near = difflib.get_close_matches(name, known, 1)
    raise LaunchError(
        f"There is no launcher {name!r}",
        why=f"there are {', '.join(known)}",
        hint=f"Did you mean {near[0]}?" if near else "Others come from plugins; docs/launch.md says how to write one.",
    )


def _import(reference: str) -> Any:
    module, _, attributes = reference.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
