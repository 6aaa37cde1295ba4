"""`synicix-run queue`: what comes next, and how people change that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.task_choice import ask, choice_options, chosen_tasks, yes_option
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count, duration

if TYPE_CHECKING:
    from synicix_core.tables.queue_control import Change
    from synicix_core.tables.queue_overview import NextTask, QueueCounts

__all__ = ["queue"]

_MINUS = "\N{MINUS SIGN}"
LOWEST, HIGHEST = -128, 127
"""What fits into DataJoint's column for priorities."""

_WHY_LEFT = {
    "finished": ("has a result", "have a result"),
    "error": ("ended in an error", "ended in an error"),
    "paused": ("is paused already", "are paused already"),
    "pending": ("is pending", "are pending"),
    "running": ("is running", "are running"),
    "foreign": ("is reserved by somebody without an attempt", "are reserved by somebody without an attempt"),
}


class _QueueGroup(click.Group):
    """Lists the queue where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        if not args or (args[0].startswith("-") and not {"-h", "--help"} & {*args}):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class _PriorityCommand(Command):
    """Takes ``-5`` as a number, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, [re.sub(r"^-(?=\d+$)", _MINUS, arg) for arg in args])


def _signed(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    priority = int(value.replace(_MINUS, "-")) if re.fullmatch(f"[{_MINUS}-]?[0-9]+", value) else None
    if priority is None or not LOWEST <= priority <= HIGHEST:
        raise click.BadParameter(f"{value.replace(_MINUS, '-')!r} is not a whole number from {LOWEST} to {HIGHEST}.")
    return priority


@click.group(cls=_QueueGroup)
def queue() -> None:
    """Show and steer what is queued.

    Without a command it shows the queue.
    """


@queue.command("list", cls=Command)
@click.option(
    "--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Show at most so many of the next tasks."
)
@json_option
@pass_place
def list_(place: Place, limit: int, as_json: bool) -> None:
    """Count what is queued, and show what comes next."""
    pipeline = place.pipeline()
    from synicix_core.tables.queue_overview import QUEUE_STATES, count_queue, next_tasks

    counts = count_queue(pipeline.tables)
    coming = next_tasks(pipeline.tables, limit)
    if as_json:
        rows = [{"priority": priority, **states} for priority, states in counts.priorities.items()]
        totals = {state: sum(states[state] for states in counts.priorities.values()) for state in QUEUE_STATES}
        print_json(
            {
                "states": totals,
                "not_queued": counts.not_queued,
                "priorities": rows,
                "next": [vars(task) for task in coming],
            }
        )
        return
    if counts.priorities:
        click.echo(_table_of_counts(counts, QUEUE_STATES))
    elif not counts.not_queued:
        click.echo("Nothing is queued.")
    if counts.not_queued:
        click.echo(f"{count(counts.not_queued, 'task')} not queued yet. To queue, run: synicix-run queue refresh")
    if coming:
        click.echo(f"\nNext:\n{_table_of_tasks(coming)}")


@queue.command("refresh", cls=Command)
@json_option
@pass_place
def refresh(place: Place, as_json: bool) -> None:
    """Queue what was inserted past the queue, and take back what lost workers held."""
    pipeline = place.pipeline()
    from synicix_core.runner.process import is_gone, namespace
    from synicix_core.tables.recovery import recover

    queued = pipeline.queue.enqueue()
    worker = pipeline.settings.worker
    recovered: list[Any] = []
    while found := recover(
        pipeline.queue, worker.lease_seconds, worker.max_attempts, namespace=namespace(), is_gone=is_gone
    ):
        recovered += found
    if as_json:
        print_json({"queued": queued, "taken_back": [vars(claim) for claim in recovered]})
        return
    click.echo(f"{count(queued, 'task')} queued, {count(len(recovered), 'claim')} taken back.")
    for claim in recovered:
        end = "it ended in an error" if claim.final else "it is pending again"
        click.echo(f"{claim.task[:8]}: the worker on {claim.host} is lost, {claim.why}; {end}.")


@queue.command("pause", cls=Command)
@choice_options
@json_option
@pass_place
def pause(place: Place, tasks: tuple[str, ...], conditions: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Keep tasks from being trained until they are resumed.

    A running one is stopped by its worker, and goes on from its last checkpoint when it is resumed.
    """
    pipeline, chosen = chosen_tasks(place.pipeline, tasks, conditions, everything)
    from synicix_core.tables.queue_control import pause as pause_tasks

    change = pause_tasks(pipeline.tables, chosen)
    _report("paused", change, as_json, hint="To go on with them, run: synicix-run queue resume --all")


@queue.command("resume", cls=Command)
@choice_options
@json_option
@pass_place
def resume(place: Place, tasks: tuple[str, ...], conditions: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Make paused tasks pending again."""
    pipeline, chosen = chosen_tasks(place.pipeline, tasks, conditions, everything)
    from synicix_core.tables.queue_control import resume as resume_tasks

    change = resume_tasks(pipeline.tables, chosen)
    _report(
        "resumed", change, as_json, hint="To train, run: synicix-run populate", silent=("pending", "error", "running")
    )


@queue.command("cancel", cls=Command)
@choice_options
@yes_option
@json_option
@pass_place
def cancel(
    place: Place, tasks: tuple[str, ...], conditions: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """End tasks in an error that says who cancelled them.

    A running one is stopped by its worker. Retry makes them pending again.
    """
    pipeline, chosen = chosen_tasks(place.pipeline, tasks, conditions, everything)
    from synicix_core.tables.queue_control import cancel as cancel_tasks
    from synicix_core.tables.queue_control import count_states_of

    if not yes:
        states = count_states_of(pipeline.tables, chosen)
        amount = sum(states.get(state, 0) for state in ("pending", "running", "paused"))
        if amount:
            running = f", {states['running']:,} of them running" if "running" in states else ""
            ask(f"{count(amount, 'task')} would be cancelled{running}.", "Cancel them?", "Nothing was cancelled.")
    change = cancel_tasks(pipeline.tables, chosen)
    _report(
        "cancelled", change, as_json, hint="To have them trained after all, run: synicix-run retry --kind cancelled"
    )


@queue.command("priority", cls=_PriorityCommand)
@click.argument("priority", metavar="N", callback=_signed)
@choice_options
@json_option
@pass_place
def priority_(
    place: Place,
    priority: int,
    tasks: tuple[str, ...],
    conditions: tuple[str, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Put tasks before or behind others.

    Those with the lowest N are trained first; it is 5 for a task of which nothing else was said.
    """
    pipeline, chosen = chosen_tasks(place.pipeline, tasks, conditions, everything)
    from synicix_core.tables.queue_control import set_priority

    _report(f"now of priority {priority}", set_priority(pipeline.tables, chosen, priority), as_json, key="changed")


def _report(
    what: str, change: Change, as_json: bool, *, key: str = "", hint: str = "", silent: tuple[str, ...] = ()
) -> None:
    if as_json:
        print_json({key or what: change.changed, "were_running": change.running, "left_alone": change.left})
        return
    if not change.changed:
        click.echo(f"No task is {what}." if key else f"No task was {what}.")
    elif change.running:
        plural = change.running > 1
        subject, worker = ("were", "their workers stop them") if plural else ("was", "its worker stops it")
        click.echo(
            f"{count(change.changed, 'task')} {what}; {change.running:,} of them {subject} running: "
            f"{worker} at the next heartbeat."
        )
    else:
        click.echo(f"{count(change.changed, 'task')} {what}.")
    for state, amount in change.left.items():
        if state not in silent or not change.changed:
            click.echo(f"{count(amount, 'task')} {_WHY_LEFT[state][amount > 1]}; left alone.")
    if change.changed and hint:
        click.echo(hint)


def _table_of_counts(counts: QueueCounts, states: tuple[str, ...]) -> str:
    header = ["priority", *states]
    rows = [[str(priority), *(f"{row[state]:,}" for state in states)] for priority, row in counts.priorities.items()]
    if len(rows) > 1:
        totals = [sum(row[state] for row in counts.priorities.values()) for state in states]
        rows.append(["all", *(f"{total:,}" for total in totals)])
    return format_table(header, rows, width=fit_width())


def _table_of_tasks(tasks: list[NextTask]) -> str:
    header = ["task", "priority", "due", "dataset", "model"]
    rows = [
        [
            task.task[:8],
            str(task.priority),
            f"in {duration(task.due_in_seconds)}" if task.due_in_seconds else "now",
            task.dataset,
            task.model.rpartition("/")[2],
        ]
        for task in tasks
    ]
    return format_table(header, rows, left=("task",), width=fit_width())
