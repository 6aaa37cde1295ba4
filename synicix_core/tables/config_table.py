"""What the tables that people insert into share: check a batch whole, then insert it whole."""

from __future__ import annotations

import dataclasses
import difflib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from synicix_core.database.reconnect import execute
from synicix_core.errors import ParamsError, PluginImportError, ProviderConflict, ProviderNotFound, SynicixError
from synicix_core.parameters import check_params
from synicix_core.registry import Registered, Registry

if TYPE_CHECKING:
    from synicix_core.settings import Settings

__all__ = ["ConfigTable", "InsertReport", "PreparedRows", "RowCheck", "Services"]

_CHUNK = 1000


class DatasetFacts(Protocol):
    """What the DatasetConfig row computes from the dataset itself."""

    input_shape: Any
    output_shape: Any
    additional_model_params: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Services:
    """What tables need from above, handed to them by the pipeline.

    Attributes
    ----------
    settings : Settings
        Directories of this machine.
    registry : Registry
        The installed plugins.
    inspect_dataset : callable
        ``(registered, path, params) -> DatasetFacts``; builds the dataset and looks at its first validation example.
    """

    settings: Settings
    registry: Registry
    inspect_dataset: Callable[[Registered, Path, dict[str, Any]], DatasetFacts]


@dataclass(frozen=True)
class PreparedRows:
    """Complete rows, md5 included, in the order in which they were given.

    Attributes
    ----------
    rows : list of dict
        Ready to insert.
    notes : tuple of str
        What could not be checked.
    """

    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InsertReport:
    """What an insert did.

    Attributes
    ----------
    new, existing : list of dict
        Primary keys of the rows that were inserted, and of those that were there.
    notes : tuple of str
        What could not be checked.
    invalid : tuple of (path, message)
        With ``skip_invalid``: why rows were left out.
    """

    table: str
    new: list[dict[str, Any]]
    existing: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    invalid: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        left_out = f", {len(self.invalid)} mistakes in rows left out" if self.invalid else ""
        return f"{self.table}: {len(self.new)} new, {len(self.existing)} there already{left_out}"

    __repr__ = __str__


@dataclass
class RowCheck:
    """Collects the mistakes and notes of one row."""

    registry: Registry
    label: str
    mistakes: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def mistake(self, key: str, message: str) -> None:
        """Note what is wrong with the value under `key`."""
        self.mistakes.append((f"{self.label}.{key}" if key else self.label, message))

    def provider(self, key: str, kind: str, name: Any) -> Registered | None:
        """Resolve a provider as people type it; note a mistake if that cannot be done."""
        if not isinstance(name, str) or not name:
            self.mistake(key, f"names a {kind} as a string, not {name!r}")
            return None
        try:
            registered = self.registry.resolve(kind, name)
            registered.load()
        except (ProviderNotFound, ProviderConflict, PluginImportError) as error:
            self.mistake(key, str(error))
            return None
        return registered

    def params(self, key: str, registered: Registered | None, params: Any, **options: Any) -> dict[str, Any]:
        """Check the parameters given to a provider; return them as they are stored."""
        if registered is None:
            return {}
        checked = check_params(registered, params, path=f"{self.label}.{key}", **options)
        self.mistakes.extend(checked.mistakes)
        self.notes.extend(checked.notes)
        return checked.values

    def integer(self, key: str, value: Any, least: int, most: int) -> int:
        """Check an integer within bounds."""
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.mistake(key, f"is an integer from {least} to {most}, not {value!r}")
            return least
        return int(value)

    def text(self, key: str, value: Any) -> str:
        """Check a string of at most 256 characters."""
        if not isinstance(value, str) or len(value) > 256 or "\0" in value:
            self.mistake(key, f"is a string of at most 256 characters, not {value!r}")
            return ""
        return value


