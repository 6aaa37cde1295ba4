"""An inspection as text that fits 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.inspection import Inspection
from synicix_neurodata.inspection_data import EXPLAINABLE, neuron_data, response_data
from synicix_neurodata.modes import ModeUse, experiment_lines

__all__ = ["as_text", "bytes_text"]

_WIDTH = 100
_INDENT = 14
_LISTED = 6
"""Numbers of showings, or columns of behaviour, that are told one by one."""

_Values = NDArray[np.float64]


def as_text(inspection: Inspection) -> str:
    """Return what a person wants to know, in lines of at most 100 characters where names allow it."""
    recording = inspection.recording
    blocks = [
        recording.path,
        _line("layout", recording.layout),
        _line("trials", _trials(inspection)),
        _table("parts", _part_rows(inspection)),
        _table("taken from", [[name, where] for name, where in recording.taken_from.items()]),
        _line("missing", _gaps(inspection)),
        _table("tiers", _tier_rows(inspection)),
        _line("repeats", _repeats(inspection.repeats())),
        _line("neurons", _neurons(inspection)),
        _line("responses", _responses(inspection)),
        _line("reliability", _reliability(inspection)),
        _line("ceiling", _ceilings(inspection)),
        "\n".join(_line("modes" if not number else "", text) for number, text in enumerate(_modes(inspection))),
        "\n".join(_line("note", note) for note in inspection.notes if note),
        _line("note", "--quick read no values: gaps, withheld responses and leaks between tiers are not looked for")
        if inspection.quick
        else "",
        "\n".join(_line("damaged", problem) for problem in inspection.problems),
        _use(inspection),
    ]
    return "\n".join(block for block in blocks if block)


def bytes_text(size: float) -> str:
    """Return a size with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _line(label: str, text: str) -> str:
    if not text:
        return ""
    return textwrap.fill(
        text, _WIDTH, initial_indent=label.ljust(_INDENT), subsequent_indent=" " * _INDENT, break_on_hyphens=False
    )


