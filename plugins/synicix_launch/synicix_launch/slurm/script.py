"""A batch script for Slurm as text: its options, one a line, and the variables that its body needs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from synicix_launch.errors import LaunchError

__all__ = ["edit_script", "option_of"]

_OPTION = re.compile(r"#SBATCH\s+--([\w-]+)(?:=(.*))?")
_VARIABLE = r': "\$\{%s:?=.*\}"(\s+#.*)?'


def edit_script(script: str, options: Mapping[str, str | None], variables: Mapping[str, str], where: str) -> str:
    """Return a script with options and variables put in.

    Parameters
    ----------
    script : str
        A batch script with lines ``#SBATCH --name=value``, and lines ``: "${NAME:=value}"`` (or ``=``) for what its body needs.
    options : mapping
        By name, without the dashes; a line is replaced, or added behind the last one. None removes it.
    variables : mapping
        By name; their lines become assignments, which no variable of the environment changes any more.
    where : str
        The script's file, for messages.

    Raises
    ------
    LaunchError
        If it is no such script.
    """
    lines = script.splitlines()
    if not lines or not lines[0].startswith("#!") or not any(map(_OPTION.match, lines)):
        why = "it must begin with #! and have lines #SBATCH --name=value"
        raise LaunchError("The template is of no use", where=where, why=why)
    for name, value in options.items():
        _set_option(lines, name, value)
    for name, value in variables.items():
        _set_variable(lines, name, value, where)
    return "\n".join(lines) + "\n"


def option_of(script: str, name: str) -> str | None:
    """Return the value of an option of a script, None where it is not there."""
    matches = [match for line in script.splitlines() if (match := _OPTION.match(line)) and match[1] == name]
    return matches[-1][2] if matches else None


def _set_option(lines: list[str], name: str, value: str | None) -> None:
    at = [number for number, line in enumerate(lines) if (match := _OPTION.match(line)) and match[1] == name]
    new = [] if value is None else [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}"]
    if at:
        lines[at[0] : at[0] + 1] = new
    else:
        # Slurm reads no option behind the first command.
        last = max(number for number, line in enumerate(lines) if _OPTION.match(line))
        lines[last + 1 : last + 1] = new


def _set_variable(lines: list[str], name: str, value: str, where: str) -> None:
    pattern = re.compile(_VARIABLE % re.escape(name))
    at = [number for number, line in enumerate(lines) if pattern.fullmatch(line)]
    if not at:
        raise LaunchError(
            "The template is of no use", where=where, why=f'it needs a line for what the options say: : "${{{name}:=}}"'
        )
    for number in at:
        lines[number] = f"{name}={shlex.quote(value)}"
