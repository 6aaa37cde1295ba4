"""`synicix-run populate`: one worker in this process, or several as programs of their own, until nothing is pending."""

from __future__ import annotations

import dataclasses
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from synicix_core.cli.device_sets import find_overlap
from synicix_core.cli.json_output import print_json
from synicix_core.cli.profile_option import profile_option, profile_path
from synicix_core.cli.project import Command, Place, json_option, pass_place, where_option
from synicix_core.cli.wording import count, duration
from synicix_core.runner.options import EXIT_INTERRUPTED, EXIT_MISCONFIGURED

if TYPE_CHECKING:
    from synicix_core.errors import SynicixError
    from synicix_core.pipeline import Pipeline
    from synicix_core.runner.display import WorkerDisplay
    from synicix_core.runner.fleet_link import FleetLink
    from synicix_core.runner.fleet_outcome import FleetSummary
    from synicix_core.runner.options import WorkerOptions, WorkerSummary
    from synicix_core.settings import Settings

__all__ = ["populate"]


_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Number(click.FloatRange):
    """A number in a range; not NaN, which no comparison keeps out, nor an infinite one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_SECONDS = _Number(min=0, min_open=True)


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


def _fuse(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | int | None:
    """Check the value of --fuse here, so that the message names the option."""
    from synicix_core.errors import ConfigurationError
    from synicix_core.settings import WorkerSettings

    try:
        return None if value is None else WorkerSettings().with_fuse(value).fuse
    except ConfigurationError as error:
        raise click.BadParameter(error.why.partition(": ")[2]) from None


@click.command(cls=WorkerCommand)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda:0, …; auto takes a GPU where there is one."
)
@click.option("--workers", type=click.IntRange(min=1), help="So many workers, each a process of its own.")
@click.option("--devices", metavar="DEVICE,...", help="A worker on each of these: cuda:0,cuda:1.")
@click.option("--workers-per-device", type=click.IntRange(min=1), help="So many workers on each device.")
@click.option(
    "--order",
    type=click.Choice(["original", "random"]),
    default="original",
    show_default=True,
    help="By priority and age, or at random within the highest priority.",
)
@click.option("--max-tasks", type=click.IntRange(min=1), help="Stop after so many tasks, of all workers together.")
@click.option("--max-seconds", type=_SECONDS, help="Start no task after this time.")
@click.option("--wait", is_flag=True, help="Stay when nothing is pending, for tasks that come later.")
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
@click.option("--checkpoint-seconds", "worker_checkpoint_seconds", type=_SECONDS, help="Seconds between checkpoints.")
@click.option(
    "--checkpoint-epochs",
    "worker_checkpoint_epochs",
    type=click.IntRange(min=0),
    help="A checkpoint after so many epochs, too; 0: by time alone.",
)
@click.option(
    "--fuse",
    "worker_fuse",
    metavar="auto|off|N",
    callback=_fuse,
    help="Train tasks that are alike as one: so many, or as measured.",
)
@click.option(
    "--devices-per-task", "worker_devices_per_task", type=click.IntRange(min=1), help="Train each task on so many GPUs."
)
@click.option("--threads", "worker_threads", type=click.IntRange(min=0), help="CPU threads; 0 leaves them to torch.")
@click.option(
    "--resident-share",
    "worker_resident_share",
    type=_Number(0.0, 0.9),
    help="Datasets up to this share of free memory stay on the device.",
)
@click.option("--num-workers", type=click.IntRange(min=0), help="Data-loading processes.")
@click.option("--dataset-dir", type=_FOLDER, help="Where the dataset files lie.")
@click.option("--dataset-cache-dir", type=_FOLDER, help="Where copies of them are kept on this machine.")
@click.option(
    "--max-cache-bytes", type=click.IntRange(min=0), help="Size to which these copies are kept; 0 is no limit."
)
@click.option("--model-save-dir", type=_FOLDER, help="Where trained models are saved.")
@profile_option
@click.option("--report-fds", type=int, nargs=3, hidden=True)
@click.option("--of-workers", type=int, default=1, hidden=True)
@json_option
@pass_place
def populate(
    place: Place,
    /,
    device: str,
    workers: int | None,
    devices: str | None,
    workers_per_device: int | None,
    order: str,
    max_tasks: int | None,
    max_seconds: float | None,
    wait: bool,
    conditions: tuple[str, ...],
    profile: str | None,
    report_fds: tuple[int, int, int] | None,
    of_workers: int,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train what is pending, until nothing is.

    Any number of these may run at once, on any machines that reach the database; --workers and --devices start several on
    this machine. Ctrl-C or SIGTERM finishes the step, saves a checkpoint and gives the task back; a second one ends at once.

    Ends with 0 when nothing is pending, 75 when it was interrupted with work left, 78 when the configuration is broken.
    """
    from synicix_core.cli.fleet import plan_workers, run_fleet, worker_command
    from synicix_core.errors import ConfigurationError
    from synicix_core.runner.options import WorkerOptions

    ctx = click.get_current_context()
    try:
        given = ctx.get_parameter_source("device") is ParameterSource.COMMANDLINE
        planned = plan_workers(workers, devices, workers_per_device, device, device_given=given)
        profile_file = profile_path(profile, workers=len(planned))
    except ValueError as error:
        raise _MistakenFlag(str(error), ctx) from None
    begun = time.monotonic()
    if planned:
        with _exit_code(ctx, ConfigurationError, EXIT_MISCONFIGURED):
            settings = place.settings(**overrides)
        if overlap := find_overlap([on for _, on in planned], settings.worker.devices_per_task):
            raise _MistakenFlag(overlap, ctx)
        fleet = run_fleet(worker_command(ctx, place), planned, settings, max_tasks, max_seconds)
        _finish(ctx, fleet, begun, as_json=as_json, by=f" by {count(len(planned), 'worker')}")
    options = WorkerOptions(
        order=order,
        device=device,
        max_tasks=max_tasks,
        max_seconds=max_seconds,
        wait=wait,
        workers=of_workers,
        profile=profile_file,
        owns_process=True,
    )
    if report_fds is not None:
        _run_in_fleet(ctx, place, report_fds, options, conditions, overrides)
    _finish(ctx, _run(ctx, place, options, conditions, overrides), begun, as_json=as_json)


