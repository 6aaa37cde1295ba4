"""Multiply out an experiment file: which configs it makes, and which of their combinations are trained."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.experiment.document import KINDS, ConfigTable, Experiment, TaskRule
from synicix_core.experiment.fields import COMPONENTS, Mistakes
from synicix_core.experiment.files import find_files
from synicix_core.hashing import canonical_json

__all__ = ["MAX_CONFIGS", "MAX_TASKS_UNASKED", "Plan", "PlannedConfig", "expand"]

MAX_CONFIGS = 1_000_000
"""A table whose sweeps make more configs than this is refused before any is made."""

MAX_TASKS_UNASKED = 100_000
"""The command line asks before it adds more tasks than this."""


@dataclass(frozen=True)
class PlannedConfig:
    """One config that an experiment file makes.

    Attributes
    ----------
    row : dict
        What `insert_tuples` takes: the columns that the file states; provider names as they were typed.
    table : ConfigTable
        The table of the file that it comes from.
    choices : tuple of (path, value)
        What its sweeps chose, sorted by path; a dataset's file comes first, under ``files``.
    """

    row: dict[str, Any]
    table: ConfigTable
    choices: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Label of its table."""
        return self.table.label

    @property
    def origin(self) -> str:
        """Where its table stands: ``sweep.toml [[model]] #2 'mlp'``."""
        return self.table.origin


@dataclass(frozen=True)
class Plan:
    """What an experiment file comes to.

    Attributes
    ----------
    file : str
        Name of the experiment file.
    datasets, models, trainings : tuple of PlannedConfig
        The configs, table by table in the order of the file; within a table no two rows are the same.
    blocks : tuple of (range, range, range)
        The combinations to train, as blocks of positions in `datasets`, `models` and `trainings`. Blocks share none.
    notes : tuple of str
        What its author may not expect.
    """

    file: str
    datasets: tuple[PlannedConfig, ...]
    models: tuple[PlannedConfig, ...]
    trainings: tuple[PlannedConfig, ...]
    blocks: tuple[tuple[range, range, range], ...]
    notes: tuple[str, ...] = ()

    def configs(self, kind: str) -> tuple[PlannedConfig, ...]:
        """Return the configs of one kind."""
        return {"dataset": self.datasets, "model": self.models, "training": self.trainings}[kind]

    @property
    def task_count(self) -> int:
        """How many tasks the plan makes, without listing them.

        Fewer are added where two configs turn out to be the same, such as two copies of one dataset file.
        """
        return sum(len(datasets) * len(models) * len(trainings) for datasets, models, trainings in self.blocks)

    def combinations(self) -> Iterator[tuple[int, int, int]]:
        """Yield positions in `datasets`, `models` and `trainings` for every task, each combination once."""
        for block in self.blocks:
            yield from itertools.product(*block)


def expand(experiment: Experiment, dataset_dir: str | Path, *, follow_symlinks: bool = False) -> Plan:
    """Find the dataset files and multiply out grids and random draws.

    The order of keys in the file changes nothing; the order of tables and of the values in a list is kept.

    Parameters
    ----------
    experiment : Experiment
        What `read_experiment` returned.
    dataset_dir : str or Path
        Where dataset files lie.
    follow_symlinks : bool
        Whether links in it may lead out of it.

    Raises
    ------
    ParamsError
        With every file that is missing or outside `dataset_dir`, and every table with more than `MAX_CONFIGS` configs.
    """
    mistakes: Mistakes = []
    configs: list[list[PlannedConfig]] = [[], [], []]
    spans: dict[tuple[str, int], range] = {}
    for kind, found in zip(KINDS, configs, strict=True):
        for table in experiment.of_kind(kind):
            files: tuple[str | None, ...] = (None,)
            if kind == "dataset":
                names, where = table.values["files"], f"{table.where}, files"
                files = find_files(Path(dataset_dir), names, where, mistakes, follow_symlinks=follow_symlinks)
            start = len(found)
            if len(files) * table.combinations > MAX_CONFIGS:
                message = f"makes {len(files) * table.combinations:,} configs, more than {MAX_CONFIGS:,}"
                mistakes.append((table.where, f"{message}; draw some with a random table instead"))
            else:
                found.extend(_configs(table, files))
            spans[kind, table.number] = range(start, len(found))
    if mistakes:
        what = f"{experiment.file} asks for what cannot be had"
        raise ParamsError(what, mistakes)
    datasets, models, trainings = map(tuple, configs)
    blocks = _blocks(experiment, spans)
    return Plan(experiment.file, datasets, models, trainings, blocks, _notes(experiment))


