"""Write many results in one statement, as DataJoint writes one, for a fraction of the time.

DataJoint opens the store, and resolves the type of each column, for every value anew: 3 ms for a row with four histories. What
it stores is made here with its own functions, so that it reads it back, and its garbage collection finds it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synicix_core.database.connection import STORE
from synicix_core.database.dialect import quote
from synicix_core.database.quiet import quiet
from synicix_core.database.reconnect import execute
from synicix_core.tables.schema import Tables

with quiet():
    from datajoint import blob, hash_registry

__all__ = ["ResultRows"]


class ResultRows:
    """Inserts rows of TrainingResult.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    """

    def __init__(self, tables: Tables) -> None:
        self._connection = tables.connection
        self._table = tables.TrainingResult()
        self._config = tables.connection._config
        self._schema = tables.schema_name

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that hold all columns; part of a transaction."""
        if self._config.provenance.capture:
            # A column that DataJoint fills in by itself, for those who asked it to.
            self._table.insert(rows, allow_direct_insert=True)
            return
        heading = self._table.heading
        stored = {name for name in heading.names if heading[name].codec is not None}
        as_json = {name for name in heading.names if heading[name].json}
        columns = ", ".join(quote(self._connection.adapter, name) for name in heading.names)
        store = _Store(self._config, self._schema)
        values: list[Any] = []
        for row in rows:
            for name in heading.names:
                value = row[name]
                if name in stored:
                    value = json.dumps(store.put(value))
                elif name in as_json:
                    value = json.dumps(value)
                values.append(value)
        marks = f"({', '.join(['%s'] * len(heading.names))})"
        execute(
            self._connection,
            f"INSERT INTO {self._table.full_table_name} ({columns}) VALUES {', '.join([marks] * len(rows))}",
            values,
        )


class _Store:
    """The store of the histories, opened once; see `datajoint.hash_registry.put_hash`."""

    def __init__(self, config: Any, schema: str) -> None:
        self._schema = schema
        self._spec = config.get_store_spec(STORE)
        self._backend = hash_registry.get_store_backend(STORE, config=config)
        # Its own files a machine writes much faster by itself.
        self._local = Path(self._backend._full_path("")) if self._backend.protocol == "file" else None

    def put(self, value: Any) -> dict[str, Any]:
        """Write a value unless one of equal content is there; return what the column holds."""
        data = blob.pack(value, compress=True)
        digest = hash_registry.compute_hash(data)
        subfolding = tuple(self._spec["subfolding"]) if self._spec.get("subfolding") else None
        path = hash_registry.build_hash_path(digest, self._schema, subfolding, hash_prefix=self._spec["hash_prefix"])
        if self._local is not None:
            _write(self._local / path, data)
        elif not self._backend.exists(path):
            self._backend.put_buffer(data, path)
        return {"hash": digest, "path": path, "schema": self._schema, "store": STORE, "size": len(data)}


def _write(path: Path, data: bytes) -> None:
    """Write a file unless it is there, so that it is never there in part.

    DataJoint writes under a name that two workers with equal histories would share, and the one that is later would fail.
    """
    if path.exists():
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.saving")
    try:
        try:
            temporary.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
