"""The panels of the picture that show numbers: responses, reliability, tiers and behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.access import Access
from synicix_neurodata.inspection import Inspection
from synicix_neurodata.picture_style import COLORS, FAINT, INK, TRACES, rows_without_gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_behavior", "draw_reliability", "draw_responses", "draw_tiers"]

_TRACE_TRIALS = 300
"""Trials of a recording of images whose behaviour is shown."""


def draw_responses(axes: Axes, inspection: Inspection) -> None:
    """Show how strongly the neurons respond."""
    axes.set_title("Mean response of the neurons")
    part = inspection.part("responses")
    values = None if part is None or part.values is None else part.values.mean[np.isfinite(part.values.mean)]
    if values is None or not len(values):
        _empty(axes, "no responses")
        return
    _histogram(axes, values, TRACES[0])
    axes.set_xlabel(f"mean response per {'frame' if inspection.recording.is_movie else 'trial'} (units of the file)")
    axes.set_ylabel("neurons")
    assert part is not None and part.values is not None, "they were read"
    silent = int(part.values.silent.sum())
    if silent:
        axes.text(
            0.98, 0.97, f"{silent:,} silent", transform=axes.transAxes, ha="right", va="top", color=FAINT, fontsize=8.5
        )


def draw_reliability(axes: Axes, inspection: Inspection) -> None:
    """Show the oracle of the neurons, and the ceilings."""
    axes.set_title("Reliability")
    found = inspection.reliability
    if found is None:
        _empty(axes, "no stimulus is repeated")
        return
    _histogram(axes, found.oracle, COLORS["test"])
    axes.set_xlabel("oracle: correlation of a trial\nwith the mean of the other repeats")
    axes.set_ylabel("neurons")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, 1.3 * top)
    lines = [(float(found.oracle.mean()), "mean oracle", "-"), (found.ceiling, "ceiling, estimated", "--")]
    stated = inspection.recording.noise_ceiling.get("stimulus-encoding")
    if stated is not None:
        lines.append((stated, "ceiling, stated", ":"))
    for at, label, line in lines:
        axes.axvline(at, color=INK, linestyle=line, linewidth=1.2, ymax=0.78, label=f"{label} {at:.3f}")
    axes.legend(frameon=False, fontsize=8, loc="upper left", borderaxespad=0.1)


def _histogram(axes: Axes, values: NDArray[np.float64], color: str) -> None:
    bins = int(np.clip(np.sqrt(len(values)) * 1.5, 8, 50))
    axes.hist(values, bins=bins, color=color, edgecolor="white", linewidth=0.4)
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def draw_tiers(axes: Axes, inspection: Inspection) -> None:
    """Show how many trials each tier has."""
    axes.set_title("Tiers")
    tiers = inspection.tiers
    if tiers is None:
        _empty(axes, "cannot be told")
        return
    sizes = {tier: len(rows) for tier, rows in tiers.rows.items()}
    sizes["not used"] = inspection.recording.trials - sum(sizes.values())
    sizes = {tier: size for tier, size in sizes.items() if size or tier != "not used"}
    places = np.arange(len(sizes))[::-1]
    axes.barh(places, list(sizes.values()), color=[COLORS[tier] for tier in sizes], height=0.6)
    axes.set_yticks(places, list(sizes), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.45 * max(1, *sizes.values()))
    for place, (tier, size) in zip(places, sizes.items(), strict=True):
        shown = "" if tier == "not used" else _showings(inspection, tiers.rows[tier])
        axes.text(size, place, f"  {size:,}{shown}", va="center", fontsize=8.5)
    axes.set_xlabel("movies" if inspection.recording.is_movie else "trials")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))


def _showings(inspection: Inspection, rows: NDArray[np.intp]) -> str:
    showings = inspection.repeats(rows)
    if not showings or set(showings) == {1}:
        return ""
    stimuli, times = sum(showings.values()), sorted(showings)
    shown = f"{times[0]} times" if len(times) == 1 else f"{times[0]} to {times[-1]} times"
    return f"\n  {stimuli:,} shown {shown}"


def draw_behavior(axes: Axes, inspection: Inspection) -> None:
    """Show behaviour and pupil over trials, or over the longest movie of the training tier."""
    recording = inspection.recording
    parts = [part for part in ("behavior", "pupil_center") if part in recording.shapes]
    axes.set_title("Behaviour")
    rows = rows_without_gaps(inspection, *parts)
    if not parts:
        _empty(axes, "the recording has no behaviour and no pupil")
        return
    if not len(rows):
        _empty(axes, "no trial is without gaps")
        return
    with Access(recording) as access:
        if recording.frames is None:
            # Neighbouring rows of the file, whatever their tier.
            rows = np.arange(min(recording.trials, _TRACE_TRIALS))
            time, label = rows.astype(float), "trial, in the order of the file"
            traces = {part: access.trials(part, rows).T for part in parts}
        else:
            row = int(rows[np.argmax(recording.frames[rows])])
            length = int(recording.frames[row])
            rate = recording.frame_rate
            time = np.arange(length) / (rate or 1.0)
            label = f"{'frame' if rate is None else 'time (s)'} of the movie in trial {row}"
            traces = {part: access.clip(part, row, 0, length) for part in parts}
    lines = [(f"{part}\ncolumn {column}", trace) for part in parts for column, trace in enumerate(traces[part])]
    if len(lines) > len(TRACES):
        axes.set_title(f"Behaviour: the first {len(TRACES)} of {len(lines)} columns")
    lines = lines[: len(TRACES)]
    for number, (name, trace) in enumerate(lines):
        known = trace[np.isfinite(trace)].astype(float)
        low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
        place = len(lines) - 1 - number
        axes.plot(time, place + 0.8 * (trace - low) / ((high - low) or 1.0), color=TRACES[number], linewidth=0.9)
        axes.text(1.005, (place + 0.4 + 0.15) / (len(lines) + 0.1), f"{low:.3g} to {high:.3g}", **_beside(axes))
        axes.text(-0.005, (place + 0.4 + 0.15) / (len(lines) + 0.1), name, **{**_beside(axes), "ha": "right"})
    axes.set_ylim(-0.15, len(lines) - 0.05)
    axes.set_xlim(time[0], max(time[-1], time[0] + 1e-9))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)


def _beside(axes: Axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "ha": "left", "va": "center", "fontsize": 8, "color": FAINT}


def _empty(axes: Axes, why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=FAINT)
