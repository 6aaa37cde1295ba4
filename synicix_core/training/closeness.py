"""Whether tensors are the same up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["close"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_HALF_TOLERANCE = 5e-2


def close(one: Tensor, other: Tensor, *, coarse: bool = False) -> bool:
    """Tell whether two tensors of one shape differ by no more than rounding, measured by their greatest number.

    Parameters
    ----------
    one, other : Tensor
        To be compared.
    coarse : bool
        Whether they were computed in half precision, or TF32, whatever their dtype is.
    """
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    tolerance = _HALF_TOLERANCE if coarse else _TOLERANCE.get(one.dtype, _HALF_TOLERANCE)
    scale = float(one.abs().max()) if one.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(scale, 1e-6), equal_nan=True))
