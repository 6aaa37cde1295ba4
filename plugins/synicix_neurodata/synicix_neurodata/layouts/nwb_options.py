"""What a user may say about an NWB file, because the format does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from synicix_core.errors import DatasetError

__all__ = ["NWB_OPTIONS", "NwbOptions", "read_options"]


@dataclass(frozen=True)
class NwbOptions:
    """Paths are those inside the file; None leaves it to inspection.

    Attributes
    ----------
    stimulus : str or None
        An IndexSeries, ImageSeries or OpticalSeries in ``stimulus/presentation``.
    responses : tuple of str or None
        RoiResponseSeries whose cells are put side by side, or ``units``.
    behavior : tuple of str or None
        Time series whose columns are put side by side; empty for none.
    pupil_center : str or None
        A series (samples, 2); empty for none.
    trials : str or None
        A TimeIntervals table; empty for none.
    tier_column : str or None
        Its column that tells the tier; empty for none.
    units_where : dict of str to list
        Only units whose column has one of these values.
    delay : float or None
        Seconds from the onset of a stimulus to the window in which responses and behaviour are taken.
    window : float or None
        Its length in seconds.
    kind : {"images", "movie"} or None
        Whether a presentation is a trial, or a frame.
    axes : {"rows-columns", "columns-rows"}
        Order of the axes of a stored image.
    """

    stimulus: str | None = None
    responses: tuple[str, ...] | None = None
    behavior: tuple[str, ...] | None = None
    pupil_center: str | None = None
    trials: str | None = None
    tier_column: str | None = None
    units_where: dict[str, list[Any]] = field(default_factory=dict)
    delay: float | None = None
    window: float | None = None
    kind: str | None = None
    axes: str = "rows-columns"


NWB_OPTIONS = tuple(option.name for option in fields(NwbOptions))
"""Names of the options."""

_TEXT = ("stimulus", "pupil_center", "trials", "tier_column")
_LISTS = ("responses", "behavior")
_CHOICES = {"kind": ("images", "movie"), "axes": ("rows-columns", "columns-rows")}


def read_options(path: str, said: Mapping[str, Any]) -> NwbOptions:
    """Return the options as they were set in `layout_params`.

    Raises
    ------
    DatasetError
        If a value is not of the kind that its option needs.
    """
    values: dict[str, Any] = {}
    for name, value in said.items():
        if value is None:
            continue
        if name in _TEXT:
            values[name] = value if isinstance(value, str) else _refused(path, name, value, "a text")
        elif name in _LISTS:
            listed = [value] if isinstance(value, str) else value
            good = isinstance(listed, list) and all(isinstance(entry, str) for entry in listed)
            values[name] = tuple(listed) if good else _refused(path, name, value, "a path or a list of paths")
        elif name in _CHOICES:
            values[name] = (
                value if value in _CHOICES[name] else _refused(path, name, value, " or ".join(_CHOICES[name]))
            )
        elif name == "units_where":
            good = isinstance(value, dict)
            wanted = {key: one if isinstance(one, list) else [one] for key, one in value.items()} if good else {}
            values[name] = wanted if good else _refused(path, name, value, "a table of columns and their values")
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            good = number and (name == "delay" or value > 0)
            limits = "" if name == "delay" else " above 0"
            values[name] = float(value) if good else _refused(path, name, value, f"a number of seconds{limits}")
    return NwbOptions(**values)


def _refused(path: str, name: str, value: Any, expected: str) -> Any:
    raise DatasetError(f"layout_params sets {name} = {value!r}", file=path, why=f"for an NWB file it is {expected}")
