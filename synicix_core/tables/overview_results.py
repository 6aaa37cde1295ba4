"""Results for people who look: chosen, sorted and counted by the database, and read in pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.tables.config_numbers import UNLIMITED, join_numbers
from synicix_core.tables.result_columns import RESULT_SQL, Comparison
from synicix_core.tables.schema import Tables

__all__ = ["PAGE", "TASKS_BY_RESULT", "Order", "ResultRow", "Selection", "count_results", "read_pages", "used_configs"]

PAGE = 2000
"""The most results that are read at once, where the database can read them in order."""

_SORTED_PAGE = 10_000  # Where it has to sort all of them for each page.
_SHARE = 0.05  # Of all configs, the least that are looked at together.

# MySQL reads the small index of one column of all results and looks their tasks up; the other way round it would read the
# whole table of results, in no order. PostgreSQL takes this for a comment, and knows better by itself.
TASKS_BY_RESULT = "/*+ JOIN_PREFIX(r, t) */"

_MD5 = "training_task_md5_hash"
_COLUMNS = (
    f"r.{_MD5}, t.dataset_config_md5_hash, t.model_config_md5_hash, t.training_config_md5_hash, r.test_score, r.status, "
    "r.epochs, r.best_epoch, r.train_seconds, r.utc_insert_time, r.code_sha256"
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The scalars of one result, and where they were asked for its scores, ``{tier: {metric: value}}``."""

    task: str
    dataset: str
    model: str
    training: str
    score: float | None
    status: str
    epochs: int
    best_epoch: int | None
    seconds: float
    finished_at: datetime
    code: str
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """Which results are meant.

    Attributes
    ----------
    configs : mapping
        ``{kind: md5s}``: of which configs; of any, where a kind is not mentioned.
    comparisons : tuple of Comparison
        What holds for their own columns.
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose from.
    codes : frozenset of str, optional
        Which code they were trained with.
    ceilings : mapping
        Noise ceilings by md5 of the dataset.
    """

    configs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    restriction: str = ""
    codes: frozenset[str] | None = None
    ceilings: Mapping[str, float] = field(default_factory=dict)

    def among(self, kind: str, md5s: frozenset[str]) -> Selection:
        """Return those of certain configs only."""
        held = self.configs.get(kind)
        return replace(self, configs={**self.configs, kind: md5s if held is None else held & md5s})

    @property
    def is_everything(self) -> bool:
        """Whether every result is meant."""
        return not (self.configs or self.comparisons or self.restriction or self.codes is not None)

    def sql(
        self, tables: Tables, columns: Sequence[str] = (), join: tuple[str, Sequence[Any]] = ("", ())
    ) -> tuple[str, list[Any]]:
        """Return ``FROM … WHERE …`` of the results ``r`` and their tasks ``t``, and its arguments.

        Parameters
        ----------
        tables : Tables
            Where they are.
        columns : sequence of str
            The columns of results that the query goes on to use.
        join : str, sequence
            SQL that joins something else, and its arguments.
        """
        source = f"FROM {tables.TrainingResult.full_table_name} r JOIN {tables.TrainingTask.full_table_name} t ON t.{_MD5} = r.{_MD5}"
        args: list[Any] = []
        if "of_ceiling" in columns or any(item.column == "of_ceiling" for item in self.comparisons):
            numbers: dict[str, Mapping[str, float | None]] = {"ceiling": {"": None, **self.ceilings}}
            joined, args = join_numbers(
                tables.connection.adapter, "LEFT JOIN", "n", "t.dataset_config_md5_hash", numbers
            )
            source += f" {joined}"
        if join[0]:
            source += f" {join[0]}"
        # An argument, though none may be needed, has the driver read "%%" in the restriction as "%".
        where, args = ["1 = %s"], [*args, *join[1], 1]
        for kind, md5s in self.configs.items():
            where.append(f"t.{kind}_config_md5_hash IN ({_listed(md5s)})")
        if self.codes is not None:
            where.append(f"r.code_sha256 IN ({_listed(self.codes)})")
        for item in self.comparisons:
            condition, values = item.sql()
            where.append(condition)
            args.extend(values)
        if self.restriction:
            chosen = self.restriction
            if tables.connection.adapter.backend != "postgresql":
                # Computed once; MySQL would go through its joins again for each result.
                chosen = f"SELECT {_MD5} FROM (SELECT {_MD5} FROM ({chosen}) asked {UNLIMITED}) chosen"
            where.append(f"r.{_MD5} IN ({chosen})")
        return f"{source} WHERE {' AND '.join(where)}", args


@dataclass(frozen=True)
class Order:
    """How results are sorted; what has no value comes last, and tasks decide between equals.

    Attributes
    ----------
    column : str
        One of `RESULT_SQL`.
    downward : bool
        Whether the greatest comes first.
    kind : str
        For an order by configs: their kind.
    places : mapping
        For an order by configs: ``{md5: place}``, of all of them; the other attributes mean nothing then.
    """

    column: str = "score"
    downward: bool = False
    kind: str = ""
    places: Mapping[str, int] = field(default_factory=dict)


def count_results(tables: Tables, selection: Selection) -> int:
    """Return how many results are meant."""
    if selection.is_everything:
        sql, args = f"SELECT COUNT(*) FROM {tables.TrainingResult.full_table_name}", list[Any]()
        return int(execute(tables.connection, sql, args).fetchone()[0])
    if tables.connection.adapter.backend != "postgresql" and selection.configs and not selection.restriction:
        # Looking for each result in a list of the tasks takes MySQL less than looking its task up.
        task = tables.TrainingTask.full_table_name
        where = " AND ".join(f"{kind}_config_md5_hash IN ({_listed(md5s)})" for kind, md5s in selection.configs.items())
        selection = replace(selection, configs={}, restriction=f"SELECT {_MD5} FROM {task} WHERE {where}")
    source, args = selection.sql(tables)
    hint = "/*+ JOIN_PREFIX(r) */" if selection.restriction else TASKS_BY_RESULT
    return int(execute(tables.connection, f"SELECT {hint} COUNT(*) {source}", args).fetchone()[0])


