"""Read an export from beginning to end before any of it is written: every row whole, in place, and what its key says."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from synicix_core.errors import ConfigurationError
from synicix_core.registry import Registry
from synicix_core.tables.transfer_columns import Row, TransferTable
from synicix_core.tables.transfer_file import ExportFile
from synicix_core.tables.transfer_identity import is_itself
from synicix_core.tables.transfer_merge import History, histories
from synicix_core.tables.transfer_progress import Progress

__all__ = ["CONFIGS", "Checked", "check_export"]

CONFIGS = {
    "DatasetConfig": "dataset_config_md5_hash",
    "ModelConfig": "model_config_md5_hash",
    "TrainingConfig": "training_config_md5_hash",
}
"""The key of each config table."""

_AT_ONCE = 500


@dataclass(frozen=True)
class Checked:
    """What was found in an export that is in order.

    Attributes
    ----------
    unproved : tuple of str
        Providers that are not installed here, without which the md5s of some configs cannot be computed again.
    dataset_files : tuple of str
        Files that its configs name.
    results : int
        How many results are of tasks that were not set apart.
    sample : tuple of dict
        Some of them, at random.
    """

    unproved: tuple[str, ...]
    dataset_files: tuple[str, ...]
    results: int
    sample: tuple[Row, ...]


def check_export(
    file: ExportFile,
    tables: Mapping[str, TransferTable],
    registry: Registry,
    set_apart: Callable[[Sequence[History]], Collection[str]],
    progress: Progress,
    *,
    postgres: bool,
    sample: int,
) -> Checked:
    """Read all of an export.

    Parameters
    ----------
    file : ExportFile
        The export.
    tables : mapping
        The tables that it is written to, by name.
    registry : Registry
        The plugins that are installed here.
    set_apart : callable
        Is shown all tasks, some at a time, and returns those whose results are not to be counted or chosen.
    progress : Progress
        Is told of each row.
    postgres : bool
        Whether it is written to PostgreSQL, which cannot hold everything that MySQL can.
    sample : int
        How many results to choose.

    Raises
    ------
    ConfigurationError
        If the file was changed or damaged, a row is not the one that its key names, or the database cannot hold it.
    """
    for name, table in tables.items():
        if file.manifest["tables"][name]["columns"] != table.names:
            raise file.damaged(f"the columns of {name} are not those of this schema version")
    keys: dict[str, set[str]] = {key: set() for key in CONFIGS.values()}
    unproved: set[str] = set()
    dataset_files: set[str] = set()

    def look(name: str, row: Row) -> None:
        try:
            tables[name].decode(row, postgres)
            if name in CONFIGS or name == "TrainingTask":
                proved = is_itself(name, row, registry)
                if proved is None:
                    unproved.update(
                        str(value) for column, value in row.items() if column.endswith("_provider") and value
                    )
                elif not proved:
                    raise ValueError("the md5 of its content is another one")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            key = " ".join(str(part) for part in tables[name].key_of(row))
            raise ConfigurationError(
                "a row of the export cannot be imported",
                where=f"{file.path}, {name} {key}",
                why=str(error),
                hint="Nothing was written.",
            ) from error
        progress.advance(1)

    for name, key in CONFIGS.items():
        for row in file.read(tables[name]):
            look(name, row)
            keys[key].add(row[key])
            if name == "DatasetConfig":
                dataset_files.add(row["dataset_file_name"])
    chosen: list[Row] = []
    seen = 0

    def choose(some: Sequence[History]) -> None:
        nonlocal seen
        apart = set_apart(some)
        for history in some:
            if history.result is None or history.key in apart:
                continue
            seen += 1
            if len(chosen) < sample:
                chosen.append(history.result)
            elif (place := random.randrange(seen)) < sample:
                chosen[place] = history.result

    some: list[History] = []
    for history in histories(file, tables):
        look("TrainingTask", history.task)
        missing = next((key for key, there in keys.items() if history.task[key] not in there), None)
        if missing is not None:
            raise file.damaged(f"task {history.key} refers to a config that is not in the export: {missing}")
        for attempt in history.attempts:
            look("TrainingAttempt", attempt)
        if history.job is not None:
            look("Job", history.job)
        if history.result is not None:
            look("TrainingResult", history.result)
        some.append(history)
        if len(some) >= _AT_ONCE:
            choose(some)
            some = []
    choose(some)
    return Checked(tuple(sorted(_absent(unproved, registry))), tuple(sorted(dataset_files)), seen, tuple(chosen))


def _absent(names: set[str], registry: Registry) -> set[str]:
    known = {registered.qualified for registered in registry.providers()}
    return {name for name in names if name not in known}
