"""`synicix-run results`: what was trained, best first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place, where_option

if TYPE_CHECKING:
    from synicix_core.cli.listing import Listing
    from synicix_core.cli.result_groups import GroupedListing
    from synicix_core.cli.where import ConfigView
    from synicix_core.pipeline import Pipeline
    from synicix_core.training.staleness import StaleReport

__all__ = ["results"]

_SHOWN_ON_A_TERMINAL = 50


@click.command(cls=Command)
@click.option("--sort", metavar="COLUMN", default="score", help="Sort by this column; -COLUMN turns the order round.")
@where_option
@click.option("--stale", is_flag=True, help="Only results whose providers' source files have changed since.")
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
    stale: bool,
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
    from synicix_core.cli import results_csv, results_data, results_text
    from synicix_core.cli.where import read_configs
    from synicix_core.training.staleness import find_stale

    if group_by and over:
        raise click.UsageError("Give --group-by or --over, not both.")
    if as_json and csv_file:
        raise click.UsageError("Give --json or --csv, not both.")
    pipeline = place.pipeline()
    view = read_configs(pipeline)
    report = find_stale(pipeline.tables, pipeline.registry) if stale else None
    listings = _listings(pipeline, view, conditions, sort, report)
    if limit is None and sys.stdout.isatty() and not as_json:
        limit = _SHOWN_ON_A_TERMINAL
    limit = limit or None
    if report and report.unknown and not as_json:
        click.echo(f"These cannot be compared here: {', '.join(report.unknown)}.", err=True)
    if list_columns:
        columns = results_data.columns(listings, view.columns)
        print_json({"columns": columns}) if as_json else click.echo(results_text.columns(columns))
    elif group_by or over:
        best_of = None if csv_file else limit
        grouped = [_group(listing, group_by, over, sort.startswith("-"), best_of) for listing in listings]
        if csv_file:
            results_csv.write_groups(csv_file, grouped)
        elif as_json:
            results_data.print_groups(grouped, report)
        else:
            click.echo(results_text.groups(grouped, stale=stale))
    elif csv_file:
        results_csv.write_results(csv_file, listings)
    elif as_json:
        results_data.print_results(listings, limit, report)
    else:
        for text in results_text.results(listings, limit, stale=stale):
            click.echo(text)


def _listings(
    pipeline: Pipeline, view: ConfigView, texts: tuple[str, ...], sort: str, report: StaleReport | None
) -> list[Listing]:
    from synicix_core.cli.listing import find_listings, sort_listing
    from synicix_core.cli.where import split_conditions, sql_restriction

    column, reverse = view.columns.require(sort.removeprefix("-")), sort.startswith("-")
    conditions, sql = split_conditions(texts, view.columns)
    found = find_listings(pipeline, view, conditions, sql_restriction(pipeline, sql, texts), report)
    return [sort_listing(listing, column, reverse=reverse) for listing in found]


def _group(
    listing: Listing, group_by: str | None, over: str | None, reverse: bool, best_of: int | None
) -> GroupedListing:
    from synicix_core.cli.result_groups import group_listing, group_over

    columns = listing.view.columns
    names = [columns.require(name) for name in (group_by or over or "").split(",") if name.strip()]
    return (group_listing if group_by else group_over)(listing, names, reverse=reverse, limit=best_of)
