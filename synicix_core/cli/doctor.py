"""`synicix-run doctor`: look at everything that training needs, and say what to do about what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.wording import count, duration

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.settings import Settings

__all__ = ["doctor"]

_LEAST_FREE = 1 << 30  # bytes
_DEVICE = (
    "from synicix_core.runner.device import use_device; import torch; "
    "device, name = use_device('auto', 0); print(device, name, torch.__version__, sep='|')"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : str
        What it is.
    outcome : {"ok", "warn", "fail"}
        Whether it is in order.
    text : str
        What was found.
    advice : str
        What to do about it.
    """

    check: str
    outcome: str
    text: str
    advice: str = ""


@click.command(cls=Command)
@json_option
@pass_place
def doctor(place: Place, as_json: bool) -> None:
    """Find out what keeps tasks from training.

    Looks at plugins, device, project, disk, database, the user's privileges, directories, dataset files, pending tasks and
    claims. Ends with 1 if something fails.
    """
    findings = []
    for finding in _examine(place):
        findings.append(finding)
        if not as_json:
            _say(finding)
    broken = any(finding.outcome == "fail" for finding in findings)
    if as_json:
        print_json({"ok": not broken, "checks": [vars(finding) for finding in findings]})
    if broken:
        click.get_current_context().exit(1)


def _say(finding: Finding) -> None:
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.outcome]
    click.echo(f"{click.style(f'{finding.outcome:<4}', fg=colour)}  {finding.check}: {finding.text}")
    if finding.advice:
        for line in finding.advice.splitlines():
            click.echo(f"      {line}")


def _examine(place: Place) -> Iterator[Finding]:
    yield from _plugins()
    device = _guarded("device", _device)
    yield device
    settings: list[Settings] = []
    yield _guarded("project", lambda: _project(place, settings))
    if not settings:
        return
    yield _guarded("disk", lambda: _disk(settings[0]))
    pipelines: list[Pipeline] = []
    yield _guarded("database", lambda: _database(place, pipelines))
    if not pipelines:
        return
    pipeline = pipelines[0]
    privileges = _guarded("privileges", lambda: _permitted(pipeline))
    yield privileges
    directories = _guarded("directories", lambda: _writable(pipeline))
    yield directories
    yield _guarded("datasets", lambda: _datasets(pipeline))
    obstacles = [finding.check for finding in (device, privileges, directories) if finding.outcome == "fail"]
    yield _guarded("tasks", lambda: _trainable(pipeline, obstacles))
    yield _guarded("claims", lambda: _claims(pipeline))


def _guarded(check: str, look: Callable[[], Finding]) -> Finding:
    from synicix_core.errors import SynicixError

    try:
        return look()
    except SynicixError as error:
        head = SynicixError(error.what, where=error.where, why=error.why)
        return Finding(check, "fail", str(head), error.hint)
    except Exception as error:  # a check that breaks is a finding, too, and the others go on
        return Finding(check, "fail", f"{type(error).__name__}: {error}")


def _plugins() -> Iterator[Finding]:
    from synicix_core.registry import get_registry

    registry = get_registry()
    names = dict.fromkeys(f"{plugin.distribution} {plugin.version}" for plugin in registry.plugins)
    yield Finding("plugins", "ok", ", ".join(names))
    for problem in registry.problems:
        advice = f"Repair it, or run: pip uninstall {problem.distribution}"
        yield Finding("plugin", "warn", str(problem), advice)


def _device() -> Finding:
    # In a process of its own: torch takes seconds, and a broken CUDA may take the process down.
    found = subprocess.run([sys.executable, "-c", _DEVICE], capture_output=True, text=True, timeout=300, check=False)
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Finding("device", "fail", f"torch does not work: {last}", "Install torch for this machine anew.")
    device, name, version = found.stdout.strip().splitlines()[-1].split("|")
    if device == "cpu":
        return Finding("device", "ok", f"no GPU was found; training runs on the CPU (torch {version})")
    return Finding("device", "ok", f"{device}, {name} (torch {version})")


def _project(place: Place, settings: list[Settings]) -> Finding:
    settings.append(place.settings())
    return Finding("project", "ok", str(settings[0].project_dir))


def _disk(settings: Settings) -> Finding:
    folders = {settings.project_dir, settings.model_save_dir, settings.dataset_cache_dir}
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in folders}
    folder, least = min(free.items(), key=lambda item: item[1])
    text = f"{least / 1e9:.1f} GB free ({folder})"
    if least < _LEAST_FREE:
        return Finding("disk", "warn", text, "Make room, or set model_save_dir or dataset_cache_dir to another disk.")
    return Finding("disk", "ok", text)


