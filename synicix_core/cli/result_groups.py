"""Results in groups: the columns that people name become numbers by which the database groups them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synicix_core.cli.config_columns import RESULT_COLUMNS
from synicix_core.cli.config_values import varying
from synicix_core.cli.listing import CONFIGS, Listing, read_entries, sort_listing

if TYPE_CHECKING:
    from synicix_core.cli.listing import Entry
    from synicix_core.tables.overview_groups import GroupRow

__all__ = ["Group", "GroupedListing", "group_listing", "group_over", "read_tasks", "shared_values"]


@dataclass(frozen=True)
class Group:
    """Results that agree in the columns they are grouped by.

    Attributes
    ----------
    values : dict
        Those columns by full name.
    key : tuple
        What the database told them apart by.
    n : int
        How many of them have a score.
    mean, sem : float or None
        Mean of the scores, and its standard error: the sample's standard deviation over the root of its size; None for one
        score.
    of_ceiling : float or None
        Mean of the scores as fractions of their noise ceilings.
    best, best_task : float or None, str or None
        The best score, and the first task that has it.
    spans : tuple of (int, int)
        Of every watched column, the least and the greatest number of its values in the group.
    """

    values: dict[str, Any]
    key: tuple[Any, ...]
    n: int
    mean: float | None
    sem: float | None
    of_ceiling: float | None
    best: float | None
    best_task: str | None
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class GroupedListing:
    """A listing in groups, the best first.

    Attributes
    ----------
    listing : Listing
        The results.
    groups : tuple of Group
        Their groups, or the first ones of them.
    total : int
        How many groups there are.
    distinct : mapping
        ``{full name: values}`` that the columns have by which they are grouped, in all groups.
    grouped_by : tuple of str
        Full names of the columns by which they are grouped.
    watched : mapping
        ``{full name: values}`` of the columns of `Group.spans`, in their order.
    constant : mapping
        The columns that are the same in all.
    plan : object
        Knows the group of a result.
    """

    listing: Listing
    groups: tuple[Group, ...]
    total: int
    distinct: Mapping[str, Sequence[Any]]
    grouped_by: tuple[str, ...]
    watched: Mapping[str, Sequence[Any]]
    constant: Mapping[str, Any]
    plan: _Plan


def group_listing(
    listing: Listing, columns: Sequence[str], *, reverse: bool = False, limit: int | None = None
) -> GroupedListing:
    """Group the results that agree in `columns`.

    Parameters
    ----------
    listing : Listing
        What to group.
    columns : sequence of str
        Full names.
    reverse : bool
        Whether the worst group comes first.
    limit : int, optional
        The most groups to return.
    """
    from synicix_core.tables.overview_groups import best_tasks, read_groups

    plan = _Plan(listing, columns)
    highest = listing.score.higher_is_better
    rows = read_groups(listing.tables, listing.selection, plan.grouping, highest=highest)
    sign = -1 if highest != reverse else 1
    rows.sort(key=lambda row: (row.mean is None, sign * (row.mean or 0.0), repr(row.key)))
    distinct = plan.distinct(rows)
    total = len(rows)
    rows = rows[:limit]
    tasks = best_tasks(listing.tables, listing.selection, plan.grouping, rows, highest=highest)
    groups = tuple(plan.group(row, tasks.get(row.key)) for row in rows)
    return GroupedListing(listing, groups, total, distinct, tuple(columns), plan.watched, plan.constant, plan)


def group_over(
    listing: Listing, columns: Sequence[str], *, reverse: bool = False, limit: int | None = None
) -> GroupedListing:
    """Group the results that agree in all columns in which they differ, but for `columns`; the rest is as in `group_listing`."""
    may_differ, _ = varying(_allowed(listing), listing.view.columns.full)
    grouped = group_listing(listing, [name for name in may_differ if name not in columns], reverse=reverse, limit=limit)
    # Only configs without a result may have had other values.
    same = {name: values[0] for name, values in grouped.distinct.items() if len(values) == 1}
    by = tuple(name for name in grouped.grouped_by if name not in same)
    groups = tuple(replace(group, values={name: group.values[name] for name in by}) for group in grouped.groups)
    constant = {**grouped.constant, **{name: value for name, value in same.items() if value is not None}}
    return replace(grouped, groups=groups, grouped_by=by, constant=constant)


def shared_values(grouped: GroupedListing, shown: Sequence[Group]) -> tuple[list[str], dict[str, Any]]:
    """Tell what differs inside some of the groups that are shown from what is the same in all results of all of them.

    Returns
    -------
    list of str, dict
        Columns that differ inside a group, and columns that are the same, with their value.
    """
    inside, same = [], dict(grouped.constant)
    for index, (name, values) in enumerate(grouped.watched.items()):
        spans = {group.spans[index] for group in shown}
        if any(least != greatest for least, greatest in spans):
            inside.append(name)
        elif len(spans) == 1 and (value := values[next(iter(spans))[0]]) is not None:
            same[name] = value
    for name in grouped.grouped_by:
        if len({repr(group.values[name]) for group in shown}) == 1 and shown[0].values[name] is not None:
            same[name] = shown[0].values[name]
    order = grouped.listing.view.columns.full
    return inside, {name: same[name] for name in (*order, *RESULT_COLUMNS) if name in same}


def read_tasks(grouped: GroupedListing, shown: Sequence[Group]) -> dict[tuple[Any, ...], list[str]]:
    """Return the tasks of the groups that are shown, by `Group.key`, the best first."""
    wanted = {group.key for group in shown}
    found: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for page in read_entries(sort_listing(grouped.listing, "score")):
        for entry in page:
            if (key := grouped.plan.key(entry)) in wanted:
                found[key].append(entry.result.task)
    return found


class _Plan:
    """Turns the columns by which a listing is grouped into numbers of configs, and groups of numbers back.

    Parameters
    ----------
    listing : Listing
        What is grouped.
    columns : sequence of str
        Full names.
    """

    def __init__(self, listing: Listing, columns: Sequence[str]) -> None:
        from synicix_core.tables.overview_groups import Grouping

        self.columns = tuple(columns)
        self.result_columns = tuple(name for name in columns if name in RESULT_COLUMNS)
        self._parts: dict[str, tuple[str, ...]] = {}
        for name in columns:
            if name not in RESULT_COLUMNS:
                kind = listing.view.kind_of(name)
                self._parts[kind] = (*self._parts.get(kind, ()), name)
        self._values: dict[str, list[tuple[Any, ...]]] = {}
        classes: dict[str, dict[str, int]] = {}
        configs = {
            kind: {md5: listing.view.flat[kind][md5] for md5 in md5s} for kind, md5s in listing.configs().items()
        }
        for kind, names in self._parts.items():
            of_config = {md5: tuple(columns.get(name) for name in names) for md5, columns in configs[kind].items()}
            classes[kind], self._values[kind] = _number(of_config)
        others = [name for name in listing.view.columns.full if name not in columns]
        differ, self.constant = varying([list(each.values()) for each in configs.values()], others)
        self.watched: dict[str, Sequence[Any]] = {}
        watched: dict[str, list[dict[str, int]]] = {}
        for kind in CONFIGS:
            for name in differ:
                if listing.view.kind_of(name) == kind:
                    numbers, self.watched[name] = _number({md5: each.get(name) for md5, each in configs[kind].items()})
                    watched.setdefault(kind, []).append(numbers)
        self.grouping = Grouping(classes, self.result_columns, watched)

    def key(self, entry: Entry) -> tuple[Any, ...]:
        """Return the key of the group that a result belongs to."""
        classes = [numbers.get(getattr(entry.result, kind)) for kind, numbers in self.grouping.classes.items()]
        return (*classes, *(entry.get(name) for name in self.result_columns))

    def distinct(self, rows: Sequence[GroupRow]) -> dict[str, list[Any]]:
        """Return the values that the columns have in some groups."""
        found: dict[str, dict[str, Any]] = {name: {} for name in self.columns}
        for index, (kind, names) in enumerate(self._parts.items()):
            for number in {row.key[index] for row in rows}:
                for name, value in zip(names, self._values[kind][number], strict=True):
                    found[name][repr(value)] = value
        for index, name in enumerate(self.result_columns, start=len(self._parts)):
            found[name] = {repr(value): value for value in (row.key[index] for row in rows)}
        return {name: list(values.values()) for name, values in found.items()}

    def group(self, row: GroupRow, best_task: str | None) -> Group:
        """Return a group as people see it."""
        found: dict[str, Any] = {}
        for number, (kind, names) in zip(row.key, self._parts.items(), strict=False):
            found |= zip(names, self._values[kind][number], strict=True)
        found |= zip(self.result_columns, row.key[len(self._parts) :], strict=True)
        sem = None if row.variance is None or row.scores < 2 else math.sqrt(row.variance / row.scores)
        values = {name: found[name] for name in self.columns}
        return Group(values, row.key, row.scores, row.mean, sem, row.of_ceiling, row.best, best_task, row.spans)


def _number(values: Mapping[str, Any]) -> tuple[dict[str, int], list[Any]]:
    """Return a number for the value of each config, equal for equal values, and the values by number."""
    distinct: dict[str, int] = {}
    listed: list[Any] = []
    numbers = {}
    for md5, value in values.items():
        if (key := repr(value)) not in distinct:
            distinct[key] = len(listed)
            listed.append(value)
        numbers[md5] = distinct[key]
    return numbers, listed


def _allowed(listing: Listing) -> list[list[Mapping[str, Any]]]:
    return [[listing.view.flat[kind][md5] for md5 in md5s] for kind, md5s in listing.configs().items()]
