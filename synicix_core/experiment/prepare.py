"""Complete the rows of a plan, and say for every mistake in which table of the file it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.experiment.document import KINDS
from synicix_core.experiment.expand import Plan, PlannedConfig
from synicix_core.experiment.fields import Mistakes
from synicix_core.experiment.target import Target
from synicix_core.parameters import check_params, describe

__all__ = ["TABLES", "PreparedPlan", "prepare_plan"]

TABLES = {"dataset": "DatasetConfig", "model": "ModelConfig", "training": "TrainingConfig"}
"""The table that holds each kind of config."""

_MOST_SHOWN = 50
_LABELLED = re.compile(r"config (\d+)(?:\.(.*))?", re.DOTALL)
_KEY_OF_COLUMN = (
    (re.compile(r"(?:dataset|model)_provider\b"), "provider"),
    (re.compile(r"(?:dataset|model)_class_params\b"), "params"),
    (re.compile(r"(\w+)_provider\b"), r"\1.provider"),
    (re.compile(r"(\w+)_class_params\b"), r"\1.params"),
    (re.compile(r"dataset_file_name\b"), "files"),
    (re.compile(r"dataset_type\b"), "type"),
)


@dataclass(frozen=True)
class PreparedPlan:
    """A plan whose rows are complete.

    Attributes
    ----------
    plan : Plan
        Where they come from.
    rows : dict
        For each kind the complete rows, in the order of the plan's configs.
    notes : tuple of str
        What its author may not expect, each once.
    """

    plan: Plan
    rows: dict[str, tuple[dict[str, Any], ...]]
    notes: tuple[str, ...] = ()

    def keys(self, kind: str) -> list[str]:
        """Return the md5 of each config of one kind, in the order of the plan's configs."""
        return [row[f"{kind}_config_md5_hash"] for row in self.rows[kind]]

    def tasks(self) -> dict[tuple[str, str, str], tuple[int, int, int]]:
        """Return the three md5 of every task, each once, with the positions of the configs in the plan."""
        datasets, models, trainings = (self.keys(kind) for kind in KINDS)
        tasks: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        for d, m, t in self.plan.combinations():
            tasks.setdefault((datasets[d], models[m], trainings[t]), (d, m, t))
        return tasks


def prepare_plan(pipeline: Target, plan: Plan) -> PreparedPlan:
    """Complete the rows of a plan without inserting any.

    Parameters
    ----------
    pipeline : Pipeline
        Whose tables, directories and plugins count.
    plan : Plan
        What `expand` returned.

    Raises
    ------
    ParamsError
        With all mistakes of all tables, each with file, table and key.
    """
    mistakes: Mistakes = []
    notes: list[str] = list(plan.notes)
    rows: dict[str, tuple[dict[str, Any], ...]] = {}
    for kind in KINDS:
        configs = plan.configs(kind)
        labels = [f"config {index}" for index in range(len(configs))]
        try:
            prepared = getattr(pipeline, TABLES[kind]).prepare([config.row for config in configs], labels)
        except ParamsError as error:
            mistakes.extend(_in_words_of_the_file(configs, error.mistakes))
        else:
            rows[kind] = tuple(prepared.rows)
            labelled = ((path, text) for path, _, text in (note.partition(": ") for note in prepared.notes))
            notes.extend(f"{where}: {text}" for where, text in _in_words_of_the_file(configs, labelled))
    if {"dataset", "model"} <= rows.keys():
        mistakes.extend(_model_mistakes(pipeline, plan, rows))
    if mistakes:
        shown = mistakes[:_MOST_SHOWN]
        if len(mistakes) > _MOST_SHOWN:
            shown.append(("", f"and {len(mistakes) - _MOST_SHOWN:,} more mistakes"))
        raise ParamsError(f"{plan.file} cannot be used", shown, hint="Nothing was inserted.")
    result = PreparedPlan(plan, rows, tuple(dict.fromkeys(notes)))
    return PreparedPlan(plan, rows, (*result.notes, *_same_content(result)))


def _in_words_of_the_file(configs: Sequence[PlannedConfig], found: Iterable[tuple[str, str]]) -> Mistakes:
    """Replace ``config 17.model_class_params.x`` by file, table and key, and say each thing once per table."""
    grouped: dict[tuple[str, str], dict[int, None]] = {}
    for path, message in found:
        label = _LABELLED.fullmatch(path)
        if label is None:
            grouped.setdefault((path, message), {})
            continue
        index, key = int(label[1]), _key_of(label[2] or "")
        where = configs[index].table.where + (f", {key}" if key else "")
        grouped.setdefault((where, message), {})[index] = None
    totals: dict[str, int] = {}
    for config in configs:
        totals[config.table.where] = totals.get(config.table.where, 0) + 1
    return [(where, message + _extent(configs, list(bad), totals)) for (where, message), bad in grouped.items()]


def _key_of(column: str) -> str:
    """Return the key of the file that a column of a table, or a place in it, was made of."""
    for pattern, key in _KEY_OF_COLUMN:
        if pattern.match(column):
            return pattern.sub(key, column, count=1)
    return column


def _extent(configs: Sequence[PlannedConfig], bad: Sequence[int], totals: dict[str, int]) -> str:
    """Say for which choices of the sweeps something holds, where it does not hold for all of them."""
    if not bad or len(bad) == totals[configs[bad[0]].table.where]:
        return ""
    if len(bad) > 1:
        return f" (in {len(bad):,} of its {totals[configs[bad[0]].table.where]:,} configs)"
    return " (with " + ", ".join(f"{path} = {value!r}" for path, value in configs[bad[0]].choices) + ")"


def _model_mistakes(pipeline: Target, plan: Plan, rows: dict[str, tuple[dict[str, Any], ...]]) -> Mistakes:
    """Check models against the datasets that they are to be trained on, which supply some of their parameters.

    TrainingTask checks the same, but only once the configs are inserted.
    """
    supplies = [frozenset(row["additional_model_params"]) for row in rows["dataset"]]
    registered = {
        name: pipeline.registry.resolve_stored("model", name) for name in {r["model_provider"] for r in rows["model"]}
    }
    found: dict[tuple[str, str], None] = {}
    checked = set()
    for datasets, models, _ in plan.blocks:
        representatives = {supplies[position]: position for position in reversed(datasets)}
        for supplied, dataset in representatives.items():
            for model in models:
                if (supplied, model) in checked:
                    continue
                checked.add((supplied, model))
                row = rows["model"][model]
                provider = registered[row["model_provider"]]
                named = supplied & {parameter.name for parameter in describe(provider).parameters}
                check = check_params(provider, row["model_class_params"], supplied=named, path="params")
                for path, message in check.mistakes:
                    with_dataset = f"{message} (with [[dataset]] {plan.datasets[dataset].label!r})"
                    found[f"{plan.models[model].table.where}, {path}", with_dataset] = None
    return list(found)


def _same_content(prepared: PreparedPlan) -> Iterator[str]:
    """Say which configs turned out to be one and the same, such as two copies of a file."""
    for kind in KINDS:
        first: dict[str, PlannedConfig] = {}
        same = []
        for config, key in zip(prepared.plan.configs(kind), prepared.keys(kind), strict=True):
            other = first.setdefault(key, config)
            if other is not config:
                same.append((config, other))
        if same:
            example = [config.row.get("dataset_file_name", config.origin) for config in same[0]]
            count = f"{len(same)} {kind} configs have" if len(same) > 1 else f"one {kind} config has"
            yield f"{count} the content of another: {example[0]} is {example[1]}"
