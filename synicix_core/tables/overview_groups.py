"""Results in groups: mean, spread and best of each, computed by the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.tables.config_numbers import join_numbers
from synicix_core.tables.overview_results import TASKS_BY_RESULT, Selection
from synicix_core.tables.result_columns import RESULT_SQL
from synicix_core.tables.schema import Tables

__all__ = ["GroupRow", "Grouping", "best_tasks", "read_groups"]

_MD5 = "training_task_md5_hash"
_AT_ONCE = 500

Numbers = Mapping[str, int]


@dataclass(frozen=True)
class Grouping:
    """By what results are grouped.

    Attributes
    ----------
    classes : mapping
        ``{kind: {md5: number}}``: results agree that are of configs of the same number.
    columns : tuple of str
        Columns of results, in which they agree as well.
    watched : mapping
        ``{kind: [{md5: number}, …]}``: what each group tells the least and the greatest number of.
    """

    classes: Mapping[str, Numbers]
    columns: tuple[str, ...] = ()
    watched: Mapping[str, Sequence[Numbers]] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of configs that have numbers."""
        return tuple(dict.fromkeys([*self.classes, *self.watched]))


@dataclass(frozen=True)
class GroupRow:
    """One group.

    Attributes
    ----------
    key : tuple
        Numbers of its classes, in the order of `Grouping.classes`, then the values of its columns.
    results, scores : int
        How many results it has, and how many of them have a score.
    mean, variance, best, of_ceiling : float or None
        Of the scores: mean, the sample's variance, the best one, and the mean as a fraction of the noise ceilings.
    spans : tuple of (int, int)
        Least and greatest number of what is watched, kind by kind.
    """

    key: tuple[Any, ...]
    results: int
    scores: int
    mean: float | None
    variance: float | None
    best: float | None
    of_ceiling: float | None
    spans: tuple[tuple[int, int], ...]


def read_groups(tables: Tables, selection: Selection, grouping: Grouping, *, highest: bool) -> list[GroupRow]:
    """Return the groups, in no order; `highest` tells whether the highest score is the best."""
    source, args = _source(tables, selection, grouping)
    keys = _keys(grouping)
    spans = [
        f"MIN({kind}_n.w{index}), MAX({kind}_n.w{index})"
        for kind, numbers in grouping.watched.items()
        for index in range(len(numbers))
    ]
    # Without ceilings it is NULL, of the type of a number.
    of_ceiling = RESULT_SQL["of_ceiling"].sql if selection.ceilings else "NULLIF(r.test_score, r.test_score)"
    functions = ("COUNT(*)", *(f"{name}(r.test_score)" for name in ("COUNT", "AVG", "VAR_SAMP", _first(highest))))
    columns = ", ".join([*keys, *functions, f"AVG({of_ceiling})", *spans])
    by = f" GROUP BY {', '.join(keys)}" if keys else ""
    found = execute(tables.connection, f"SELECT {TASKS_BY_RESULT} {columns} {source}{by}", args).fetchall()
    return [_group(grouping, row) for row in found]


def best_tasks(
    tables: Tables, selection: Selection, grouping: Grouping, groups: Sequence[GroupRow], *, highest: bool
) -> dict[tuple[Any, ...], str]:
    """Return the task with the best score of each group that has one, by the group's key; the first one in order."""
    wanted = {group.key: group.best for group in groups if group.best is not None}
    scores = sorted({score for score in wanted.values() if score is not None})
    columns = ", ".join([*_keys(grouping), "r.test_score"])
    found: dict[tuple[Any, ...], str] = {}
    for start in range(0, len(scores), _AT_ONCE):
        chunk = scores[start : start + _AT_ONCE]
        source, args = _source(tables, selection, grouping)
        sql = (
            f"SELECT {TASKS_BY_RESULT} {columns}, {_first(highest)}(r.{_MD5}) {source} "
            f"AND r.test_score IN ({', '.join(['%s'] * len(chunk))}) GROUP BY {columns}"
        )
        for row in execute(tables.connection, sql, [*args, *chunk]).fetchall():
            key = _key(grouping, row)
            if wanted.get(key) == row[-2]:
                found[key] = str(row[-1])
    return found


def _source(tables: Tables, selection: Selection, grouping: Grouping) -> tuple[str, list[Any]]:
    """Return ``FROM … WHERE …`` of the results and the numbers of their configs, and its arguments."""
    joins, args = list[str](), list[Any]()
    for kind in grouping.kinds:
        numbers = {"g": grouping.classes[kind]} if kind in grouping.classes else {}
        numbers |= {f"w{index}": watched for index, watched in enumerate(grouping.watched.get(kind, ()))}
        md5 = f"t.{kind}_config_md5_hash"
        joined, joined_args = join_numbers(tables.connection.adapter, "JOIN", f"{kind}_n", md5, numbers)
        joins.append(joined)
        args.extend(joined_args)
    columns = [*grouping.columns, *(["of_ceiling"] if selection.ceilings else [])]
    return selection.sql(tables, columns, (" ".join(joins), args))


def _first(highest: bool) -> str:
    """Return the function that finds the best score, or among equal scores the task that comes first."""
    return "MAX" if highest else "MIN"


def _keys(grouping: Grouping) -> list[str]:
    return [*(f"{kind}_n.g" for kind in grouping.classes), *(RESULT_SQL[name].sql for name in grouping.columns)]


def _key(grouping: Grouping, row: Sequence[Any]) -> tuple[Any, ...]:
    """Return the key with which a row begins."""
    whole = len(grouping.classes)
    return (*map(int, row[:whole]), *row[whole : whole + len(grouping.columns)])


def _group(grouping: Grouping, row: Sequence[Any]) -> GroupRow:
    key = _key(grouping, row)
    results, scores, *numbers = row[len(key) :]
    spans = [int(number) for number in numbers[4:]]
    floats = [None if number is None else float(number) for number in numbers[:4]]
    mean, variance, best, of_ceiling = floats
    pairs = tuple(zip(spans[::2], spans[1::2], strict=True))
    return GroupRow(key, int(results), int(scores), mean, variance, best, of_ceiling, pairs)
