"""One launch, from flags and settings to what the scheduler says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from synicix_core import Place, Settings
from synicix_launch.contract import Launcher, LaunchRequest, RenderedFile, Submission
from synicix_launch.database import Database, find_database
from synicix_launch.files import keep, write
from synicix_launch.launchers import OURS, Installed
from synicix_launch.pending import Pending, look
from synicix_launch.reading import CommonOptions, read

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["launch"]


@dataclass(frozen=True)
class _Action:
    """What is to be done with the files."""

    output: Path | None
    diff: bool
    submit: bool
    again: bool
    as_json: bool


def launch(place: Place, installed: Installed, flags: Mapping[str, Any]) -> None:
    """Render what a launcher makes of the project, and print, compare, write or submit it.

    Parameters
    ----------
    place : Place
        Which project.
    installed : Installed
        The launcher.
    flags : mapping
        All flags by name; None where not given.

    Raises
    ------
    LaunchError
        If flags, settings or the project do not allow it, or the scheduler's program is missing.
    SchedulerError
        If the scheduler refuses.
    """
    own = dict(flags)
    action = _Action(**{name: own.pop(name) for name in ("output", "diff", "submit", "again", "as_json")})
    if action.diff and action.submit:
        raise click.UsageError("--diff and --submit exclude each other: look at the difference first, then submit.")
    if action.again and not action.submit:
        raise click.UsageError("--again is about submitting: give --submit, too.")
    settings = place.settings()
    launcher, declared = installed.load()
    common, options = read(installed, declared, launcher.options, own, settings)
    found = look(place.pipeline())
    if not found.pending:
        _say_nothing_pending(installed, found, action)
        return
    request = _request(installed, launcher, common, options, found, settings, action)
    files = tuple(launcher.render(request))
    warnings = [*_warnings(request), *launcher.warnings(request)]
    _act(launcher, installed, request, files, warnings, action)


def _request(
    installed: Installed,
    launcher: Launcher,
    common: CommonOptions,
    options: Any,
    found: Pending,
    settings: Settings,
    action: _Action,
) -> LaunchRequest:
    folder = installed.name if installed.distribution == OURS else f"{installed.distribution}-{installed.name}"
    return LaunchRequest(
        settings=settings,
        options=options,
        workers=_workers(common, options, found, settings, launcher),
        grace_seconds=_grace_seconds(common, settings),
        pending=found.pending,
        needs=found.needs,
        database=find_database(settings),
        folder=(action.output or settings.project_dir / ".synicix" / "launch" / folder).absolute(),
        again=action.again,
    )


def _workers(common: CommonOptions, options: Any, found: Pending, settings: Settings, launcher: Launcher) -> int:
    """Return how many workers to start: as many as have something to do, unless somebody said otherwise."""
    if common.workers is not None:
        return common.workers
    # A launcher whose workers train several tasks at once may say how many.
    slots = getattr(launcher, "slots", None)
    at_once = max(1, slots(options, settings)) if slots is not None else 1
    return min(math.ceil(found.pending / at_once), common.max_workers)


def _grace_seconds(common: CommonOptions, settings: Settings) -> float | None:
    """Return the grace period that somebody chose; the default is for a person at a terminal, and schedulers allow more."""
    worker = settings.worker
    if common.grace is not None or worker.grace_seconds == type(worker)().grace_seconds:
        return common.grace
    return worker.grace_seconds


def _warnings(request: LaunchRequest) -> list[str]:
    """Return what is worth knowing whatever the scheduler is."""
    warnings = []
    if request.workers > request.pending:
        warnings.append(
            f"There are more workers ({request.workers}) than pending tasks ({request.pending}); those without a task end at once."
        )
    return warnings + _password_warnings(request.database)


def _password_warnings(database: Database) -> list[str]:
    """Return which places of the password show it to others, and where it belongs."""
    if database.password_in_secrets:
        instead = f"It is in {database.password_in_secrets} already, so"
    else:
        instead = "Write it to .secrets/database.password beside datajoint.json, readable by you alone, and"
    warnings = []
    if database.password_in_variable:
        warnings.append(
            "The password of the database stands in the variable DJ_PASS: all programs that are started here get it, and Slurm "
            f"keeps it with a job that you submit by sbatch. It is not in what is launched. {instead} unset DJ_PASS."
        )
    if database.password_in_config:
        warnings.append(
            f"The password of the database stands in {database.password_in_config}: it goes wherever that file goes, into "
            f"repositories and copies of the project. It is not in what is launched. {instead} remove it there."
        )
    return warnings


def _act(
    launcher: Launcher,
    installed: Installed,
    request: LaunchRequest,
    files: Sequence[RenderedFile],
    warnings: Sequence[str],
    action: _Action,
) -> None:
    said: dict[str, Any] = {"launcher": installed.qualified, "workers": request.workers, "pending": request.pending}
    said |= {
        "needs": dict(request.needs),
        "warnings": list(warnings),
        "files": {file.name: file.text for file in files},
    }
    if not action.as_json:
        click.echo(_headline(request), err=True)
        for warning in warnings:
            click.echo(f"Note: {warning}", err=True)
    if action.diff:
        difference = launcher.diff(request, files)
        said["diff"] = difference
        if not action.as_json:
            click.echo(difference, nl=False)
            if not difference:
                click.echo("There is no difference.", err=True)
    elif action.submit:
        submission = _submit(launcher, request, files, action)
        said["submitted"] = asdict(submission)
        if not action.as_json:
            _say_submitted(submission)
    elif action.output is None and not action.as_json:
        click.echo("\n---\n".join(file.text.rstrip("\n") for file in files))
        click.echo("Nothing was submitted. To submit it, give --submit.", err=True)
    if action.output is not None and not action.diff:
        paths = [request.folder / file.name for file in files] if action.submit else write(request.folder, files)
        said["written"] = [str(path) for path in paths]
        if not action.as_json:
            click.echo("".join(f"Wrote {path}\n" for path in said["written"]), err=True, nl=False)
    if action.as_json:
        click.echo(json.dumps(said, indent=2))


def _submit(launcher: Launcher, request: LaunchRequest, files: Sequence[RenderedFile], action: _Action) -> Submission:
    if action.output is None:
        return launcher.submit(request, files)
    with keep(request.folder, files, hint="Nothing was submitted. Name another folder with --output."):
        return launcher.submit(request, files)


def _headline(request: LaunchRequest) -> str:
    workers = "1 worker" if request.workers == 1 else f"{request.workers:,} workers"
    tasks = "1 pending task" if request.pending == 1 else f"{request.pending:,} pending tasks"
    needs = ", ".join(f"{name} {version or '(not installed here)'}" for name, version in request.needs.items())
    return f"{workers} for {tasks}" + (f", which need {needs}." if needs else ", which need no plugin.")


def _say_submitted(submission: Submission) -> None:
    if submission.said:
        click.echo(submission.said.rstrip())
    click.echo(f"Submitted: {submission.job}")
    width = max((len(what) for what, _ in submission.follow), default=0)
    for what, command in submission.follow:
        click.echo(f"  {what + ':':<{width + 1}} {command}")


def _say_nothing_pending(installed: Installed, found: Pending, action: _Action) -> None:
    if action.as_json:
        said: dict[str, Any] = {"launcher": installed.qualified, "workers": 0, "pending": 0, "running": found.running}
        click.echo(json.dumps(said | {"needs": {}, "warnings": [], "files": {}}, indent=2))
        return
    held = f" {found.running:,} {'is' if found.running == 1 else 'are'} being trained." if found.running else ""
    click.echo(
        f"Nothing is pending, so nothing is launched.{held} To see all tasks, run: synicix-run status. To add some, run: "
        "synicix-run add experiment.toml"
    )