def _existing(folder: Any) -> Any:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _database(place: Place, pipelines: list[Pipeline]) -> Finding:
    pipeline = place.pipeline()
    pipelines.append(pipeline)
    from synicix_core.database import configured_server, execute

    server = configured_server(pipeline.settings.project_dir)
    version = str(execute(pipeline.connection, "SELECT version()").fetchone()[0]).partition(" on ")[0]
    where = f"{server}, version {version}" if server else f"{version} inside the project"
    return Finding("database", "ok", f"{where}, schema {pipeline.schema_name}")


def _permitted(pipeline: Pipeline) -> Finding:
    from synicix_core.tables.privileges import prove_permitted

    prove_permitted(pipeline.tables)
    user = pipeline.connection.conn_info["user"]
    return Finding("privileges", "ok", f"user {user} may write what a worker writes")


def _writable(pipeline: Pipeline) -> Finding:
    from synicix_core.runner.preflight import prove_writable

    prove_writable(pipeline.settings, pipeline.connection)
    return Finding("directories", "ok", "models, cache and histories can be written")


def _datasets(pipeline: Pipeline) -> Finding:
    from synicix_core.runner.capability import find_missing_datasets

    settings = pipeline.settings
    if not settings.dataset_dir.is_dir():
        advice = "Make it, or set dataset_dir in synicix.toml."
        return Finding("datasets", "fail", f"dataset_dir is no directory: {settings.dataset_dir}", advice)
    names = {str(name) for name in pipeline.DatasetConfig().to_arrays("dataset_file_name")}
    _, missing = find_missing_datasets(pipeline.tables, settings)
    if missing:
        listed = _first(list(missing), ", ", " and ")
        advice = f"Put them below {settings.dataset_dir}; until then their tasks are left to other machines."
        return Finding("datasets", "warn", f"{len(missing)} of {len(names)} files are missing here: {listed}", advice)
    return Finding("datasets", "ok", f"{count(len(names), 'file')} that configs name, all there")


def _trainable(pipeline: Pipeline, obstacles: Sequence[str]) -> Finding:
    from synicix_core.runner.capability import find_exclusions, find_missing_datasets

    pending = pipeline.queue.waiting()
    if not pending:
        return Finding("tasks", "ok", count(pending, "pending task"))
    exclusions, reasons = find_exclusions(pipeline.tables, pipeline.registry)
    with_plugins = pipeline.queue.waiting(exclusions=exclusions)
    configs, missing = find_missing_datasets(pipeline.tables, pipeline.settings)
    possible = pipeline.queue.waiting(exclusions=replace(exclusions, dataset_configs=configs))
    advice = list(reasons) if pending > with_plugins else []
    if with_plugins > possible:
        advice.append(_first(list(dict.fromkeys(map(str, missing.values()))), "\n", "\n"))
    if obstacles:
        possible = 0
        advice.insert(0, f"First see to what failed above: {', '.join(obstacles)}.")
    if pending > possible:
        outcome = "warn" if possible else "fail"
        text = f"{pending - possible:,} of {count(pending, 'pending task')} cannot be trained here"
        return Finding("tasks", outcome, text, "\n".join(advice))
    return Finding("tasks", "ok", f"{count(pending, 'pending task')}, all can be trained here")


def _first(texts: Sequence[str], separator: str, before_rest: str, number: int = 5) -> str:
    rest = len(texts) - number
    return separator.join(texts[:number]) + (f"{before_rest}{rest:,} more" if rest > 0 else "")


def _claims(pipeline: Pipeline) -> Finding:
    from synicix_core.tables.overview import foreign_reservations, running_attempts

    foreign = foreign_reservations(pipeline.tables)
    if foreign:
        jobs = [f"{item.task[:8]} ({item.host or 'unknown host'}, pid {item.pid})" for item in foreign]
        listed = _first(jobs, ", ", " and ")
        text = f"{count(len(foreign), 'job')} reserved by something other than a worker: {listed}"
        advice = "Workers leave these alone. If nobody trains them, delete their rows of TrainingResult.jobs."
        return Finding("claims", "warn", text, advice)
    running = running_attempts(pipeline.tables)
    lease = pipeline.settings.worker.lease_seconds
    silent = [attempt for attempt in running if attempt.heartbeat_age > lease]
    if silent:
        oldest = duration(max(attempt.heartbeat_age for attempt in silent))
        text = f"{count(len(silent), 'claim')} without a heartbeat for up to {oldest}"
        return Finding(
            "claims", "warn", text, "The next worker takes them back; to start one, run: synicix-run populate"
        )
    return Finding("claims", "ok", f"{count(len(running), 'task')} being trained")