class ConfigTable:
    """Mixin of DatasetConfig, ModelConfig, TrainingConfig and TrainingTask.

    A subclass names its columns in `required` and `defaults` and completes one row in `_complete`.
    """

    md5: ClassVar[str]
    """Name of the primary key."""
    required: ClassVar[tuple[str, ...]]
    """Columns that a row must give."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Columns that a row may leave out, and their values then."""
    old_names: ClassVar[Mapping[str, str]] = {}
    """``{prefix of the predecessor's columns that named a module and a class: the column that replaced both}``."""
    services: Services

    def insert_tuples(self, tuple_dicts: Iterable[Mapping[str, Any]], skip_invalid: bool = False) -> InsertReport:
        """Check rows, fill in what is computed, and insert those that are new, in bulk.

        Parameters
        ----------
        tuple_dicts : iterable of dict
            Rows by column name. Columns left out take their defaults; providers may be named by their short names.
        skip_invalid : bool
            Insert the good rows and report the bad ones, instead of inserting nothing.

        Returns
        -------
        InsertReport
            Keys that are new and keys that were there.

        Raises
        ------
        ParamsError
            With every mistake of every row. Nothing is inserted then.
        """
        prepared, mistakes = self._prepare(tuple_dicts)
        if mistakes and not skip_invalid:
            raise self._error(mistakes)
        return dataclasses.replace(self.insert_prepared(prepared.rows), notes=prepared.notes, invalid=tuple(mistakes))

    insert_tuple = insert_tuples

    def prepare(self, tuple_dicts: Iterable[Mapping[str, Any]], labels: Sequence[str] = ()) -> PreparedRows:
        """Check rows and complete them as `insert_tuples` does, but insert nothing.

        Parameters
        ----------
        tuple_dicts : iterable of dict
            Rows by column name.
        labels : sequence of str
            What to call each row in messages; ``row 1``, ``row 2``, … by default.

        Raises
        ------
        ParamsError
            With every mistake of every row.
        """
        prepared, mistakes = self._prepare(tuple_dicts, labels)
        if mistakes:
            raise self._error(mistakes)
        return prepared

    def insert_prepared(self, rows: Iterable[Mapping[str, Any]]) -> InsertReport:
        """Insert complete rows, as `prepare` returned them, in bulk; rows that are there already are counted."""
        given = {row[self.md5]: row for row in rows}
        keys = list(given)
        there = self.existing(keys)
        fresh = {key: row for key, row in given.items() if key not in there}
        self.insert(fresh.values(), skip_duplicates=True, chunk_size=_CHUNK)  # type: ignore[attr-defined]
        self._after_insert(list(fresh))
        return InsertReport(
            type(self).__name__,
            new=[{self.md5: key} for key in fresh],
            existing=[{self.md5: key} for key in keys if key in there],
        )

    def existing(self, keys: Sequence[str]) -> set[str]:
        """Return which of the md5s are in the table."""
        found: set[str] = set()
        for start in range(0, len(keys), _CHUNK):
            chunk = list(keys[start : start + _CHUNK])
            marks = ", ".join(["%s"] * len(chunk))
            sql = f"SELECT {self.md5} FROM {self.full_table_name} WHERE {self.md5} IN ({marks})"  # type: ignore[attr-defined]
            found.update(row[0] for row in execute(self.connection, sql, tuple(chunk)))  # type: ignore[attr-defined]
        return found

    def _prepare(
        self, tuple_dicts: Iterable[Mapping[str, Any]], labels: Sequence[str] = ()
    ) -> tuple[PreparedRows, list[tuple[str, str]]]:
        if isinstance(tuple_dicts, Mapping):
            tuple_dicts = [tuple_dicts]
        rows, notes, mistakes = [], [], []
        given = list(tuple_dicts)
        self._before_rows(given)
        for number, row in enumerate(given, 1):
            check = RowCheck(self.services.registry, labels[number - 1] if labels else f"row {number}")
            complete = self._check_row(row, check)
            mistakes.extend(check.mistakes)
            notes.extend(check.notes)
            if complete is not None and not check.mistakes:
                rows.append(complete)
        return PreparedRows(rows, tuple(dict.fromkeys(notes))), mistakes

    def _check_row(self, row: Any, check: RowCheck) -> dict[str, Any] | None:
        if not isinstance(row, Mapping):
            check.mistake("", f"a row is a dict of columns, not {row!r}")
            return None
        columns = [*self.required, *self.defaults]
        if self._is_old_form(row):
            check.mistake(
                "", f"names Python modules; rows name providers now. Write instead:\n    {self._new_form(row)!r}"
            )
            return None
        for key in row:
            if key not in columns:
                near = difflib.get_close_matches(str(key), columns, 1)
                computed = key in self.heading.names  # type: ignore[attr-defined]
                why = (
                    "it is computed"
                    if computed
                    else f"did you mean {near[0]!r}?"
                    if near
                    else f"columns are {', '.join(columns)}"
                )
                check.mistake(str(key), f"cannot be inserted; {why}" if computed else f"is no column; {why}")
        for key in self.required:
            if key not in row:
                check.mistake(key, "is missing")
        if check.mistakes:
            return None
        try:
            return self._complete({**self.defaults, **row}, check)
        except SynicixError as error:
            check.mistake("", str(error))
            return None

    def _is_old_form(self, row: Mapping[str, Any]) -> bool:
        return any(key in row for prefix in self.old_names for key in _old_columns(prefix))

    def _new_form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        new: dict[str, Any] = {}
        for key, value in row.items():
            prefix = next((prefix for prefix in self.old_names if key in _old_columns(prefix)), None)
            if prefix is None:
                new[key] = value
            elif key.endswith("_class_name"):
                new[self.old_names[prefix]] = value
        return new

    def _error(self, mistakes: list[tuple[str, str]]) -> ParamsError:
        return ParamsError(f"nothing was inserted into {type(self).__name__}", mistakes)

    def _before_rows(self, rows: list[Any]) -> None:
        """Read in bulk what completing the rows needs."""

    def _after_insert(self, keys: list[str]) -> None:
        """Do what new rows entail."""

    @abstractmethod
    def _complete(self, row: dict[str, Any], check: RowCheck) -> dict[str, Any] | None:
        """Return the whole row, md5 included; note mistakes in `check`."""


def _old_columns(prefix: str) -> tuple[str, ...]:
    return f"{prefix}_class_module_name", f"{prefix}_module_name", f"{prefix}_class_name"
