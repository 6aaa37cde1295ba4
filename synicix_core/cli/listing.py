"""Results as rows with columns: joined with their configs, one listing for each score, sorted and grouped."""

from __future__ import annotations

import dataclasses
import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synicix_core.cli.config_columns import RESULT_COLUMNS, short_provider
from synicix_core.cli.where import Condition, ConfigView

if TYPE_CHECKING:
    from synicix_core.registry import Registry
    from synicix_core.tables.overview import ResultRow

__all__ = [
    "Entry",
    "Group",
    "Listing",
    "Score",
    "distinct_values",
    "group_listing",
    "make_listings",
    "sort_entries",
    "varying",
]

CONFIGS = ("dataset", "model", "training")


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
    """

    result: ResultRow
    config: ChainMap[str, Any]
    ceiling: float | None = None

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
class Group:
    """Results that agree in the columns they are grouped by.

    Attributes
    ----------
    values : dict
        Those columns by full name.
    entries : tuple of Entry
        The results, best first.
    """

    values: dict[str, Any]
    entries: tuple[Entry, ...]

    @property
    def scores(self) -> list[float]:
        """The scores that are numbers."""
        return [entry.result.score for entry in self.entries if entry.result.score is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the scores."""
        return math.fsum(self.scores) / len(self.scores) if self.scores else None

    @property
    def sem(self) -> float | None:
        """Standard error of the mean: the sample's standard deviation over the root of its size; None for one score."""
        scores, mean = self.scores, self.mean
        if mean is None or len(scores) < 2:
            return None
        return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores))

    @property
    def of_ceiling(self) -> float | None:
        """Mean of the scores as fractions of their noise ceilings."""
        fractions = [entry.of_ceiling for entry in self.entries if entry.of_ceiling is not None]
        return math.fsum(fractions) / len(fractions) if fractions else None


@dataclass(frozen=True)
class Listing:
    """The results of one score.

    Attributes
    ----------
    score : Score
        What ranks them.
    entries : tuple of Entry
        All of them.
    groups : tuple of Group, optional
        The same in groups, where groups were asked for.
    grouped_by : tuple of str
        Full names of the columns by which they are grouped.
    """

    score: Score
    entries: tuple[Entry, ...]
    groups: tuple[Group, ...] | None = None
    grouped_by: tuple[str, ...] = ()


def make_listings(
    results: Iterable[ResultRow],
    view: ConfigView,
    registry: Registry,
    ceilings: Mapping[str, Mapping[str, float]],
    conditions: Sequence[Condition] = (),
) -> list[Listing]:
    """Join results with their configs, one listing for each score; `sort_entries` sorts them.

    Parameters
    ----------
    results : iterable of ResultRow
        The results.
    view : ConfigView
        Their configs.
    registry : Registry
        Says in which direction a score is better.
    ceilings : mapping
        ``{md5 of a DatasetConfig: {metric name: noise ceiling}}``.
    conditions : sequence of Condition
        What the results have to meet.
    """
    scores: dict[str, Score] = {}
    found: dict[str, list[Entry]] = {}
    for result in results:
        metrics = view.rows["training"][result.training]["metrics"]
        provider = metrics[0]["provider"]
        score = scores.get(provider) or scores.setdefault(provider, _score(provider, registry))
        parts: list[Any] = [view.flat[kind][getattr(result, kind)] for kind in reversed(CONFIGS)]
        config: ChainMap[str, Any] = ChainMap(*parts)
        entry = Entry(result, config, ceilings.get(result.dataset, {}).get(score.metric))
        if all(condition.holds(entry.get(condition.column)) for condition in conditions):
            found.setdefault(provider, []).append(entry)
    return [Listing(scores[provider], tuple(entries)) for provider, entries in sorted(found.items())]


def sort_entries(
    entries: Iterable[Entry], score: Score, column: str = "score", *, reverse: bool = False
) -> list[Entry]:
    """Sort by a column: scores best first, anything else upward; what has no value comes last.

    Parameters
    ----------
    entries : iterable of Entry
        What to sort.
    score : Score
        Says which scores are better.
    column : str
        Full name of the column.
    reverse : bool
        Whether to turn the order round.
    """
    downward = reverse != (column in ("score", "of_ceiling") and score.higher_is_better)
    ordered = sorted(entries, key=lambda entry: entry.result.task)
    with_value = [entry for entry in ordered if entry.get(column) is not None]
    without = [entry for entry in ordered if entry.get(column) is None]
    return sorted(with_value, key=lambda entry: _sortable(entry.get(column)), reverse=downward) + without


def group_listing(listing: Listing, columns: Sequence[str], *, reverse: bool = False) -> Listing:
    """Return a listing with groups of the results that agree in `columns`, sorted by their mean score, the best first.

    Parameters
    ----------
    listing : Listing
        What to group.
    columns : sequence of str
        Full names.
    reverse : bool
        Whether the worst group comes first.
    """
    members: dict[str, list[Entry]] = {}
    for entry in listing.entries:
        members.setdefault(repr([entry.get(column) for column in columns]), []).append(entry)
    groups = [
        Group({column: entries[0].get(column) for column in columns}, tuple(sort_entries(entries, listing.score)))
        for entries in members.values()
    ]
    sign = -1 if listing.score.higher_is_better != reverse else 1
    groups.sort(key=lambda group: (group.mean is None, sign * (group.mean or 0.0)))
    return dataclasses.replace(listing, groups=tuple(groups), grouped_by=tuple(columns))


def varying(entries: Sequence[Entry], names: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Tell the columns whose values differ between entries from those that are the same in all.

    Returns
    -------
    list of str, dict
        Names of the columns that differ, and the others with their value; a parameter that no entry sets is left out.
    """
    differ, same = [], {}
    for name, values in distinct_values(entries, names).items():
        if len(values) > 1:
            differ.append(name)
        elif values and values[0] is not None:
            same[name] = values[0]
    return differ, same


def distinct_values(entries: Iterable[Entry], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values that columns of configs have among entries; none for a column that they do not have."""
    # Configs are few and results many, so each config is looked at once. No two kinds share a column.
    kinds: list[dict[int, Mapping[str, Any]]] = [{} for _ in CONFIGS]
    for entry in entries:
        for configs, config in zip(kinds, entry.config.maps, strict=True):
            configs[id(config)] = config
    found: dict[str, list[Any]] = {}
    for name in names:
        having = next((configs.values() for configs in kinds if any(name in config for config in configs.values())), ())
        found[name] = list({repr(config.get(name)): config.get(name) for config in having}.values())
    return found


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
