"""Read an experiment file and find every mistake that the file alone can show."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.experiment.document import KINDS, ConfigTable, Experiment, TaskRule
from synicix_core.experiment.fields import (
    COMPONENTS,
    FIELDS,
    Mistakes,
    check_value,
    did_you_mean,
    type_name,
    unknown_key,
)
from synicix_core.experiment.sweeps import check_nesting, read_grid, read_random

__all__ = ["read_experiment"]

_REQUIRED = {
    "dataset": ("files", "provider"),
    "model": ("provider",),
    "training": ("criterion",),
}
_HAVE_DEFAULT_PROVIDER = ("trainer", "optimizer")


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path : str or Path
        A TOML file in UTF-8; docs/experiment-files.md describes what it holds.

    Returns
    -------
    Experiment
        Its tables as written; `expand` multiplies out the sweeps.

    Raises
    ------
    ParamsError
        With every mistake in the file, each with file, table and key. Mistakes that only the providers can find
        (an unknown model, a parameter it does not have) are found by `add`.
    """
    path = Path(path)
    content = _load(path)
    mistakes: Mistakes = []
    file = path.name
    known = (*KINDS, "task")
    for key, value in content.items():
        if key not in known:
            mistakes.append((f"{file}, {key}", _unknown_table(key, known)))
        elif not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            mistakes.append((f"{file}, {key}", f"write [[{key}]] with two brackets; there may be several"))
            content[key] = [value] if isinstance(value, dict) else []
    tables = tuple(
        _read_table(file, kind, number, item, mistakes)
        for kind in KINDS
        for number, item in enumerate(content.get(kind, ()), 1)
    )
    _check_labels(tables, mistakes)
    rules = tuple(
        _read_rule(file, number, item, tables, mistakes) for number, item in enumerate(content.get("task", ()), 1)
    )
    if mistakes:
        raise ParamsError(f"{file} has {_count(len(mistakes))}", mistakes)
    return Experiment(file, tables, rules)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = {"FileNotFoundError": "there is no such file", "IsADirectoryError": "it is a directory"}
        message = why.get(type(error).__name__, error.strerror or str(error))
        near = sorted(item.name for item in path.parent.glob("*.toml") if item.name != "synicix.toml")
        hint = "Experiment files in that directory: " + ", ".join(near[:10]) if near else ""
        raise ParamsError("the experiment file cannot be read", [(str(path), message)], hint=hint) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"line {line}, byte {column} is not UTF-8 ({error.reason})"
        hint = "Save the file as UTF-8."
        raise ParamsError("the experiment file cannot be read", [(str(path), message)], hint=hint) from error
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: integers of thousands of digits, too
        raise ParamsError("the experiment file is not valid TOML", [(str(path), str(error))]) from error
    if not content:
        hint = "A first one is in docs/experiment-files.md."
        raise ParamsError("the experiment file is empty", [(str(path), "it has no table")], hint=hint)
    return content


def _unknown_table(key: str, known: tuple[str, ...]) -> str:
    if key in ("grid", "random"):
        return f"a sweep belongs to a table: write [dataset.{key}], [model.{key}] or [training.{key}] below it"
    near = did_you_mean(key, known) or "there are " + ", ".join(f"[[{name}]]" for name in known)
    return f"there is no table of that name; {near}"


def _read_table(file: str, kind: str, number: int, content: dict[str, Any], mistakes: Mistakes) -> ConfigTable:
    name = content.get("name")
    name = name if isinstance(name, str) and name else None
    where = ConfigTable(file, kind, number, name, {}).where
    fields = FIELDS[kind]
    values = {}
    for key, value in content.items():
        if key in fields:
            values[key] = check_value(kind, key, value, f"{where}, {key}", mistakes)
        elif key not in ("grid", "random"):
            mistakes.append((f"{where}, {key}", unknown_key(kind, key, (*fields, "grid", "random"))))
    values.pop("name", None)
    grid = read_grid(kind, content["grid"], f"{where}, grid", mistakes) if "grid" in content else ()
    random = read_random(kind, content["random"], f"{where}, random", mistakes) if "random" in content else None
    check_nesting(values, grid, random, where, mistakes)
    table = ConfigTable(file, kind, number, name, values, grid, random)
    _check_required(table, content, mistakes)
    return table