def _configs(table: ConfigTable, files: tuple[str | None, ...]) -> Iterator[PlannedConfig]:
    """Yield the configs of one table, each content once: draws may coincide."""
    seen = set()
    for file in files:
        for choices in _choices(table):
            row = _row(table, file, choices)
            content = canonical_json(row)
            if content not in seen:
                seen.add(content)
                yield PlannedConfig(row, table, (() if file is None else (("files", file),)) + choices)


def _choices(table: ConfigTable) -> Iterator[tuple[tuple[str, Any], ...]]:
    draws = [table.random.draw(sample) for sample in range(table.random.samples)] if table.random else [()]
    paths = [path for path, _ in table.grid]
    for values in itertools.product(*(values for _, values in table.grid)):
        for draw in draws:
            yield tuple(sorted((*zip(paths, values, strict=True), *draw), key=lambda choice: choice[0]))


def _row(table: ConfigTable, file: str | None, choices: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(dict(table.values))
    # They are sorted by path, so a choice for a whole component comes before one for a parameter in it.
    for path, value in choices:
        *parents, last = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = copy.deepcopy(value)
    row: dict[str, Any] = {}
    if file is not None:
        short = values["provider"].rpartition("/")[2].partition("@")[0]
        row = {"dataset_file_name": file, "dataset_type": values.get("type", short)}
    if table.kind in ("dataset", "model"):
        row[f"{table.kind}_provider"] = values["provider"]
        row[f"{table.kind}_class_params"] = values.get("params", {})
    for name in COMPONENTS[table.kind]:
        component = values.get(name, {})
        if "provider" in component:
            row[f"{name}_provider"] = component["provider"]
        if component:
            row[f"{name}_class_params"] = component.get("params", {})
    row |= {key: values[key] for key in ("metrics", "batch_size", "epoch_limit", "seed") if key in values}
    return row


def _blocks(experiment: Experiment, spans: dict[tuple[str, int], range]) -> tuple[tuple[range, range, range], ...]:
    """Return the union of all rules; rules name tables, so it is a set of triples of tables."""
    triples: dict[tuple[int, int, int], None] = {}
    for rule in experiment.rules or (TaskRule(),):
        chosen = [[table.number for table in experiment.of_kind(kind) if _names(rule, table)] for kind in KINDS]
        triples |= dict.fromkeys((d, m, t) for d in chosen[0] for m in chosen[1] for t in chosen[2])
    return tuple((spans["dataset", d], spans["model", m], spans["training", t]) for d, m, t in sorted(triples))


def _names(rule: TaskRule, table: ConfigTable) -> bool:
    labels = rule.labels(table.kind)
    return labels is None or table.name in labels


def _notes(experiment: Experiment) -> tuple[str, ...]:
    missing = [f"[[{kind}]]" for kind in KINDS if not experiment.of_kind(kind)]
    notes = [f"the file has no {' and no '.join(missing)}, so it makes no task"] if missing else []
    if experiment.rules:
        for table in experiment.tables:
            if not any(_names(rule, table) for rule in experiment.rules):
                notes.append(f"no [[task]] names {table.origin.removeprefix(experiment.file + ' ')}")
    return tuple(notes)
