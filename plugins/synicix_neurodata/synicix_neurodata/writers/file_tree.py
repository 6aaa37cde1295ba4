"""Write file trees, static and movie, as a folder or as a zip file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.file_tree import STATIC_NAMES, VIDEO_NAMES
from synicix_neurodata.layouts.file_tree_meta import CEILING_FILE
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.file_tree_statistics import tree_statistics

__all__ = ["FileTreeWriter", "FileTreeZipWriter"]

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time of every member of a zip file, so that the same recording gives the same bytes."""


class FileTreeWriter:
    """Writes one folder; see `synicix_neurodata.writers.Writer`.

    Clips of a movie are filled up with NaN to the length of the longest.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        path.mkdir()
        self._start(path, plan, _Folder(path))

    def _start(self, path: Path, plan: Plan, sink: _Sink) -> None:
        self._path, self._plan, self._sink = path, plan, sink
        if plan.frames is not None and plan.shapes.get("stimulus", (1,))[0] != 1:
            raise DatasetError(
                "The recording is not written",
                file=str(path),
                why=f"movies in this layout are grey, and this one has {plan.shapes['stimulus'][0]} channels",
            )
        names = STATIC_NAMES if plan.frames is None else VIDEO_NAMES
        self._folders = {part: f"data/{names[part][0]}" for part in plan.shapes}
        self._longest = 0 if plan.frames is None else int(plan.frames.max())

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write successive trials, one of a movie."""
        for part, values in parts.items():
            for trial, value in enumerate(values, first):
                stored = value.astype(self._plan.dtype(part), copy=False)
                if self._plan.frames is not None:
                    stored = self._padded(np.moveaxis(stored, 1, -1)[0] if part == "stimulus" else stored)
                self._sink.put(f"{self._folders[part]}/{trial}.npy", _npy(stored))

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write the columns, the neurons, the statistics and the ceiling."""
        plan = self._plan
        self._sink.put("config.json", json.dumps({"links": {}}).encode())
        columns = _told_columns(plan) if plan.exact else _trial_columns(plan)
        for name, column in {**columns, **plan.columns}.items():
            self._sink.put(f"meta/trials/{name}.npy", _npy(column))
        for name, column in _neuron_columns(plan).items():
            self._sink.put(f"meta/neurons/{name}.npy", _npy(column))
        if noise_ceiling:
            self._sink.put(CEILING_FILE, json.dumps(dict(noise_ceiling)).encode())
        self._sink.close()
        # Without tiers it is not known which trials are for training.
        if plan.tiers.any():
            self._sink.reopen()
            for name, values in tree_statistics(describe_recording(self._path), self._longest).items():
                self._sink.put(f"meta/statistics/{name}.npy", _npy(np.asarray(values, np.float32)))
            self._sink.close()

    def abandon(self) -> None:
        """Close what is open."""
        self._sink.close()

    def _padded(self, values: NDArray[Any]) -> NDArray[Any]:
        missing = self._longest - values.shape[-1]
        if not missing:
            return values
        floating = values if values.dtype.kind == "f" else values.astype(np.float32)
        return np.pad(floating, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=np.nan)


class FileTreeZipWriter(FileTreeWriter):
    """Writes one zip file, with everything in one folder of it, as the published recordings have it."""

    def __init__(self, path: Path, plan: Plan) -> None:
        kind = "static" if plan.frames is None else "dynamic"
        self._start(path, plan, _Zip(path, f"{kind}{plan.animal}-{plan.session}-{plan.scan}-simulated"))


class _Sink(Protocol):
    def put(self, name: str, content: bytes) -> None: ...

    def close(self) -> None: ...

    def reopen(self) -> None: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, content: bytes) -> None:
        place = self._path / name
        try:
            place.write_bytes(content)
        except FileNotFoundError:
            place.parent.mkdir(parents=True)
            place.write_bytes(content)

    def close(self) -> None:
        pass

    def reopen(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path, top: str) -> None:
        self._path, self._top = path, top
        self._archive = zipfile.ZipFile(path, "w")

    def put(self, name: str, content: bytes) -> None:
        member = zipfile.ZipInfo(f"{self._top}/{name}", _EARLIEST)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = 0o644 << 16
        # Noise hardly shrinks, and the fastest level is ten times faster than the usual one.
        self._archive.writestr(member, content, compresslevel=1)

    def close(self) -> None:
        self._archive.close()

    def reopen(self) -> None:
        self._archive = zipfile.ZipFile(self._path, "a")


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _trial_columns(plan: Plan) -> dict[str, NDArray[Any]]:
    same = {"animal_id": plan.animal, "session": plan.session, "scan_idx": plan.scan}
    columns: dict[str, NDArray[Any]] = {
        "tiers": plan.tiers,
        "trial_idx": np.arange(plan.trials, dtype="i8"),
        **{name: np.full(plan.trials, value, "i8") for name, value in same.items()},
    }
    if plan.frames is not None:
        # The published movies do not tell which clip a trial showed; here it is known, and so is how long it took.
        hashes = np.char.add(f"session{plan.session}-clip", plan.stimulus_ids.astype(str))
        return {**columns, "condition_hash": hashes, "durations": (plan.frames / plan.frame_rate).astype("f4")}
    hashes = np.char.add(f"session{plan.session}-image", plan.stimulus_ids.astype(str))
    classes = np.full(plan.trials, "simulated")
    return {
        **columns,
        "condition_hash": hashes,
        "frame_image_id": plan.stimulus_ids,
        "frame_image_class": classes,
    }


def _told_columns(plan: Plan) -> dict[str, NDArray[Any]]:
    """Return of the columns that the layout has those which an exact plan tells in another way."""
    told: dict[str, NDArray[Any]] = {}
    if plan.tiers.any():
        told["tiers"] = plan.tiers
    if plan.stimulus_ids.any():
        told["frame_image_id"] = plan.stimulus_ids
    if plan.frames is not None and np.isfinite(plan.frame_rate):
        told["durations"] = plan.frames / plan.frame_rate
    return told


def _neuron_columns(plan: Plan) -> dict[str, NDArray[Any]]:
    if plan.exact or "responses" not in plan.shapes:
        return dict(plan.neurons)
    count = plan.shapes["responses"][0]
    same = {"animal_ids": plan.animal, "sessions": plan.session, "scan_idx": plan.scan}
    return {
        "unit_ids": np.arange(1, count + 1, dtype="i8"),
        **{name: np.full(count, value, "i8") for name, value in same.items()},
        **plan.neurons,
    }
