"""What is left over: files that no row refers to, and results whose files are gone.

Files are looked at first and rows afterwards, because the row of an attempt comes before its files: a file that is listed
and has no row then is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from synicix_core.database.connection import STORE
from synicix_core.errors import ConfigurationError
from synicix_core.runner.leftover_files import SavedFile, find_saved_files, unneeded
from synicix_core.runner.leftover_histories import HistoryListing, HistoryStore
from synicix_core.tables.housekeeping import (
    ResultFiles,
    committed_since,
    database_time,
    other_tables_in_store,
    result_files,
    rows_of_tasks,
)
from synicix_core.tables.schema import Tables

__all__ = ["KINDS", "TASKS_AT_ONCE", "Findings", "Leftover", "chunks", "find_leftovers", "lacks_files"]

KINDS = ("checkpoint", "model", "temporary", "history", "result")
"""What can be left over: the files of attempts, those of the store, and results without their files."""

TASKS_AT_ONCE = 1000
"""How many tasks' rows are read by one statement."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that no row refers to, or a result whose files are gone."""

    kind: str
    """One of `KINDS`."""
    name: str
    """Relative to `model_save_dir` or to the store; of a result, its task."""
    size: int
    """In bytes; 0 for a result."""
    why: str
    unknown: bool = False
    """Whether this schema knows nothing of it at all: it may be another schema's."""


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes
    ----------
    leftovers : tuple of Leftover
        In the order of `KINDS`.
    notes : tuple of str
        What was not looked at, and why.
    refusal : ConfigurationError or None
        Why nothing must be removed.
    files : mapping
        By task, all files of the tasks some of whose files are left over.
    store : HistoryStore or None
        The store, if it could be listed.
    """

    leftovers: tuple[Leftover, ...]
    notes: tuple[str, ...] = ()
    refusal: ConfigurationError | None = None
    files: Mapping[str, Sequence[SavedFile]] = field(default_factory=dict)
    store: HistoryStore | None = None


def find_leftovers(tables: Tables, model_save_dir: Path) -> Findings:
    """Look for what is left over; nothing is changed.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    model_save_dir : Path
        Where models and checkpoints lie on this machine.

    Raises
    ------
    ConfigurationError
        If `model_save_dir` cannot be read.
    """
    begun = database_time(tables)
    by_task = _list_files(model_save_dir)
    store, stored, notes = _list_store(tables)
    models = {file.name for files in by_task.values() for file in files}
    listing = HistoryListing(store, stored) if store else None
    used: set[str] = set()
    results = 0
    lacking: dict[str, ResultFiles] = {}
    for row in result_files(tables):
        results += 1
        if (row.model in models or (model_save_dir / row.model).is_file()) and not _lacks_history(row, listing):
            used.update(row.histories)
        else:
            lacking[row.task] = row
    is_gone = lacks_files(model_save_dir, store)
    # What a worker stored after the store was listed is there all the same.
    for row in committed_since(tables, begun):
        if row.task not in lacking or not is_gone(row):
            used.update(row.histories)
            lacking.pop(row.task, None)
    refusal = _refusal(results, lacking.values(), listing, model_save_dir)
    gone = {} if refusal else {task: row for task, row in lacking.items() if is_gone(row)}
    used.update(path for task, row in lacking.items() if task not in gone for path in row.histories)

    leftovers, concerned = _unneeded_files(tables, by_task, gone)
    if store is not None and (others := other_tables_in_store(tables)):
        notes.append(f"the store {STORE} is left alone: {', '.join(others)} in this schema keeps files there, too")
    elif store is not None:
        leftovers += _unused_histories(store, stored, used)
    leftovers += [Leftover("result", task, 0, _what_is_gone(row, model_save_dir)) for task, row in gone.items()]
    order = {kind: index for index, kind in enumerate(KINDS)}
    leftovers.sort(key=lambda item: (order[item.kind], item.name))
    return Findings(tuple(leftovers), tuple(notes), refusal, concerned, store)


def lacks_files(model_save_dir: Path, store: HistoryStore | None) -> Callable[[ResultFiles], bool]:
    """Return what tells whether a file of a result is gone, by asking the disk and the store themselves."""

    def is_gone(row: ResultFiles) -> bool:
        if not (model_save_dir / row.model).is_file():
            return True
        return store is not None and not all(store.exists(path) for path in row.histories)

    return is_gone


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield `items` in parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _list_files(directory: Path) -> dict[str, list[SavedFile]]:
    by_task: dict[str, list[SavedFile]] = {}
    try:
        for file in find_saved_files(directory):
            by_task.setdefault(file.task, []).append(file)
    except FileNotFoundError:
        pass  # nothing was trained here; or the disk is missing, which the results will tell
    except OSError as error:
        raise ConfigurationError(
            "model_save_dir cannot be read", where=str(directory), why=error.strerror or str(error)
        ) from error
    return by_task


def _list_store(tables: Tables) -> tuple[HistoryStore | None, set[str], list[str]]:
    try:
        store = HistoryStore(tables.connection._config, tables.schema_name)
        return store, set(store.paths()), []
    except Exception as error:  # each storage has errors of its own; without a whole list it is left alone
        why = " ".join(str(error).split()) or type(error).__name__
        return None, set(), [f"the store {STORE} is skipped, because it cannot be listed: {why}"]


def _refusal(
    results: int, lacking: Collection[ResultFiles], listing: HistoryListing | None, model_save_dir: Path
) -> ConfigurationError | None:
    """Say why nothing must be removed, where so many files are missing that they cannot have been lost."""
    without_model = sum(not (model_save_dir / row.model).is_file() for row in lacking)
    without_history = sum(_lacks_history(row, listing) for row in lacking)
    for what, missing, where in (
        ("models", without_model, str(model_save_dir)),
        ("histories", without_history, f"the store {STORE}"),
    ):
        if missing and (missing == results or (results >= 4 and 2 * missing > results)):
            return ConfigurationError(
                f"the {what} of {missing:,} of {results:,} results are not where they should be",
                where=where,
                why="so many at once are a disk that is not mounted, or another directory, rather than files that were lost",
                hint="Nothing was removed. Mount the disk or repair the setting. Only if the files are really lost, delete these "
                "results with DataJoint.",
            )
    return None


def _lacks_history(row: ResultFiles, listing: HistoryListing | None) -> bool:
    return listing is not None and not all(map(listing.has, row.histories))


def _unneeded_files(
    tables: Tables, by_task: Mapping[str, Sequence[SavedFile]], gone: Collection[str]
) -> tuple[list[Leftover], dict[str, Sequence[SavedFile]]]:
    leftovers: list[Leftover] = []
    concerned: dict[str, Sequence[SavedFile]] = {}
    for tasks in chunks(sorted(by_task), TASKS_AT_ONCE):
        found = rows_of_tasks(tables, tasks)
        for task in tasks:
            rows = found.get(task)
            if rows is not None and task in gone:
                rows = replace(rows, model=None)
            for file, why in unneeded(by_task[task], rows):
                text = why or f"there is no such {'task' if rows is None else 'attempt'} here"
                leftovers.append(Leftover(file.kind, file.name, file.size, text, unknown=not why))
                concerned[task] = by_task[task]
    return leftovers, concerned


def _unused_histories(store: HistoryStore, stored: set[str], used: set[str]) -> list[Leftover]:
    # Where no result has a file in this store, nothing shows that the store is this database's.
    unknown = stored.isdisjoint(used)
    why = "no result has its histories in this store" if unknown else "no result refers to it"
    return [Leftover("history", path, store.size(path), why, unknown) for path in stored - used]


def _what_is_gone(row: ResultFiles, model_save_dir: Path) -> str:
    if (model_save_dir / row.model).is_file():
        return "a history of it is gone from the store"
    return f"its model {row.model} is gone"
