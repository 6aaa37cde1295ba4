"""`synicix-run errors` and `retry`: what went wrong, and try it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place, where_option
from synicix_core.cli.task_choice import ask, yes_option
from synicix_core.cli.wording import count, duration

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.tables.error_groups import ErrorGroup

__all__ = ["errors", "retry"]

_KINDS = {
    "error": "error in the code that was trained",
    "out_of_memory": "out of memory",
    "transient": "lost connection or storage",
    "diverged": "training diverged",
    "data": "dataset file changed or damaged",
    "died": "the executor died",
    "hung": "the executor hung",
    "lost": "workers were lost",
    "cancelled": "cancelled by a person",
}
_NO_STACK = {"cancelled", "died", "hung", "lost"}
"""Kinds of error that come without a traceback."""

_WAYS = "Name tasks, or give one of --all, --like, --cause, --kind and --stale, or --where."


@click.command(cls=Command)
@click.option("--kind", type=click.Choice(list(_KINDS)), help="Only errors of this kind.")
@where_option
@click.option("--stack", metavar="TASK", help="Show the whole traceback of one task's last failed attempt.")
@json_option
@pass_place
def errors(place: Place, kind: str | None, conditions: tuple[str, ...], stack: str | None, as_json: bool) -> None:
    """Show what went wrong.

    Lists the tasks that ended in an error, grouped by its cause.
    """
    if stack is not None and (kind or conditions):
        raise click.UsageError("--stack names one task; --kind and --where do not go with it.")
    pipeline = place.pipeline()
    if stack is not None:
        _show_stack(pipeline, stack, as_json)
        return
    from synicix_core.cli.where import task_restriction
    from synicix_core.tables.error_groups import ErrorFilter, group_failures

    wanted = ErrorFilter(kind=kind, restriction=task_restriction(pipeline, conditions))
    groups = group_failures(pipeline.tables, wanted)
    total = sum(group.count for group in groups)
    if as_json:
        print_json({"tasks": total, "errors": [vars(group) for group in groups]})
    elif not groups:
        click.echo("No such error." if kind or conditions else "No task ended in an error.")
    else:
        click.echo(f"{count(total, 'task')} ended in an error.\n")
        for group in groups:
            click.echo(_describe(group))
        if with_stack := [group for group in groups if group.kind not in _NO_STACK]:
            click.echo(f"For the traceback, run:  synicix-run errors --stack {with_stack[0].tasks[0][:8]}")
        click.echo(
            f"To try again, run:       synicix-run retry TASK..., retry --cause {groups[0].cause}, or retry --all"
        )


@click.command(cls=Command)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--all", "everything", is_flag=True, help="All tasks that ended in an error.")
@click.option("--like", metavar="TEXT", help="Those whose error message contains TEXT, whatever its case.")
@click.option("--cause", metavar="ID", help="Those with this cause, as errors shows it.")
@click.option("--kind", type=click.Choice(list(_KINDS)), help="Those with an error of this kind.")
@click.option("--stale", is_flag=True, help="Delete the results that were trained with other code; train them anew.")
@where_option
@yes_option
@json_option
@pass_place
def retry(
    place: Place,
    tasks: tuple[str, ...],
    everything: bool,
    like: str | None,
    cause: str | None,
    kind: str | None,
    stale: bool,
    conditions: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Try again what ended in an error.

    Makes these tasks pending again, with all their attempts before them; a worker trains them.
    """
    ways = bool(tasks) + everything + stale + sum(way is not None for way in (like, cause, kind))
    if ways > 1 or (tasks and conditions):
        raise click.UsageError(f"These exclude each other. {_WAYS}")
    if not (ways or conditions):
        raise click.UsageError(_WAYS)
    if like is not None and not like.strip():
        raise click.UsageError("--like needs a text; to retry everything, give --all.")
    pipeline = place.pipeline()
    from synicix_core.cli.where import task_restriction
    from synicix_core.tables.error_groups import ErrorFilter, failed_tasks

    restriction = task_restriction(pipeline, conditions)
    if stale:
        _retry_stale(pipeline, restriction, yes, as_json)
        return
    if tasks:
        chosen = [pipeline.task(task) for task in tasks]
    else:
        chosen = failed_tasks(pipeline.tables, ErrorFilter(kind, cause, like, restriction))
    others = _not_in_error(pipeline, chosen) if tasks else []
    retried = pipeline.queue.retry(chosen)
    if as_json:
        print_json({"retried": retried, "not_in_error": [{"task": task, "state": state} for task, state in others]})
        return
    for task, state in others:
        click.echo(f"{task[:8]} is not retried: {state}")
    _say_retried(retried)


