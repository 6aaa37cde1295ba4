"""How people say which tasks a command is about: by name, by a condition, or all; and how they are asked first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from synicix_core.cli.project import where_option
from synicix_core.errors import ConfigurationError

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = ["ask", "choice_options", "chosen_tasks", "yes_option"]

F = TypeVar("F", bound=Callable[..., Any])

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def choice_options(function: F) -> F:
    """Add ``TASK...``, ``--where`` and ``--all``."""
    everything = click.option("--all", "everything", is_flag=True, help="All tasks that have no result.")
    return click.argument("tasks", nargs=-1, metavar="[TASK]...")(where_option(everything(function)))


def chosen_tasks(
    place_pipeline: Callable[[], Pipeline], tasks: tuple[str, ...], conditions: tuple[str, ...], everything: bool
) -> tuple[Pipeline, list[str]]:
    """Return the pipeline and the tasks that are meant; what was inserted past the queue is queued for it.

    Raises
    ------
    click.UsageError
        If they are not chosen in exactly one way.
    ConfigurationError
        If a name or a condition is wrong.
    """
    from synicix_core.cli.where import task_restriction

    ways = bool(tasks) + bool(conditions) + everything
    if ways != 1:
        exclusive = "These exclude each other. " if ways else ""
        raise click.UsageError(f"{exclusive}Name tasks, or give --where CONDITION or --all.")
    pipeline = place_pipeline()
    from synicix_core.tables.queue_control import choose_tasks

    named = sorted({pipeline.task(task) for task in tasks})
    restriction = task_restriction(pipeline, conditions)
    pipeline.queue.enqueue()
    return pipeline, named or choose_tasks(pipeline.tables, restriction)


def ask(what: str, question: str, nothing: str) -> None:
    """Ask whether to do what cannot be undone; end the command with 1 if the answer is no.

    Parameters
    ----------
    what : str
        What would be done, as a sentence.
    question : str
        What is asked for.
    nothing : str
        What to say if the answer is no.

    Raises
    ------
    ConfigurationError
        If there is nobody to answer.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            what.rstrip("."), why="nobody is there to be asked", hint="If that is meant, add --yes."
        )
    if not click.confirm(f"{what} {question}", err=True):
        click.echo(nothing, err=True)
        click.get_current_context().exit(1)
