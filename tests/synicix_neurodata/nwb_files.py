"""Small NWB files, written with pynwb as its own tutorials do, and what is in them."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import ImageReferences, Images
from pynwb.behavior import BehavioralTimeSeries, EyeTracking, PupilTracking, SpatialSeries
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries, RGBImage
from pynwb.ophys import DfOverF, ImageSegmentation, OpticalChannel, RoiResponseSeries

TRIALS, PICTURES, CELLS, HEIGHT, WIDTH = 24, 8, 3, 5, 7
RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (PICTURES, HEIGHT, WIDTH)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (PICTURES, HEIGHT, WIDTH, 3)).astype(np.uint8)
INDEX = np.arange(TRIALS) * 3 % PICTURES
ONSETS = 2.0 + np.cumsum(RNG.uniform(0.8, 1.3, TRIALS))
TIERS = np.array(["train", "validation", "test"])[np.array([0, 0, 0, 0, 0, 1, 2, 2])[INDEX]]

SAMPLES, RATE, START = 400, 12.5, 0.4
TRACES = RNG.normal(3, 1, (SAMPLES, CELLS))
TRACE_TIMES = START + np.arange(SAMPLES) / RATE

RUN_TIMES = np.sort(RNG.uniform(0, 33, 900))
RUNNING = RNG.normal(20, 5, 900).astype(np.float32)
PUPIL = RNG.normal(50, 5, 900)
EYE = RNG.normal(0, 1, (900, 2))

FRAMES, FRAME_RATE = 300, 30.0
MOVIE = RNG.integers(0, 256, (FRAMES, HEIGHT, WIDTH)).astype(np.uint8)
CLIPS = [(0, 60), (60, 150), (150, 210), (240, 300)]

UNIT_SPIKES = [np.sort(RNG.uniform(0, 33, count)) for count in (700, 0, 150, 40)]


def window_means(times: Any, values: Any, starts: Any, length: float) -> Any:
    """Return the mean of the samples in [start, start + length), one window at a time."""
    chosen = [(times >= start) & (times < start + length) for start in np.atleast_1d(starts)]
    return np.stack([np.asarray(values, np.float64)[one].mean(axis=0) for one in chosen])


def new_file() -> NWBFile:
    return NWBFile(
        session_description="a test",
        identifier="test",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )


def add_images(
    nwb: NWBFile, pixels: Sequence[Any] = PIXELS, index: Any = INDEX, onsets: Any = ONSETS, name: str = "shown"
) -> None:
    # Named against their order, so that an order by name would be another one.
    images = [
        (RGBImage if image.ndim == 3 else GrayscaleImage)(name=f"im{len(pixels) - number:03d}", data=image)
        for number, image in enumerate(pixels)
    ]
    order = ImageReferences(name="order_of_images", data=images)
    template = Images(name=f"{name}_images", images=images, order_of_images=order)
    nwb.add_stimulus_template(template)
    nwb.add_stimulus(
        IndexSeries(
            name=name, data=np.asarray(index, np.uint32), timestamps=onsets, indexed_images=template, unit="N/A"
        )
    )


def add_movie(nwb: NWBFile, frames: Any = MOVIE, name: str = "movie", **times: Any) -> None:
    nwb.add_stimulus(
        OpticalSeries(
            name=name,
            data=frames,
            unit="n.a.",
            format="raw",
            distance=0.1,
            field_of_view=[1.0, 1.0],
            orientation="lower left",
            **(times or {"starting_time": 1.0, "rate": FRAME_RATE}),
        )
    )


def add_cells(nwb: NWBFile, cells: int = CELLS, name: str = "plane", location: str = "VISp") -> Any:
    device = nwb.devices.get("scope") or nwb.create_device(name="scope")
    plane = nwb.create_imaging_plane(
        name=name,
        optical_channel=OpticalChannel(name="green", description="green", emission_lambda=510.0),
        description="a plane",
        device=device,
        excitation_lambda=920.0,
        indicator="GCaMP6s",
        location=location,
    )
    module = nwb.processing.get("ophys") or nwb.create_processing_module(name="ophys", description="ophys")
    segmentation = module.data_interfaces.get("ImageSegmentation")
    if segmentation is None:
        segmentation = ImageSegmentation()
        module.add(segmentation)
    table = segmentation.create_plane_segmentation(name=f"cells_{name}", description="cells", imaging_plane=plane)
    for cell in range(cells + 1):
        table.add_roi(image_mask=np.zeros((4, 4)), id=100 + cell)
    table.add_column(name="layer", description="layer", data=[f"L{row}" for row in range(cells + 1)])
    # The first row of the table has no trace.
    return table.create_roi_table_region(region=list(range(1, cells + 1)), description="cells")


def add_traces(
    nwb: NWBFile, values: Any = TRACES, kind: Any = DfOverF, name: str = "traces", rois: Any = None, **times: Any
) -> None:
    rois = add_cells(nwb, values.shape[1] if values.ndim == 2 else 1) if rois is None else rois
    module = nwb.processing["ophys"]
    series = RoiResponseSeries(
        name=name, data=values, rois=rois, unit="n.a.", **(times or {"starting_time": START, "rate": RATE})
    )
    if kind.__name__ in module.data_interfaces:
        module.data_interfaces[kind.__name__].add_roi_response_series(series)
    else:
        module.add(kind(roi_response_series=[series]))


def add_behavior(nwb: NWBFile, timestamps: Any = RUN_TIMES) -> None:
    module = nwb.create_processing_module(name="behavior", description="behaviour")
    times = {"timestamps": timestamps, "unit": "n.a."}
    running = TimeSeries(name="running_speed", data=RUNNING, conversion=0.5, offset=1.0, **times)
    module.add(BehavioralTimeSeries(time_series=[running]))
    # Its times are a link to those of the other series, as pynwb makes it.
    pupil = TimeSeries(name="pupil_size", data=PUPIL, timestamps=running, unit="n.a.")
    module.add(PupilTracking(time_series=[pupil]))
    eye = SpatialSeries(name="pupil_location", data=EYE, reference_frame="screen", **times)
    module.add(EyeTracking(spatial_series=[eye]))


def add_trials(nwb: NWBFile, starts: Any = ONSETS, stops: Any = None, tiers: Any = TIERS, **columns: Any) -> None:
    if tiers is not None:
        nwb.add_trial_column("tier", "the tier")
        columns["tier"] = tiers
    for name in columns:
        if name != "tier":
            nwb.add_trial_column(name, name)
    stops = np.asarray(starts) + 0.5 if stops is None else stops
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        nwb.add_trial(start_time=start, stop_time=stop, **{name: values[row] for name, values in columns.items()})


def add_units(nwb: NWBFile, spikes: Sequence[Any] = UNIT_SPIKES) -> None:
    nwb.add_unit_column("quality", "how good it is")
    nwb.add_unit_column("region", "where it is")
    for unit, times in enumerate(spikes):
        nwb.add_unit(
            spike_times=times, id=10 + unit, quality="good" if unit != 2 else "noise", region="VISl" if unit else "VISp"
        )


def write(path: Path, *steps: Callable[[NWBFile], object], edit: Callable[[h5py.File], object] | None = None) -> str:
    """Write a file made by some steps, and change it with h5py where pynwb would not write it so."""
    nwb = new_file()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in steps:
            step(nwb)
        with NWBHDF5IO(path, "w") as io:
            io.write(nwb)
    if edit is not None:
        with h5py.File(path, "r+") as file:
            edit(file)
    return str(path)


def to_indexed_frames(file: h5py.File) -> None:
    """Let the index count frames of an ImageSeries, as files before schema 2.5 do and pynwb no longer writes."""
    shown = file["stimulus/presentation/shown"]
    del shown["indexed_images"]
    shown["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/stack")


def add_stack(nwb: NWBFile, frames: Any = PIXELS, **more: Any) -> None:
    nwb.add_stimulus_template(ImageSeries(name="stack", data=frames, unit="n.a.", format="raw", rate=1.0, **more))
