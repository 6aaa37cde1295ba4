"""Which tasks of an export contradict the database: known before any file is asked for and any row is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core.errors import ConfigurationError
from synicix_core.tables.transfer_columns import TransferTable
from synicix_core.tables.transfer_merge import History, compare, read_histories

__all__ = ["Comparison", "Conflict", "ImportConflicts"]

_LISTED = 20


@dataclass(frozen=True)
class Conflict:
    """A task of which the export and the database tell different stories."""

    task: str
    why: str


class ImportConflicts(ConfigurationError):
    """Tasks contradict what the database has; nothing was written.

    Attributes
    ----------
    conflicts : list of Conflict
        All of them.
    """

    def __init__(self, conflicts: list[Conflict]) -> None:
        self.conflicts = conflicts
        listed = "".join(f"\n  {conflict.task[:8]}: {conflict.why}" for conflict in conflicts[:_LISTED])
        more = f"\n  and {len(conflicts) - _LISTED:,} more" if len(conflicts) > _LISTED else ""
        super().__init__(
            f"{len(conflicts):,} {'task contradicts' if len(conflicts) == 1 else 'tasks contradict'} what is in the database",
            why=listed + more,
            hint="Nothing was imported. To leave these tasks as they are here and import the rest, add --keep-existing.",
        )


class Comparison:
    """Compares the tasks of an export with those of the database, as they stream past; nothing is written or locked.

    Parameters
    ----------
    connection : datajoint.Connection
        Of the database.
    tables : mapping
        The tables by name.

    Attributes
    ----------
    conflicts : list of Conflict
        The tasks that contradict what is here, so far.
    apart : set of str
        The tasks whose results are not imported, so far. Theirs and those of the database may be files of the same names.
    """

    def __init__(self, connection: Any, tables: Mapping[str, TransferTable]) -> None:
        self._connection = connection
        self._tables = tables
        self.conflicts: list[Conflict] = []
        self.apart: set[str] = set()

    def look(self, some: Sequence[History]) -> Collection[str]:
        """Compare some tasks; return `apart`."""
        here = read_histories(self._connection, self._tables, [history.key for history in some])
        for history in some:
            if history.key not in here:
                continue
            difference = compare(history, here[history.key], self._tables)
            if difference.kind == "conflict":
                self.conflicts.append(Conflict(history.key, difference.why))
            if difference.kind == "conflict" or (difference.kind == "behind" and here[history.key].result is None):
                self.apart.add(history.key)
        return self.apart
