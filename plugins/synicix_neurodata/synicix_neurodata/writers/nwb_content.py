"""The parts of an NWB file, laid out by pynwb with arrays that are still empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.writers import Plan

__all__ = [
    "add_behavior",
    "add_ceiling",
    "add_images",
    "add_movie",
    "add_traces",
    "add_trials",
    "add_units",
    "fill",
    "image_name",
]

_TRACES = "processing/ophys/DfOverF/traces/data"
_PUPIL_CENTER = "processing/behavior/EyeTracking/pupil_center/data"

_SPIKES = 2**14
"""Of one chunk of the file."""

_CELL_COLUMNS = ("unit_ids", "image_mask", "pixel_mask", "voxel_mask", "spike_times", "id")
"""Columns that are told in another place, or would not be what these tables take them for."""


def image_name(number: int) -> str:
    """Return the name of an image in the file."""
    return f"image_{number:05d}"


def add_images(content: Any, plan: Plan, images: int, shown: NDArray[np.intp], onsets: NDArray[np.float64]) -> None:
    """Lay out ``stimulus/templates/images`` and ``stimulus/presentation/images_shown``."""
    from pynwb.base import ImageReferences, Images
    from pynwb.image import GrayscaleImage, IndexSeries, RGBImage

    kind = GrayscaleImage if plan.shapes["stimulus"][0] == 1 else RGBImage
    # One zero that is seen as an image: it takes no memory, and h5py writes over it.
    blank = np.broadcast_to(np.zeros((), plan.dtype("stimulus")), _picture_shape(plan))
    stored = [kind(name=image_name(number), data=blank) for number in range(images)]
    order = ImageReferences(name="order_of_images", data=stored)
    template = Images(name="images", images=stored, order_of_images=order, description="Every image that was shown")
    content.add_stimulus_template(template)
    content.add_stimulus(
        IndexSeries(
            name="images_shown",
            data=shown.astype(np.uint32),
            timestamps=onsets,
            indexed_images=template,
            unit="N/A",
            description="Which image was shown, and when it appeared",
        )
    )


def add_movie(content: Any, plan: Plan, frames: int) -> None:
    """Lay out ``stimulus/presentation/movie``."""
    from pynwb.image import OpticalSeries

    content.add_stimulus(
        OpticalSeries(
            name="movie",
            data=_empty((frames, *_picture_shape(plan)), plan.dtype("stimulus")),
            unit="n.a.",
            format="raw",
            starting_time=0.0,
            rate=float(plan.frame_rate),
            description="The clips of all trials one after another: frame, row, column",
        )
    )


def add_traces(content: Any, plan: Plan, samples: int, rate: float) -> None:
    """Lay out ``processing/ophys``: cells, and their traces in ``DfOverF/traces``."""
    from hdmf.common import DynamicTableRegion, VectorData
    from pynwb.ophys import DfOverF, ImageSegmentation, OpticalChannel, PlaneSegmentation, RoiResponseSeries

    cells = plan.shapes["responses"][0]
    plane = content.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="channel", description="not told", emission_lambda=np.nan),
        description="The plane of all cells",
        device=content.create_device(name="microscope"),
        excitation_lambda=np.nan,
        indicator="not told",
        location=_common(plan.neurons.get("area")),
    )
    # A table of cells must have masks, and nothing is known of theirs: each is one pixel.
    mask = VectorData(name="image_mask", description="not told", data=np.ones((cells, 1, 1), np.float32))
    table = PlaneSegmentation(
        name="PlaneSegmentation",
        description="Cells",
        imaging_plane=plane,
        id=_ids(plan),
        columns=[mask, *_columns(plan.neurons, _CELL_COLUMNS)],
    )
    module = content.create_processing_module(name="ophys", description="Cells and their traces")
    module.add(ImageSegmentation(plane_segmentations=[table]))
    rois = DynamicTableRegion(name="rois", data=np.arange(cells), description="All cells", table=table)
    traces = RoiResponseSeries(
        name="traces",
        data=_empty((samples, cells), plan.dtype("responses")),
        rois=rois,
        unit="n.a.",
        starting_time=0.0,
        rate=rate,
    )
    module.add(DfOverF(roi_response_series=[traces]))


def add_units(content: Any, plan: Plan) -> None:
    """Lay out ``units`` without spikes: ``spike_times`` grows, ``spike_times_index`` is filled."""
    from hdmf.common import VectorData, VectorIndex
    from pynwb.misc import Units

    cells = plan.shapes["responses"][0]
    # Chunks of an array that is empty at first would by default be of one spike each.
    spikes = _empty((0,), np.dtype(np.float64), maxshape=(None,), chunks=(_SPIKES,))
    times = VectorData(name="spike_times", description="Seconds", data=spikes)
    # pynwb stores an index that it is given in the smallest type for its numbers, which the later ones would not fit.
    ends = VectorIndex(name="spike_times_index", data=_empty((cells,), np.dtype(np.uint64)), target=times)
    columns = [ends, times, *_columns(plan.neurons, _CELL_COLUMNS)]
    content.units = Units(name="units", description="Cells", id=_ids(plan), columns=columns)


def add_behavior(content: Any, plan: Plan, samples: int, rate: float) -> None:
    """Lay out ``processing/behavior``, with one series for each column of behaviour."""
    from pynwb import TimeSeries
    from pynwb.behavior import BehavioralTimeSeries, EyeTracking, PupilTracking, SpatialSeries

    shapes = plan.shapes
    if not {"behavior", "pupil_center"} & set(shapes):
        return
    module = content.create_processing_module(name="behavior", description="What the animal did")
    if "behavior" in shapes:
        series: dict[str, list[Any]] = {}
        for place in _behavior_places(shapes["behavior"][0]):
            interface, _, name = place.partition("/")
            data = _empty((samples,), plan.dtype("behavior"))
            one = TimeSeries(name=name, data=data, unit="n.a.", starting_time=0.0, rate=rate)
            series.setdefault(interface, []).append(one)
        for interface, kind in (("PupilTracking", PupilTracking), ("BehavioralTimeSeries", BehavioralTimeSeries)):
            if interface in series:
                module.add(kind(time_series=series[interface]))
    if "pupil_center" in shapes:
        center = SpatialSeries(
            name="pupil_center",
            data=_empty((samples, 2), plan.dtype("pupil_center")),
            unit="n.a.",
            reference_frame="camera: horizontal, vertical",
            starting_time=0.0,
            rate=rate,
        )
        module.add(EyeTracking(spatial_series=[center]))


def add_trials(content: Any, plan: Plan, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> None:
    """Write ``intervals/trials``."""
    from hdmf.common import ElementIdentifiers
    from pynwb.epoch import TimeIntervals

    own = {
        "start_time": starts,
        "stop_time": stops,
        "tier": plan.tiers,
        "stimulus_id": plan.stimulus_ids,
    }
    taken = (*own, "id", "tags", "timeseries")
    content.trials = TimeIntervals(
        name="trials",
        description="Showings of one stimulus each",
        id=ElementIdentifiers(name="id", data=np.arange(plan.trials)),
        columns=[*_columns(own, ()), *_columns(plan.columns, taken)],
    )


def add_ceiling(content: Any, name: str, modes: Sequence[str]) -> None:
    """Lay out a table in ``scratch`` with the noise ceiling of each mode, not a number until it is known."""
    from hdmf.common import DynamicTable, VectorData

    content.add_scratch(
        DynamicTable(
            name=name,
            description="Highest mean single-trial correlation that a model can reach on the test tier; NaN: not known",
            columns=[
                VectorData(name="mode", description="What is predicted from what", data=list(modes)),
                VectorData(name="correlation", description="Mean over cells", data=np.full(len(modes), np.nan)),
            ],
        )
    )


def fill(file: h5py.File, part: str, first: int, values: NDArray[Any]) -> None:
    """Write samples (samples, columns) of a part other than the stimulus, the first of which is `first`."""
    rows = slice(first, first + len(values))
    if part == "behavior":
        for place, column in zip(_behavior_places(values.shape[1]), values.T, strict=True):
            file[f"processing/behavior/{place}/data"][rows] = column
    else:
        file[_TRACES if part == "responses" else _PUPIL_CENTER][rows] = values


def _behavior_places(columns: int) -> list[str]:
    """Return the series of each column, named so that the order in which they are read is that of the columns."""
    if columns == 3:
        return [
            "PupilTracking/pupil_dilation",
            "PupilTracking/pupil_dilation_derivative",
            "BehavioralTimeSeries/running_speed",
        ]
    if columns == 2:
        return ["PupilTracking/pupil_dilation", "BehavioralTimeSeries/running_speed"]
    return [f"BehavioralTimeSeries/behavior_{column:03d}" for column in range(columns)]


def _picture_shape(plan: Plan) -> tuple[int, ...]:
    channels, height, width = plan.shapes["stimulus"]
    return (height, width) if channels == 1 else (height, width, channels)


def _columns(held: Mapping[str, NDArray[Any]], taken: Sequence[str]) -> list[Any]:
    from hdmf.common import VectorData

    return [
        VectorData(
            name=name,
            description=name.replace("_", " "),
            # pynwb writes lists of text, not numpy's.
            data=values.astype(str).tolist() if values.dtype.kind in "USO" else values,
        )
        for name, values in held.items()
        if name not in taken
    ]


def _ids(plan: Plan) -> Any:
    from hdmf.common import ElementIdentifiers

    cells = plan.shapes["responses"][0]
    told = plan.neurons.get("unit_ids", np.arange(1, cells + 1))
    ids = told.astype(np.int64) if told.dtype.kind in "iu" and told.ndim == 1 else np.arange(1, cells + 1)
    return ElementIdentifiers(name="id", data=ids)


def _common(area: NDArray[Any] | None) -> str:
    areas = [] if area is None else sorted({str(one) for one in area})
    return areas[0] if len(areas) == 1 else "not told"


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], **more: Any) -> Any:
    from pynwb import H5DataIO

    return H5DataIO(shape=shape, dtype=dtype, **more)
