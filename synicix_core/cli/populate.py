"""`synicix-run populate`: one worker, in this process, until nothing is pending."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place, where_option
from synicix_core.cli.wording import count, duration

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.runner.display import WorkerDisplay
    from synicix_core.runner.supervisor import WorkerSummary
    from synicix_core.settings import Settings

__all__ = ["populate"]

EXIT_INTERRUPTED = 75
EXIT_MISCONFIGURED = 78

_FOLDER = click.Path(file_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0, min_open=True)


class _MistakenFlag(click.UsageError):
    exit_code = EXIT_MISCONFIGURED


class WorkerCommand(Command):
    """A command whose mistakes in flags count as broken configuration, which is what schedulers are told."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _MistakenFlag(error.format_message(), error.ctx) from None


@click.command(cls=WorkerCommand)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda:0, …; auto takes a GPU where there is one."
)
@click.option(
    "--order",
    type=click.Choice(["original", "random"]),
    default="original",
    show_default=True,
    help="By priority and age, or at random within the highest priority.",
)
@click.option("--max-tasks", type=click.IntRange(min=1), help="Stop after so many tasks.")
@click.option("--max-seconds", type=_SECONDS, help="Start no task after this time.")
@where_option
@click.option("--grace", "worker_grace_seconds", type=_SECONDS, help="Seconds to stop in after a signal.")
@click.option(
    "--stall-timeout", "worker_stall_timeout_seconds", type=_SECONDS, help="Seconds without progress: it hangs."
)
@click.option("--db-timeout", "worker_db_timeout_seconds", type=_SECONDS, help="Seconds to wait for a lost database.")
@click.option("--lease", "worker_lease_seconds", type=_SECONDS, help="Seconds without heartbeat until a claim expires.")
@click.option("--heartbeat", "worker_heartbeat_seconds", type=_SECONDS, help="Seconds between heartbeats.")
@click.option("--retry-delay", "worker_retry_seconds", type=_SECONDS, help="Seconds before a second attempt.")
@click.option("--max-attempts", "worker_max_attempts", type=click.IntRange(min=1), help="Attempts at a task.")
@click.option("--threads", "worker_threads", type=click.IntRange(min=0), help="CPU threads; 0 leaves them to torch.")
@click.option("--num-workers", type=click.IntRange(min=0), help="Data-loading processes.")
@click.option("--dataset-dir", type=_FOLDER, help="Where the dataset files lie.")
@click.option("--dataset-cache-dir", type=_FOLDER, help="Where copies of them are kept on this machine.")
@click.option("--model-save-dir", type=_FOLDER, help="Where trained models are saved.")
@json_option
@pass_place
def populate(
    place: Place,
    /,
    device: str,
    order: str,
    max_tasks: int | None,
    max_seconds: float | None,
    conditions: tuple[str, ...],
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train what is pending, until nothing is.

    Any number of these may run at once, on any machines that reach the database. Ctrl-C or SIGTERM finishes the step,
    saves a checkpoint and gives the task back; a second one ends at once.

    Ends with 0 when nothing is pending, 75 when it was interrupted with work left, 78 when the configuration is broken.
    """
    from synicix_core.errors import ConfigurationError, DatabaseUnavailable

    ctx = click.get_current_context()
    begun = time.monotonic()
    with (
        _exit_code(ctx, ConfigurationError, EXIT_MISCONFIGURED),
        _exit_code(ctx, DatabaseUnavailable, EXIT_INTERRUPTED),
    ):
        try:
            with _interruptible():
                settings = place.settings(**overrides)
                pipeline = _connect(place, settings, overrides)
                from synicix_core.cli.where import task_restriction
                from synicix_core.runner.supervisor import WorkerOptions

                options = WorkerOptions(
                    restriction=task_restriction(pipeline, conditions),
                    order=order,
                    device=device,
                    max_tasks=max_tasks,
                    max_seconds=max_seconds,
                )
            summary = pipeline.run_worker(options, _display(max_tasks))
        except KeyboardInterrupt:
            # Before the worker listens to signals itself nothing is claimed, so there is nothing to give back.
            click.echo("Interrupted before the first task.", err=True)
            ctx.exit(EXIT_INTERRUPTED)
    if as_json:
        print_json(
            dataclasses.asdict(summary)
            | {"error_list": [{**key, "error": message} for key, message in summary.error_list]}
            | {"seconds": time.monotonic() - begun}
        )
    else:
        click.echo(_sentence(summary, time.monotonic() - begun))
    ctx.exit(summary.exit_code)


@contextmanager
def _exit_code(ctx: click.Context, error_class: type[Exception], code: int) -> Iterator[None]:
    """Have an error of `error_class` end the command with `code`, on which schedulers act."""
    from synicix_core.cli.failure import report

    try:
        yield
    except error_class as error:
        report(error, verbose=ctx.ensure_object(Place).verbose)
        ctx.exit(code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn a SIGTERM that comes while the command is still starting into a KeyboardInterrupt."""

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _connect(place: Place, settings: Settings, overrides: dict[str, Any]) -> Pipeline:
    """Connect, and wait for a configured server that is away for as long as a worker waits later."""
    from synicix_core.database.quiet import quiet
    from synicix_core.errors import DatabaseUnavailable

    with quiet():
        from synicix_core.database import configured_server
    server = configured_server(settings.project_dir)
    deadline = time.monotonic() + (settings.worker.db_timeout_seconds if server is not None else 0.0)
    told = False
    while True:
        try:
            return place.pipeline(**overrides)
        except DatabaseUnavailable as error:
            if time.monotonic() + 1 >= deadline:
                raise
            if not told:
                wait = duration(settings.worker.db_timeout_seconds)
                click.echo(f"{error} It is tried again for {wait}; Ctrl-C stops that.", err=True)
                told = True
            time.sleep(1)


def _display(max_tasks: int | None) -> WorkerDisplay:
    from synicix_core.cli.live import Live, Once, can_redraw
    from synicix_core.runner.lines import Lines

    return Once(Live(sys.stderr, max_tasks) if can_redraw(sys.stderr) else Lines())


def _sentence(summary: WorkerSummary, seconds: float) -> str:
    trained = f"{count(summary.success_count, 'task')} trained"
    failed = (
        f", {len(summary.error_list):,} ended in error (synicix-run errors shows why)" if summary.error_list else ""
    )
    reason = summary.reason.rstrip(".")
    return f"{trained}{failed} in {duration(seconds)}: {reason}."
