"""What a model of neurons gets and gives: a stimulus, perhaps behaviour beside it, and a response of each neuron."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Shapes", "choice_mistakes", "read_shapes", "size_mistakes", "strength_mistakes"]

_STIMULUS = "stimulus"
"""The name under which the dataset gives images or movies when there are further inputs."""


@dataclass(frozen=True)
class Shapes:
    """Shapes of one example.

    Attributes
    ----------
    channels, height, width : int
        Of an image, or of one frame.
    frames : int or None
        Of a movie; None for images. A model works for any other number as well.
    neurons : int
        Responses, or courses of responses, that are predicted.
    modulators : dict of str to int
        Columns of each further input, in the order of their names; empty where the stimulus is the only input.
    named : bool
        Whether the inputs come in a dict.
    """

    channels: int
    height: int
    width: int
    frames: int | None
    neurons: int
    modulators: dict[str, int]
    named: bool


def read_shapes(input_shape: Any, output_shape: Any) -> tuple[Shapes | None, list[tuple[str, str]]]:
    """Understand the shapes that a dataset states.

    Parameters
    ----------
    input_shape : sequence of int, or mapping of str to sequence of int
        ``(C, H, W)`` of images or ``(C, T, H, W)`` of movies; or these as ``stimulus`` in a mapping whose other entries,
        such as ``behavior`` and ``pupil_center``, are ``(columns,)`` or, with movies, ``(columns, T)``.
    output_shape : sequence of int
        ``(neurons,)`` for images, ``(neurons, T)`` for movies.

    Returns
    -------
    shapes : Shapes or None
        None where there are mistakes.
    mistakes : list of (path, message)
    """
    named = isinstance(input_shape, Mapping)
    path = f"input_shape.{_STIMULUS}" if named else "input_shape"
    stimulus = input_shape.get(_STIMULUS) if named else input_shape
    if named and stimulus is None:
        names = ", ".join(sorted(map(str, input_shape))) or "nothing"
        return None, [("input_shape", f"expected a stimulus, got {names} only; SimpleMLP models any input")]
    if not _is_shape(stimulus) or len(stimulus) not in (3, 4):
        message = (
            f"expected images (C, H, W) or movies (C, T, H, W), got {_shown(stimulus)}; SimpleMLP models any input"
        )
        return None, [(path, message)]
    mistakes = list(_empty_axis_mistakes(path, stimulus))
    frames = stimulus[1] if len(stimulus) == 4 else None
    modulators: dict[str, int] = {}
    for name in sorted(set(input_shape) - {_STIMULUS}) if named else ():
        shape = input_shape[name]
        wrong = list(_modulator_mistakes(f"input_shape.{name}", shape, frames))
        mistakes += wrong
        if not wrong:
            modulators[name] = shape[0]
    mistakes += _output_mistakes(output_shape, frames)
    if mistakes:
        return None, mistakes
    return Shapes(stimulus[0], stimulus[-2], stimulus[-1], frames, output_shape[0], modulators, named), []


def size_mistakes(**sizes: int) -> Iterator[tuple[str, str]]:
    """Yield a mistake for each size below 1."""
    for name, size in sizes.items():
        if size < 1:
            yield name, f"expected 1 or more, got {size}"


def strength_mistakes(**strengths: float) -> Iterator[tuple[str, str]]:
    """Yield a mistake for each strength of a penalty that is negative or not finite."""
    for name, value in strengths.items():
        if not (value >= 0 and math.isfinite(value)):
            yield name, f"expected a finite number of 0 or more, got {value}"


def choice_mistakes(name: str, value: str, choices: Any) -> Iterator[tuple[str, str]]:
    """Yield a mistake if `value` is none of the values of the Literal `choices`."""
    if value not in choices.__args__:
        yield name, f"expected one of {', '.join(choices.__args__)}, got {value!r}"


def _modulator_mistakes(path: str, shape: Any, frames: int | None) -> Iterator[tuple[str, str]]:
    wanted = "(columns,)" if frames is None else f"(columns,) or (columns, {frames})"
    if not _is_shape(shape) or len(shape) not in ((1,) if frames is None else (1, 2)):
        yield path, f"expected {wanted}, got {_shown(shape)}"
    elif len(shape) == 2 and shape[1] != frames:
        yield path, f"expected {wanted} because the stimulus has {frames} frames, got {_shown(shape)}"
    else:
        yield from _empty_axis_mistakes(path, shape)


def _output_mistakes(shape: Any, frames: int | None) -> Iterator[tuple[str, str]]:
    wanted = "(neurons,) for images" if frames is None else f"(neurons, {frames}) for movies of {frames} frames"
    if not _is_shape(shape) or len(shape) != (1 if frames is None else 2) or (frames and shape[1] != frames):
        yield "output_shape", f"expected {wanted}, got {_shown(shape)}"
    else:
        yield from _empty_axis_mistakes("output_shape", shape)


def _empty_axis_mistakes(path: str, shape: Sequence[int]) -> Iterator[tuple[str, str]]:
    if any(size < 1 for size in shape):
        yield path, f"every axis has at least one element, got {tuple(shape)}"


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, Sequence) and not isinstance(shape, str) and all(isinstance(size, int) for size in shape)


def _shown(shape: Any) -> str:
    return repr(tuple(shape)) if _is_shape(shape) else repr(shape)
