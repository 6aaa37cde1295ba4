"""The pixels of an NWB file: images one by one, or a stack of images or frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.hdf5_file import get_array, read_rows
from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb

__all__ = ["Pictures", "images_of", "read_pictures", "stack_of"]


@dataclass(frozen=True)
class Pictures:
    """Where pictures are; can be sent to other processes.

    Attributes
    ----------
    shape : tuple of int
        Of one picture as it is given out, (C, H, W).
    count : int
    stack : str
        Path of the array (pictures, H, W) or (pictures, H, W, C); empty where each picture is an array.
    folder : str
        Path of the group that they are in then.
    names : tuple of str
        Their names there, in the order in which they are counted.
    transposed : bool
        Whether they are stored as (W, H).
    conversion, offset : float
        A pixel is ``stored * conversion + offset``.
    """

    shape: tuple[int, ...]
    count: int
    stack: str = ""
    folder: str = ""
    names: tuple[str, ...] = ()
    transposed: bool = False
    conversion: float = 1.0
    offset: float = 0.0


def images_of(nwb: NwbFile, images: Any, transposed: bool) -> Pictures:
    """Return the pictures of an `Images` container, in the order that it states.

    Raises
    ------
    DatasetError
        If it states no order, images differ in size, or one is no image.
    """
    place = nwb.path_of(images)
    if images.order_of_images is None:
        raise bad_nwb(
            nwb.path,
            f"the {len(images.images)} images of {place} have no order (order_of_images), so an index means nothing",
        )
    sizes = Counter[tuple[int, ...]]()
    names = _ordered_names(nwb, place)
    folder = nwb.file[place]
    for name in names:
        image = folder.get(name)
        if not isinstance(image, h5py.Dataset) or image.dtype.kind not in "fiub":
            raise bad_nwb(nwb.path, f"{place}/{name} is no image that is stored in the file")
        sizes[image.shape] += 1
    if len(sizes) != 1:
        listed = ", ".join(f"{shape} {count} times" for shape, count in sizes.most_common(8)) or "none"
        raise bad_nwb(nwb.path, f"the images of {place} must be of one size; there are {listed}")
    shape = _picture_shape(nwb, place, next(iter(sizes)), transposed)
    return Pictures(shape, len(names), "", place, tuple(names), transposed)


def stack_of(nwb: NwbFile, series: Any, transposed: bool) -> Pictures:
    """Return the pictures of an ImageSeries or OpticalSeries that is stored in the file.

    Raises
    ------
    DatasetError
        If they are in other files, or are no images.
    """
    name = nwb.path_of(series)
    if series.format == "external" or series.external_file is not None:
        listed = (
            ", ".join(repr(_text(one)) for one in list(series.external_file or [])[:3])
            or "a file that it does not name"
        )
        raise bad_nwb(
            nwb.path,
            f"the frames of {name} are in another file, {listed}",
            "Store them inside of the NWB file: ImageSeries(data=frames, format='raw').",
        )
    array = nwb.numbers(series.data, name)
    shape = _picture_shape(nwb, name, array.shape[1:], transposed)
    stack = str(array.name).strip("/")
    return Pictures(
        shape,
        len(array),
        stack,
        transposed=transposed,
        conversion=float(series.conversion),
        offset=float(series.offset),
    )


def read_pictures(pictures: Pictures, file: h5py.File, chosen: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Return pictures by number, in any order: (len(chosen), C, H, W)."""
    unique, inverse = np.unique(chosen, return_inverse=True)
    if pictures.stack:
        values = read_rows(file[pictures.stack], unique)
    else:
        folder = file[pictures.folder]
        values = np.stack([folder[pictures.names[number]][()] for number in unique])
    if len(unique) < len(chosen) or (inverse[:-1] > inverse[1:]).any():
        values = values[inverse]
    if pictures.conversion != 1 or pictures.offset != 0:
        values = (values * pictures.conversion + pictures.offset).astype(np.float32)
    if pictures.transposed:
        values = values.swapaxes(1, 2)
    # (pictures, H, W[, C]); what is behind the third colour is opacity.
    return values[:, None] if values.ndim == 3 else np.moveaxis(values[..., : pictures.shape[0]], -1, 1)


def _ordered_names(nwb: NwbFile, place: str) -> list[str]:
    """Return the names of the images in a group in the order of the references in its ``order_of_images``.

    They are told by their addresses in the file: pynwb takes milliseconds for each reference, and the name of what a
    reference leads to is found by HDF5 only by a search through the whole file.
    """
    folder, order = nwb.file[place], get_array(nwb.file, f"{place}/order_of_images")
    names = {h5py.h5o.get_info(folder.id, name.encode()).addr: name for name in folder}
    ordered = []
    for reference in np.ravel(order[()]) if order is not None else ():
        if not reference:
            raise bad_nwb(nwb.path, f"{place}/order_of_images has an empty reference")
        name = names.get(h5py.h5o.get_info(nwb.file[reference].id).addr)
        if name is None:
            raise bad_nwb(
                nwb.path, f"{place}/order_of_images names {nwb.file[reference].name}, which is not in {place}"
            )
        ordered.append(name)
    return ordered


def _picture_shape(nwb: NwbFile, name: str, stored: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    if len(stored) not in (2, 3) or 0 in stored or (len(stored) == 3 and stored[2] not in (1, 3, 4)):
        raise bad_nwb(
            nwb.path,
            f"a picture of {name} has the shape {stored}, expected (height, width), or (height, width, 3) for colours",
        )
    channels = 1 if len(stored) == 2 or stored[2] == 1 else 3
    height, width = (stored[1], stored[0]) if transposed else stored[:2]
    return channels, int(height), int(width)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
