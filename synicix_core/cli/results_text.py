"""Listings as text: what is the same in all rows is said once above the table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core.cli.config_columns import PROVIDERS, short_provider
from synicix_core.cli.config_values import distinct_values, entry_configs, used_values, varying
from synicix_core.cli.listing import Entry, Listing, read_entries
from synicix_core.cli.result_groups import Group, GroupedListing, shared_values
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count, duration, number, percent, value_text

__all__ = ["columns", "groups", "results"]

_PLAIN_WIDTH = 100
_ONE_TABLE = 2000
_STATUSES = ("completed", "early_stopped", "diverged", "no_test")


def results(listings: Sequence[Listing], limit: int | None, *, stale: bool = False) -> Iterator[str]:
    """Yield listings as text, piece by piece; what is said once stands above the rows that are shown.

    Parameters
    ----------
    listings : sequence of Listing
        One for each score.
    limit : int or None
        The most rows of each.
    stale : bool
        Whether only stale results were asked for.
    """
    yield from _opening(listings, stale)
    for index, listing in enumerate(listings):
        if index:
            yield ""
        if limit is None and listing.total > _ONE_TABLE:
            yield from _long_table(listing)
        else:
            yield _table(listing, limit)


def groups(listings: Sequence[GroupedListing], *, stale: bool = False) -> str:
    """Return listings in groups as text."""
    tables = "\n\n".join(_groups(grouped) for grouped in listings)
    return "\n".join([*_opening(listings, stale), *([tables] if listings else [])])


def columns(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the columns that can be named."""
    rows = []
    for item in found:
        values = "" if item["values"] is None else str(item["values"])
        example = "" if item["example"] is None else _text(item["column"], item["example"])
        rows.append([item["short"], item["column"] if item["column"] != item["short"] else "", values, example])
    header = ["column", "in full", "values", "such as"]
    return format_table(header, rows, width=fit_width())


def _opening(listings: Sequence[Any], stale: bool) -> Iterator[str]:
    if not listings and stale:
        yield "No result is stale."
    elif not listings:
        yield "There are no results yet, or none that meet the conditions. To train, run: synicix-run populate"
    if len(listings) > 1:
        yield f"{len(listings)} different scores, which cannot be compared; one table for each.\n"


def _table(listing: Listing, limit: int | None) -> str:
    names = listing.view.columns
    shown = [entry for page in read_entries(listing, limit) for entry in page]
    differ, same = varying(entry_configs(shown), names.full)
    statuses = {entry.result.status for entry in shown}
    changed = {entry.stale for entry in shown}
    form = _Form(
        listing,
        tuple(_in_order(differ, single=len(shown) == 1)),
        ceiling=any(entry.ceiling is not None for entry in shown),
        status=len(statuses) > 1,
        changed=len(changed) > 1,
    )
    said = {name: value for name, value in same.items() if name not in form.config}
    if len(statuses) == 1:
        said["status"] = next(iter(statuses))
    if listing.stale and len(changed) == 1:
        said["changed"] = " ".join(next(iter(changed)))
    table = format_table(form.header(), [form.row(entry) for entry in shown], left=("task",), width=fit_width())
    return "\n".join([*_head(listing, said), table, *_foot(listing.total - len(shown))])


def _long_table(listing: Listing) -> Iterator[str]:
    """Yield a table without holding its rows: its columns are those that differ in all, and wide enough for all."""
    names = listing.view.columns
    used = used_values([listing])
    values = distinct_values(used, names.full)
    differ, same = varying(used, names.full)
    form = _Form(
        listing, tuple(_in_order(differ, single=False)), bool(listing.selection.ceilings), True, bool(listing.stale)
    )
    widest = form.widest(values)
    yield "\n".join(_head(listing, same))
    for index, page in enumerate(read_entries(listing)):
        rows = [form.row(entry) for entry in page]
        lines = format_table(form.header(), [*widest, *rows], left=("task",), width=fit_width()).splitlines()
        # The rows that only set the widths are left out, and after the first page the header is.
        yield "\n".join([*lines[: 1 if index == 0 else 0], *lines[1 + len(widest) :]])


