"""How what is left over is removed while workers run: the rows are read again first, and the store is closed meanwhile.

Killed at any time, it leaves files that are found again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from synicix_core.database.quiet import datajoint as dj
from synicix_core.runner.leftover_files import is_unchanged, unneeded
from synicix_core.runner.leftover_histories import HistoryStore
from synicix_core.runner.leftovers import KINDS, TASKS_AT_ONCE, Findings, chunks, lacks_files
from synicix_core.tables.housekeeping import (
    closed_store,
    committed_since,
    database_time,
    delete_results,
    result_files,
    rows_of_tasks,
)
from synicix_core.tables.queue import Queue
from synicix_core.tables.schema import Tables

__all__ = ["Removal", "remove_leftovers"]

_RESULTS_AT_ONCE = 200
_CLOSED_SECONDS = 0.2
_OPEN_SECONDS = 0.02


@dataclass
class Removal:
    """What was removed, counted while it goes on.

    Attributes
    ----------
    files, size : int
        Files, and the bytes that they took.
    results, queued : int
        Results, and the tasks that were queued because of that.
    kept : int
        What was found but left alone, because by now a row refers to it, or because it is gone.
    errors : list of (str, str)
        What could not be removed, and why.
    """

    files: int = 0
    size: int = 0
    results: int = 0
    queued: int = 0
    kept: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)


def remove_leftovers(
    tables: Tables,
    model_save_dir: Path,
    findings: Findings,
    *,
    unknown: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Removal:
    """Remove what was found, as far as the rows still allow it; the tasks of deleted results are queued again.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    model_save_dir : Path
        Where models and checkpoints lie on this machine.
    findings : Findings
        What `find_leftovers` found.
    unknown : bool
        Whether to remove what this schema knows nothing of, too.
    progress : callable
        Told how many more have been dealt with.

    Raises
    ------
    ConfigurationError
        If the findings say that nothing must be removed.
    DatabaseUnavailable
        If a worker has been writing a result for very long.
    """
    if findings.refusal is not None:
        raise findings.refusal
    sizes: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for item in findings.leftovers:
        if unknown or not item.unknown:
            sizes[item.kind][item.name] = item.size
    removal = Removal()
    _remove_results(tables, model_save_dir, findings, list(sizes["result"]), removal, progress)
    names = sizes["checkpoint"].keys() | sizes["model"].keys() | sizes["temporary"].keys()
    _remove_files(tables, model_save_dir, findings, names, removal, progress)
    if findings.store is not None:
        _remove_histories(tables, findings.store, sizes["history"], removal, progress)
    return removal


def _remove_results(
    tables: Tables,
    model_save_dir: Path,
    findings: Findings,
    tasks: Sequence[str],
    removal: Removal,
    progress: Callable[[int], object],
) -> None:
    is_gone = lacks_files(model_save_dir, findings.store)
    for chunk in chunks(tasks, _RESULTS_AT_ONCE):
        try:
            deleted = delete_results(tables, chunk, is_gone)
        except dj.errors.DataJointError as error:  # somebody's own table depends on them and cannot be deleted from
            removal.errors.extend((task, str(error)) for task in chunk)
        else:
            removal.results += len(deleted)
            removal.kept += len(chunk) - len(deleted)
        progress(len(chunk))
    if removal.results:
        removal.queued = Queue(tables).enqueue()


def _remove_files(
    tables: Tables,
    directory: Path,
    findings: Findings,
    names: set[str],
    removal: Removal,
    progress: Callable[[int], object],
) -> None:
    for tasks in chunks(sorted(findings.files), TASKS_AT_ONCE):
        rows = rows_of_tasks(tables, tasks)
        for task in tasks:
            there = [file for file in findings.files[task] if is_unchanged(directory, file)]
            still = {file.name for file, _ in unneeded(there, rows.get(task))}
            for file in findings.files[task]:
                if file.name not in names:
                    continue
                if file.name in still:
                    _remove(file.name, file.size, (directory / file.name).unlink, removal)
                else:
                    removal.kept += 1
                progress(1)


def _remove_histories(
    tables: Tables,
    store: HistoryStore,
    sizes: Mapping[str, int],
    removal: Removal,
    progress: Callable[[int], object],
) -> None:
    if not sizes:
        return
    with closed_store(tables):
        moment = database_time(tables)
    # The results of whoever was writing before that moment are read here; those of whoever comes later, by their time.
    left = set(sizes)
    for row in result_files(tables):
        left.difference_update(row.histories)
    removal.kept += len(sizes) - len(left)
    progress(len(sizes) - len(left))
    paths = sorted(left, reverse=True)
    referred: set[str] = set()
    while paths:
        with closed_store(tables):
            for row in committed_since(tables, moment):
                referred.update(row.histories)
            moment = database_time(tables)
            until = time.monotonic() + _CLOSED_SECONDS
            while paths and time.monotonic() < until:
                path = paths.pop()
                if path in referred:
                    removal.kept += 1
                else:
                    _remove(path, sizes[path], partial(store.remove, path), removal)
                progress(1)
        # Workers who waited get their turn.
        time.sleep(_OPEN_SECONDS)


def _remove(name: str, size: int, unlink: Callable[[], object], removal: Removal) -> None:
    try:
        unlink()
    except FileNotFoundError:
        removal.kept += 1
    except Exception as error:  # each storage has errors of its own
        removal.errors.append((name, getattr(error, "strerror", None) or str(error) or type(error).__name__))
    else:
        removal.files += 1
        removal.size += size
