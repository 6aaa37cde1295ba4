"""A dataset of arrays in one .npz file: inputs and targets by tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from synicix_core import DatasetError

__all__ = ["NpzDataset"]


class NpzDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Examples of one tier.

    Parameters
    ----------
    path : str or Path
        File with the arrays ``{tier}_inputs`` (n, features) and ``{tier}_targets`` (n, neurons).
    tier : {"train", "validation", "test"}
        Which examples.
    scale : float
        Inputs are multiplied by it.
    """

    def __init__(self, path: str | Path, tier: str, *, scale: float = 1.0) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            if f"{tier}_inputs" not in arrays:
                raise DatasetError(f"there are no inputs of the tier {tier!r}", file=str(path), why=str(arrays.files))
            inputs, targets = arrays[f"{tier}_inputs"], arrays[f"{tier}_targets"]
        self._inputs = torch.from_numpy(inputs.astype(np.float32)) * scale
        self._targets = torch.from_numpy(targets.astype(np.float32))

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._inputs[index], self._targets[index]

    def get_additional_model_params(self) -> dict[str, Any]:
        """Return what models may want to know; each gets those that its signature names."""
        return {"n_neurons": self._targets.shape[1], "unused": 1}
