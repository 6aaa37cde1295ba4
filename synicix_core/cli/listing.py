"""Results as rows with columns: joined with their configs, one listing for each score, in the order asked for."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from synicix_core.cli.config_columns import RESULT_COLUMNS, short_provider
from synicix_core.cli.where import Condition, ConfigView

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.registry import Registry
    from synicix_core.tables.overview_results import Order, ResultRow, Selection
    from synicix_core.tables.schema import Tables
    from synicix_core.training.staleness import StaleReport

__all__ = [
    "CONFIGS",
    "Entry",
    "Listing",
    "Score",
    "find_listings",
    "read_entries",
    "sort_listing",
]

CONFIGS = ("dataset", "model", "training")
"""The kinds of configs, in the order of their columns."""


@dataclass(frozen=True)
class Score:
    """The metric that ranks results: the first one of their training configs.

    Attributes
    ----------
    provider : str
        Qualified name of the metric.
    higher_is_better : bool
        Its direction.
    note : str
        Why the direction is a guess; empty where it is not.
    """

    provider: str
    higher_is_better: bool
    note: str = ""

    @property
    def name(self) -> str:
        """The short name."""
        return short_provider(self.provider)

    @property
    def metric(self) -> str:
        """The name under which results and noise ceilings hold it."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Entry:
    """One result with its configs.

    Attributes
    ----------
    result : ResultRow
        Its scalars.
    config : mapping
        The columns of its configs by full name; its maps are those of the three configs.
    ceiling : float or None
        The noise ceiling of its dataset for its score.
    stale : tuple of str
        Where stale results were asked for: the providers whose source files have changed.
    """

    result: ResultRow
    config: ChainMap[str, Any]
    ceiling: float | None = None
    stale: tuple[str, ...] = ()

    @property
    def of_ceiling(self) -> float | None:
        """The score as a fraction of the noise ceiling."""
        score = self.result.score
        return score / self.ceiling if score is not None and self.ceiling else None

    def get(self, column: str) -> Any:
        """Return the value in a column; None where there is none."""
        if column == "of_ceiling":
            return self.of_ceiling
        return getattr(self.result, column) if column in RESULT_COLUMNS else self.config.get(column)


@dataclass(frozen=True)
class Listing:
    """The results of one score, which stay in the database until they are read.

    Attributes
    ----------
    tables : Tables
        Where they are.
    view : ConfigView
        All configs.
    score : Score
        What ranks them.
    selection : Selection
        Which they are.
    order : Order
        How they are sorted.
    total : int
        How many there are.
    stale : StaleReport, optional
        Where only stale results are listed: why they are.
    """

    tables: Tables
    view: ConfigView
    score: Score
    selection: Selection
    order: Order
    total: int
    stale: StaleReport | None = None

    def configs(self) -> dict[str, frozenset[str]]:
        """Return the md5s of the configs that its results may be of, by kind."""
        return {kind: self.selection.configs.get(kind, frozenset(self.view.flat[kind])) for kind in CONFIGS}


@dataclass(frozen=True)
class _Candidate:
    """A score, and the training configs that have it."""

    score: Score
    trainings: set[str] = field(default_factory=set)


def find_listings(
    pipeline: Pipeline,
    view: ConfigView,
    conditions: Sequence[Condition] = (),
    restriction: str = "",
    stale: StaleReport | None = None,
) -> list[Listing]:
    """Return one listing for each score that results have, sorted by score, the best first.

    Parameters
    ----------
    pipeline : Pipeline
        Where the results are.
    view : ConfigView
        All configs.
    conditions : sequence of Condition
        What the results have to meet.
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose from.
    stale : StaleReport, optional
        Where given, only stale results are listed.
    """
    from synicix_core.tables.overview_configs import noise_ceilings
    from synicix_core.tables.overview_results import Order, Selection, count_results
    from synicix_core.tables.result_columns import Comparison

    comparisons = tuple(Comparison(c.column, c.sign, c.value) for c in conditions if c.column in RESULT_COLUMNS)
    codes = None if stale is None else frozenset(stale.codes)
    chosen = Selection(comparisons=comparisons, restriction=restriction, codes=codes)
    for condition in conditions:
        if condition.column not in RESULT_COLUMNS:
            kind, md5s = view.matching(condition)
            chosen = chosen.among(kind, frozenset(md5s))
    ceilings = noise_ceilings(pipeline.tables, chosen.configs.get("dataset", frozenset(view.rows["dataset"])))
    candidates = _candidates(view, pipeline.registry)
    listings = []
    for candidate in candidates:
        selection = replace(chosen, ceilings=_ceilings(ceilings, candidate.score))
        if len(candidates) > 1:
            selection = selection.among("training", frozenset(candidate.trainings))
        if total := count_results(pipeline.tables, selection):
            order = Order("score", candidate.score.higher_is_better)
            listings.append(Listing(pipeline.tables, view, candidate.score, selection, order, total, stale))
    return listings


