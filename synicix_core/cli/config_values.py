"""Which values the columns of configs have among results, and in which columns these differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synicix_core.cli.listing import CONFIGS, Entry, Listing

__all__ = ["distinct_values", "entry_configs", "used_values", "varying"]


def varying(configs: Sequence[Iterable[Mapping[str, Any]]], names: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Tell the columns whose values differ between configs from those that are the same in all.

    Parameters
    ----------
    configs : sequence of iterable of mapping
        The columns of the configs of each kind, as `entry_configs` and `used_values` return them.
    names : iterable of str
        Full names of the columns to look at.

    Returns
    -------
    list of str, dict
        Names of the columns that differ, and the others with their value; a parameter that no config sets is left out.
    """
    differ, same = [], {}
    for name, values in distinct_values(configs, names).items():
        if len(values) > 1:
            differ.append(name)
        elif values and values[0] is not None:
            same[name] = values[0]
    return differ, same


def distinct_values(configs: Sequence[Iterable[Mapping[str, Any]]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values that columns have among configs; none for a column that they do not have."""
    kinds = [list(each) for each in configs]
    found: dict[str, list[Any]] = {}
    for name in names:
        # No two kinds share a column.
        having = next((each for each in kinds if any(name in config for config in each)), ())
        found[name] = list({repr(config.get(name)): config.get(name) for config in having}.values())
    return found


def entry_configs(entries: Iterable[Entry]) -> list[list[Mapping[str, Any]]]:
    """Return the columns of the configs of some results, each once, kind by kind."""
    kinds: list[dict[int, Mapping[str, Any]]] = [{} for _ in CONFIGS]
    for entry in entries:
        for configs, config in zip(kinds, reversed(entry.config.maps), strict=True):
            configs[id(config)] = config
    return [list(configs.values()) for configs in kinds]


def used_values(listings: Iterable[Listing]) -> list[list[Mapping[str, Any]]]:
    """Return the columns of the configs of all results of listings, each once, kind by kind; the results are not read."""
    from synicix_core.tables.overview_results import used_configs

    found: list[dict[str, Mapping[str, Any]]] = [{} for _ in CONFIGS]
    for listing in listings:
        used = used_configs(listing.tables, listing.selection)
        for kind, configs in zip(CONFIGS, found, strict=True):
            flat = listing.view.flat[kind]
            configs |= {md5: flat[md5] for md5 in sorted(used[kind]) if md5 in flat}
    return [list(configs.values()) for configs in found]
