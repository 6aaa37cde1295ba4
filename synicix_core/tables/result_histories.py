"""The histories of one result, read from the store one by one: one that is missing does not hide the others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from synicix_core.database.connection import STORE
from synicix_core.database.quiet import quiet
from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import Tables
from synicix_core.tables.training_result import TrainingResult

with quiet():
    from datajoint import errors as dj_errors
    from datajoint import hash_registry

__all__ = ["HISTORIES", "histories_of", "store_text", "why_unreadable"]

HISTORIES = tuple(re.findall(rf"(\w+)\s*: <blob@{STORE}>", TrainingResult.definition))
"""The columns of TrainingResult whose values lie in the store."""

_MD5 = "training_task_md5_hash"


def histories_of(tables: Tables, task: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the histories of a result by column, None for those that cannot be read; and of the latter, why."""
    config, row = tables.connection._config, tables.TrainingResult & {_MD5: task}
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in HISTORIES:
        try:
            found[name] = row.fetch1(name)
        except Exception:
            # Whether the store or the database failed is told by the store: its protocols have errors of their own.
            why = _why_missing(config, _reference(tables, task, name))
            if not why:
                raise
            found[name], missing[name] = None, why
    return found, missing


def why_unreadable(backend: Any, reference: Mapping[str, Any]) -> str:
    """Read a history; return why that cannot be, or the empty string.

    Parameters
    ----------
    backend
        DataJoint's, of the store.
    reference : mapping
        What DataJoint keeps in the row: the `path` in the store, and the `hash` of the content.
    """
    try:
        with quiet():
            data = backend.get_buffer(reference["path"])
    except dj_errors.MissingExternalFile:
        return f"the history {reference['path']}: there is no such file in the store"
    except Exception as error:  # whatever else the protocol of the store raises
        return f"the history {reference['path']}: {error}"
    same = hash_registry.compute_hash(data) == reference["hash"]
    return "" if same else f"the history {reference['path']} is another file: its hash differs"


def store_text(config: Any) -> str:
    """Return where the store is, behind its protocol where it is no directory."""
    spec = config.get_store_spec(STORE)
    return str(spec["location"]) if spec["protocol"] == "file" else f"{spec['protocol']}: {spec['location']}"


def _why_missing(config: Any, reference: Mapping[str, Any] | None) -> str:
    if reference is None:
        return ""
    try:
        backend = hash_registry.get_store_backend(STORE, config=config)
    except Exception as error:  # a store that is not mounted, or whose driver is not installed
        return f"the history {reference['path']}: {error}"
    return why_unreadable(backend, reference)


def _reference(tables: Tables, task: str, name: str) -> dict[str, Any] | None:
    sql = f"SELECT {name} FROM {tables.TrainingResult.full_table_name} WHERE {_MD5} = %s"
    row = execute(tables.connection, sql, (task,)).fetchone()
    if row is None:
        return None
    # PostgreSQL's driver reads JSON, MySQL's hands out its text.
    reference: dict[str, Any] = json.loads(row[0]) if isinstance(row[0], str | bytes) else row[0]
    return reference