def sort_listing(listing: Listing, column: str, *, reverse: bool = False) -> Listing:
    """Sort by a column: scores best first, anything else upward; what has no value comes last.

    Parameters
    ----------
    listing : Listing
        What to sort.
    column : str
        Full name of the column.
    reverse : bool
        Whether to turn the order round.
    """
    from synicix_core.tables.overview_results import Order

    if column in RESULT_COLUMNS:
        best_first = column in ("score", "of_ceiling") and listing.score.higher_is_better
        return replace(listing, order=Order(column, reverse != best_first))
    kind = listing.view.kind_of(column)
    values = {md5: columns.get(column) for md5, columns in listing.view.flat[kind].items()}
    distinct = {_sortable(value) for value in values.values() if value is not None}
    places = {key: place for place, key in enumerate(sorted(distinct, reverse=reverse))}
    by_config = {md5: len(places) if value is None else places[_sortable(value)] for md5, value in values.items()}
    return replace(listing, order=Order(kind=kind, places=by_config))


def read_entries(listing: Listing, limit: int | None = None, *, with_scores: bool = False) -> Iterator[list[Entry]]:
    """Yield the results of a listing in its order, in pages."""
    from synicix_core.tables.overview_results import read_pages

    flat = listing.view.flat
    codes = listing.stale.codes if listing.stale else {}
    pages = read_pages(listing.tables, listing.selection, listing.order, limit=limit, with_scores=with_scores)
    for page in pages:
        entries = []
        for result in page:
            parts: list[Any] = [flat[kind].get(getattr(result, kind)) for kind in reversed(CONFIGS)]
            # A config that was added while this command read them has no column to show.
            if None not in parts:
                ceiling = listing.selection.ceilings.get(result.dataset)
                changed = tuple(change.provider for change in codes.get(result.code, ()))
                entries.append(Entry(result, ChainMap(*parts), ceiling, changed))
        yield entries


def _candidates(view: ConfigView, registry: Registry) -> list[_Candidate]:
    """Return the scores that training configs have, sorted by name."""
    found: dict[str, _Candidate] = {}
    for md5, row in view.rows["training"].items():
        provider = row["metrics"][0]["provider"]
        if provider not in found:
            found[provider] = _Candidate(_score(provider, registry))
        found[provider].trainings.add(md5)
    return [found[provider] for provider in sorted(found)]


def _ceilings(stated: Mapping[str, Mapping[str, float]], score: Score) -> dict[str, float]:
    return {dataset: values[score.metric] for dataset, values in stated.items() if score.metric in values}


def _score(provider: str, registry: Registry) -> Score:
    from synicix_core.errors import ProviderNotFound

    try:
        found = registry.resolve_stored("metric", provider)
    except ProviderNotFound as error:
        note = f"Whether more or less is better is not known, so the highest comes first: {error}"
        return Score(provider, True, note)
    return Score(provider, found.provider.higher_is_better)  # type: ignore[attr-defined]


def _sortable(value: Any) -> tuple[int, Any]:
    """Return a key that sorts numbers before text, and anything else by its text."""
    if isinstance(value, bool | int | float):
        return (0, value)
    return (1, str(value))
