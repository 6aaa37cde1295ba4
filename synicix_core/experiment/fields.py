"""Which keys the tables of an experiment file have, and what each may hold."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.hashing import jsonable

__all__ = [
    "COMPONENTS",
    "FIELDS",
    "Mistakes",
    "check_path",
    "check_value",
    "did_you_mean",
    "quoted",
    "type_name",
    "unknown_key",
]

Mistakes = list[tuple[str, str]]
"""Where each mistake is, and what it is; readers append to it and go on."""


def check_value(kind: str, path: str, value: Any, where: str, mistakes: Mistakes) -> Any:
    """Return the value of one key in the one form that the rest of the package reads.

    Parameters
    ----------
    kind : str
        ``dataset``, ``model`` or ``training``.
    path : str
        A key for which `check_path` is happy, such as ``batch_size`` or ``optimizer.params.lr``.
    value : object
        As it stands in the file. A lone name is a component or metric without parameters.
    where : str
        Full name of the place, for the messages.
    mistakes : list
        Receives what is wrong with it.
    """
    name, *rest = path.split(".")
    check = FIELDS[kind][name]
    if check is _component and rest:
        check = _text if rest == ["provider"] else _table if rest == ["params"] else _json
    elif check is _table and rest:
        check = _json
    return check(value, where, mistakes)


def check_path(kind: str, path: str) -> str:
    """Return what is wrong with a key that a sweep names; nothing if it can be swept."""
    name, *rest = path.split(".")
    fields = FIELDS[kind]
    check = fields.get(name)
    if check is None:
        near = did_you_mean(path, [key for key in fields if key not in _NOT_SWEPT])
        return f"[[{kind}]] has no key {name!r}; {near or _params_hint(kind, path)}"
    if name in _NOT_SWEPT:
        return f"{name} cannot be swept" + ("; list several files in files itself" if name == "files" else "")
    if not all(rest):
        return f"{path!r} has an empty part between its dots"
    if check is _component and rest and (rest[0] not in _COMPONENT or (rest[0] == "provider" and len(rest) > 1)):
        return f"{name} has the keys provider and params; for a parameter write {quoted(name, 'params', *rest)}"
    if check not in (_component, _table) and rest:
        return f"{name} has no keys of its own; sweep {name!r} as a whole"
    return ""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return ``did you mean …?`` where a known name looks like `name`, or nothing."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else ""


def quoted(*parts: str) -> str:
    """Return a dotted key as it is written in a sweep."""
    return '"' + ".".join(parts) + '"'


def type_name(value: Any) -> str:
    """Return what TOML calls the type of a value."""
    names = {dict: "table", list: "array", str: "string", bool: "boolean", int: "integer", float: "float"}
    return names.get(type(value), type(value).__name__)


def unknown_key(kind: str, key: str, known: Collection[str]) -> str:
    """Return the message for a key that a ``[[kind]]`` table does not have."""
    return f"[[{kind}]] has no such key; {did_you_mean(key, known) or _params_hint(kind, key)}"


def _params_hint(kind: str, path: str) -> str:
    places = [name for name, check in FIELDS[kind].items() if check in (_table, _component)]
    if kind == "training":
        last = path.rsplit(".", 1)[-1]
        examples = ", ".join(quoted(place, "params", last) for place in places)
        return f"a parameter belongs to one of its parts: {examples}"
    return f"for a parameter of the provider write {quoted('params', path)}"


def _text(value: Any, where: str, mistakes: Mistakes) -> Any:
    if not isinstance(value, str):
        mistakes.append((where, f"expected a string, got {value!r} ({type_name(value)})"))
        return ""
    if not value.strip():
        mistakes.append((where, "the string is empty"))
    return _json(value, where, mistakes)


def _label(value: Any, where: str, mistakes: Mistakes) -> Any:
    text = _text(value, where, mistakes)
    if text == "*":
        mistakes.append((where, "'*' means every label in a [[task]]; give another name"))
    return text


def _files(value: Any, where: str, mistakes: Mistakes) -> Any:
    if isinstance(value, list) and not value:
        mistakes.append((where, "the list of files is empty"))
    names = value if isinstance(value, list) else [value]
    return tuple(_text(name, where, mistakes) for name in names)


def _integer(value: Any, where: str, mistakes: Mistakes) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        mistakes.append((where, f"expected an integer, got {value!r} ({type_name(value)})"))
    return _json(value, where, mistakes)


def _json(value: Any, where: str, mistakes: Mistakes) -> Any:
    try:
        return jsonable(value, where)
    except ParamsError as error:
        mistakes.extend(error.mistakes)
        return None


def _table(value: Any, where: str, mistakes: Mistakes) -> Any:
    if not isinstance(value, dict):
        mistakes.append((where, f"expected a table of names and values, got {value!r} ({type_name(value)})"))
        return {}
    return _json(value, where, mistakes) or {}


def _component(value: Any, where: str, mistakes: Mistakes) -> dict[str, Any]:
    if isinstance(value, str):
        return {"provider": _text(value, where, mistakes)}
    if not isinstance(value, dict):
        example = '{ provider = "Name", params = { … } }'
        mistakes.append((where, f"expected {example} or a name, got {value!r} ({type_name(value)})"))
        return {"provider": ""}
    for key in value:
        if key not in _COMPONENT:
            near = did_you_mean(key, _COMPONENT) or f"a parameter goes into params: params = {{ {key} = … }}"
            mistakes.append((f"{where}.{key}", f"there are the keys provider and params; {near}"))
    checks = {"provider": _text, "params": _table}
    return {key: checks[key](value[key], f"{where}.{key}", mistakes) for key in _COMPONENT if key in value}


def _metrics(value: Any, where: str, mistakes: Mistakes) -> Any:
    if isinstance(value, list) and not value:
        mistakes.append((where, "the list of metrics is empty; leave it out for the loss alone"))
    metrics = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        here = f"{where}[{index}]" if isinstance(value, list) else where
        metric = _component(item, here, mistakes)
        if "provider" not in metric:
            mistakes.append((here, "the metric has no provider"))
        metrics.append({"provider": metric.get("provider", ""), "params": metric.get("params", {})})
    return metrics


_COMPONENT = ("provider", "params")
_NOT_SWEPT = ("name", "files")

FIELDS: dict[str, dict[str, Callable[[Any, str, Mistakes], Any]]] = {
    "dataset": {
        "name": _label,
        "files": _files,
        "provider": _text,
        "type": _text,
        "params": _table,
        "train_sampler": _component,
        "validation_sampler": _component,
        "test_sampler": _component,
    },
    "model": {"name": _label, "provider": _text, "params": _table},
    "training": {
        "name": _label,
        "trainer": _component,
        "optimizer": _component,
        "criterion": _component,
        "metrics": _metrics,
        "batch_size": _integer,
        "epoch_limit": _integer,
        "seed": _integer,
    },
}
"""The keys of each kind of table and the check of each; ``grid`` and ``random`` come on top."""

COMPONENTS = {
    kind: tuple(name for name, check in fields.items() if check is _component) for kind, fields in FIELDS.items()
}
"""The keys of each kind that hold a provider with its parameters."""
