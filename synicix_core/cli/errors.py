"""`synicix-run errors` and `retry`: what went wrong, and try it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.wording import count, duration

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.tables.overview import ErrorGroup

__all__ = ["errors", "retry"]


@click.command(cls=Command)
@click.option("--stack", metavar="TASK", help="Show the whole traceback of one task's last failed attempt.")
@json_option
@pass_place
def errors(place: Place, stack: str | None, as_json: bool) -> None:
    """Show what went wrong.

    Lists the tasks that ended in an error, grouped by the first line of its message.
    """
    from synicix_core.tables.overview import group_errors

    pipeline = place.pipeline()
    if stack is not None:
        _show_stack(pipeline, stack, as_json)
        return
    groups = group_errors(pipeline.tables)
    total = sum(group.count for group in groups)
    if as_json:
        print_json({"tasks": total, "errors": [vars(group) for group in groups]})
    elif not groups:
        click.echo("No task ended in an error.")
    else:
        click.echo(f"{count(total, 'task')} ended in an error.\n")
        for group in groups:
            click.echo(_describe(group))
        click.echo(f"For the traceback, run:  synicix-run errors --stack {groups[0].tasks[0][:8]}")
        click.echo("To try again, run:       synicix-run retry TASK..., retry --like TEXT, or retry --all")


@click.command(cls=Command)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--all", "everything", is_flag=True, help="All tasks that ended in an error.")
@click.option("--like", metavar="TEXT", help="Those whose error message contains TEXT, whatever its case.")
@json_option
@pass_place
def retry(place: Place, tasks: tuple[str, ...], everything: bool, like: str | None, as_json: bool) -> None:
    """Try again what ended in an error.

    Makes these tasks pending again; a worker trains them.
    """
    from synicix_core.tables.overview import error_tasks

    if bool(tasks) + everything + (like is not None) != 1:
        raise click.UsageError("Name tasks, or give --like TEXT or --all.")
    pipeline = place.pipeline()
    chosen = [pipeline.task(task) for task in tasks] if tasks else error_tasks(pipeline.tables, like)
    others = _not_in_error(pipeline, chosen) if tasks else []
    retried = pipeline.queue.retry(chosen)
    if as_json:
        print_json({"retried": retried, "not_in_error": [{"task": task, "state": state} for task, state in others]})
        return
    for task, state in others:
        click.echo(f"{task[:8]} is not retried: {state}")
    click.echo(f"{count(retried, 'task')} pending again." if retried else "No task was retried.")
    if retried:
        click.echo("To train, run: synicix-run populate")


def _describe(group: ErrorGroup) -> str:
    listed = " ".join(task[:8] for task in group.tasks)
    more = group.count - len(group.tasks)
    return f"{count(group.count, 'task')}: {group.message or '(no message)'}\n    {listed}" + (
        f" and {more:,} more\n" if more else "\n"
    )


def _show_stack(pipeline: Pipeline, name: str, as_json: bool) -> None:
    from synicix_core.errors import ConfigurationError
    from synicix_core.tables.overview import attempts_of

    task = pipeline.task(name)
    failed = [row for row in attempts_of(pipeline.tables, task) if row["error"]]
    if not failed:
        raise ConfigurationError(
            f"no attempt at task {task} ended in an error", hint=f"Run: synicix-run show {task[:8]}"
        )
    last = failed[-1]
    if as_json:
        keys = ("attempt", "host", "device", "state", "started_at", "error", "error_stack")
        print_json({"task": task} | {key: last[key] for key in keys})
        return
    click.echo(f"task {task}, attempt {last['attempt']} on {last['host']}, {last['device']}")
    click.echo((last["error_stack"] or "").rstrip() or f"{last['error']}\nIt has no traceback.")


def _not_in_error(pipeline: Pipeline, tasks: list[str]) -> list[tuple[str, str]]:
    """Return the tasks that were named but not in error, with the state that they are in."""
    from synicix_core.tables.overview import state_of

    found = []
    for task in tasks:
        state, due = state_of(pipeline.tables, task)
        if state == "scheduled":
            found.append((task, f"it is tried again in {duration(due)}"))
        elif state != "error":
            found.append((task, f"it is {state}"))
    return found
