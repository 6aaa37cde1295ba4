"""`synicix-run`: the commands by name, those of plugins, and the one place where errors are shown."""

from __future__ import annotations

import functools
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from synicix_core.cli.failure import report
from synicix_core.cli.project import Place, place_options, take_place_options
from synicix_core.version import __version__

if TYPE_CHECKING:
    from synicix_core.registry import Registry

__all__ = ["cli", "main"]

PROGRAM = "synicix-run"

COMMANDS = {
    "init": "Make a project and its tables.",
    "add": "Add the configs and tasks of an experiment file.",
    "check": "Try one batch of each combination.",
    "populate": "Train what is pending, until nothing is.",
    "status": "Show how far the training is.",
    "results": "List the results, best first.",
    "show": "Show everything about one task.",
    "load": "Load a trained model, and say how.",
    "errors": "Show what went wrong.",
    "retry": "Try again what ended in an error.",
    "queue": "Show and steer what is queued.",
    "gc": "Find and remove files that no row refers to.",
    "plugins": "Show the installed plugins.",
    "db": "Start, stop, look at and move the database.",
    "doctor": "Find out what keeps tasks from training.",
}
"""The core's commands in the order in which people need them, with the first sentence of their help.

So the listing is printed without importing any of them; click would import them all.
"""

_MODULES = {"check": "add", "retry": "errors"}


class SynicixGroup(click.Group):
    """The core's commands, imported when they are used; an unknown first word is looked up among plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the core's commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return a command of the core, which loads no plugin, or else a plugin's."""
        if cmd_name not in COMMANDS:
            return _plugin_commands().get(cmd_name)
        module = importlib.import_module(f"synicix_core.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the listing of the core's commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names, or say which one may be meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise _unknown_command(ctx, args[0])
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and end the process with its exit code; whatever it raises is said in one paragraph."""
        place = Place()
        try:
            code = super().main(args, prog_name or PROGRAM, standalone_mode=False, obj=place, **extra)
            sys.stdout.flush()
        except BaseException as error:
            code = report(error, verbose=place.verbose)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; what it returns is not an exit code (``ctx.exit`` is for that)."""
        super().invoke(ctx)


@click.group(
    PROGRAM,
    cls=SynicixGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Commands of plugins: synicix-run plugins commands",
)
@place_options(hidden=False)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Train many PyTorch models and keep every choice and every result in a database."""


def main() -> NoReturn:
    """Run `synicix-run` with the arguments of this process."""
    # DataJoint logs to the standard output by default, where the data goes.
    os.environ.setdefault("DJ_LOG_STREAM", "stderr")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no "±" shows a question mark instead of an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli.main()


@functools.cache
def _plugin_commands() -> dict[str, click.Command]:
    from synicix_core.registry import get_registry

    commands = {command.name or "": command for _, command in get_registry().commands()}
    for command in commands.values():
        take_place_options(command)
    return commands


def _unknown_command(ctx: click.Context, name: str) -> click.UsageError:
    import difflib

    from synicix_core.registry import get_registry

    known = [*COMMANDS, *_plugin_commands()]
    near = difflib.get_close_matches(name, known, 2)
    message = f"There is no command {name!r}."
    if Path(name).suffix == ".toml":
        near = []
        message += f" To add an experiment file, run: {PROGRAM} add {name}"
    if near:
        message += f" Did you mean {' or '.join(near)}?"
    return click.UsageError(message + _broken_plugins(get_registry()), ctx)


def _broken_plugins(registry: Registry) -> str:
    if not registry.problems:
        return ""
    listed = "".join(f"\n  {problem}" for problem in registry.problems)
    return f"\nA plugin that does not work may provide it:{listed}"
