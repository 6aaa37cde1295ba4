"""Start Synicix workers on Kubernetes and Slurm, and on whatever else a launcher is written for.

A plugin that brings a launcher imports what it needs from here.
"""

from synicix_launch.contract import Launcher, LaunchRequest, RenderedFile, Submission
from synicix_launch.errors import LaunchError, SchedulerError
from synicix_launch.files import compare, keep
from synicix_launch.options import option
from synicix_launch.programs import run_program
from synicix_launch.provider import LauncherProvider
from synicix_launch.values import at_least, duration, matches, seconds_of

__all__ = [
    "LaunchError",
    "LaunchRequest",
    "Launcher",
    "LauncherProvider",
    "RenderedFile",
    "SchedulerError",
    "Submission",
    "at_least",
    "compare",
    "duration",
    "keep",
    "matches",
    "option",
    "run_program",
    "seconds_of",
]
