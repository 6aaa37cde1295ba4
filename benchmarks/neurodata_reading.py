"""Trials per second of every layout, over the same batches out of plain numpy arrays; and memory for a large recording."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Spread, table
from torch.utils.data import DataLoader, Dataset

__all__ = ["run"]

IMAGES, NEURONS, BATCH = 1500, 500, 64
CLIPS, FRAMES, CLIP_BATCH = 80, 60, 8
RUNS = 3
MEMORY_LIMIT_MB, TIMES_LARGER = 64, 10


def run() -> str:
    """Measure, and return what to print."""
    from synicix_neurodata.writers.choice import WRITTEN

    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory(prefix="synicix-reading-") as directory:
        for layout in WRITTEN:
            path = _simulated(Path(directory), layout)
            rows += _layout(path, layout, movie=WRITTEN[layout].movie)
        memory = _memory(Path(directory))
    header = ["layout, processes", "numpy/s", "cold: share", "warm: share", "kept: share"]
    return (
        table(header, rows)
        + f"\nTrials per second in shuffled batches of {BATCH} ({IMAGES} training images of 36 x 64 pixels, {NEURONS} neurons),"
        + f" of movies clips in batches of {CLIP_BATCH} ({CLIPS} clips of {FRAMES} frames). Share: of what the same batches out"
        + " of numpy arrays in memory give, which are normalised already. Cold: the system's cache of the files was dropped;"
        + f" warm: it was not; kept: the tier fits under memory_limit_mb. Median (min..max) of {RUNS} epochs.\n\n"
        + memory
    )


class _Plain(Dataset[Any]):
    """The rival: everything in memory as numpy arrays, a batch by one index."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.inputs[index]), torch.from_numpy(self.targets[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        inputs, targets = torch.from_numpy(self.inputs[indices]), torch.from_numpy(self.targets[indices])
        return [(inputs[i], targets[i]) for i in range(len(indices))]


def _simulated(directory: Path, layout: str) -> Path:
    from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
    from synicix_neurodata.writers.choice import WRITTEN

    movie = WRITTEN[layout].movie
    images, tests = (CLIPS, 4) if movie else (IMAGES, 20)
    shape = {"images": images, "test_images": tests, "repeats": 4, "neurons": NEURONS, "image_shape": (36, 64)}
    simulation = Simulation(**shape, frames=FRAMES if movie else 0)
    path = directory / layout / recording_name(1, layout)
    simulate_recording(path, simulation, layout=layout)
    return path


def _layout(path: Path, layout: str, *, movie: bool) -> Iterator[list[str]]:
    from synicix_neurodata.dataset import NeuroDataDataset

    params: dict[str, Any] = {"clip_frames": FRAMES} if movie else {}
    lazy = NeuroDataDataset(path, "train", memory_limit_mb=0, **params)
    kept = NeuroDataDataset(path, "train", memory_limit_mb=4096, **params)
    inputs, targets = kept.tensors()
    plain = _Plain(inputs.numpy(), targets.numpy())
    for processes in (0, 2):
        batch = CLIP_BATCH if movie else BATCH
        loaders = {
            name: _loader(dataset, batch, processes)
            for name, dataset in (("numpy", plain), ("lazy", lazy), ("kept", kept))
        }
        for loader in loaders.values():
            _epoch(loader)  # processes start, files open, what is kept is read
        speeds: dict[str, list[float]] = {"numpy": [], "cold": [], "warm": [], "kept": []}
        for _ in range(RUNS):
            speeds["numpy"].append(_epoch(loaders["numpy"]))
            _forget(path)
            speeds["cold"].append(_epoch(loaders["lazy"]))
            speeds["warm"].append(_epoch(loaders["lazy"]))
            speeds["kept"].append(_epoch(loaders["kept"]))
        spreads = {name: Spread(tuple(values)) for name, values in speeds.items()}
        shares = [spreads[name].over(spreads["numpy"]).text(2) for name in ("cold", "warm", "kept")]
        yield [f"{layout}, {processes}", f"{spreads['numpy'].median:.0f}", *shares]
        del loaders


def _loader(dataset: Any, batch: int, processes: int) -> DataLoader[Any]:
    how: dict[str, Any] = {"num_workers": processes}
    if processes:
        how |= {"multiprocessing_context": "spawn", "persistent_workers": True}
    return DataLoader(dataset, batch_size=batch, shuffle=True, **how)


def _epoch(loader: DataLoader[Any]) -> float:
    started, trials = time.perf_counter(), 0
    for _, targets in loader:
        trials += len(targets)
    return trials / (time.perf_counter() - started)


def _forget(path: Path) -> None:
    """Ask the system to drop what it keeps of these files."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def _memory(directory: Path) -> str:
    """Read a recording ten times as large as its limit in a process of its own, and one that keeps it all."""
    from synicix_neurodata.simulate import Simulation, simulate_recording

    pixels = 36 * 64
    images = int(TIMES_LARGER * MEMORY_LIMIT_MB * 2**20 / (4 * (pixels + NEURONS)))
    path = directory / "large.h5"
    small = Simulation(images=images, test_images=2, repeats=1, neurons=NEURONS, image_shape=(36, 64))
    simulate_recording(path, small)
    rows = []
    for name, limit in (("read batch by batch", MEMORY_LIMIT_MB), ("kept whole", 100 * MEMORY_LIMIT_MB)):
        command = [sys.executable, __file__, str(path), str(limit)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        measured = json.loads(told)
        rows.append([name, str(limit), f"{measured['before']:.0f}", f"{measured['added']:.0f}"])
    size = path.stat().st_size / 2**20
    return (
        table(
            [f"recording of {size:.0f} MiB", "memory_limit_mb", "MiB after the imports", "MiB added at the peak"], rows
        )
        + "\nBuilding the dataset (statistics of all its trials) and one epoch in shuffled batches, in one process."
    )


def _read_once(path: str, limit: int) -> None:
    from synicix_neurodata.dataset import NeuroDataDataset

    before = _memory_of_this_process("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    _epoch(_loader(NeuroDataDataset(path, "train", memory_limit_mb=limit), BATCH, 0))
    print(json.dumps({"before": before, "added": _memory_of_this_process("VmHWM") - before}))


def _memory_of_this_process(name: str) -> float:
    """Return a line of Linux's account of it, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    _read_once(sys.argv[1], int(sys.argv[2]))