@dataclass(frozen=True)
class _Form:
    """Which columns a table of results has beside the task, the score, the epochs and the time."""

    listing: Listing
    config: tuple[str, ...]
    ceiling: bool
    status: bool
    changed: bool

    def header(self) -> list[str]:
        names = map(self.listing.view.columns.short, self.config)
        optional = {"of ceiling": self.ceiling, "status": self.status, "changed": self.changed}
        shown = [name for name, flag in optional.items() if flag]
        return ["task", *names, self.listing.score.metric, *shown, "epochs", "time"]

    def row(self, entry: Entry) -> list[str]:
        result = entry.result
        cells = [_text(name, entry.config.get(name)) for name in self.config]
        optional = [*([percent(entry.of_ceiling)] if self.ceiling else []), *([result.status] if self.status else [])]
        optional += [" ".join(entry.stale)] if self.changed else []
        return [result.task[:8], *cells, number(result.score), *optional, str(result.epochs), duration(result.seconds)]

    def widest(self, values: Mapping[str, Sequence[Any]]) -> list[list[str]]:
        """Return two rows that set widths and alignment: of each column the widest cell, and one that is no number."""
        texts = [[_text(name, value) for value in values[name]] for name in self.config]
        codes = self.listing.stale.codes.values() if self.listing.stale else ()
        changed = [" ".join(change.provider for change in changes) for changes in codes]
        optional = [*([["1000.0%"]] if self.ceiling else []), *([list(_STATUSES)] if self.status else [])]
        optional += [changed] if self.changed else []
        columns = [["0" * 8], *texts, ["-1.234e-05"], *optional, ["0" * 6], ["59 min 59 s"]]
        longest = [max(cells, key=len) for cells in columns]
        odd = [max(cells, key=lambda cell: cell != "-" and not cell.lstrip("-.")[:1].isdigit()) for cells in columns]
        return [longest, odd]


def _groups(grouped: GroupedListing) -> str:
    listing, names = grouped.listing, grouped.listing.view.columns
    shown = grouped.groups
    inside, same = shared_values(grouped, shown)
    ceiling = any(group.of_ceiling is not None for group in shown)
    header = [*map(names.short, grouped.grouped_by), "n", f"{listing.score.metric} ± s.e.m."]
    header += [*(["of ceiling"] if ceiling else []), "best", "task"]
    rows = []
    for group in shown:
        row = [_text(name, value) for name, value in group.values.items()] + [str(group.n), _mean(group)]
        row += [*([percent(group.of_ceiling)] if ceiling else []), number(group.best), (group.best_task or "-")[:8]]
        rows.append(row)
    said = {name: value for name, value in same.items() if name not in grouped.grouped_by}
    table = format_table(header, rows, left=("task",), width=fit_width())
    # Over what the means are taken: the columns that differ inside some group.
    averaged = [f"Mean over {', '.join(map(names.short, inside))}."] if inside else []
    return "\n".join([*_head(listing, said), *averaged, table, *_foot(grouped.total - len(shown))])


def _foot(left: int) -> list[str]:
    return [f"{left:,} more; show all with --limit 0"] if left else []


def _head(listing: Listing, same: Mapping[str, Any]) -> list[str]:
    score, names = listing.score, listing.view.columns
    order = "more is better" if score.higher_is_better else "less is better"
    lines = [f"{count(listing.total, 'result')}, score {score.metric} ({order}) on the test tier."]
    if score.note:
        lines = [f"{count(listing.total, 'result')}, score {score.metric} on the test tier.", score.note]
    if same:
        listed = [f"{names.short(name)} = {_text(name, value)}" for name, value in same.items()]
        # Spaces that hold together, so that lines break between parameters.
        text = "The same in all that are shown: " + ", ".join(item.replace(" ", "\xa0") for item in listed)
        width = fit_width() or _PLAIN_WIDTH
        filled = textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        lines.append(filled.replace("\xa0", " "))
    return [*lines, ""]


def _in_order(differ: Sequence[str], *, single: bool) -> list[str]:
    """Return the config columns to show; one row alone shows at least what was trained on what."""
    wanted = set(differ) | ({"dataset", "model"} if single else set())
    first = [name for name in ("dataset", "model") if name in wanted]
    return [*first, *(name for name in differ if name not in first)]


def _mean(group: Group) -> str:
    sem = group.sem
    return number(group.mean) if sem is None else f"{number(group.mean)} ± {number(sem, 2)}"


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return short_provider(value) if name in PROVIDERS else value_text(value)
