"""`populate` with several workers: which the flags ask for, how each is started, and who shows their progress."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from synicix_core.cli.project import Place
from synicix_core.cli.wording import count
from synicix_core.runner.fleet_gpus import visible_gpus

if TYPE_CHECKING:
    from synicix_core.runner.fleet_outcome import FleetSummary
    from synicix_core.settings import Settings

__all__ = ["plan_workers", "run_fleet", "too_many_threads", "worker_command"]

_KINDS = ("auto", "cpu", "cuda", "mps", "xpu")
# What the fleet itself sees to, or tells each worker separately.
_OWN = {"workers", "devices", "workers_per_device", "device", "max_seconds", "as_json", "report_fds", "of_workers"}


def plan_workers(
    workers: int | None,
    devices: str | None,
    per_device: int | None,
    device: str,
    *,
    device_given: bool,
    visible: Callable[[], Sequence[str]] = visible_gpus,
) -> tuple[tuple[str, str], ...]:
    """Return the name and the device of each worker of the fleet that the flags ask for; none without such flags.

    Parameters
    ----------
    workers, devices, per_device
        The values of ``--workers``, ``--devices`` and ``--workers-per-device``.
    device : str
        That of ``--device``.
    device_given : bool
        Whether somebody typed it.
    visible : callable
        Returns the GPUs of this machine: without ``--devices`` and ``--device``, ``--workers-per-device`` means these.

    Raises
    ------
    ValueError
        If they contradict each other; the message says what to type.
    """
    if devices is None and per_device is not None and not device_given and (gpus := visible()):
        devices = ",".join(gpus)
        if workers is not None and workers != len(gpus) * per_device:
            raise ValueError(
                f"--workers {workers} contradicts --workers-per-device {per_device}: this machine has "
                f"{count(len(gpus), 'GPU')}, which makes {count(len(gpus) * per_device, 'worker')}. Give one of the two."
            )
    if devices is None:
        number = _agreed(workers, per_device, "--workers-per-device without --devices")
        return tuple((str(place), device) for place in range(1, number + 1))
    if device_given:
        raise ValueError("--device and --devices exclude each other: name all devices in --devices.")
    named = _split(devices)
    each = per_device or 1
    if workers is not None and workers != len(named) * each:
        fitting = f" Or use --workers-per-device {workers // len(named)}." if workers % len(named) == 0 else ""
        raise ValueError(
            f"--workers {workers} does not fit --devices {devices}, which asks for {count(len(named) * each, 'worker')}: "
            f"leave --workers out.{fitting}"
        )
    if each == 1:
        return tuple((name, name) for name in named)
    return tuple((f"{name} #{place}", name) for name in named for place in range(1, each + 1))


def worker_command(ctx: click.Context, place: Place) -> tuple[str, ...]:
    """Return the command that starts one worker with the same flags as this one was given."""
    words = [sys.executable, "-m", "synicix_core.cli", "populate"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(parameter, click.Option) or not given or name not in ctx.params or name in _OWN:
            continue
        option, value = max(parameter.opts, key=len), ctx.params[name]
        if parameter.is_flag:
            words += [option] if value else []
        else:
            words += [f"{option}={one}" for one in (value if parameter.multiple else [value])]
    # The options of every command may also stand in front of the command, so the context does not have them all.
    if place.directory is not None:
        words.append(f"--project={place.directory}")
    if place.schema_name is not None:
        words.append(f"--schema={place.schema_name}")
    if place.verbose:
        words.append("--verbose")
    return tuple(words)


def run_fleet(
    command: tuple[str, ...],
    workers: tuple[tuple[str, str], ...],
    settings: Settings,
    max_tasks: int | None,
    max_seconds: float | None,
) -> FleetSummary:
    """Run a fleet and show its progress.

    Parameters
    ----------
    command : tuple of str
        What starts one worker.
    workers : tuple of (name, device)
        The workers.
    settings : Settings
        Of the project.
    max_tasks, max_seconds : int, float or None
        When to stop although work is left.
    """
    from synicix_core.cli.fleet_display import FleetLines, FleetLive
    from synicix_core.cli.live import can_redraw
    from synicix_core.runner.fleet import Fleet, FleetOptions
    from synicix_core.runner.fleet_gpus import MultiProcessService

    names = tuple(name for name, _ in workers)
    display = FleetLive(sys.stderr, names, max_tasks) if can_redraw(sys.stderr) else FleetLines()
    gpus = MultiProcessService([device for _, device in workers], display.message)
    if hint := too_many_threads(workers, settings.worker.threads, settings.num_workers):
        display.message(hint)
    grace = settings.worker.grace_seconds
    options = FleetOptions(command, workers, max_tasks, max_seconds, grace, gpus.environment)
    return Fleet(options, display, afterwards=gpus.stop).run()


def too_many_threads(workers: tuple[tuple[str, str], ...], threads: int, loaders: int) -> str:
    """Return a sentence if the workers would compete for this machine's CPU cores; empty if they need not."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    on_cpu = sum(device in ("auto", "cpu") for _, device in workers)
    wanted = on_cpu * (threads or cores) + (len(workers) - on_cpu) + len(workers) * loaders
    if wanted <= cores or len(workers) == 1:
        return ""
    busy = f"{count(len(workers), 'worker')} may keep {wanted:,} CPU cores busy, and this machine has {cores:,}"
    return f"{busy}; fewer --workers, --threads or --num-workers may be faster."


def _agreed(workers: int | None, per_device: int | None, other: str) -> int:
    if workers is not None and per_device is not None and workers != per_device:
        raise ValueError(
            f"--workers {workers} contradicts {other}, which means {count(per_device, 'worker')}: give one."
        )
    return workers or per_device or 0


def _split(devices: str) -> list[str]:
    named = [name.strip() for name in devices.split(",")]
    wrong = [name for name in named if name.partition(":")[0] not in _KINDS]
    if wrong:
        raise ValueError(f"--devices {devices} names no device {wrong[0]!r}: write cuda:0,cuda:1 or cpu.")
    repeated = [name for name, times in Counter(named).items() if times > 1]
    if repeated:
        raise ValueError(
            f"--devices names {repeated[0]} twice: for several workers on each, use --workers-per-device 2."
        )
    return named
