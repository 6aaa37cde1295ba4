"""`synicix-run launch`: one command for each installed launcher, imported when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synicix_core import Place, pass_place
from synicix_launch.launchers import Installed, choose, installed_launchers
from synicix_launch.options import Option
from synicix_launch.reading import COMMON_OPTIONS

__all__ = ["LaunchGroup", "make_group"]

_HELP = """Start workers on a cluster.

Renders the files that a scheduler takes, from the project's settings and the number of pending tasks, and prints them.
Nothing is submitted without --submit.
"""


class LaunchGroup(click.Group):
    """The launchers of all plugins; listing them imports none."""

    def __init__(self, installed: list[Installed], problems: list[str]) -> None:
        super().__init__("launch", help=_HELP, short_help="Start workers on a cluster.")
        self.installed = installed
        self.problems = problems
        names = [each.name for each in installed]
        for each in installed:
            self.add_command(LauncherCommand(each), each.name if names.count(each.name) == 1 else each.qualified)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return the command of a launcher, by its short or its qualified name."""
        for name, command in self.commands.items():
            if isinstance(command, LauncherCommand) and cmd_name in (name, command.installed.qualified):
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the launcher that is named, or say which one may be meant."""
        for problem in self.problems:
            click.echo(f"A launcher is left out: {problem}.", err=True)
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            choose(args[0], self.installed)
        return super().resolve_command(ctx, args)


class LauncherCommand(click.Command):
    """The command of one launcher; its target is imported, and its options are known, when it is used."""

    def __init__(self, installed: Installed) -> None:
        summary = installed.provider.summary or f"The launcher {installed.name} of {installed.distribution}."
        super().__init__(installed.name, callback=_callback(installed), params=_flags(), short_help=summary)
        self.installed = installed
        self._own: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options of this launcher, those of every launcher, and the global ones."""
        if self._own is None:
            _, declared = self.installed.load()
            self._own = [_click_option(each) for each in declared]
            self.params = [*self._own, *self.params]
        return super().get_params(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write what the launcher renders and where its options can be set."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(self.short_help or "")
            formatter.write_paragraph()
            formatter.write_text(
                f"Each option has its default in the table [{self.installed.table}] of synicix.toml, if it stands there, under "
                "its name with _ in the place of -."
            )


def make_group() -> LaunchGroup:
    """Return the command `launch` with the launchers that are installed."""
    return LaunchGroup(*installed_launchers())


def _callback(installed: Installed) -> Any:
    @pass_place
    def launch(place: Place, /, **flags: Any) -> None:
        from synicix_launch.launching import launch as run

        run(place, installed, flags)

    return launch


def _flags() -> list[click.Parameter]:
    """Return the options of every launcher."""
    folder = click.Path(file_okay=True, path_type=Path)
    flags: list[click.Parameter] = [_click_option(each) for each in COMMON_OPTIONS]
    flags.append(click.Option(["--output"], type=folder, metavar="DIR", help="Write the files into this folder."))
    for name, text in (
        ("diff", "Show how they differ from what is there."),
        ("submit", "Submit them."),
        ("again", "Submit although the same is queued or running."),
    ):
        flags.append(click.Option([f"--{name}"], is_flag=True, help=text))
    flags.append(click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."))
    return flags


def _click_option(option: Option) -> click.Option:
    """Return the flag of an option. Its value stays a text: flags and settings are checked together, by one rule."""
    default = ", ".join(option.default) if option.kind is tuple else option.default
    text = option.help if option.default in (None, (), False) else f"{option.help} [default: {default}]"
    if option.kind is bool:
        return click.Option([f"{option.flag}/--no-{option.flag[2:]}", option.name], default=None, help=text)
    return click.Option([option.flag, option.name], metavar=option.metavar, help=text)
