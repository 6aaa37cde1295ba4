"""Which project a command works on, and the options that say so; every command takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.settings import Settings

__all__ = [
    "Command",
    "Place",
    "json_option",
    "pass_place",
    "place_options",
    "take_place_options",
    "where_option",
]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Place:
    """What the global options say.

    Attributes
    ----------
    directory : Path or None
        Where to look for the project; None is the working directory.
    schema_name : str or None
        Schema to use instead of the project's.
    verbose : bool
        Whether to show tracebacks.
    """

    directory: Path | None = None
    schema_name: str | None = None
    verbose: bool = False

    def settings(self, **overrides: Any) -> Settings:
        """Read the project's settings; `overrides` are flags, None where not given.

        Raises
        ------
        ConfigurationError
            There is no project, or something in its settings is wrong.
        """
        from synicix_core.settings import load_settings

        return load_settings(self.directory, schema_name=self.schema_name, **overrides)

    def pipeline(self, **overrides: Any) -> Pipeline:
        """Connect to the project's database.

        Raises
        ------
        ConfigurationError
            There is no project, or its settings, credentials or schema are wrong.
        DatabaseUnavailable
            The database cannot be reached.
        """
        settings = self.settings(**overrides)
        # Imported in this order: what DataJoint says about its configuration file is of no use to anybody here.
        from synicix_core.database.quiet import quiet

        with quiet():
            from synicix_core.pipeline import Pipeline

        return Pipeline(settings=settings)


pass_place = click.make_pass_decorator(Place, ensure=True)


def place_options(*, hidden: bool) -> Callable[[F], F]:
    """Add ``--project``, ``--schema`` and ``--verbose``, whose values go into the `Place`."""

    def decorate(function: F) -> F:
        for option in reversed(_place_options(hidden)):
            function = option(function)
        return function

    return decorate


class Command(click.Command):
    """A command that takes the global options behind its name, too, where people type them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_parameters())


def take_place_options(command: click.Command) -> None:
    """Let a plugin's command, and those below it, take the global options too, where it has none of these names."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(parameter for parameter in _parameters() if not taken & set(parameter.opts))
    for below in getattr(command, "commands", {}).values():
        take_place_options(below)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def where_option(function: F) -> F:
    """Add ``--where``."""
    return click.option(
        "--where",
        "conditions",
        multiple=True,
        metavar="CONDITION",
        help="Only these: COLUMN=VALUE, also with != < <= > >= and ~ (contains), or SQL on the columns of the tables. "
        "May be repeated.",
    )(function)


def _place_options(hidden: bool) -> list[Callable[[F], F]]:
    common: dict[str, Any] = {"expose_value": False, "hidden": hidden}
    return [
        click.option(
            "--project",
            metavar="DIR",
            type=click.Path(file_okay=False, path_type=Path),
            callback=_keep("directory"),
            help="The project, or a folder in it, instead of the working directory.",
            **common,
        ),
        click.option(
            "--schema",
            metavar="NAME",
            callback=_keep("schema_name"),
            help="The tables' schema, instead of the project's.",
            **common,
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            callback=_keep("verbose"),
            help="Show the traceback of an error.",
            **common,
        ),
    ]


def _keep(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            setattr(ctx.ensure_object(Place), attribute, value)

    return callback


def _parameters() -> list[click.Parameter]:
    def nothing() -> None: ...

    place_options(hidden=True)(nothing)
    parameters: list[click.Parameter] = list(reversed(nothing.__click_params__))  # type: ignore[attr-defined]
    return parameters
