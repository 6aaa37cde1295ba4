"""Whether tensors are the same up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["close"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_HALF_TOLERANCE = 5e-2


def close(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one shape differ by no more than rounding, measured by their greatest number."""
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    tolerance = _TOLERANCE.get(one.dtype, _HALF_TOLERANCE)
    scale = float(one.abs().max()) if one.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(scale, 1e-6), equal_nan=True))
