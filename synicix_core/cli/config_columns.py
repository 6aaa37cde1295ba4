"""The columns that configs have in a listing: every provider and every parameter under a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from synicix_core.errors import ConfigurationError

__all__ = ["PROVIDERS", "RESULT_COLUMNS", "Columns", "flatten", "short_provider"]

RESULT_COLUMNS = ("task", "score", "of_ceiling", "status", "epochs", "best_epoch", "seconds", "finished_at")
"""The columns of a listing that are not a config's."""

_TIERS = ("train", "validation", "test")
_ORDER = (
    *("dataset", "type", "dataset_provider", *(f"{tier}_sampler" for tier in _TIERS)),
    *("model", "trainer", "optimizer", "criterion", "batch_size", "epoch_limit", "seed", "metric"),
)
"""The order of columns by the first part of their names; the databases keep none within JSON."""

PROVIDERS = frozenset(
    {"dataset_provider", "model", "trainer", "optimizer", "criterion", *(f"{t}_sampler" for t in _TIERS)}
)
"""The columns that hold the name of a provider."""


def flatten(kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a config by full name: ``model``, ``model.hidden_size``, ``optimizer.lr``, ``seed``, ….

    Parameters
    ----------
    kind : {"dataset", "model", "training"}
        Kind of config.
    row : mapping
        Its row.
    """
    columns: dict[str, Any] = {}
    if kind == "dataset":
        columns |= {"dataset": row["dataset_file_name"], "type": row["dataset_type"]}
        columns |= _component("dataset_provider", "dataset", row["dataset_provider"], row["dataset_class_params"])
        for tier in _TIERS:
            name = f"{tier}_sampler"
            if row[f"{name}_provider"]:
                columns |= _component(name, name, row[f"{name}_provider"], row[f"{name}_class_params"])
    elif kind == "model":
        columns |= _component("model", "model", row["model_provider"], row["model_class_params"])
    else:
        for name in ("trainer", "optimizer", "criterion"):
            columns |= _component(name, name, row[f"{name}_provider"], row[f"{name}_class_params"])
        columns |= {name: row[name] for name in ("batch_size", "epoch_limit", "seed")}
        # The first metric is the score, which has a column of its own; the others change nothing.
        columns |= _params("metric", row["metrics"][0]["params"])
    return columns


class Columns:
    """Names of columns as people type and read them: the last part alone where that is unambiguous.

    Parameters
    ----------
    full : iterable of str
        Full names of the configs' columns.
    """

    def __init__(self, full: Iterable[str]) -> None:
        self.full = tuple(sorted(dict.fromkeys(full), key=lambda name: (_ORDER.index(name.partition(".")[0]), name)))
        ends = Counter(name.rpartition(".")[2] for name in self.full)
        taken = {*RESULT_COLUMNS, *(name for name in self.full if "." not in name)}
        self._short = {
            name: end if "." in name and ends[end] == 1 and end not in taken else name
            for name, end in ((name, name.rpartition(".")[2]) for name in self.full)
        }

    def short(self, full: str) -> str:
        """Return what to call a column."""
        return self._short.get(full, full)

    def find(self, name: str) -> str | None:
        """Return the full name of the column that somebody means who types `name`; None where there is none.

        Raises
        ------
        ConfigurationError
            If several columns end so.
        """
        name = name.strip().replace("-", "_") if name.strip().replace("-", "_") in RESULT_COLUMNS else name.strip()
        if name in RESULT_COLUMNS or name in self.full:
            return name
        found = [full for full in self.full if full.endswith(f".{name}")]
        if len(found) > 1:
            raise ConfigurationError(
                f"several columns are called {name!r}", why=", ".join(found), hint="Write the one you mean in full."
            )
        return found[0] if found else None

    def require(self, name: str) -> str:
        """Return the full name of a column.

        Raises
        ------
        ConfigurationError
            If there is no such column, or more than one.
        """
        import difflib

        found = self.find(name)
        if found is None:
            known = [*RESULT_COLUMNS, *map(self.short, self.full), *self.full]
            near = difflib.get_close_matches(name, known, 2)
            raise ConfigurationError(
                f"there is no column {name!r}",
                hint=f"Did you mean {' or '.join(dict.fromkeys(near))}?"
                if near
                else "Run: synicix-run results --columns. Metrics other than the score are in --csv, --json and show.",
            )
        return found


def short_provider(qualified: str) -> str:
    """Return the name of a provider without its distribution."""
    return qualified.rpartition("/")[2]


def _component(column: str, prefix: str, provider: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {column: provider} | _params(prefix, params)


def _params(prefix: str, params: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in sorted(params.items()):
        if isinstance(value, Mapping) and value:
            columns |= _params(f"{prefix}.{name}", value)
        else:
            columns[f"{prefix}.{name}"] = value
    return columns
