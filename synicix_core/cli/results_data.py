"""Listings as JSON data and as CSV: every column, in full precision."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from synicix_core.cli.config_columns import RESULT_COLUMNS, Columns
from synicix_core.cli.json_output import plain
from synicix_core.cli.listing import Entry, Group, Listing, distinct_values, varying
from synicix_core.cli.wording import count
from synicix_core.errors import ConfigurationError

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = ["columns", "listings", "write_csv"]


def listings(pipeline: Pipeline, found: Sequence[Listing], names: Columns, limit: int | None) -> list[dict[str, Any]]:
    """Return listings as JSON data, with at most `limit` rows or groups each."""
    return [_listing(pipeline, listing, names, limit) for listing in found]


def columns(found: Sequence[Listing], names: Columns) -> list[dict[str, Any]]:
    """Return the columns that can be named: full and short name, how many values they have, and the first of them."""
    entries = [entry for listing in found for entry in listing.entries]
    result: list[dict[str, Any]]
    result = [{"column": name, "short": name, "values": None, "example": None} for name in RESULT_COLUMNS]
    for name, values in distinct_values(entries, names.full).items():
        example = next((value for value in values if value is not None), None)
        result.append({"column": name, "short": names.short(name), "values": len(values), "example": plain(example)})
    return result


def write_csv(file: str, pipeline: Pipeline, found: Sequence[Listing], names: Columns) -> None:
    """Write all results, or all groups where groups were asked for.

    Parameters
    ----------
    file : str
        Where to; ``-`` is standard output.
    pipeline : Pipeline
        Where the metrics are.
    found : sequence of Listing
        What to write.
    names : Columns
        The columns that there may be, in their order.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    grouped = any(listing.groups is not None for listing in found)
    tables = [_group_table(listing) if grouped else _result_table(pipeline, listing, names) for listing in found]
    header = list(dict.fromkeys(name for names, _ in tables for name in names))
    number = 0
    try:
        with _opened(file) as stream:
            writer = csv.DictWriter(stream, header, lineterminator="\n")
            writer.writeheader()
            for _, rows in tables:
                for row in rows:
                    writer.writerow({name: _cell(value) for name, value in row.items()})
                    number += 1
    except OSError as error:
        if file == "-":
            raise
        raise ConfigurationError("the CSV cannot be written", where=file, why=error.strerror or str(error)) from error
    if file != "-":
        click.echo(f"{count(number, 'row')} written to {file}")


def _opened(file: str) -> AbstractContextManager[TextIO]:
    if file == "-":
        return nullcontext(sys.stdout)
    return Path(file).open("w", encoding="utf-8", newline="")


def _listing(pipeline: Pipeline, listing: Listing, names: Columns, limit: int | None) -> dict[str, Any]:
    from synicix_core.tables.overview import scores_of

    shown = listing.entries[:limit]
    _, same = varying(shown, names.full)
    score = listing.score
    facts: dict[str, Any] = {
        "metric": score.metric,
        "provider": score.provider,
        "higher_is_better": score.higher_is_better,
        "note": score.note or None,
        "total": len(listing.entries),
        "same_in_all": same,
    }
    if listing.groups is not None:
        groups = [_group(group) for group in listing.groups[:limit]]
        return facts | {"grouped_by": listing.grouped_by, "groups": groups}
    scores = scores_of(pipeline.tables, [entry.result.task for entry in shown])
    return facts | {"results": [_result(entry, scores.get(entry.result.task, {})) for entry in shown]}


def _result(entry: Entry, scores: dict[str, Any]) -> dict[str, Any]:
    values = {name: entry.get(name) for name in RESULT_COLUMNS}
    return values | {"noise_ceiling": entry.ceiling, "scores": scores, "config": dict(entry.config)}


def _group(group: Group) -> dict[str, Any]:
    return {
        "values": group.values,
        "n": len(group.scores),
        "mean": group.mean,
        "sem": group.sem,
        "of_ceiling": group.of_ceiling,
        "best": group.entries[0].result.score,
        "best_task": group.entries[0].result.task,
        "tasks": [entry.result.task for entry in group.entries],
    }


def _result_table(pipeline: Pipeline, listing: Listing, names: Columns) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Return the header and the rows, which are made as they are written: there may be very many."""
    from synicix_core.tables.overview import scores_of

    scores = scores_of(pipeline.tables, [entry.result.task for entry in listing.entries])
    config = [name for name, values in distinct_values(listing.entries, names.full).items() if values]
    measured = dict.fromkeys(f"{tier} {name}" for tiers in scores.values() for tier in tiers for name in tiers[tier])
    header = ["task", "metric", *RESULT_COLUMNS[1:], "noise_ceiling", *config, *measured]

    def rows() -> Iterator[dict[str, Any]]:
        for entry in listing.entries:
            row = {name: entry.get(name) for name in RESULT_COLUMNS} | dict(entry.config)
            row |= {"metric": listing.score.metric, "noise_ceiling": entry.ceiling}
            for tier, values in scores.get(entry.result.task, {}).items():
                row |= {f"{tier} {name}": value for name, value in values.items()}
            yield row

    return header, rows()


def _group_table(listing: Listing) -> tuple[list[str], Iterator[dict[str, Any]]]:
    numbers = ("n", "mean", "sem", "of_ceiling", "best", "best_task")

    def rows() -> Iterator[dict[str, Any]]:
        for group in listing.groups or ():
            facts = _group(group)
            yield {"metric": listing.score.metric, **group.values, **{name: facts[name] for name in numbers}}

    return ["metric", *listing.grouped_by, *numbers], rows()


def _cell(value: Any) -> str:
    """Return a value as it can be read back: numbers in full precision, nothing for none, JSON for the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    value = plain(value)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
