"""How the panels of the picture look, and which trials they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.inspection import Inspection

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["COLORS", "FAINT", "INK", "LEFT", "STYLE", "TRACES", "heading", "rows_without_gaps"]

COLORS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73", "not used": "#BBBBBB"}
"""Of the tiers: Okabe and Ito's, which colour-blind people tell apart."""

TRACES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

INK, FAINT = "#222222", "#777777"

LEFT = 0.01
"""Where headings begin."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def heading(figure: SubFigure, title: str, told: str = "") -> None:
    """Write a bold title, and beside it what is shown."""
    from matplotlib.text import Annotation

    written = figure.suptitle(title, x=LEFT, ha="left", fontsize=10, fontweight="bold")
    figure.add_artist(
        Annotation(
            told,
            xy=(1, 0),
            xycoords=written,
            xytext=(8, 0),
            textcoords="offset points",
            va="bottom",
            fontsize=8.5,
            color=FAINT,
        )
    )


def rows_without_gaps(inspection: Inspection, *parts: str) -> NDArray[np.intp]:
    """Return training trials, or all where there are none, in which none of some parts has gaps."""
    tiers = inspection.tiers
    rows = np.arange(inspection.recording.trials) if tiers is None else tiers.rows["train"]
    rows = rows if len(rows) else np.arange(inspection.recording.trials)
    for name in parts:
        part = inspection.part(name)
        if part is not None and part.values is not None:
            rows = np.setdiff1d(rows, part.values.missing)
    return rows
