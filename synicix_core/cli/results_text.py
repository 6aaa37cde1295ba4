"""Listings as text: what is the same in all rows is said once above the table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from synicix_core.cli.config_columns import PROVIDERS, Columns, short_provider
from synicix_core.cli.listing import Group, Listing, varying
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count, duration, number, percent, value_text

__all__ = ["columns", "page"]

_PLAIN_WIDTH = 100


def page(listings: Sequence[Listing], names: Columns, limit: int | None) -> str:
    """Return listings as text.

    Parameters
    ----------
    listings : sequence of Listing
        One for each score.
    names : Columns
        What to call the columns.
    limit : int or None
        The most rows of each.
    """
    if not listings:
        return "There are no results yet, or none that meet the conditions. To train, run: synicix-run populate"
    parts = []
    if len(listings) > 1:
        parts.append(f"{len(listings)} different scores, which cannot be compared; one table for each.")
    for listing in listings:
        parts.append(_groups(listing, names, limit) if listing.groups is not None else _results(listing, names, limit))
    return "\n\n".join(parts)


def columns(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the columns that can be named."""
    rows = []
    for item in found:
        values = "" if item["values"] is None else str(item["values"])
        example = "" if item["example"] is None else _text(item["column"], item["example"])
        rows.append([item["short"], item["column"] if item["column"] != item["short"] else "", values, example])
    header = ["column", "in full", "values", "such as"]
    return format_table(header, rows, width=fit_width())


def _results(listing: Listing, names: Columns, limit: int | None) -> str:
    shown = listing.entries[:limit]
    differ, same = varying(shown, names.full)
    config = _in_order(differ, single=len(shown) == 1)
    ceiling = any(entry.ceiling is not None for entry in shown)
    statuses = {entry.result.status for entry in shown}
    header = ["task", *map(names.short, config), listing.score.metric, *(["of ceiling"] if ceiling else [])]
    header += [*(["status"] if len(statuses) > 1 else []), "epochs", "time"]
    rows = []
    for entry in shown:
        result = entry.result
        row = [result.task[:8], *(_text(name, entry.config.get(name)) for name in config), number(result.score)]
        row += [*([percent(entry.of_ceiling)] if ceiling else []), *([result.status] if len(statuses) > 1 else [])]
        rows.append([*row, str(result.epochs), duration(result.seconds)])
    if len(statuses) == 1:
        same["status"] = next(iter(statuses))
    said = {name: value for name, value in same.items() if name not in config}
    table = format_table(header, rows, left=("task",), width=fit_width())
    return "\n".join([*_head(listing, names, said), table, *_foot(len(listing.entries) - len(shown))])


def _groups(listing: Listing, names: Columns, limit: int | None) -> str:
    groups = listing.groups or ()
    shown = groups[:limit]
    _, same = varying([entry for group in shown for entry in group.entries], names.full)
    ceiling = any(group.of_ceiling is not None for group in shown)
    header = [*map(names.short, listing.grouped_by), "n", f"{listing.score.metric} ± s.e.m."]
    header += [*(["of ceiling"] if ceiling else []), "best", "task"]
    rows = []
    for group in shown:
        best = group.entries[0].result
        row = [_text(name, value) for name, value in group.values.items()] + [str(len(group.scores)), _mean(group)]
        rows.append([*row, *([percent(group.of_ceiling)] if ceiling else []), number(best.score), best.task[:8]])
    said = {name: value for name, value in same.items() if name not in listing.grouped_by}
    table = format_table(header, rows, left=("task",), width=fit_width())
    averaged = _averaged(shown, listing.grouped_by, names)
    return "\n".join([*_head(listing, names, said), *averaged, table, *_foot(len(groups) - len(shown))])


def _foot(left: int) -> list[str]:
    return [f"{left:,} more; show all with --limit 0"] if left else []


def _averaged(groups: Sequence[Group], header: Sequence[str], names: Columns) -> list[str]:
    """Say over what the means are taken: the columns that differ inside some group."""
    inside: dict[str, None] = {}
    for group in groups:
        differ, _ = varying(group.entries, [name for name in names.full if name not in header])
        inside |= dict.fromkeys(differ)
    return [f"Mean over {', '.join(map(names.short, inside))}."] if inside else []


def _head(listing: Listing, names: Columns, same: Mapping[str, Any]) -> list[str]:
    score = listing.score
    order = "more is better" if score.higher_is_better else "less is better"
    lines = [f"{count(len(listing.entries), 'result')}, score {score.metric} ({order}) on the test tier."]
    if score.note:
        lines = [f"{count(len(listing.entries), 'result')}, score {score.metric} on the test tier.", score.note]
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
