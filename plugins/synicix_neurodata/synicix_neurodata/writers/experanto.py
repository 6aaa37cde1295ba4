"""Write experanto's layout: the screen, responses, eye tracker and treadmill as folders on one clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.writers import Plan

__all__ = ["ExperantoWriter"]

_IMAGE_RATE = 10.0
"""Samples per second of the signals of a static recording."""

_PERIOD = 10
"""Samples from one image to the next; for half of them it is on, then the screen is grey."""

_WINDOW = slice(1, 6)
"""Samples of a period that lie in the reader's window, 0.05 to 0.55 s after the image came on."""

_GREY = 128.0

# As in the reader, the C library writes ten times faster.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class ExperantoWriter:
    """Writes one folder; see `synicix_neurodata.writers.Writer`.

    An image is on for half a second and followed by half a second of grey; every device is sampled at 10 Hz, and all
    samples in the window that the reader averages have the value of the trial. In a recording of movies every device has
    one sample per frame, and one grey frame lies between two movies. The last column of behaviour is the treadmill's; the
    others, and after them the pupil's centre, are the eye tracker's. Without a pupil all are the treadmill's, because two
    columns of an eye tracker count as the pupil's centre.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        channels = plan.shapes["stimulus"][0]
        if channels not in (1, 3):
            raise DatasetError(
                "The recording cannot be written as an experiment",
                file=str(path),
                why=f"its stimuli have {channels} channels, and experanto's have 1 or 3",
            )
        self._path, self._plan = path, plan
        self._rate = plan.frame_rate if plan.frames is not None else _IMAGE_RATE
        self._trials: list[dict[str, Any]] = []
        self._times: list[NDArray[np.float64]] = []
        self._frames = self._samples = 0
        for folder in ("screen/data", "screen/meta"):
            (path / folder).mkdir(parents=True)
        self._pixels = _Moments(1)
        self._devices = {
            name: _Device(path / name, columns, plan.dtype("responses" if name == "responses" else "behavior"))
            for name, columns in _columns(plan).items()
        }

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write successive trials."""
        movie = self._plan.frames is not None
        for offset in range(len(parts["stimulus"])):
            trial = {part: values[offset] for part, values in parts.items()}
            frames = trial["stimulus"].shape[1] if movie else 1
            train = self._plan.tiers[first + offset] == "train"
            self._show(first + offset, trial["stimulus"], frames if movie else 0)
            count = frames + 1 if movie else _PERIOD
            for name, values in self._signals(trial).items():
                device = self._devices[name]
                where = slice(0, frames) if movie else _WINDOW if name == "responses" else slice(None)
                samples = np.zeros((count, device.columns), device.dtype)
                samples[where] = values.T if movie else values
                device.write(samples, samples[where] if train else samples[:0])
            self._samples += count

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write what describes the trials and the devices."""
        plan, screen = self._plan, self._path / "screen"
        every = {f"{number:05d}": trial for number, trial in enumerate(self._trials)}
        for key, trial in every.items():
            (screen / "meta" / f"{key}.yml").write_text(_yaml(trial))
        # experanto would write this one itself, into the folder of whoever reads it.
        (screen / "combined_meta.json").write_text(json.dumps(every))
        np.save(screen / "timestamps.npy", np.concatenate(self._times) if self._times else np.zeros(0))
        rate = self._rate if plan.frames is not None else 2 * self._rate / _PERIOD
        (screen / "meta.yml").write_text(_yaml({"modality": "screen", "frame_rate": float(rate)}))
        size = _image_size(plan)
        for name, value in zip(("means", "stds"), self._pixels.result(), strict=True):
            np.save(screen / "meta" / f"{name}.npy", np.full(size, value[0]))
        for device in self._devices.values():
            device.finish(self._rate)
        for name, values in plan.neurons.items():
            np.save(self._path / "responses" / "meta" / f"{name}.npy", values)
        about = {
            "data_key": f"{plan.animal}-{plan.session}-{plan.scan}",
            "scan_key": {"animal_id": plan.animal, "session": plan.session, "scan_idx": plan.scan},
            "noise_ceiling": dict(noise_ceiling),
        }
        (self._path / "meta.json").write_text(json.dumps(about, indent=2))

    def abandon(self) -> None:
        """Close what is open."""
        for device in self._devices.values():
            device.close()

    def _show(self, trial: int, stimulus: NDArray[Any], frames: int) -> None:
        plan = self._plan
        key = f"{len(self._trials):05d}"
        colours_last = np.moveaxis(stimulus, 0, -1)
        shown = colours_last if stimulus.shape[0] == 3 else colours_last[..., 0]
        np.save(self._path / "screen" / "data" / f"{key}.npy", np.asarray(shown, plan.dtype("stimulus")))
        if plan.tiers[trial] == "train":
            self._pixels.add(stimulus.reshape(-1, 1))
        size = _image_size(plan)
        first = self._frames
        stated: dict[str, Any] = {"modality": "video" if frames else "image", "first_frame_idx": first}
        if frames:
            stated["num_frames"] = frames
        stated |= {"image_size": size, "tier": str(plan.tiers[trial]), "valid_trial": True}
        stated |= {"image_id": identity} if (identity := str(plan.stimulus_ids[trial])) else {}
        stated |= {"trial_idx": trial}
        stated |= {name: values[trial].item() for name, values in plan.columns.items()}
        blank = {
            "modality": "blank",
            "first_frame_idx": first + max(1, frames),
            "image_size": size,
            "interleave_value": _GREY,
            "tier": "blank",
        }
        self._trials += [stated, blank]
        samples = self._samples + (np.arange(frames + 1) if frames else np.array([0, _PERIOD // 2]))
        # Each time is one division, so that no error adds up over a recording.
        self._times.append(samples / self._rate)
        self._frames += len(samples)

    def _signals(self, trial: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the values of each device: (columns,) or (columns, frames)."""
        found = {"responses": trial["responses"]}
        behavior, pupil = trial.get("behavior"), trial.get("pupil_center")
        if pupil is not None:
            found["eye_tracker"] = pupil if behavior is None else np.concatenate([behavior[:-1], pupil])
        if behavior is not None:
            found["treadmill"] = behavior if pupil is None else behavior[-1:]
        return found


