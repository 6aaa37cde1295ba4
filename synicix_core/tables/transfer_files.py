"""The files that rows refer to, and that stay where they are when the rows are moved: models, checkpoints, histories."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synicix_core.database.connection import STORE
from synicix_core.database.quiet import quiet
from synicix_core.errors import ConfigurationError, DatasetError
from synicix_core.hashing import file_sha256
from synicix_core.tables.result_histories import store_text, why_unreadable
from synicix_core.tables.schema import Tables
from synicix_core.tables.transfer_columns import Row, TransferTable
from synicix_core.tables.transfer_progress import Progress

with quiet():
    from datajoint import hash_registry

__all__ = ["FileCensus", "FileFacts", "prove_readable"]

_MD5 = "training_task_md5_hash"
_NAMED = 3
_CHECKPOINT = re.compile(r"([0-9a-f]{32})\.([0-9]+)\.checkpoint")


@dataclass(frozen=True)
class FileFacts:
    """Where the files lie, how many there are, and how large they are together, in bytes.

    Attributes
    ----------
    model_save_dir : str
        Where models and checkpoints lie.
    store : str
        Where histories lie: the location of the store `STORE`, behind its protocol where it is no directory.
    models, models_missing, model_bytes : int
        Models of results; those that are not there have no size.
    checkpoints, checkpoint_bytes : int
        Checkpoints of attempts that the rows know.
    histories, history_bytes : int
        Different files in the store, as the rows have them.
    """

    model_save_dir: str
    store: str
    models: int
    models_missing: int
    model_bytes: int
    checkpoints: int
    checkpoint_bytes: int
    histories: int
    history_bytes: int


class FileCensus:
    """Counts the files of rows that stream past; keeps 16 bytes for each history.

    Parameters
    ----------
    tables : Tables
        Says where the store is.
    results : TransferTable
        The table of results.
    model_save_dir : Path
        Where models and checkpoints lie.
    """

    def __init__(self, tables: Tables, results: TransferTable, model_save_dir: Path) -> None:
        self._directory = model_save_dir
        self._store = store_text(tables.connection._config)
        self._references = [column.name for column in results.columns if column.kind == "reference"]
        self._found: Counter[str] = Counter()
        self._checkpoints = dict(_checkpoints(model_save_dir))
        self._names, self._sizes = array("Q"), array("Q")

    def count_attempt(self, row: Row) -> None:
        """Count the checkpoint of an attempt."""
        size = self._checkpoints.get((row[_MD5], row["attempt"]))
        if size is not None:
            self._found.update(checkpoints=1, checkpoint_bytes=size)

    def count_result(self, row: Row) -> None:
        """Count the model and the histories of a result."""
        self._found["models"] += 1
        try:
            self._found["model_bytes"] += (self._directory / row["model_save_path"]).stat().st_size
        except OSError:
            self._found["models_missing"] += 1
        for name in self._references:
            path = str(row[name]["path"]).encode()
            self._names.append(int.from_bytes(hashlib.blake2b(path, digest_size=8).digest()))
            self._sizes.append(int(row[name]["size"]))

    def facts(self) -> FileFacts:
        """Return what was counted."""
        # Equal histories are one file: those without a penalty all share one.
        _, first = np.unique(np.asarray(self._names, dtype=np.uint64), return_index=True)
        found = self._found
        return FileFacts(
            model_save_dir=str(self._directory),
            store=self._store,
            models=found["models"],
            models_missing=found["models_missing"],
            model_bytes=found["model_bytes"],
            checkpoints=found["checkpoints"],
            checkpoint_bytes=found["checkpoint_bytes"],
            histories=len(first),
            history_bytes=int(np.asarray(self._sizes, dtype=np.uint64)[first].sum()),
        )


def prove_readable(
    tables: Tables,
    table: TransferTable,
    model_save_dir: Path,
    results: Iterable[Row],
    count: int,
    progress: Progress,
) -> None:
    """Read the models and histories of results, and compare their digests with those in the rows.

    Parameters
    ----------
    tables : Tables
        Says where the store is.
    table : TransferTable
        The table of results.
    model_save_dir : Path
        Where models lie on this machine.
    results : iterable of dict
        Rows, as an export holds them.
    count : int
        How many they are.
    progress : Progress
        Is told of each result.

    Raises
    ------
    ConfigurationError
        If some cannot be read from here, or are not those that the rows mean.
    """
    progress.start("Reading models and histories", count)
    first: list[str] = []
    tasks = 0
    backend = hash_registry.get_store_backend(STORE, config=tables.connection._config) if count else None
    references = [column.name for column in table.columns if column.kind == "reference"]
    for row in results:
        why = _why_not_model(model_save_dir, row) or next(
            filter(None, (why_unreadable(backend, row[name]) for name in references)), ""
        )
        if why:
            tasks += 1
            first += [f"{row[_MD5][:8]}: {why}"] if len(first) < _NAMED else []
        progress.advance(1)
    if tasks:
        raise ConfigurationError(
            f"files of {tasks:,} of {count:,} results that were looked at cannot be read from here",
            where=f"models in {model_save_dir}, histories in {store_text(tables.connection._config)}",
            why="; ".join(first),
            hint="Nothing was imported. Bring the files there, or set model_save_dir and the store external_training_result "
            "to where they are; or import the rows alone with --files none.",
        )


def _why_not_model(model_save_dir: Path, row: Row) -> str:
    name = row["model_save_path"]
    try:
        same = file_sha256(model_save_dir / name) == row["model_sha256"]
    except DatasetError as error:
        return f"the model {name}: {error.why}"
    return "" if same else f"the model {name} is another file: its sha256 differs"


def _checkpoints(directory: Path) -> Iterator[tuple[tuple[str, int], int]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if found := _CHECKPOINT.fullmatch(entry.name):
                    yield (found[1], int(found[2])), entry.stat().st_size
    except OSError:
        return  # that the directory is missing shows in the models
