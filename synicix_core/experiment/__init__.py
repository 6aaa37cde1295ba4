"""Experiment files: a TOML file lists configs and sweeps, and becomes rows.

`read_experiment` reads one, `expand` multiplies out its sweeps, `add` inserts the configs and tasks, and `check` trains
one batch of each combination.
"""

from synicix_core.experiment.add import Count, Summary, add
from synicix_core.experiment.check import CheckResult, check
from synicix_core.experiment.document import Experiment
from synicix_core.experiment.expand import MAX_CONFIGS, MAX_TASKS_UNASKED, Plan, PlannedConfig, expand
from synicix_core.experiment.read import read_experiment

__all__ = [
    "MAX_CONFIGS",
    "MAX_TASKS_UNASKED",
    "CheckResult",
    "Count",
    "Experiment",
    "Plan",
    "PlannedConfig",
    "Summary",
    "add",
    "check",
    "expand",
    "read_experiment",
]
