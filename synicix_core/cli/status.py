"""`synicix-run status`: how far the training is, and who is at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count, duration, number

if TYPE_CHECKING:
    from synicix_core.tables.overview import Pace, RunningAttempt

__all__ = ["status"]


@click.command(cls=Command)
@json_option
@pass_place
def status(place: Place, as_json: bool) -> None:
    """Show how far the training is.

    Counts the tasks by state, and lists what workers are training now.
    """
    from synicix_core.tables.overview import count_states, measure_pace, running_attempts

    pipeline = place.pipeline()
    states = count_states(pipeline.tables)
    running = running_attempts(pipeline.tables)
    pace = measure_pace(pipeline.tables)
    lease = pipeline.settings.worker.lease_seconds
    eta = _eta(states, running, pace, lease)
    if as_json:
        workers = [vars(attempt) | {"alive": attempt.heartbeat_age <= lease} for attempt in running]
        print_json(
            {
                "tasks": sum(states.values()),
                "states": states,
                "workers": workers,
                "finished_last_hour": pace.finished_last_hour,
                "mean_seconds": pace.mean_seconds,
                "eta_seconds": eta,
            }
        )
        return
    click.echo(f"{count(sum(states.values()), 'task')}: {_states(states)}")
    if running:
        click.echo("")
        click.echo(_workers(running))
    for attempt in running:
        if attempt.heartbeat_age > lease:
            silent = duration(attempt.heartbeat_age)
            click.echo(
                f"{attempt.task[:8]}: no heartbeat from {attempt.host} for {silent}; the next worker takes it back."
            )
    if pace.finished_last_hour:
        click.echo(
            f"\n{pace.finished_last_hour:,} finished in the last hour"
            + (f"; at the pace of the last ones all are done in {duration(eta)}" if eta else "")
        )
    for line in _advice(states, running):
        click.echo(line)


def _states(states: dict[str, int]) -> str:
    words = {"scheduled": "to be tried again later", "error": "ended in error"}
    always = ("pending", "running", "finished", "error")
    shown = [
        f"{number_:,} {words.get(state, state)}" for state, number_ in states.items() if number_ or state in always
    ]
    return ", ".join(shown)


def _workers(running: list[RunningAttempt]) -> str:
    header = ["task", "worker", "device", "dataset", "model", "epoch", "train", "validation", "for", "heartbeat"]
    rows = []
    for a in running:
        row: list[Any] = [a.task[:8], f"{a.host}:{a.pid}", a.device, a.dataset, a.model.rpartition("/")[2]]
        row += [f"{a.epoch or 0}/{a.epoch_limit}", number(a.train_loss, 3), number(a.validation_loss, 3)]
        rows.append([*row, duration(a.seconds), f"{duration(a.heartbeat_age)} ago"])
    return format_table(header, rows, left=("task",), width=fit_width())


def _eta(states: dict[str, int], running: list[RunningAttempt], pace: Pace, lease: float) -> float | None:
    """Return the seconds until all is done, if the workers that are alive go on as before; None where none is."""
    alive = [attempt for attempt in running if attempt.heartbeat_age <= lease]
    totals = [total for attempt in alive if (total := _expected(attempt, pace)) is not None]
    if not alive or len(totals) < len(alive):
        return None
    left = [max(total - attempt.seconds, 0.0) for total, attempt in zip(totals, alive, strict=True)]
    # What runs now says more about what comes than what was done before, which may have been of another kind.
    waiting = (states["pending"] + states["scheduled"]) * sum(totals) / len(totals)
    return max((sum(left) + waiting) / len(alive), *left)


def _expected(attempt: RunningAttempt, pace: Pace) -> float | None:
    """Return the seconds that an attempt takes in all, judged by its epochs, or else by what was finished before."""
    if attempt.epoch:
        return attempt.seconds * attempt.epoch_limit / attempt.epoch
    return None if pace.mean_seconds is None else max(pace.mean_seconds, attempt.seconds)


def _advice(states: dict[str, int], running: list[RunningAttempt]) -> list[str]:
    advice = []
    if states["error"]:
        advice.append("To see what went wrong, run: synicix-run errors")
    if not running and states["pending"] + states["scheduled"]:
        advice.append("Nobody is training. To start, run: synicix-run populate")
    elif not running and states["finished"]:
        advice.append("To see the results, run: synicix-run results")
    elif not sum(states.values()):
        advice.append("To add tasks, run: synicix-run add experiment.toml")
    return advice
