"""Which modes a recording can be used with, and what an experiment file has to say for that."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synicix_core.errors import DatasetError
from synicix_neurodata.dataset import Mode, NeuroDataDataset
from synicix_neurodata.recording import Recording
from synicix_neurodata.usable import parts_of_mode

__all__ = ["ModeUse", "experiment_lines", "mode_use"]


@dataclass(frozen=True)
class ModeUse:
    """Whether a recording can be used with a mode.

    Attributes
    ----------
    mode : str
    usable : bool
        Whether a dataset of each tier can be made.
    why : str
        Why not; empty where it is usable.
    params : dict
        What the dataset needs beside the mode: `clip_frames`, `drop_missing`, `layout_params`.
    """

    mode: str
    usable: bool
    why: str = ""
    params: dict[str, Any] = field(default_factory=dict)


def mode_use(
    recording: Recording, mode: Mode, layout_params: Mapping[str, Any], clip_frames: int | None, *, quick: bool = False
) -> ModeUse:
    """Find out by making the datasets whether a mode can be used.

    Parameters
    ----------
    recording : Recording
    mode : str
    layout_params : mapping
        As for the dataset.
    clip_frames : int, optional
        Frames of a clip, for movies of unequal length.
    quick : bool
        Look only at which parts there are.
    """
    params: dict[str, Any] = {}
    if layout_params:
        params["layout_params"] = dict(layout_params)
    if clip_frames is not None:
        params["clip_frames"] = clip_frames
    try:
        parts_of_mode(recording, mode)
        if not quick:
            _make(recording, mode, params)
    except DatasetError as error:
        refused = error
    else:
        return ModeUse(mode, True, params=params)
    if "drop_missing" in refused.hint:
        try:
            _make(recording, mode, params := {**params, "drop_missing": True})
        except DatasetError as error:
            return ModeUse(
                mode, False, f"{_reason(recording, refused)}; without these trials, {_reason(recording, error)}"
            )
        return ModeUse(mode, True, params=params)
    return ModeUse(mode, False, _reason(recording, refused))


def _make(recording: Recording, mode: Mode, params: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # The notes of the dataset are told by the inspection itself.
        warnings.simplefilter("ignore")
        for tier in ("train", "validation", "test"):
            NeuroDataDataset(recording.path, tier, mode=mode, **params)


def _reason(recording: Recording, error: DatasetError) -> str:
    # What the recording holds is told above the modes already.
    why = error.why.replace(f"; {recording.contents()}", "")
    if error.what.startswith("The recording cannot be used"):
        return why
    return f"{error.what[:1].lower()}{error.what[1:]}: {why}" if why else error.what


def experiment_lines(file_name: str, use: ModeUse) -> str:
    """Return the lines of an experiment file that use a recording."""
    params = ", ".join(f"{name} = {_toml(value)}" for name, value in {"mode": use.mode, **use.params}.items())
    return f'[[dataset]]\nfiles = {_toml(file_name)}\nprovider = "NeuroDataDataset"\nparams = {{ {params} }}'


def _toml(value: Any) -> str:
    """Return JSON data as TOML; of numbers, booleans, texts and lists the two have the same notation."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
