"""The scalars of a result as columns in SQL: what they are, and how they are compared with what somebody typed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from synicix_core.errors import ConfigurationError

__all__ = ["RESULT_SQL", "Comparison", "ResultColumn"]

_LARGEST = 1.7976931348623157e308


@dataclass(frozen=True)
class ResultColumn:
    """A column in SQL, where ``r`` is TrainingResult and ``n.ceiling`` the noise ceiling of the dataset.

    Attributes
    ----------
    sql : str
        Its value.
    type : {"text", "number", "time"}
        What it holds.
    nullable : bool
        Whether it may be NULL.
    indexed : bool
        Whether the database can read results in its order without sorting them.
    """

    sql: str
    type: str
    nullable: bool = False
    indexed: bool = False


RESULT_SQL = {
    "task": ResultColumn("r.training_task_md5_hash", "text", indexed=True),
    "score": ResultColumn("r.test_score", "number", nullable=True, indexed=True),
    "of_ceiling": ResultColumn("(r.test_score / NULLIF(n.ceiling, 0))", "number", nullable=True),
    # As text: the databases sort an enumeration by its definition, and PostgreSQL compares it with its own words only.
    "status": ResultColumn("CONCAT(r.status, '')", "text"),
    "epochs": ResultColumn("r.epochs", "number"),
    "best_epoch": ResultColumn("r.best_epoch", "number", nullable=True),
    "seconds": ResultColumn("r.train_seconds", "number"),
    "finished_at": ResultColumn("r.utc_insert_time", "time", indexed=True),
}
"""The columns by the name that a listing gives them."""


@dataclass(frozen=True)
class Comparison:
    """A condition on a column of results.

    Attributes
    ----------
    column : str
        One of `RESULT_SQL`.
    sign : {"=", "==", "!=", "<", ">", "<=", ">=", "~"}
        How it is compared; ``~`` is "contains, whatever the case".
    value : object
        With what.
    """

    column: str
    sign: str
    value: Any

    def sql(self) -> tuple[str, tuple[Any, ...]]:
        """Return the condition as SQL and its arguments; values of another type differ, and are neither less nor more.

        Raises
        ------
        ConfigurationError
            If a time is compared with what is none.
        """
        column = RESULT_SQL[self.column].sql
        if self.sign == "~":
            escaped = str(self.value).lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
            return f"LOWER(CONCAT({column}, '')) LIKE %s ESCAPE '!'", (f"%{escaped}%",)
        equal, differs = self.sign in ("=", "=="), self.sign == "!="
        if self.value is None:
            return (f"{column} IS NULL" if equal else f"{column} IS NOT NULL" if differs else "1 = 0"), ()
        value = self._operand(ordered=not equal and not differs)
        if value is None:
            return ("1 = 1" if differs else "1 = 0"), ()
        if differs:
            return f"({column} <> %s OR {column} IS NULL)", (value,)
        return f"{column} {'=' if equal else self.sign} %s", (value,)

    def _operand(self, *, ordered: bool) -> Any:
        """Return the value as the column holds it; None where the column cannot hold such a value."""
        kind, value = RESULT_SQL[self.column].type, self.value
        if kind == "time":
            return _time(self.column, value)
        if kind == "text":
            if isinstance(value, str):
                return value
            return (
                str(value) if not ordered and isinstance(value, int | float) and not isinstance(value, bool) else None
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return None
        return max(-_LARGEST, min(float(value), _LARGEST))


def _time(column: str, value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigurationError(
            f"{column} is compared with a time, not with {value!r}",
            hint=f"Write it in UTC, such as: {column}>2026-01-31 or {column}>2026-01-31T08:30:00",
        ) from error
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