def _table(label: str, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    # The last column has what room is left, in as many lines as it needs.
    room = max(20, _WIDTH - _INDENT - sum(width + 2 for width in widths[:-1]))
    lines = []
    for *cells, last in rows:
        start = "".join(cell.ljust(width) + "  " for cell, width in zip(cells, widths[:-1], strict=True))
        for number, part in enumerate(textwrap.wrap(last, room, break_on_hyphens=False) or [""]):
            lines.append(((" " * len(start) if number else start) + part).rstrip())
    return "\n".join((label if not number else "").ljust(_INDENT) + line for number, line in enumerate(lines))


def _trials(inspection: Inspection) -> str:
    recording = inspection.recording
    frames = recording.frames
    if frames is None:
        return f"{recording.trials:,} of one image each" if "stimulus" in recording.shapes else f"{recording.trials:,}"
    if not len(frames):
        return "0 movies"
    least, most = int(frames.min()), int(frames.max())
    told = f"{recording.trials:,} movies of {least:,}" + (f" to {most:,}" if most > least else "") + " frames"
    told += f", {int(frames.sum()):,} in all"
    if recording.frame_rate is None:
        return f"{told}; the frame rate is not told"
    seconds = frames.sum() / recording.frame_rate
    return f"{told}; {recording.frame_rate:g} frames per second, {_duration(seconds)} of movie"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _part_rows(inspection: Inspection) -> list[list[str]]:
    rows = [["", "a trial", "type", "size", "mean", "sd", "range"]]
    movie = inspection.recording.is_movie
    for part in inspection.parts:
        shape = [f"{size:,}" for size in part.shape]
        if movie:
            shape.insert(1, "T")
        size = "?" if part.bytes is None else bytes_text(part.bytes)
        first = [part.name, " x ".join(shape), part.dtype or "?", size]
        values = part.values
        if values is None:
            rows.append([*first, "cannot be read" if part.problem else "", "", ""])
            continue
        if part.name in ("stimulus", "responses") or part.shape[0] > _LISTED:
            rows.append([*first, *_numbers(values.mean, values.std, values.minimum, values.maximum)])
            continue
        # The columns of behaviour are in units of their own.
        rows.append([*first, "", "", ""])
        rows += [
            [f"  column {column}", "", "", "", *_numbers(*numbers)]
            for column, numbers in enumerate(zip(values.mean, values.std, values.minimum, values.maximum, strict=True))
        ]
    return rows


def _numbers(mean: _Values, std: _Values, minimum: _Values, maximum: _Values) -> list[str]:
    if np.isnan(mean).all():
        return ["all missing", "", ""]
    return [f"{np.mean(mean):.3g}", f"{np.mean(std):.3g}", f"{np.min(minimum):.3g} to {np.max(maximum):.3g}"]


def _gaps(inspection: Inspection) -> str:
    """Say which trials hold values that are not finite."""
    read = [(part.name, part.values.missing) for part in inspection.parts if part.values is not None]
    told = [
        f"{name} in {len(rows):,} of {inspection.recording.trials:,} trials ({_some(rows)})"
        for name, rows in read
        if len(rows)
    ]
    return "; ".join(told) if told or not read else "no values"


def _some(rows: NDArray[np.intp]) -> str:
    return ", ".join(map(str, rows[:_LISTED])) + (", …" if len(rows) > _LISTED else "")


def _tier_rows(inspection: Inspection) -> list[list[str]]:
    of_file, tiers = inspection.recording.file_tiers(), inspection.tiers
    if tiers is None:
        return []
    becomes = inspection.becomes()
    rows = [["", "trials", "shown", "in the file"]]
    for tier, members in tiers.rows.items():
        words = [f"{word} {of_file[word]:,}" for word in of_file if becomes[word] == tier]
        shown = _repeats(inspection.repeats(members)) if len(members) else ""
        rows.append([tier, f"{len(members):,}", shown, ", ".join(words)])
    unused = [f"{word or '(no tier)'} {of_file[word]:,}" for word in of_file if not becomes[word]]
    if unused:
        trials = sum(of_file[word] for word in of_file if not becomes[word])
        rows.append(["not used", f"{trials:,}", "", ", ".join(unused)])
    return rows


def _repeats(showings: Mapping[int, int]) -> str:
    if not showings:
        return ""
    told = [
        f"{stimuli:,} {'stimulus' if stimuli == 1 else 'stimuli'} {'once' if times == 1 else f'{times:,} times'}"
        for times, stimuli in showings.items()
    ]
    if len(told) > _LISTED:
        stimuli = sum(showings.values())
        return f"{stimuli:,} stimuli {min(showings)} to {max(showings)} times"
    return ", ".join(told)


def _neurons(inspection: Inspection) -> str:
    data = neuron_data(inspection)
    if data is None:
        return ""
    told = [f"{data['count']:,}"]
    for column in ("area", "layer"):
        if data[column]:
            told.append(f"{column}: " + ", ".join(f"{name} {count:,}" for name, count in data[column].items()))
    if data["known"]:
        told.append("known of each: " + ", ".join(data["known"]))
    return "; ".join(told)


def _responses(inspection: Inspection) -> str:
    data = response_data(inspection)
    if data is None or data["mean"] is None:
        return ""
    each = "frame" if inspection.recording.is_movie else "trial"
    low, middle, high = data["of_neurons"]
    told = (
        f"mean {data['mean']:.3g} a {each}; of a neuron {middle:.3g} ({low:.3g} to {high:.3g} in 90 % of them); "
        f"{data['silent']:,} of {data['neurons']:,} neurons are zero throughout"
    )
    if data["constant"]:
        told += f", {data['constant']:,} more never change"
    if data["negative"]:
        told += f"; {data['negative']:,} have negative values"
    fano = None if inspection.reliability is None else _median(inspection.reliability.fano)
    return told if fano is None else f"{told}; variance over repeats / mean: {fano:.2f} (Poisson counts have 1)"


def _reliability(inspection: Inspection) -> str:
    found = inspection.reliability
    if found is None:
        return (
            ""
            if inspection.stimulus_ids is None or _not_read(inspection)
            else f"not known: fewer than two stimuli{_with_answers(inspection)} are repeated"
        )
    least, most = found.repeats
    times = f"{least}" if least == most else f"{least} to {most}"
    trials = "all trials" if inspection.reliability_of == "all" else f"the {inspection.reliability_of} tier"
    explainable = found.explainable_variance
    return (
        f"of {trials} ({found.stimuli:,} stimuli, {times} times each): explainable variance {explainable.mean():.3f} of "
        f"the whole, {int((explainable >= EXPLAINABLE).sum()):,} of {len(explainable):,} neurons have {EXPLAINABLE} or "
        f"more; oracle {found.oracle.mean():.3f} (correlation of a trial with the mean of the others)"
    )


def _with_answers(inspection: Inspection) -> str:
    return " with responses" if inspection.tiers is not None and len(inspection.tiers.withheld) else ""


def _not_read(inspection: Inspection) -> bool:
    part = inspection.part("responses")
    return part is None or part.values is None


def _median(values: _Values) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _ceilings(inspection: Inspection) -> str:
    told = []
    if inspection.recording.noise_ceiling:
        stated = ", ".join(f"{mode} {value:.3f}" for mode, value in inspection.recording.noise_ceiling.items())
        told.append(f"stated by the file: {stated}")
    if inspection.reliability is not None:
        told.append(f"estimated from repeats: {inspection.reliability.ceiling:.3f} for who sees the stimulus")
    return f"of the mean single-trial correlation, {'; '.join(told)}" if told else ""


def _modes(inspection: Inspection) -> list[str]:
    return [f"{use.mode}: {_mode(use, inspection.quick)}" for use in inspection.modes]


def _mode(use: ModeUse, quick: bool) -> str:
    if not use.usable:
        return f"no, {use.why}"
    if quick:
        return "has the parts for it"
    needed = [name for name in ("clip_frames", "drop_missing") if name in use.params]
    return f"yes, with {' and '.join(needed)}" if needed else "yes"


def _use(inspection: Inspection) -> str:
    use = next((use for use in inspection.modes if use.usable), None)
    if use is None or inspection.problems:
        return ""
    lines = experiment_lines(Path(inspection.recording.path).name, use)
    head, files, *rest = lines.splitlines()
    lines = "\n".join([head, f"{files}  # as seen from the project's dataset directory", *rest])
    return "to use it\n" + textwrap.indent(lines, "    ")
