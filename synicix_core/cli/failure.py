"""What is said, and with which status the command ends, when something goes wrong."""

from __future__ import annotations

import errno
import os
import sys

import click

__all__ = ["report"]

INTERRUPTED = 130


def report(error: BaseException, *, verbose: bool) -> int:
    """Say in one paragraph on standard error what went wrong.

    Parameters
    ----------
    error : BaseException
        What a command raised.
    verbose : bool
        Whether to show the traceback first.

    Returns
    -------
    int
        The exit code: an error's own, 2 for a mistake on the command line or a privilege that the database's user lacks,
        130 for an interrupt, 1 for what nobody expected.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, click.Abort) and _was_interrupted(error)):
        _say("Interrupted.")
        return INTERRUPTED
    if isinstance(error, click.Abort):
        _say("Aborted.")
        return 1
    if _is_broken_pipe(error):
        _silence_stdout()
        return 1
    if verbose and not isinstance(error, click.ClickException):
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip())
    return _explain(error, verbose)


def _explain(error: BaseException, verbose: bool) -> int:
    from synicix_core.errors import SynicixError

    if isinstance(error, click.UsageError):
        # click's own way: usage, how to get help, and the mistake.
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        _error(error.format_message())
        return error.exit_code
    if isinstance(error, SynicixError):
        _error(str(error))
        return error.exit_code
    module = type(error).__module__.partition(".")[0]
    text = " ".join(str(error).split())
    hint = "" if verbose else " To see where it happened, put -v behind synicix-run."
    if module in ("datajoint", "psycopg2", "pymysql"):
        # Several arguments would be shown as a tuple.
        said = " ".join(" ".join(map(str, error.args)).split()) or text
        _error(f"the database said no ({type(error).__name__}): {said.rstrip('.')}.{hint}")
        return 2 if type(error).__name__ == "AccessError" else 1
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        _error(f"{error.strerror}{where}.{hint}")
        return 1
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    _error(f"unexpected {said.rstrip('.')}.{hint}")
    return 1


def _error(text: str) -> None:
    label = click.style("Error:", fg="red", bold=True) if _in_colour() else "Error:"
    folded = _fold(f"Error: {text}").removeprefix("Error:")
    _say(label + folded)


def _fold(text: str) -> str:
    """Break lines at words for a terminal; a pipe or a file gets each paragraph in one line, for grep."""
    if not sys.stderr.isatty():
        return text
    import textwrap
    from shutil import get_terminal_size

    width = max(get_terminal_size().columns, 40)
    folded = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        folded.append(
            textwrap.fill(
                line, width, subsequent_indent=indent and indent + "  ", break_long_words=False, break_on_hyphens=False
            )
        )
    return "\n".join(folded)


def _say(text: str) -> None:
    try:
        click.echo(text, file=sys.stderr)
    except OSError:
        return


def _in_colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _was_interrupted(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)


def _is_broken_pipe(error: BaseException) -> bool:
    # click ends the process with SystemExit itself where it notices one; this is for what it does not see.
    return isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE)


def _silence_stdout() -> None:
    """Let the interpreter flush what is left into nothing when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        return
