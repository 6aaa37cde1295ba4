"""What can be said about an array job on Slurm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synicix_launch.options import option
from synicix_launch.values import at_least, duration, matches

__all__ = ["SlurmOptions"]

# What Slurm takes for a name, or several with commas between; nothing that its parser or a shell could read otherwise.
_name = matches(r"[\w.+-]+(,[\w.+-]+)*", "a name, or several with commas between")


@dataclass(frozen=True)
class SlurmOptions:
    """Options of the launcher for Slurm; what is None is as the template says."""

    partition: str | None = option(None, "The partition, or several with commas between.", metavar="NAME", check=_name)
    account: str | None = option(None, "The account that pays.", metavar="NAME", check=_name)
    qos: str | None = option(None, "The quality of service.", metavar="NAME", check=_name)
    constraint: str | None = option(
        None,
        "Only nodes with these features, as sbatch takes them: a100|h100.",
        metavar="FEATURES",
        check=matches(r"[\w.+\-|&*()\[\],:]+", "features as sbatch takes them, such as a100|h100"),
    )
    gpus: int | None = option(None, "GPUs of each worker; 0 for the CPU.", check=at_least(0))
    gpu_type: str | None = option(
        None, "The type of these GPUs, as the site names it.", metavar="NAME", check=matches(r"[\w.-]+", "a name")
    )
    cpus: int | None = option(None, "CPU cores of each worker.", check=at_least(1))
    memory: str | None = option(
        None,
        "Memory of each worker.",
        metavar="SIZE",
        check=matches(r"[1-9]\d*[MGT]", "a number of M, G or T, such as 16G"),
    )
    time_limit: str | None = option(
        None, "Time after which a worker goes back to the queue.", metavar="TIME", check=duration
    )
    at_once: int | None = option(None, "The most workers that run at the same time.", check=at_least(1))
    name: str = option(
        "synicix", "What the job's name begins with.", metavar="NAME", check=matches(r"[\w.-]+", "a name")
    )
    workers_per_device: int | None = option(None, "Workers on each device of a job.", check=at_least(1))
    venv: Path | None = option(None, "The environment in which Synicix is installed; else the one of this command.")  # noqa: RUF009 - a field
    modules: tuple[str, ...] = option((), "Modules to load before.")
    image: Path | None = option(None, "An Apptainer image to run the workers in.")  # noqa: RUF009 - a field
    bind: tuple[str, ...] = option((), "Paths outside the project that the image has to see.")
    here: bool = option(False, "Allow a database that only this machine reaches: the jobs run on this very machine.")
    script: Path | None = option(None, "A script of your own to start from, instead of one of deploy/slurm.")  # noqa: RUF009 - a field
