"""Examples of a tier as tensors on the device, gathered by index instead of being read one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from synicix_core.errors import DatasetError
from synicix_core.training.batches import map_tensors

__all__ = ["ResidentTier", "free_bytes", "make_resident"]


@dataclass(frozen=True)
class ResidentTier:
    """All examples of a tier.

    Attributes
    ----------
    inputs, targets : nested tensors
        First axis the examples, nested as ``default_collate`` nests a batch of them.
    size : int
        Examples.
    device : torch.device
        Where they are.
    """

    inputs: Any
    targets: Any
    size: int
    device: torch.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in (*_leaves(self.inputs), *_leaves(self.targets)))

    @property
    def target_bytes(self) -> int:
        """Bytes of the targets."""
        return sum(tensor.nbytes for tensor in _leaves(self.targets))

    def take(self, positions: torch.Tensor) -> list[Any]:
        """Return the batch ``[inputs, targets]`` of these examples: new tensors, which may be changed.

        Parameters
        ----------
        positions : Tensor of int64, (examples,)
            On the device, or on the CPU.
        """
        positions = positions.to(self.device, non_blocking=True)
        if isinstance(self.inputs, torch.Tensor) and isinstance(self.targets, torch.Tensor):
            return [self.inputs.index_select(0, positions), self.targets.index_select(0, positions)]
        return [
            map_tensors(lambda tensor: tensor.index_select(0, positions), part) for part in (self.inputs, self.targets)
        ]


def make_resident(dataset: Any, device: torch.device, budget: int) -> ResidentTier | None:
    """Put a tier onto the device, or return None: it has no ``tensors()``, is empty, or is larger than the budget.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Of one tier.
    device : torch.device
        Where to.
    budget : int
        The most bytes.

    Raises
    ------
    DatasetError
        If ``tensors()`` is not what the items are.
    """
    size = len(dataset)
    if not size or not hasattr(dataset, "tensors"):
        return None
    ends = sorted({0, size - 1})
    # Looked at first: a recording that does not fit is not to be read whole to find that out.
    sample = default_collate([dataset[index] for index in ends])
    if not isinstance(sample, list | tuple) or len(sample) != 2 or not _only_tensors(sample):
        return None
    if sum(tensor.nbytes for tensor in _leaves(sample)) // len(ends) * size > budget:
        return None
    whole = dataset.tensors()
    if not isinstance(whole, list | tuple) or len(whole) != 2:
        raise _unlike(dataset, f"it returned a {type(whole).__name__}, not (inputs, targets)")
    inputs, targets = (_as_tensors(part) for part in whole)
    lengths = {len(tensor) if tensor.dim() else 0 for tensor in (*_leaves(inputs), *_leaves(targets))}
    if lengths != {size}:
        raise _unlike(dataset, f"its first axes have length {sorted(lengths)}, and there are {size} examples")
    at_ends = ResidentTier(inputs, targets, size, torch.device("cpu")).take(torch.tensor(ends))
    if not _equal(at_ends, list(sample)):
        raise _unlike(dataset, "its first or last example is another one than the item")
    return ResidentTier(
        map_tensors(lambda tensor: tensor.to(device), inputs),
        map_tensors(lambda tensor: tensor.to(device), targets),
        size,
        device,
    )


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free on a device; of the machine, for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 4 << 30  # macOS does not say; nearly every machine has as much
    return kib << 10


def _leaves(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list | tuple) else []


def _only_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return all(map(_only_tensors, value)) if isinstance(value, list | tuple) else isinstance(value, torch.Tensor)


def _as_tensors(value: Any) -> Any:
    """Return arrays as tensors and plain tuples as lists, as ``default_collate`` does."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    if isinstance(value, Mapping):
        return {key: _as_tensors(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_as_tensors, value))
    return [_as_tensors(item) for item in value] if isinstance(value, list | tuple) else value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=one.is_floating_point())
        )
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(_equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(_equal, one, other))
    return False


def _unlike(dataset: Any, why: str) -> DatasetError:
    return DatasetError(
        f"the tensors() of {type(dataset).__name__} are not its items",
        why=why,
        hint="Return what default_collate makes of all items, or leave tensors() out.",
    )