def _finish(
    ctx: click.Context, summary: WorkerSummary | FleetSummary, begun: float, *, as_json: bool, by: str = ""
) -> NoReturn:
    """Say what was done, and end with the exit code on which schedulers act."""
    seconds = time.monotonic() - begun
    if as_json:
        errors = [{**key, "error": message} for key, message in summary.error_list]
        print_json(dataclasses.asdict(summary) | {"error_list": errors, "seconds": seconds})
    else:
        click.echo(_sentence(summary, seconds, by))
    ctx.exit(summary.exit_code)


def _run(
    ctx: click.Context,
    place: Place,
    options: WorkerOptions,
    conditions: tuple[str, ...],
    overrides: dict[str, Any],
    link: FleetLink | None = None,
) -> WorkerSummary:
    """Run one worker in this process; whatever keeps it from working ends the command."""
    from synicix_core.errors import ConfigurationError, DatabaseUnavailable

    with (
        _exit_code(ctx, ConfigurationError, EXIT_MISCONFIGURED, link),
        _exit_code(ctx, DatabaseUnavailable, EXIT_INTERRUPTED, link),
        _interruptible(),
    ):
        try:
            settings = place.settings(**overrides)
            pipeline = _connect(place, settings, overrides, link)
            from synicix_core.cli.where import task_restriction

            options = dataclasses.replace(options, restriction=task_restriction(pipeline, conditions))
            return pipeline.run_worker(options, link or _display(options.max_tasks))
        except KeyboardInterrupt:
            # Before the worker listens to signals itself nothing is claimed, so there is nothing to give back.
            if link is None:
                click.echo("Interrupted before the first task.", err=True)
            else:
                link.ended(exit_code=EXIT_INTERRUPTED, reason="interrupted before the first task")
            ctx.exit(EXIT_INTERRUPTED)


def _run_in_fleet(
    ctx: click.Context,
    place: Place,
    report_fds: tuple[int, int, int],
    options: WorkerOptions,
    conditions: tuple[str, ...],
    overrides: dict[str, Any],
) -> NoReturn:
    """Run one worker of the fleet that started this process, and report to it instead of printing."""
    from synicix_core.runner.fleet_link import FleetLink

    link = FleetLink(*report_fds)
    try:
        if options.max_tasks is not None:
            # The fleet counts the tasks of all its workers.
            options = dataclasses.replace(
                options,
                max_tasks=None,
                may_start=link.may_start,
                may_start_more=link.may_start_more,
                returned=link.returned,
            )
        summary = _run(ctx, place, options, conditions, overrides, link)
        link.ended(**dataclasses.asdict(summary), machine=False)
    finally:
        link.flush()
    ctx.exit(summary.exit_code)


@contextmanager
def _exit_code(
    ctx: click.Context, error_class: type[SynicixError], code: int, link: FleetLink | None = None
) -> Iterator[None]:
    """Have an error of `error_class` end the command with `code`, on which schedulers act."""
    from synicix_core.cli.failure import report

    try:
        yield
    except error_class as error:
        if link is None:
            report(error, verbose=ctx.ensure_object(Place).verbose)
        else:
            link.message(f"Error: {error}")
            link.ended(exit_code=code, reason=error.what, machine=True)
        ctx.exit(code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn a signal into a KeyboardInterrupt, except where the worker itself listens to signals."""

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _connect(place: Place, settings: Settings, overrides: dict[str, Any], link: FleetLink | None) -> Pipeline:
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
                text = f"{error} It is tried again for {wait}; Ctrl-C stops that."
                if link is None:
                    click.echo(text, err=True)
                else:
                    link.message(text)
                told = True
            time.sleep(1)


def _display(max_tasks: int | None) -> WorkerDisplay:
    from synicix_core.cli.live import Live, Once, can_redraw
    from synicix_core.runner.lines import Lines

    return Once(Live(sys.stderr, max_tasks) if can_redraw(sys.stderr) else Lines())


def _sentence(summary: WorkerSummary | FleetSummary, seconds: float, by: str) -> str:
    trained = f"{count(summary.success_count, 'task')} trained"
    failed = (
        f", {len(summary.error_list):,} ended in error (synicix-run errors shows why)" if summary.error_list else ""
    )
    reason = summary.reason.rstrip(".")
    return f"{trained}{failed} in {duration(seconds)}{by}: {reason}."
