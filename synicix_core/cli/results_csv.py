"""Listings as CSV: every column, in full precision, written page by page."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from synicix_core.cli.config_columns import RESULT_COLUMNS
from synicix_core.cli.config_values import distinct_values, used_values
from synicix_core.cli.json_output import plain
from synicix_core.cli.listing import Entry, Listing, read_entries
from synicix_core.cli.wording import count
from synicix_core.errors import ConfigurationError

if TYPE_CHECKING:
    from synicix_core.cli.result_groups import GroupedListing

__all__ = ["write_groups", "write_results"]

_TIERS = ("train", "validation", "test")
_NUMBERS = ("n", "mean", "sem", "of_ceiling", "best", "best_task")


def write_results(file: str, listings: Sequence[Listing]) -> None:
    """Write all results of all listings.

    Parameters
    ----------
    file : str
        Where to; ``-`` is standard output.
    listings : sequence of Listing
        What to write.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    names = listings[0].view.columns.full if listings else ()
    config = [name for name, values in distinct_values(used_values(listings), names).items() if values]
    changed = ["changed"] if any(listing.stale for listing in listings) else []
    header = ["task", "metric", *RESULT_COLUMNS[1:], "noise_ceiling", *changed, *config, *_measured(listings)]
    _write(file, header, (_result(listing, entry) for listing in listings for entry in _entries(listing)))


def write_groups(file: str, listings: Sequence[GroupedListing]) -> None:
    """Write all groups of all listings; the rest is as in `write_results`."""
    header = ["metric", *dict.fromkeys(name for grouped in listings for name in grouped.grouped_by), *_NUMBERS]
    rows = (
        {"metric": grouped.listing.score.metric, **group.values, **{name: getattr(group, name) for name in _NUMBERS}}
        for grouped in listings
        for group in grouped.groups
    )
    _write(file, header, rows)


def _entries(listing: Listing) -> Iterator[Entry]:
    for page in read_entries(listing, with_scores=True):
        yield from page


def _measured(listings: Sequence[Listing]) -> list[str]:
    """Return the columns of the metrics that any result has, which have to be known before the first row is written."""
    found: dict[tuple[str, str], None] = {}
    for listing in listings:
        for entry in _entries(listing):
            for tier, values in entry.result.scores.items():
                found |= dict.fromkeys((tier, name) for name in values)
    order = {tier: index for index, tier in enumerate(_TIERS)}
    return [f"{tier} {name}" for tier, name in sorted(found, key=lambda item: (order.get(item[0], 3), item))]


def _result(listing: Listing, entry: Entry) -> dict[str, Any]:
    row = {name: entry.get(name) for name in RESULT_COLUMNS} | dict(entry.config)
    row |= {"metric": listing.score.metric, "noise_ceiling": entry.ceiling}
    if listing.stale:
        row["changed"] = " ".join(entry.stale)
    for tier, values in entry.result.scores.items():
        row |= {f"{tier} {name}": value for name, value in values.items()}
    return row


def _write(file: str, header: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> None:
    number = 0
    try:
        with _opened(file) as stream:
            # A result that comes while this is written may have a column that none had before.
            writer = csv.DictWriter(stream, header, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
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


def _cell(value: Any) -> str:
    """Return a value as it can be read back: numbers in full precision, nothing for none, JSON for the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    value = plain(value)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
