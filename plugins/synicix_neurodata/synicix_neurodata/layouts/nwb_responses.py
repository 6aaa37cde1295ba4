"""Which responses an NWB file holds: traces of imaged cells, or spike times of sorted units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb, kinds, scalar_columns
from synicix_neurodata.layouts.nwb_options import NwbOptions
from synicix_neurodata.layouts.nwb_series import Series, series_of
from synicix_neurodata.layouts.nwb_spikes import Spikes, spike_times

__all__ = ["Responses", "find_responses"]

_WHAT = "responses (RoiResponseSeries, or units with spike times)"

_PREFERRED = ("dfoverf", "df_over_f", "dff", "event", "deconv", "spike")
"""Words in the path of traces that are ready for use, before those of raw fluorescence or neuropil."""

_AREA = ("area", "brain_area", "location", "region", "brain_region", "structure")
_LAYER = ("layer", "cortical_layer")


@dataclasses.dataclass(frozen=True, eq=False)
class Responses:
    """The responses of a file.

    Attributes
    ----------
    source : Spikes, or tuple of Series
        Series are put side by side.
    neurons : dict of str to ndarray, (neurons, ...)
    notes : tuple of str
    """

    source: Spikes | tuple[Series, ...]
    neurons: dict[str, NDArray[Any]]
    notes: tuple[str, ...] = ()


def find_responses(nwb: NwbFile, options: NwbOptions) -> Responses:
    """Return the responses that the options name, or the only ones that are ready for use.

    Raises
    ------
    DatasetError
        If there are none, several and none is obvious, or they are broken.
    """
    held = nwb.find("RoiResponseSeries", under="processing/") or nwb.find("RoiResponseSeries")
    units = nwb.content.units
    if units is not None and "spike_times" in units.colnames:
        held = {**held, "units": units}
    if options.responses is not None:
        chosen = [nwb.at(path, "responses", held, "such responses") for path in options.responses]
        if not chosen or (len(chosen) > 1 and units in chosen):
            raise bad_nwb(
                nwb.path,
                f"responses = {list(options.responses)} is neither one or more series of traces nor 'units' alone",
            )
    else:
        chosen = [_obvious(nwb, held)]
    if chosen[0] is units:
        return _units(nwb, units, options.units_where)
    if options.units_where:
        raise bad_nwb(
            nwb.path, f"units_where is for units with spike times; the responses are {nwb.path_of(chosen[0])}"
        )
    return _traces(nwb, chosen, len(held) > 1)


def _obvious(nwb: NwbFile, held: Mapping[str, Any]) -> Any:
    ready = [path for path in held if path == "units" or any(word in path.lower() for word in _PREFERRED)]
    candidates = list(held) if len(held) == 1 else ready
    if len(candidates) != 1:
        several = "it is not clear which responses are meant" if held else "responses are missing"
        raise bad_nwb(
            nwb.path,
            f"{several}; {nwb.listing(held, _WHAT)}",
            "Set responses in layout_params to the path of one of them, or to a list of paths." if held else "",
        )
    return held[candidates[0]]


def _traces(nwb: NwbFile, chosen: Sequence[Any], several: bool) -> Responses:
    series, tables = [], []
    for traces in chosen:
        series.append(series_of(nwb, traces))
        tables.append(_cells(nwb, traces, series[-1].columns))
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    neurons = {name: np.concatenate([table[name] for table in tables]) for name in shared}
    used = ", ".join(nwb.path_of(traces) for traces in chosen)
    return Responses(tuple(series), neurons, (f"the responses are {used}",) if several else ())


def _cells(nwb: NwbFile, traces: Any, count: int) -> dict[str, NDArray[Any]]:
    region, name = traces.rois, nwb.path_of(traces)
    rows = np.asarray(region.data[:]).astype(np.int64)
    if rows.shape != (count,):
        raise bad_nwb(nwb.path, f"{name} has {count} columns, and its rois name {len(rows)} cells")
    table = region.table
    if count and not (rows.min() >= 0 and rows.max() < len(table.id)):
        raise bad_nwb(nwb.path, f"the rois of {name} name rows that the table {nwb.path_of(table)} does not have")
    columns = {key: values[rows] for key, values in scalar_columns(nwb, table).items()}
    columns["unit_ids"] = np.asarray(table.id[:])[rows]
    plane = getattr(table, "imaging_plane", None)
    location = str(getattr(plane, "location", "") or "")
    return _named(columns, np.full(count, location) if location else None)


def _units(nwb: NwbFile, units: Any, where: Mapping[str, Sequence[Any]]) -> Responses:
    index = next(
        (one for one in units.columns if "VectorIndex" in kinds(one) and one.target.name == "spike_times"), None
    )
    if index is None:
        raise bad_nwb(nwb.path, "units/spike_times has no index (spike_times_index) that tells whose spikes they are")
    times = nwb.numbers(index.target.data, "units/spike_times")
    if times.ndim != 1:
        raise bad_nwb(nwb.path, f"units/spike_times has the shape {times.shape}, expected (spikes,)")
    ends = np.asarray(index.data[:]).astype(np.int64)
    bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1) if len(ends) else np.empty((0, 2), np.int64)
    if len(ends) != len(units.id) or (np.diff(bounds) < 0).any() or (len(ends) and ends[-1] > len(times)):
        raise bad_nwb(
            nwb.path,
            f"units/spike_times_index does not fit: {len(units.id)} units, {len(ends)} ends that should rise to "
            f"at most {len(times)}, the number of spikes",
        )
    columns = scalar_columns(nwb, units)
    columns["unit_ids"] = np.asarray(units.id[:])
    kept = _chosen_units(nwb, columns, where)
    spikes = Spikes(str(times.name).strip("/"), bounds)
    finite = np.array([np.isfinite(spike_times(spikes, unit, nwb.file)).all() for unit in range(len(bounds))], bool)
    broken = np.flatnonzero(kept & ~finite)
    notes = (_broken_note(columns["unit_ids"][broken], int(kept.sum())),) if len(broken) else ()
    kept &= finite
    if not kept.any():
        raise bad_nwb(nwb.path, f"none of the {len(kept)} units can be used{'; ' + notes[0] if notes else ''}")
    area = _electrode_locations(nwb, units)
    neurons = _named(columns, area)
    return Responses(
        dataclasses.replace(spikes, bounds=bounds[kept]), {key: values[kept] for key, values in neurons.items()}, notes
    )


def _chosen_units(
    nwb: NwbFile, columns: Mapping[str, NDArray[Any]], where: Mapping[str, Sequence[Any]]
) -> NDArray[np.bool_]:
    kept = np.ones(len(columns["unit_ids"]), bool)
    for name, values in where.items():
        if name not in columns or columns[name].ndim != 1:
            told = ", ".join(sorted(key for key, held in columns.items() if held.ndim == 1))
            raise bad_nwb(nwb.path, f"units_where names the column {name!r}; the units have {told}")
        kept &= np.isin(columns[name].astype(str), [str(value) for value in values])
    if where and not kept.any():
        asked = ", ".join(f"{name} = {list(values)}" for name, values in where.items())
        raise bad_nwb(nwb.path, f"none of the {len(kept)} units has {asked}")
    return kept


def _broken_note(ids: NDArray[Any], units: int) -> str:
    listed = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
    return f"{len(ids)} of {units} units are left out, because their spike times are not finite (id {listed})"


def _electrode_locations(nwb: NwbFile, units: Any) -> NDArray[np.str_] | None:
    """Return where the first electrode of each unit is, where every unit has one."""
    if "electrodes" not in units.colnames:
        return None
    region = units["electrodes"]
    index, region = (region, region.target) if "VectorIndex" in kinds(region) else (None, region)
    locations = scalar_columns(nwb, region.table).get("location")
    rows = np.asarray(region.data[:]).astype(np.int64)
    if index is not None:
        ends = np.asarray(index.data[:]).astype(np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        if len(ends) == 0 or (ends <= starts).any() or ends[-1] > len(rows):
            return None
        rows = rows[starts]
    if locations is None or len(rows) != len(units.id) or not (rows.min() >= 0 and rows.max() < len(locations)):
        return None
    return np.asarray(locations[rows].astype(str))


def _named(columns: dict[str, NDArray[Any]], area: NDArray[np.str_] | None) -> dict[str, NDArray[Any]]:
    """Add ``area`` and ``layer`` under the names by which neurons are chosen."""
    for name, candidates, otherwise in (("area", _AREA, area), ("layer", _LAYER, None)):
        found = next((columns[key] for key in candidates if key in columns), otherwise)
        if found is not None:
            columns[name] = found
    return columns
