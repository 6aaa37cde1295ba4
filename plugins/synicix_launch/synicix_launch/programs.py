"""Run a scheduler's own program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synicix_launch.errors import LaunchError, SchedulerError

__all__ = ["Answer", "run_program"]

_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """How a program ended and what it said."""

    code: int
    stdout: str
    stderr: str


def run_program(
    *command: str,
    hint: str,
    text: str = "",
    accepts: Sequence[int] = (0,),
    folder: Path | None = None,
) -> Answer:
    """Run a program of the scheduler and return its answer. It does not get the variable DJ_PASS.

    Parameters
    ----------
    *command : str
        The program and its arguments.
    hint : str
        What to do where the program is not installed.
    text : str
        Its standard input.
    accepts : sequence of int
        Exit codes that are no failure.
    folder : Path, optional
        Its working directory.

    Raises
    ------
    LaunchError
        If the program is not installed or cannot be executed.
    SchedulerError
        If it ends with another exit code, or does not end within two minutes.
    """
    program = shutil.which(command[0])
    if program is None:
        raise LaunchError(f"The program {command[0]} is not installed", why="it is not on PATH", hint=hint)
    shown = " ".join(command)
    # Schedulers copy the environment of a job into their files, and the database's password has no place there.
    environment = {name: value for name, value in os.environ.items() if name != "DJ_PASS"}
    try:
        done = subprocess.run(
            [program, *command[1:]],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            env=environment,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"{command[0]} did not answer", where=shown, why=f"it took more than {_LIMIT_SECONDS:g} s"
        ) from None
    except OSError as error:
        raise LaunchError(f"The program {command[0]} cannot be run", where=program, why=error.strerror or "") from error
    if done.returncode not in accepts:
        said = (done.stderr.strip() or done.stdout.strip()) or "it said nothing"
        raise SchedulerError(f"{command[0]} failed with exit code {done.returncode}", where=shown, why=f"\n{said}")
    return Answer(done.returncode, done.stdout, done.stderr)
