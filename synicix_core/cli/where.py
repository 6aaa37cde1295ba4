"""``--where``: conditions on the columns of a listing, or SQL as DataJoint takes it."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synicix_core.cli.config_columns import RESULT_COLUMNS, Columns, short_provider
from synicix_core.cli.wording import value_text

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = [
    "Condition",
    "ConfigView",
    "read_configs",
    "split_conditions",
    "sql_restriction",
    "task_restriction",
]

_CONDITION = re.compile(r"\s*([\w.-]+)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a value.

    Attributes
    ----------
    column : str
        Full name of the column.
    sign : str
        How it is compared.
    value : object
        What it is compared with.
    """

    column: str
    sign: str
    value: Any

    def holds(self, found: Any) -> bool:
        """Tell whether a value of the column meets the condition; None stands for a parameter that is not set."""
        if self.sign in ("=", "=="):
            return _equal(found, self.value)
        if self.sign == "!=":
            return not _equal(found, self.value)
        if self.sign == "~":
            return found is not None and str(self.value).lower() in value_text(found).lower()
        try:
            return found is not None and _COMPARE[self.sign](found, self.value)
        except TypeError:
            return False


@dataclass(frozen=True)
class ConfigView:
    """All configs, with the columns that they have in a listing.

    Attributes
    ----------
    rows : dict
        ``{kind: {md5: row}}``, without blobs.
    flat : dict
        ``{kind: {md5: {full name of a column: value}}}``.
    columns : Columns
        Names of all these columns.
    """

    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]
    flat: Mapping[str, Mapping[str, Mapping[str, Any]]]
    columns: Columns

    def kind_of(self, column: str) -> str:
        """Return the kind of config that has a column."""
        for kind, configs in self.flat.items():
            if any(column in columns for columns in configs.values()):
                return kind
        raise KeyError(column)

    def matching(self, condition: Condition) -> tuple[str, set[str]]:
        """Return the kind of config that a condition is about, and the md5s of those that meet it."""
        kind = self.kind_of(condition.column)
        configs = self.flat[kind].items()
        return kind, {md5 for md5, columns in configs if condition.holds(columns.get(condition.column))}


def read_configs(pipeline: Pipeline) -> ConfigView:
    """Read all configs."""
    from synicix_core.cli.config_columns import flatten
    from synicix_core.tables.overview_configs import CONFIG_KINDS, config_rows

    rows = {kind: config_rows(pipeline.tables, kind) for kind in CONFIG_KINDS}
    flat = {kind: {md5: flatten(kind, row) for md5, row in configs.items()} for kind, configs in rows.items()}
    names = dict.fromkeys(name for configs in flat.values() for columns in configs.values() for name in columns)
    return ConfigView(rows, flat, Columns(names))


def split_conditions(texts: Iterable[str], columns: Columns) -> tuple[list[Condition], list[str]]:
    """Tell conditions on columns of the listing from SQL.

    Returns
    -------
    list of Condition, list of str
        The conditions, and what is left for the database.
    """
    conditions, sql = [], []
    for text in texts:
        match = _CONDITION.fullmatch(text)
        column = columns.find(match[1]) if match else None
        if match and column:
            conditions.append(Condition(column, match[2], _value(match[3])))
        else:
            sql.append(text)
    return conditions, sql


def task_restriction(pipeline: Pipeline, texts: Sequence[str]) -> str:
    """Return the SQL that yields the md5s of the tasks which meet all conditions; empty where there are none.

    Raises
    ------
    ConfigurationError
        If a condition is on a result, or the database does not understand it.
    """
    from synicix_core.errors import ConfigurationError

    if not texts:
        return ""
    view = read_configs(pipeline)
    conditions, sql = split_conditions(texts, view.columns)
    for condition in conditions:
        if condition.column in RESULT_COLUMNS:
            raise ConfigurationError(
                f"tasks cannot be chosen by {condition.column!r}", why="only results have it, not tasks to be trained"
            )
        kind, md5s = view.matching(condition)
        listed = ", ".join(f"'{md5}'" for md5 in sorted(md5s)) or "''"
        sql.append(f"{kind}_config_md5_hash IN ({listed})")
    return sql_restriction(pipeline, sql, texts)


def sql_restriction(pipeline: Pipeline, sql: Sequence[str], texts: Sequence[str]) -> str:
    """Turn SQL conditions into a query for the md5s of tasks, and have the database try it.

    Raises
    ------
    ConfigurationError
        If the database does not understand it.
    """
    from synicix_core.database import execute
    from synicix_core.errors import ConfigurationError, SynicixError

    if not sql:
        return ""
    try:
        restriction = pipeline.restriction(sql)
        execute(pipeline.connection, f"SELECT 1 FROM ({restriction}) tasks WHERE 1 = %s LIMIT 1", (1,))
    except SynicixError:
        raise
    except Exception as error:  # DataJoint's and the drivers' errors, of several classes
        shown = " and ".join(repr(text) for text in texts)
        raise ConfigurationError(
            f"the condition {shown} is neither on a column of the listing nor SQL that the database understands",
            why=" ".join(str(error.args[0] if error.args else error).split()),
            hint="Run: synicix-run results --columns",
        ) from error
    return restriction


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, str) and isinstance(wanted, str):
        return wanted in (found, short_provider(found)) if "/" in found else found == wanted
    if isinstance(found, str) and not isinstance(wanted, str):
        return found == str(wanted)
    return bool(found == wanted)
