"""`synicix-run results`: what was trained, best first."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place, where_option

if TYPE_CHECKING:
    from synicix_core.cli.listing import Listing
    from synicix_core.cli.where import ConfigView
    from synicix_core.pipeline import Pipeline

__all__ = ["results"]

_SHOWN_ON_A_TERMINAL = 50


@click.command(cls=Command)
@click.option("--sort", metavar="COLUMN", default="score", help="Sort by this column; -COLUMN turns the order round.")
@where_option
@click.option("--group-by", metavar="COLUMNS", help="Show mean ± s.e.m. of the score by these columns: dataset,model.")
@click.option("--over", metavar="COLUMNS", help="Show mean ± s.e.m. over these columns, such as seed, by all others.")
@click.option(
    "--limit", type=click.IntRange(min=0), help="Show at most so many, 0 for all. On a terminal 50 by default."
)
@click.option("--csv", "csv_file", metavar="FILE", help="Write all rows and columns to FILE as CSV; - is the screen.")
@click.option("--columns", "list_columns", is_flag=True, help="List the columns that there are.")
@json_option
@pass_place
def results(
    place: Place,
    sort: str,
    conditions: tuple[str, ...],
    group_by: str | None,
    over: str | None,
    limit: int | None,
    csv_file: str | None,
    list_columns: bool,
    as_json: bool,
) -> None:
    """List the results, best first.

    There is a column for every parameter in which the shown results differ; what is the same in all is said once. The
    score is the first metric of the training config on the test tier.
    """
    from synicix_core.cli import results_data, results_text
    from synicix_core.cli.where import read_configs

    if group_by and over:
        raise click.UsageError("Give --group-by or --over, not both.")
    if as_json and csv_file:
        raise click.UsageError("Give --json or --csv, not both.")
    pipeline = place.pipeline()
    view = read_configs(pipeline)
    listings = _listings(pipeline, view, conditions)
    listings = [_arrange(listing, view, sort, group_by, over) for listing in listings]
    if limit is None and sys.stdout.isatty() and not as_json:
        limit = _SHOWN_ON_A_TERMINAL
    if csv_file:
        results_data.write_csv(csv_file, pipeline, listings, view.columns)
    elif as_json and list_columns:
        print_json({"columns": results_data.columns(listings, view.columns)})
    elif as_json:
        print_json({"listings": results_data.listings(pipeline, listings, view.columns, limit or None)})
    elif list_columns:
        click.echo(results_text.columns(results_data.columns(listings, view.columns)))
    else:
        click.echo(results_text.page(listings, view.columns, limit or None))


def _listings(pipeline: Pipeline, view: ConfigView, texts: tuple[str, ...]) -> list[Listing]:
    from synicix_core.cli.listing import make_listings
    from synicix_core.cli.where import split_conditions, sql_restriction
    from synicix_core.tables.overview import list_results, noise_ceilings

    conditions, sql = split_conditions(texts, view.columns)
    rows = list_results(pipeline.tables, sql_restriction(pipeline, sql, texts))
    # A config that was added while this command read them has no result to show yet.
    rows = [row for row in rows if row.training in view.rows["training"] and row.model in view.rows["model"]]
    rows = [row for row in rows if row.dataset in view.rows["dataset"]]
    ceilings = noise_ceilings(pipeline.tables, sorted({row.dataset for row in rows}))
    return make_listings(rows, view, pipeline.registry, ceilings, conditions)


def _arrange(listing: Listing, view: ConfigView, sort: str, group_by: str | None, over: str | None) -> Listing:
    """Sort and group one listing as the options say."""
    from synicix_core.cli.listing import group_listing, sort_entries, varying

    column, reverse = view.columns.require(sort.removeprefix("-")), sort.startswith("-")
    entries = sort_entries(listing.entries, listing.score, column, reverse=reverse)
    listing = dataclasses.replace(listing, entries=tuple(entries))
    if group_by:
        return group_listing(listing, _names(view, group_by), reverse=reverse)
    if over:
        averaged = _names(view, over)
        differ, _ = varying(entries, view.columns.full)
        return group_listing(listing, [name for name in differ if name not in averaged], reverse=reverse)
    return listing


def _names(view: ConfigView, text: str) -> list[str]:
    return [view.columns.require(name) for name in text.split(",") if name.strip()]
