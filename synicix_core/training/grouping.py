"""Which tasks are alike enough to be trained as one. No torch here: the supervisor reads this."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from synicix_core.registry import CORE

__all__ = ["Grouping", "group_key"]

_TRAINER = f"{CORE}/NNTrainer"
_FREE_OPTIMIZER_PARAMS = frozenset({"lr", "weight_decay", "betas"})
_FREE_TRAINER_PREFIX = "early_stopping_"
_FREE, _NOTHING = {"free": "a number"}, {"free": "0"}
"""Stand in a key for a number that may differ, and for one that is 0: a model without a penalty, or without dropout, is
another computation. No stored value looks like these but one that a user made to."""


def group_key(row: Mapping[str, Any], free: Collection[str] = (), fixed: Collection[str] = ()) -> str | None:
    """Return what tasks that may be trained together have in common; equal for equal tasks.

    Free are the seed, the epoch limit, the learning rate, weight decay and betas of the optimizer, the numbers of early
    stopping, and the parameters of the model that are floats, such as penalties and the probability of dropout, as long as
    they are not 0 in one and something in another. Whether a model can be trained with others that differ so, only an attempt tells.

    Parameters
    ----------
    row : mapping
        The columns of the three configs of a task.
    free : collection of str
        Paths of parameters of the model at which an integer counts as a float, because other tasks have a float there.
    fixed : collection of str
        Paths of parameters of the model that may not differ although they are floats.

    Returns
    -------
    str or None
        Text to be compared within one process; None for a task that can only be trained by itself.
    """
    if str(row["trainer_provider"]).partition("@")[0] != _TRAINER:
        return None
    trainer = {
        name: value
        for name, value in row["trainer_class_params"].items()
        if not (name.startswith(_FREE_TRAINER_PREFIX) and _is_number(value))
    }
    optimizer = {
        name: value for name, value in row["optimizer_class_params"].items() if name not in _FREE_OPTIMIZER_PARAMS
    }
    return _text(
        [
            row["dataset_config_md5_hash"],
            [row["model_provider"], _without_floats(row["model_class_params"], "", free, fixed)],
            [row["trainer_provider"], trainer],
            [row["optimizer_provider"], optimizer],
            [row["criterion_provider"], row["criterion_class_params"]],
            row["metrics"],
            int(row["batch_size"]),
        ]
    )


class Grouping:
    """What one worker has learned about the parameters of models: which are floats, and which may not differ in a group.

    Attributes
    ----------
    version : int
        Grows whenever keys change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._floats: dict[str, set[str]] = {}
        self._fixed: dict[str, set[str]] = {}

    def learn(self, model_provider: str, params: Iterable[Mapping[str, Any]]) -> None:
        """Take note of the parameters that are floats in any of these configs of one model."""
        known = self._floats.setdefault(model_provider, set())
        found = {path for config in params for path, value in _numbers(config) if isinstance(value, float)}
        self.version += not found <= known
        known |= found

    def key(self, row: Mapping[str, Any]) -> str | None:
        """Return the key of a task, as `group_key` makes it, by what is known now."""
        model = str(row["model_provider"])
        return group_key(row, self._floats.get(model, ()), self._fixed.get(model, ()))

    def part(self, model_provider: str, params: Mapping[str, Any]) -> str:
        """Return the model's part of a key; equal for models that may be trained together."""
        free, fixed = self._floats.get(model_provider, ()), self._fixed.get(model_provider, ())
        return _text([model_provider, _without_floats(params, "", free, fixed)])

    def separate(self, first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
        """Keep two tasks apart from now on, which turned out not to go together.

        Parameters
        ----------
        first, other : mapping
            Their columns.

        Returns
        -------
        list of str
            The paths of the free parameters of the model in which they differ, now part of each key; empty if there are
            none, so that something else is in the way.
        """
        model = str(first["model_provider"])
        one, two = dict(_numbers(first["model_class_params"])), dict(_numbers(other["model_class_params"]))
        known = self._fixed.setdefault(model, set())
        floats = self._floats.get(model, set()) | {path for path in one if isinstance(one[path], float)}
        differing = sorted(path for path in floats - known if one.get(path) != two.get(path))
        known.update(differing)
        self.version += bool(differing)
        return differing


def _without_floats(value: Any, path: str, free: Collection[str], fixed: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_floats(item, _below(path, key), free, fixed) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_floats(item, _below(path, index), free, fixed) for index, item in enumerate(value)]
    if not _is_number(value):
        return value
    if path in fixed:
        return float(value)  # 1 and 1.0 are the same number of a parameter that is one
    if not isinstance(value, float) and path not in free:
        return value
    return _FREE if value else _NOTHING


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield every number of nested parameters and its path, such as ``layers.0.dropout``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, _below(path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, _below(path, index))
    elif _is_number(value):
        yield path, value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
