"""Configs read many at a time and kept, for workers that look at the configs of many pending tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from synicix_core.database.dialect import quote
from synicix_core.database.reconnect import execute
from synicix_core.tables.queue_groups import marks
from synicix_core.tables.schema import Tables

__all__ = ["ConfigRows"]

_KEPT = 20_000
"""Configs of a kind, after which all are forgotten."""
_AT_ONCE = 1000
_LISTED = 1000
"""Configs of one model, above which they are no longer listed."""
_LIST_SECONDS = 60.0


class ConfigRows:
    """The model configs and training configs that were read so far. A config never changes.

    Parameters
    ----------
    tables : Tables
        Where they are.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows: dict[str, dict[str, dict[str, Any]]] = {"ModelConfig": {}, "TrainingConfig": {}}
        self._listed: dict[str, tuple[float, list[str]]] = {}

    def models(self, md5s: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return model configs by their md5; one that was deleted is missing."""
        return self._read("ModelConfig", md5s)

    def trainings(self, md5s: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return training configs by their md5; one that was deleted is missing."""
        return self._read("TrainingConfig", md5s)

    def models_of(self, provider: str, among: str) -> list[str]:
        """Return the md5s of all configs of one model; empty if they are more than a thousand.

        Parameters
        ----------
        provider : str
            The model.
        among : str
            One that has to be among them: if it is not, they are read again, as they are once a minute.
        """
        read_at, md5s = self._listed.get(provider, (float("-inf"), []))
        if time.monotonic() - read_at < _LIST_SECONDS and (among in md5s or not md5s):
            return md5s
        table = self._tables.ModelConfig.full_table_name
        sql = f"SELECT model_config_md5_hash FROM {table} WHERE model_provider = %s LIMIT {_LISTED + 1}"
        md5s = [str(row[0]) for row in execute(self._tables.connection, sql, (provider,)).fetchall()]
        md5s = md5s if len(md5s) <= _LISTED else []
        self._listed[provider] = (time.monotonic(), md5s)
        return md5s

    def _read(self, name: str, md5s: Iterable[str]) -> dict[str, dict[str, Any]]:
        table, kept, wanted = getattr(self._tables, name), self._rows[name], list(dict.fromkeys(md5s))
        missing = [md5 for md5 in wanted if md5 not in kept]
        if len(kept) + len(missing) > _KEPT:
            kept.clear()
            missing = wanted
        heading = table.heading
        adapter = self._tables.connection.adapter
        columns = ", ".join(quote(adapter, column) for column in heading.names)
        for start in range(0, len(missing), _AT_ONCE):
            chunk = missing[start : start + _AT_ONCE]
            sql = f"SELECT {columns} FROM {table.full_table_name} WHERE {heading.names[0]} IN ({marks(chunk)})"
            for values in execute(self._tables.connection, sql, chunk).fetchall():
                row = dict(zip(heading.names, values, strict=True))
                for column, value in row.items():
                    # MySQL's driver leaves JSON as text.
                    if isinstance(value, str | bytes) and (column == "metrics" or column.endswith("_params")):
                        row[column] = json.loads(value)
                kept[row[heading.names[0]]] = row
        return {md5: kept[md5] for md5 in wanted if md5 in kept}
