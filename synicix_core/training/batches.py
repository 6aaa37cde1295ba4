"""Batches and model outputs: a tensor, or tensors nested in tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from synicix_core.errors import SynicixError

__all__ = [
    "batch_size",
    "concatenate",
    "cut",
    "full_precision",
    "map_tensors",
    "move",
    "split_batch",
    "split_output",
    "with_channels_last",
]


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Return `value` with `function` applied to each tensor; everything else stays as it is."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def move(value: Any, device: torch.device) -> Any:
    """Return `value` on `device`; copies from pinned memory do not wait."""
    if isinstance(value, torch.Tensor):
        return value if value.device == device else value.to(device, non_blocking=True)
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), value)


def with_channels_last(value: Any) -> Any:
    """Return `value` with the channels of images, (batch, channels, rows, columns), last in memory; of movies, too."""

    def arrange(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.dim() == 5 else tensor

    return map_tensors(arrange, value)


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Return input and target of a batch.

    Raises
    ------
    SynicixError
        If it is not a pair.
    """
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
    raise SynicixError(
        "the dataset does not give (input, target)",
        why=f"a batch is a {type(batch).__name__}{size}",
        hint="Let each example be a pair; several inputs go into a tuple or a dict in the first place.",
    )


def batch_size(value: Any) -> int:
    """Return the length of the first axis of the first tensor (1 where it has none, 0 without a tensor)."""
    if isinstance(value, torch.Tensor):
        return len(value) if value.dim() else 1
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((size for size in map(batch_size, value) if size), 0)
    return 0


def cut(batch: Any, parts: int) -> list[Any]:
    """Return a batch in at most `parts` pieces of nearly equal size, cut along the first axis.

    A batch whose tensors differ in the length of that axis stays whole: nobody knows what belongs together.
    """
    lengths = set(_lengths(batch))
    if parts <= 1 or len(lengths) != 1:
        return [batch]
    (length,) = lengths
    size = -(-length // parts)
    return [_slice(batch, start, start + size, length) for start in range(0, length, size)] if size else [batch]


def split_output(result: Any) -> tuple[Any, torch.Tensor | None]:
    """Return output and regularization loss of what a model returned; a lone output has no penalty (None).

    Raises
    ------
    SynicixError
        If the regularization loss is not one number.
    """
    if not (isinstance(result, tuple | list) and len(result) == 2):
        return result, None
    output, penalty = result
    if isinstance(penalty, torch.Tensor) and penalty.numel() == 1:
        return output, penalty.float().reshape(()) if penalty.dim() or not penalty.is_floating_point() else penalty
    if isinstance(penalty, int | float):
        return output, torch.tensor(float(penalty)) if penalty else None
    raise SynicixError(
        "the model does not return (output, regularization_loss)",
        why=f"the second value is {_what(penalty)}, not one number",
        hint="Return the output alone if there is no penalty; put several outputs into a dict.",
    )


def full_precision(value: Any) -> Any:
    """Return `value` with half-precision tensors as float32; float64 and integers stay."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return map_tensors(full_precision, value)


def concatenate(values: Sequence[Any]) -> Any:
    """Join the same nesting of several batches along the first axis, keeping the nesting.

    Raises
    ------
    SynicixError
        If the batches differ in the shape of an example.
    """
    first = values[0]
    if isinstance(first, torch.Tensor):
        try:
            return torch.cat([value if value.dim() else value.reshape(1) for value in values])
        except RuntimeError as error:
            raise SynicixError(
                "the batches of a tier cannot be joined",
                why=str(error),
                hint="Metrics need outputs and targets of one shape for all examples of a tier.",
            ) from error
    if isinstance(first, Mapping):
        return {key: concatenate([value[key] for value in values]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(concatenate([value[index] for value in values]) for index in range(len(first)))
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _lengths(value: Any) -> list[int]:
    if isinstance(value, torch.Tensor):
        return [len(value)] if value.dim() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [length for item in value for length in _lengths(item)]
    return []


def _slice(value: Any, start: int, stop: int, length: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[start:stop] if value.dim() else value
    if isinstance(value, Mapping):
        return {key: _slice(item, start, stop, length) for key, item in value.items()}
    if isinstance(value, list | tuple) and len(value) == length and not _lengths(value):
        return value[start:stop]  # names, one of each example
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_slice(item, start, stop, length) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_slice(item, start, stop, length) for item in value)
    return value


def _what(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"
