"""Listings as JSON: every column, in full precision, written page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.config_columns import RESULT_COLUMNS, Columns
from synicix_core.cli.config_values import distinct_values, entry_configs, used_values, varying
from synicix_core.cli.json_output import plain
from synicix_core.cli.listing import Entry, Listing, read_entries

if TYPE_CHECKING:
    from synicix_core.cli.result_groups import Group, GroupedListing
    from synicix_core.training.staleness import StaleReport

__all__ = ["columns", "print_groups", "print_results"]


def columns(found: Sequence[Listing], names: Columns) -> list[dict[str, Any]]:
    """Return the columns that can be named: full and short name, how many values they have, and the first of them."""
    result: list[dict[str, Any]]
    result = [{"column": name, "short": name, "values": None, "example": None} for name in RESULT_COLUMNS]
    for name, values in distinct_values(used_values(found), names.full).items():
        example = next((value for value in values if value is not None), None)
        result.append({"column": name, "short": names.short(name), "values": len(values), "example": plain(example)})
    return result


def print_results(listings: Sequence[Listing], limit: int | None, stale: StaleReport | None) -> None:
    """Print listings as one JSON document, with at most `limit` results each; None stands for all."""
    _print((_results(listing, limit) for listing in listings), stale)


def print_groups(listings: Sequence[GroupedListing], stale: StaleReport | None) -> None:
    """Print listings in groups as one JSON document."""
    _print((_groups(grouped) for grouped in listings), stale)


def _print(
    listings: Iterator[tuple[dict[str, Any], str, Iterator[list[dict[str, Any]]]]], stale: StaleReport | None
) -> None:
    """Print one document without holding it: facts about a listing, then under their name its pages of rows."""
    click.echo('{"listings": [', nl=False)
    between = ""
    for facts, name, pages in listings:
        head = json.dumps(plain(facts), indent=1, allow_nan=False).removesuffix("\n}")
        click.echo(f'{between}{head},\n "{name}": [', nl=False)
        between, comma = ",\n", "\n"
        for page in pages:
            lines = [json.dumps(plain(row), allow_nan=False) for row in page]
            if lines:
                click.echo(comma + ",\n".join(f"  {line}" for line in lines), nl=False)
                comma = ",\n"
        click.echo("]}", nl=False)
    more = {} if stale is None else {"stale": stale.reasons, "unknown": stale.unknown}
    click.echo("]" + "".join(f',\n"{name}": {json.dumps(plain(value))}' for name, value in more.items()) + "}")


def _results(listing: Listing, limit: int | None) -> tuple[dict[str, Any], str, Iterator[list[dict[str, Any]]]]:
    names = listing.view.columns.full
    if limit is None:
        _, same = varying(used_values([listing]), names)
        pages = read_entries(listing, with_scores=True)
    else:
        shown = list(read_entries(listing, limit, with_scores=True))
        _, same = varying(entry_configs(entry for page in shown for entry in page), names)
        pages = iter(shown)
    with_reasons = listing.stale is not None
    return _facts(listing, same), "results", ([_result(entry, with_reasons) for entry in page] for page in pages)


def _groups(grouped: GroupedListing) -> tuple[dict[str, Any], str, Iterator[list[dict[str, Any]]]]:
    from synicix_core.cli.result_groups import read_tasks, shared_values

    shown = grouped.groups
    _, same = shared_values(grouped, shown)
    tasks = read_tasks(grouped, shown)
    facts = _facts(grouped.listing, same) | {"grouped_by": grouped.grouped_by}
    return facts, "groups", iter([[_group(group, tasks.get(group.key, [])) for group in shown]])


def _facts(listing: Listing, same: Mapping[str, Any]) -> dict[str, Any]:
    score = listing.score
    return {
        "metric": score.metric,
        "provider": score.provider,
        "higher_is_better": score.higher_is_better,
        "note": score.note or None,
        "total": listing.total,
        "same_in_all": same,
    }


def _result(entry: Entry, with_reasons: bool) -> dict[str, Any]:
    values = {name: entry.get(name) for name in RESULT_COLUMNS}
    more = {"noise_ceiling": entry.ceiling, "scores": entry.result.scores, "config": dict(entry.config)}
    return values | more | ({"changed": entry.stale} if with_reasons else {})


def _group(group: Group, tasks: Sequence[str]) -> dict[str, Any]:
    return {
        "values": group.values,
        "n": group.n,
        "mean": group.mean,
        "sem": group.sem,
        "of_ceiling": group.of_ceiling,
        "best": group.best,
        "best_task": group.best_task,
        "tasks": tasks,
    }
