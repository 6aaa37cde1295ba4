"""Outputs and targets of a tier as arrays for computing: float64, frames before neurons, some neurons at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synicix_core.errors import SynicixError

__all__ = ["neuron_blocks"]

_BLOCK_VALUES = 2**22
"""Values that are raised to float64 at a time; neurons are independent of one another."""


def neuron_blocks(
    metric: str, pair: tuple[Any, Any], skip_frames: int, rows: NDArray[np.intp] | None = None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield outputs and targets of some neurons after the other, so that a long movie fits into memory.

    Parameters
    ----------
    metric : str
        For messages.
    pair : (Tensor, Tensor)
        Outputs and targets, (trials, neurons) or (trials, neurons, frames), on the CPU.
    skip_frames : int
        Frames at the beginning that are left out.
    rows : ndarray of intp, optional
        Which trials, in which order; all of them where it is left out.

    Yields
    ------
    (ndarray, ndarray)
        Each (trials, frames, some neurons); one frame for a static recording.

    Raises
    ------
    SynicixError
        If they are no tensors of one of these shapes and of the same one, or no frame is left.
    """
    outputs, targets = pair
    for what, value in (("outputs", outputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise _impossible(metric, f"the {what} are a {type(value).__name__}, not one tensor")
    shape = tuple(targets.shape)
    if tuple(outputs.shape) != shape:
        raise _impossible(metric, f"outputs have shape {tuple(outputs.shape)} and targets {shape}")
    if len(shape) not in (2, 3):
        raise _impossible(metric, f"expected (trials, neurons) or (trials, neurons, frames), got {shape}")
    if skip_frames and (len(shape) == 2 or skip_frames >= shape[2]):
        held = "there are no frames" if len(shape) == 2 else f"there are {shape[2]} frames"
        raise _impossible(metric, f"skip_frames is {skip_frames}, and {held}")
    chosen = slice(None) if rows is None else torch.from_numpy(rows)
    trials = shape[0] if rows is None else len(rows)
    width = max(1, _BLOCK_VALUES // max(1, trials * (shape[2] if len(shape) == 3 else 1)))
    for start in range(0, shape[1], width):
        x, y = (_framed(value[:, start : start + width][chosen], skip_frames) for value in pair)
        yield x, y


def _framed(values: Tensor, skip_frames: int) -> NDArray[np.float64]:
    values = values.detach().double()
    framed = values[:, None] if values.dim() == 2 else values[..., skip_frames:].movedim(1, 2).contiguous()
    block: NDArray[np.float64] = framed.numpy()
    return block


def _impossible(metric: str, why: str) -> SynicixError:
    return SynicixError(f"the metric {metric!r} cannot be computed", why=why)
