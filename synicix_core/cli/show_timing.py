"""`synicix-run show TASK --timing`: where the time of a training went."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count, number, percent

__all__ = ["timing_facts", "timing_lines"]

_BAR = 32
_LEAST_BAR = 8
_BLOCK = "█"

_EXPLAINED = {
    "training": (
        "learning that is not divided into forward and backward, because its steps run as a whole (recorded or compiled), "
        "or because the trainer does not say what it does."
    ),
    "profiler": "starting the profiler, ending it and writing its file.",
    "compiling": "making the code, or the recording, of a step before it is used.",
}
"""What the names of parts do not say by themselves."""


def timing_facts(task: str, state: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is known about the time of a task.

    Parameters
    ----------
    task : str
        Its md5.
    state : str
        Its state.
    result : mapping or None
        The columns of its result.

    Returns
    -------
    dict
        ``task``, ``state``; ``timing``, as the result has it, or None; ``whole_seconds``, the sum of its parts; ``group``, the
        number of tasks that were trained as one, this one included; None for one that was trained alone.
    """
    provenance: Mapping[str, Any] = result["provenance"] if result is not None else {}
    timing = provenance.get("timing") or None
    together = provenance.get("fused") or None
    return {
        "task": task,
        "state": state,
        "timing": timing,
        "whole_seconds": sum(timing["seconds"].values()) if timing else None,
        "group": together.get("tasks") if isinstance(together, Mapping) else together,
    }


def timing_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    timing, task = facts["timing"], facts["task"]
    if timing is None:
        why = (
            "its result says nothing about time: an older version made it, or it was made elsewhere"
            if facts["state"] == "finished"
            else "where its time goes is known once it has a result"
        )
        yield f"task {task}: {facts['state']}; {why}."
        return
    yield f"task {task}: {facts['state']}"
    yield ""
    yield _table(timing["seconds"])
    yield ""
    yield from (f"{part}: {text}" for part, text in _EXPLAINED.items() if part in timing["seconds"])
    if timing["samples_per_second"] is not None:
        rate, steps = timing["samples_per_second"], timing["steps_per_second"]
        learnt = f"{count(timing['steps'], 'step')}, {count(timing['samples'], 'sample')}"
        yield f"{rate:,.0f} samples per second, {number(steps)} steps per second while it learnt ({learnt})."
    if timing.get("profiled"):
        yield "A profile was taken of some of its steps, which made them slower."
    if facts["group"]:
        yield (
            f"It was trained as one of a group, of {facts['group']} tasks at first: these are its shares, the time of "
            "the group divided by how many were in it at that time."
        )


def _table(seconds: Mapping[str, float]) -> str:
    from synicix_core.training.timing import PARTS

    whole = sum(seconds.values())
    room = fit_width()
    width = _BAR if room is None else max(min(_BAR, room - 40), _LEAST_BAR)
    largest = max(seconds.values())
    rows = [
        [part, f"{seconds[part]:,.3f}", percent(seconds[part] / whole), _bar(seconds[part] / largest, width)]
        for part in (*PARTS, *sorted(set(seconds) - set(PARTS)))
        if part in seconds
    ]
    rows.append(["whole", f"{whole:,.3f}", percent(1.0), ""])
    return format_table(["part", "seconds", "share", ""], rows, left=("part", ""), width=room)


def _bar(fraction: float, width: int) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        _BLOCK.encode(encoding)
        block = _BLOCK
    except (UnicodeEncodeError, LookupError):
        block = "#"
    return block * round(fraction * width)
