"""What makes filters smooth."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["laplacian"]


def laplacian(filters: Tensor) -> Tensor:
    """Return the discrete Laplacian of filters.

    The stencil is the isotropic one of nine points, ``[[1, 2, 1], [2, -12, 2], [1, 2, 1]] / 4`` (Oono and Puri 1987).
    Beyond its edge a filter goes on as it ends, so a constant one is perfectly smooth.

    Parameters
    ----------
    filters : Tensor, (..., H, W)

    Returns
    -------
    Tensor, (..., H, W)
    """
    # Edges are repeated by hand: torch's padding has no deterministic gradient on a GPU.
    rows = torch.cat([filters[..., :1, :], filters, filters[..., -1:, :]], dim=-2)
    padded = torch.cat([rows[..., :1], rows, rows[..., -1:]], dim=-1)
    # The stencil is the sum of a column (1, 2, 1) times a row (1, 2, 1), less 16 in the middle.
    column = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    both = column[..., :-2] + 2 * column[..., 1:-1] + column[..., 2:]
    return both / 4 - 4 * filters
