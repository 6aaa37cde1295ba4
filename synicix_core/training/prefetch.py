"""Copies of batches to a GPU that run beside what it computes."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from synicix_core.training.batches import map_tensors, move

__all__ = ["Copies"]

_AHEAD = 2
"""Batches that may be on the device beside the one that is being computed: more take memory and bring nothing."""


class Copies:
    """Puts batches onto a device; onto a GPU by a stream of their own.

    The host is ahead of a GPU: while that still computes a batch, the next one has been read and waits in pinned memory. In
    the stream of the computations its copy would wait for their end; in this one it is done meanwhile. What is read, and
    when, does not change, so neither does anything random.

    Parameters
    ----------
    device : torch.device
        Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch does not
        self._computing: deque[Any] = deque()

    def __call__(self, value: Any) -> Any:
        """Return `value`, a tensor or nested ones, on the device; computations that are begun from now on wait for it."""
        if self._stream is None or _is_there(value, self._device):
            return move(value, self._device)
        computing = torch.cuda.current_stream(self._device)
        self._wait_for_an_earlier_batch(computing)
        with torch.cuda.stream(self._stream):
            copied = move(value, self._device)
        computing.wait_stream(self._stream)
        # Their memory belongs to the stream of copies, which must not give it to another batch before it was used.
        map_tensors(lambda tensor: tensor.record_stream(computing), copied)
        return copied

    def _wait_for_an_earlier_batch(self, computing: Any) -> None:
        """Wait, on the host, until at most `_AHEAD` batches are being computed or wait for it."""
        self._computing.append(computing.record_event())
        if len(self._computing) > _AHEAD:
            self._computing.popleft().synchronize()


def _is_there(value: Any, device: torch.device) -> bool:
    if isinstance(value, torch.Tensor):
        return value.device == device
    found: list[bool] = []
    map_tensors(lambda tensor: found.append(tensor.device == device), value)
    return all(found)