def used_configs(tables: Tables, selection: Selection) -> dict[str, frozenset[str]]:
    """Return the md5s of the configs that the results are of, by kind."""
    source, args = selection.sql(tables)
    used: dict[str, set[str]] = {"dataset": set(), "model": set(), "training": set()}
    for kinds in (("dataset", "model"), ("training",)):
        columns = ", ".join(f"t.{kind}_config_md5_hash" for kind in kinds)
        for row in execute(tables.connection, f"SELECT {TASKS_BY_RESULT} DISTINCT {columns} {source}", args).fetchall():
            for kind, md5 in zip(kinds, row, strict=True):
                used[kind].add(str(md5))
    return {kind: frozenset(md5s) for kind, md5s in used.items()}


def read_pages(
    tables: Tables, selection: Selection, order: Order, *, limit: int | None = None, with_scores: bool = False
) -> Iterator[list[ResultRow]]:
    """Yield results in order, page by page; each page goes on behind the last row of the one before.

    Parameters
    ----------
    tables : Tables
        Where they are.
    selection : Selection
        Which.
    order : Order
        How they are sorted.
    limit : int, optional
        The most to read.
    with_scores : bool
        Whether to read the scores of all metrics, too.
    """
    left = limit
    for part in _parts(tables, selection, order):
        for page in part.pages(left, with_scores):
            yield page
            left = None if left is None else left - len(page)
        if left is not None and left <= 0:
            return


@dataclass(frozen=True)
class _Part:
    """Results that one expression sorts; several parts follow each other."""

    tables: Tables
    selection: Selection
    expression: str
    downward: bool
    page: int
    columns: tuple[str, ...] = ()
    join: tuple[str, list[Any]] = ("", [])
    condition: str = "1 = 1"
    hint: str = TASKS_BY_RESULT

    def pages(self, limit: int | None, with_scores: bool) -> Iterator[list[ResultRow]]:
        source, args = self.selection.sql(self.tables, self.columns, self.join)
        columns = _COLUMNS + (", r.scores" if with_scores else "")
        direction, sign = ("DESC", "<") if self.downward else ("ASC", ">")
        behind, behind_args = "", list[Any]()
        while limit is None or limit > 0:
            size = self.page if limit is None else min(limit, self.page)
            sql = (
                f"SELECT {self.hint} {columns}, {self.expression} AS place {source} AND {self.condition}{behind} "
                f"ORDER BY {self.expression} {direction}, r.{_MD5} {direction} LIMIT {size}"
            )
            rows = execute(self.tables.connection, sql, [*args, *behind_args]).fetchall()
            if rows:
                yield [_row(row[:-1]) for row in rows]
            if len(rows) < size:
                return
            limit = None if limit is None else limit - size
            # The first comparison alone would do for an index; the second is what is meant.
            behind = f" AND {self.expression} {sign}= %s AND ({self.expression} {sign} %s OR r.{_MD5} {sign} %s)"
            behind_args = [rows[-1][-1], rows[-1][-1], rows[-1][0]]


def _parts(tables: Tables, selection: Selection, order: Order) -> Iterator[_Part]:
    if order.places:
        yield from _parts_by_place(tables, selection, order)
        return
    column = RESULT_SQL[order.column]
    page = PAGE if column.indexed else _SORTED_PAGE
    part = _Part(tables, selection, column.sql, order.downward, page, columns=(order.column,))
    if not column.nullable:
        yield part
        return
    yield replace(part, condition=f"{column.sql} IS NOT NULL")
    yield replace(part, expression=f"r.{_MD5}", downward=False, condition=f"{column.sql} IS NULL")


def _parts_by_place(tables: Tables, selection: Selection, order: Order) -> Iterator[_Part]:
    """Take a few configs at a time: the first page then need not sort the results of all of them."""
    allowed = selection.configs.get(order.kind)
    by_place: dict[int, set[str]] = {}
    for md5, place in order.places.items():
        if allowed is None or md5 in allowed:
            by_place.setdefault(place, set()).add(md5)
    batch: dict[str, float | None] = {}
    places = sorted(by_place)
    for index, place in enumerate(places, start=1):
        batch |= dict.fromkeys(by_place[place], float(place))
        if len(batch) < _SHARE * len(order.places) and index < len(places):
            continue
        among = selection.among(order.kind, frozenset(batch))
        if len(set(batch.values())) == 1:
            # Among so many configs, the first results in the order of their tasks are soon found.
            yield _Part(tables, among, f"r.{_MD5}", False, PAGE)
        else:
            md5 = f"t.{order.kind}_config_md5_hash"
            joined = join_numbers(tables.connection.adapter, "JOIN", "p", md5, {"place": batch})
            yield _Part(tables, among, "p.place", False, PAGE, join=joined, hint="")
        batch = {}


def _row(values: Sequence[Any]) -> ResultRow:
    columns = list(values)
    if len(columns) > 11 and isinstance(columns[11], str | bytes):
        columns[11] = json.loads(columns[11])
    return ResultRow(*columns)


def _listed(md5s: frozenset[str]) -> str:
    return ", ".join(f"'{md5}'" for md5 in sorted(md5s)) or "''"