class _Device:
    """A folder of regularly sampled signals in a raw file, written in one go."""

    def __init__(self, folder: Path, columns: int, dtype: np.dtype[Any]) -> None:
        (folder / "meta").mkdir(parents=True)
        self.columns, self.dtype = columns, dtype
        self._folder, self._rows = folder, 0
        self._moments = _Moments(columns)
        self._file: BinaryIO = (folder / "data.mem").open("wb")

    def write(self, samples: NDArray[Any], counted: NDArray[Any]) -> None:
        """Append samples (samples, columns), some of which count for the statistics."""
        self._file.write(np.ascontiguousarray(samples).data)
        self._rows += len(samples)
        self._moments.add(counted)

    def finish(self, rate: float) -> None:
        self.close()
        stated = {
            "modality": "sequence",
            "dtype": self.dtype.name,
            "is_mem_mapped": True,
            "n_signals": self.columns,
            "n_timestamps": self._rows,
            "phase_shift_per_signal": False,
            "sampling_rate": float(rate),
            "start_time": 0.0,
            "end_time": self._rows / rate,
        }
        (self._folder / "meta.yml").write_text(_yaml(stated))
        for name, values in zip(("means", "stds"), self._moments.result(), strict=True):
            np.save(self._folder / "meta" / f"{name}.npy", values[None])

    def close(self) -> None:
        self._file.close()


class _Moments:
    """Mean and standard deviation of what is added."""

    def __init__(self, columns: int) -> None:
        self._count = 0
        self._sums = np.zeros((2, columns))

    def add(self, values: NDArray[Any]) -> None:
        exact = values.astype(np.float64)
        self._count += len(exact)
        self._sums += [exact.sum(axis=0), (exact**2).sum(axis=0)]

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean, square = self._sums / max(1, self._count)
        return mean, np.sqrt(np.maximum(0.0, square - mean**2))


def _columns(plan: Plan) -> dict[str, int]:
    """Return the devices with their numbers of columns, as `ExperantoWriter._signals` fills them."""
    behavior, pupil = plan.shapes.get("behavior", (0,))[0], plan.shapes.get("pupil_center", (0,))[0]
    found = {"responses": plan.shapes["responses"][0]}
    if pupil:
        found["eye_tracker"] = pupil + max(0, behavior - 1)
    if behavior:
        found["treadmill"] = 1 if pupil else behavior
    return found


def _image_size(plan: Plan) -> list[int]:
    channels, height, width = plan.shapes["stimulus"]
    return [height, width, 3] if channels == 3 else [height, width]


def _yaml(stated: Mapping[str, Any]) -> str:
    return str(yaml.dump(dict(stated), Dumper=_DUMPER, sort_keys=False))
