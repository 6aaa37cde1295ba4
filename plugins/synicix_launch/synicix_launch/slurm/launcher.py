"""Launch workers as an array job on Slurm."""

from __future__ import annotations

import getpass
import hashlib
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from synicix_core import Settings
from synicix_launch.contract import LaunchRequest, RenderedFile, Submission
from synicix_launch.devices import first_devices
from synicix_launch.errors import LaunchError
from synicix_launch.files import compare, keep
from synicix_launch.programs import run_program
from synicix_launch.slurm.options import SlurmOptions
from synicix_launch.slurm.script import edit_script, option_of
from synicix_launch.templates import read_template
from synicix_launch.values import seconds_of

__all__ = ["MARGIN_SECONDS", "Slurm"]

MARGIN_SECONDS = 30
"""How much earlier than the worker's grace period Slurm tells it that its time is up."""

_LOGS = "logs"
_HINT = "Run this where Slurm's programs are, on its login node."


class Slurm:
    """An array job with one worker in each element, as deploy/slurm has it."""

    options = SlurmOptions

    def slots(self, options: SlurmOptions, settings: Settings) -> int:
        """Return how many tasks an element of the array trains at once."""
        devices = len(first_devices(options.gpus, settings.worker.devices_per_task)) if options.gpus else 1
        return devices * (options.workers_per_device or 1)

    def render(self, request: LaunchRequest) -> tuple[RenderedFile, ...]:
        """Return the batch script."""
        options: SlurmOptions = request.options
        _check_database(request)
        shipped = "node" if (options.gpus or 1) > 1 else "worker"
        template, where = read_template(f"slurm/{shipped}.sbatch", options.script)
        sbatch = _sbatch_options(request)
        variables = _variables(request)
        script = edit_script(template, sbatch, variables, where)
        _check_time(script, options)
        # The same workers under the same name, however many there are: so one can tell that they are queued already.
        digest = hashlib.sha256(edit_script(script, {"array": "0"}, {}, where).encode()).hexdigest()[:8]
        throttle = f"%{options.at_once}" if options.at_once is not None else ""
        named = {"job-name": f"{options.name}-{digest}", "array": f"0-{request.workers - 1}{throttle}"}
        return (RenderedFile("synicix.sbatch", edit_script(script, named, {}, where)),)

    def warnings(self, request: LaunchRequest) -> list[str]:
        """Say which plugins the environment lacks."""
        missing = [name for name, version in request.needs.items() if not version]
        if not missing or request.options.image is not None:
            return []
        return [f"Pending tasks need {', '.join(missing)}, which is not installed here; workers leave them alone."]

    def diff(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> str:
        """Return how the script differs from the one that was submitted last."""
        return compare(request.folder, files)

    def submit(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> Submission:
        """Hand the script to sbatch, and keep it."""
        if request.database.password_in_variable_alone:
            raise LaunchError(
                "The workers could not log in to the database",
                why="its password stands in the variable DJ_PASS alone, which jobs do not get: Slurm would keep a copy of it",
                hint="Write it to .secrets/database.password beside the project's datajoint.json, readable by you alone, and "
                "unset DJ_PASS.",
            )
        project = request.settings.project_dir
        (file,) = files
        name = option_of(file.text, "job-name") or ""
        if not request.again:
            _check_queue(name)
        # Slurm ends a job whose log cannot be opened, and says so to nobody.
        try:
            (project / _LOGS).mkdir(exist_ok=True)
        except OSError as error:
            raise LaunchError("The logs have no place", where=str(project / _LOGS), why=error.strerror or "") from error
        with keep(request.folder, files):
            answer = run_program("sbatch", "--parsable", text=file.text, hint=_HINT, folder=project)
        job = answer.stdout.strip().partition(";")[0]
        log = project / _LOGS / f"{name}-{job}_0.log"
        return Submission(
            job=job,
            said=answer.stderr,
            follow=(
                ("its elements", f"squeue --job={job}"),
                ("the first one's log", f"tail -F {shlex.quote(str(log))}"),
                ("the training", "synicix-run status"),
                ("to end it", f"scancel {job}"),
            ),
        )


def _check_queue(name: str) -> None:
    """Refuse where the user's jobs of this name are queued or running."""
    # %F is the number of an array, by which all of it is ended; %A is another one in each element that has begun.
    arguments = ("--noheader", f"--user={getpass.getuser()}", f"--name={name}", "--format=%F")
    jobs = list(dict.fromkeys(run_program("squeue", *arguments, hint=_HINT).stdout.split()))
    if jobs:
        raise LaunchError(
            f"The same is queued or running already, as {'job' if len(jobs) == 1 else 'jobs'} {', '.join(jobs)}",
            why="another array would double its workers",
            hint=f"To end it, run: scancel {' '.join(jobs)}. To have more workers all the same, give --again.",
        )


def _check_database(request: LaunchRequest) -> None:
    if not request.database.is_local or request.options.here:
        return
    hint = "Where the jobs run on this very machine, give --here."
    if request.database.embedded:
        hint = (
            "Set up a server, configure it in datajoint.json and move the tables there with `synicix-run db export` and "
            f"`synicix-run db import`. {hint}"
        )
    raise LaunchError("Other nodes cannot reach the project's database", why=f"it is {request.database}", hint=hint)


def _sbatch_options(request: LaunchRequest) -> dict[str, str | None]:
    """Return the options that are said, as sbatch takes them; None removes one."""
    options: SlurmOptions = request.options
    said = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "time": _clock(options.time_limit) if options.time_limit is not None else None,
        "output": f"{_LOGS}/%x-%A_%a.log",
    }
    sbatch: dict[str, str | None] = {name: str(value) for name, value in said.items() if value is not None}
    if options.gpus is not None or options.gpu_type is not None:
        kind = f"{options.gpu_type}:" if options.gpu_type else ""
        sbatch["gres"] = None if options.gpus == 0 else f"gpu:{kind}{options.gpus or 1}"
    if request.grace_seconds is not None:
        sbatch["signal"] = f"TERM@{math.ceil(request.grace_seconds) + MARGIN_SECONDS}"
    return sbatch


def _variables(request: LaunchRequest) -> dict[str, str]:
    """Return what the body of the script needs to know."""
    options: SlurmOptions = request.options
    settings = request.settings
    # The schema may have come from a flag or a variable, which the job may not have.
    populate = [f"--schema={settings.schema_name}"]
    if request.grace_seconds is not None:
        populate.append(f"--grace={request.grace_seconds:g}")
    variables = {"SYNICIX_PROJECT": str(settings.project_dir)}
    devices = first_devices(options.gpus, settings.worker.devices_per_task) if options.gpus else []
    per_device = options.workers_per_device
    if len(devices) > 1 and settings.worker.devices_per_task > 1:
        populate.append(f"--devices={','.join(devices)}")
    elif len(devices) > 1:
        # Without it a job of several GPUs would use the first one.
        per_device = per_device or 1
    if options.gpus is not None or per_device is not None:
        variables["SYNICIX_WORKERS_PER_DEVICE"] = str(per_device or "")
    variables["SYNICIX_OPTIONS"] = shlex.join(populate)
    if options.image is not None:
        variables |= {"SYNICIX_IMAGE": str(options.image), "SYNICIX_BIND": ",".join(options.bind)}
    else:
        variables["SYNICIX_VENV"] = str(options.venv or _this_environment())
    if options.modules:
        variables["SYNICIX_MODULES"] = " ".join(options.modules)
    return variables


def _this_environment() -> Path | str:
    """Return the environment that this command runs in, or nothing where its programs are not in one."""
    here = Path(sys.prefix)
    return here if (here / "bin" / "synicix-run").exists() else ""


def _check_time(script: str, options: SlurmOptions) -> None:
    """Refuse a time limit within which a worker is told at once that its time is up."""
    signal = (option_of(script, "signal") or "").partition("@")[2]
    if options.time_limit is None or not signal.isdecimal():
        return
    # Slurm may send the signal up to a minute early.
    if seconds_of(options.time_limit) <= int(signal) + 60:
        raise LaunchError(
            "The time limit is too short",
            why=f"workers are told to stop {signal} s before it, or up to a minute earlier",
            hint="Give more with --time-limit.",
        )


def _clock(time: str) -> str:
    minutes, seconds = divmod(seconds_of(time), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minutes:02}:{seconds:02}"