def _check_required(table: ConfigTable, content: dict[str, Any], mistakes: Mistakes) -> None:
    """Note keys without a default that stand neither in the table nor in its sweeps."""
    sweeps = [content[key] for key in ("grid", "random") if isinstance(content.get(key), dict)]
    mentioned = set(content) | {path.split(".")[0] for sweep in sweeps for path in sweep}
    for key in _REQUIRED[table.kind]:
        if key not in mentioned:
            mistakes.append((f"{table.where}, {key}", f"[[{table.kind}]] needs this key"))
    swept = dict(table.grid) | ({path: axis.values for path, axis in table.random.axes} if table.random else {})
    for key in COMPONENTS[table.kind]:
        if key in _HAVE_DEFAULT_PROVIDER or f"{key}.provider" in swept:
            continue
        # A sweep of the whole component replaces what is written outside the sweeps.
        below = any(path.startswith(f"{key}.") for path in swept)
        components = swept.get(key) or ([table.values.get(key, {})] if key in table.values or below else [])
        if any("provider" not in component for component in components):
            mistakes.append((f"{table.where}, {key}.provider", f"say which {key.replace('_', ' ')} it is"))


def _check_labels(tables: tuple[ConfigTable, ...], mistakes: Mistakes) -> None:
    first: dict[tuple[str, str], ConfigTable] = {}
    for table in tables:
        if table.name is None:
            continue
        other = first.setdefault((table.kind, table.name), table)
        if other is not table:
            message = f"the label {table.name!r} is that of [[{table.kind}]] #{other.number} already"
            mistakes.append((f"{table.file}, [[{table.kind}]] #{table.number}, name", message))


def _read_rule(
    file: str, number: int, content: dict[str, Any], tables: tuple[ConfigTable, ...], mistakes: Mistakes
) -> TaskRule:
    where = f"{file}, [[task]] #{number}"
    for key in content:
        if key not in KINDS:
            near = did_you_mean(key, KINDS) or "there are " + ", ".join(KINDS)
            mistakes.append((f"{where}, {key}", f"[[task]] has no such key; {near}"))
    labels = {kind: _read_labels(content.get(kind, "*"), kind, where, tables, mistakes) for kind in KINDS}
    for kind in KINDS:
        if not any(table.kind == kind for table in tables):
            mistakes.append((where, f"a task needs a {kind}, and the file has no [[{kind}]]"))
    return TaskRule(**labels)


def _read_labels(
    value: Any, kind: str, where: str, tables: tuple[ConfigTable, ...], mistakes: Mistakes
) -> tuple[str, ...] | None:
    wanted = value if isinstance(value, list) else [value]
    if not wanted:
        mistakes.append((f"{where}, {kind}", "the list of labels is empty; leave it out for all"))
    known = [table.name for table in tables if table.kind == kind and table.name is not None]
    labels = []
    for label in wanted:
        if not isinstance(label, str):
            mistakes.append((f"{where}, {kind}", f"expected a label, got {label!r} ({type_name(label)})"))
        elif label != "*" and label not in known:
            others = "the labels are " + ", ".join(map(repr, known)) if known else f"no [[{kind}]] has a name"
            near = did_you_mean(label, known) or others
            mistakes.append((f"{where}, {kind}", f"no [[{kind}]] is named {label!r}; {near}"))
        else:
            labels.append(label)
    return None if "*" in labels else tuple(dict.fromkeys(labels))


def _count(number: int) -> str:
    return "a mistake" if number == 1 else f"{number} mistakes"
