"""Listings as JSON data and as CSV: every column, in full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.config_columns import RESULT_COLUMNS, Columns
from synicix_core.cli.json_output import plain
from synicix_core.cli.listing import Entry, Group, Listing, varying
from synicix_core.errors import ConfigurationError

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = ["columns", "listings", "write_csv"]


def listings(pipeline: Pipeline, found: Sequence[Listing], limit: int | None) -> list[dict[str, Any]]:
    """Return listings as JSON data, with at most `limit` rows or groups each."""
    return [_listing(pipeline, listing, limit) for listing in found]


def columns(found: Sequence[Listing], names: Columns) -> list[dict[str, Any]]:
    """Return the columns that can be named: full and short name, how many values they have, and the first of them."""
    entries = [entry for listing in found for entry in listing.entries]
    result: list[dict[str, Any]]
    result = [{"column": name, "short": name, "values": None, "example": None} for name in RESULT_COLUMNS]
    for name in names.full:
        values = {repr(entry.config[name]): entry.config[name] for entry in entries if name in entry.config}
        example = next(iter(values.values()), None)
        result.append({"column": name, "short": names.short(name), "values": len(values), "example": plain(example)})
    return result


def write_csv(file: str, pipeline: Pipeline, found: Sequence[Listing]) -> None:
    """Write all results, or all groups where groups were asked for.

    Parameters
    ----------
    file : str
        Where to; ``-`` is standard output.
    pipeline : Pipeline
        Where the metrics are.
    found : sequence of Listing
        What to write.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for listing in found:
        if listing.groups is not None:
            rows += [_flat_group(listing, group) for group in listing.groups]
        else:
            rows += _flat_results(pipeline, listing)
    header = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    if file == "-":
        click.echo(text.getvalue(), nl=False)
        return
    try:
        Path(file).write_text(text.getvalue(), encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigurationError("the CSV cannot be written", where=file, why=error.strerror or str(error)) from error
    noun = "row" if len(rows) == 1 else "rows"
    click.echo(f"{len(rows):,} {noun} written to {file}")


def _listing(pipeline: Pipeline, listing: Listing, limit: int | None) -> dict[str, Any]:
    from synicix_core.tables.overview import scores_of

    shown = listing.entries[:limit]
    _, same = varying(shown, dict.fromkeys(name for entry in shown for name in entry.config))
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


def _flat_results(pipeline: Pipeline, listing: Listing) -> list[dict[str, Any]]:
    from synicix_core.tables.overview import scores_of

    scores = scores_of(pipeline.tables, [entry.result.task for entry in listing.entries])
    rows = []
    for entry in listing.entries:
        row: dict[str, Any] = {"task": entry.result.task, "metric": listing.score.metric}
        row |= {name: entry.get(name) for name in RESULT_COLUMNS} | {"noise_ceiling": entry.ceiling}
        row |= {name: entry.config[name] for name in entry.config}
        for tier, values in scores.get(entry.result.task, {}).items():
            row |= {f"{tier} {name}": value for name, value in values.items()}
        rows.append(row)
    return rows


def _flat_group(listing: Listing, group: Group) -> dict[str, Any]:
    facts = _group(group)
    values = facts.pop("values")
    facts.pop("tasks")
    return {"metric": listing.score.metric, **values, **facts}


def _cell(value: Any) -> str:
    """Return a value as it can be read back: numbers in full precision, nothing for none, JSON for the rest."""
    value = plain(value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
