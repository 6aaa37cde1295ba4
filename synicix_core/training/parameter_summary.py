"""How the parameters of a model look after an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["all_finite", "plain", "summarise_parameters", "summarise_stacked"]


def summarise_parameters(model: torch.nn.Module) -> dict[str, Any]:
    """Return ``{name: {"mean", "std", "norm"}}`` of each named parameter, or what ``model.params_summary()`` returns.

    ``std`` is the population standard deviation, ``norm`` the L2 norm.
    """
    own = getattr(model, "params_summary", None)
    if callable(own):
        summary = plain(own())
        return summary if isinstance(summary, dict) else {"summary": summary}
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters() if parameter.numel()]
    if not named:
        return {}
    with torch.no_grad():
        columns = []
        for _, parameter in named:
            values = parameter if parameter.is_floating_point() else parameter.abs().float()
            variance, mean = torch.var_mean(values.float(), correction=0)
            columns += [mean, variance.sqrt(), torch.linalg.vector_norm(values.float())]
        # One copy from the device for all of them.
        numbers = torch.stack([column.to(columns[0].device) for column in columns]).reshape(-1, 3).tolist()
    return {
        name: {"mean": mean, "std": std, "norm": norm}
        for (name, _), (mean, std, norm) in zip(named, numbers, strict=True)
    }


def summarise_stacked(
    models: Sequence[torch.nn.Module], parameters: Mapping[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """Return what `summarise_parameters` returns for each of several models whose parameters are stacked, (models, *shape)."""
    if callable(getattr(models[0], "params_summary", None)):
        return [summarise_parameters(model) for model in models]
    names = [name for name, stacked in parameters.items() if stacked.numel()]
    if not names:
        return [{} for _ in models]
    columns = []
    with torch.no_grad():
        for name in names:
            stacked = (
                parameters[name].detach().flatten(1)
                if parameters[name].dim() > 1
                else parameters[name].detach()[:, None]
            )
            values = (stacked if stacked.is_floating_point() else stacked.abs()).float()
            variance, mean = torch.var_mean(values, dim=1, correction=0)
            columns += [mean, variance.sqrt(), torch.linalg.vector_norm(values, dim=1)]
        # One copy from the device for all of them.
        rows = torch.stack(columns, 1).reshape(len(models), -1, 3).tolist()
    return [
        {name: {"mean": mean, "std": std, "norm": norm} for name, (mean, std, norm) in zip(names, row, strict=True)}
        for row in rows
    ]


def all_finite(model: torch.nn.Module, summary: Mapping[str, Any]) -> bool:
    """Tell whether every parameter is finite; `summary` is what `summarise_parameters` returned for it."""
    if not callable(getattr(model, "params_summary", None)):
        return all(math.isfinite(numbers["norm"]) for numbers in summary.values())
    norms = [torch.linalg.vector_norm(parameter.detach().float()) for parameter in model.parameters()]
    return all(math.isfinite(norm.item()) for norm in norms)


def plain(value: Any) -> Any:
    """Return tensors, arrays and their scalars as numbers and nested lists, and keys as strings."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)