def _describe(group: ErrorGroup) -> str:
    facts = [_KINDS.get(group.kind, group.kind), f"kind {group.kind}", f"cause {group.cause}"]
    if group.host_count:
        facts.append("on " + (", ".join(group.hosts) or f"{group.host_count:,} machines"))
        facts.append(f"last {duration(group.seconds_ago)} ago")
    listed = " ".join(task[:8] for task in group.tasks)
    more = group.count - len(group.tasks)
    return f"{count(group.count, 'task')}: {group.message or '(no message)'}\n    {', '.join(facts)}\n    {listed}" + (
        f" and {more:,} more\n" if more else "\n"
    )


def _show_stack(pipeline: Pipeline, name: str, as_json: bool) -> None:
    from synicix_core.errors import ConfigurationError
    from synicix_core.tables.error_groups import cancellation
    from synicix_core.tables.overview import attempts_of

    task = pipeline.task(name)
    failed = [row for row in attempts_of(pipeline.tables, task) if row["error"]]
    if not failed:
        raise ConfigurationError(
            f"no attempt at task {task} ended in an error", hint=f"Run: synicix-run show {task[:8]}"
        )
    last = failed[-1]
    if as_json:
        keys = ("attempt", "host", "device", "state", "started_at", "error_kind", "error_cause", "error", "error_stack")
        print_json({"task": task} | {key: last[key] for key in keys})
        return
    if cancelled := cancellation(pipeline.tables, task):
        click.echo(f"task {task}: {cancelled}. Before that it failed as follows.")
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
        elif state == "paused":
            found.append((task, "it is paused"))
        elif state != "error":
            found.append((task, f"it is {state}"))
    return found


def _retry_stale(pipeline: Pipeline, restriction: str, yes: bool, as_json: bool) -> None:
    """Delete stale results, with whatever depends on them, and queue their tasks."""
    from synicix_core.tables.queue_control import choose_tasks, delete_results
    from synicix_core.training.staleness import find_stale, stale_tasks

    report = find_stale(pipeline.tables, pipeline.registry)
    tasks = list(stale_tasks(pipeline.tables, report))
    if restriction:
        wanted = {*choose_tasks(pipeline.tables, restriction)}
        tasks = [task for task in tasks if task in wanted]
    if not as_json:
        for provider in report.unknown:
            click.echo(f"The {provider} cannot be compared here; what it made does not count.", err=True)
        for reason in report.reasons if tasks else ():
            click.echo(f"{reason[0].upper()}{reason[1:]}.", err=True)
    if tasks and not yes:
        what = f"{count(len(tasks), 'result')} would be deleted and trained anew."
        ask(what, "Delete them?", "Nothing was deleted.")
    delete_results(pipeline.tables, tasks)
    pipeline.queue.enqueue()
    if as_json:
        print_json({"retried": len(tasks), "reasons": report.reasons, "unknown": report.unknown, "not_in_error": []})
        return
    _say_retried(len(tasks))
    if tasks:
        click.echo("Workers that are running go on with the code that they imported: start them again.")
        click.echo("The old model files are left over. To remove them, run: synicix-run gc")


def _say_retried(number: int) -> None:
    click.echo(f"{count(number, 'task')} pending again." if number else "No task was retried.")
    if number:
        click.echo("To train, run: synicix-run populate")
