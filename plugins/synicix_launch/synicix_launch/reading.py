"""What flags and `synicix.toml` say about one launch, checked as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core import Settings
from synicix_launch.errors import LaunchError
from synicix_launch.launchers import OURS, Installed
from synicix_launch.options import Given, Option, declared_options, option, read_options
from synicix_launch.values import at_least

__all__ = ["COMMON_OPTIONS", "CommonOptions", "read"]


@dataclass(frozen=True)
class CommonOptions:
    """What every launcher asks for."""

    workers: int | None = option(
        None, "How many workers to start; else one for each pending task, up to max_workers.", check=at_least(1)
    )
    max_workers: int = option(16, "The most workers to start where --workers is not given.", check=at_least(1))
    grace: float | None = option(
        None,
        "Seconds in which a worker stops; else as worker.grace_seconds or the template says.",
        metavar="SECONDS",
        check=at_least(1),
    )


COMMON_OPTIONS = declared_options(CommonOptions)


def read(
    installed: Installed, declared: Sequence[Option], options: type[Any], flags: Mapping[str, Any], settings: Settings
) -> tuple[CommonOptions, Any]:
    """Return the common options and an instance of the launcher's own.

    Parameters
    ----------
    installed : Installed
        The launcher.
    declared : sequence of Option
        Those of `options`.
    options : type
        The launcher's dataclass.
    flags : mapping
        By the option's name; None where not given.
    settings : Settings
        The project's.

    Raises
    ------
    LaunchError
        If anything is wrong; everything that is wrong is listed.
    """
    mistakes: list[str] = []
    given: dict[str, list[Given]] = {}
    project = settings.project_dir
    for key, value in _table(installed, settings, mistakes).items():
        where = f"{project / 'synicix.toml'}: {installed.table}.{key}"
        given.setdefault(key, []).append(Given(where, value, is_text=False, folder=project))
    by_name = {each.name: each for each in (*COMMON_OPTIONS, *declared)}
    for name, value in flags.items():
        if value is not None:
            is_text = not isinstance(value, bool)
            given.setdefault(name, []).append(Given(by_name[name].flag, value, is_text=is_text, folder=Path.cwd()))
    values = read_options(tuple(by_name.values()), given, mistakes)
    if mistakes:
        raise LaunchError.of_mistakes(mistakes)
    common = CommonOptions(**{each.name: values.pop(each.name) for each in COMMON_OPTIONS})
    return common, options(**values)


def _table(installed: Installed, settings: Settings, mistakes: list[str]) -> Mapping[str, Any]:
    """Return the launcher's table of `synicix.toml`."""
    tables = settings.plugins.get(installed.distribution, {})
    path = settings.project_dir / "synicix.toml"
    if installed.distribution == OURS:
        # Another plugin may keep settings of other kinds beside those of its launchers; here they can only be mistakes.
        ours = ("kubernetes", "slurm")
        for name in tables:
            if name not in ours:
                near = difflib.get_close_matches(name, ours, 1)
                hint = f"did you mean [plugins.{OURS}.{near[0]}]?" if near else f"the tables are {' and '.join(ours)}"
                mistakes.append(f"{path}: plugins.{OURS}.{name}: there is no such launcher; {hint}")
    table = tables.get(installed.name, {})
    if not isinstance(table, Mapping):
        mistakes.append(
            f"{path}: {installed.table}: must be a table: write [{installed.table}] and the options below it"
        )
        return {}
    return table
