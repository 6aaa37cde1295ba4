"""Saved models: built again, loaded, scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from synicix_core.errors import CheckpointError, DatasetError, ParamsError
from synicix_core.hashing import file_sha256
from synicix_core.registry import Registry
from synicix_core.training.build import (
    TaskParts,
    load_parts,
    make_criterion,
    make_dataset,
    make_metrics,
    make_model,
    make_tier_loader,
    resolve_device,
)
from synicix_core.training.contract import Metric
from synicix_core.training.random_state import derive_seed, seed_everything
from synicix_core.training.resident import ResidentTier
from synicix_core.training.saved_files import load_plain
from synicix_core.training.spec import TIERS, TaskSpec
from synicix_core.training.tier_pass import run_tier
from synicix_core.training.torch_state import restored_torch_state, set_float32_precision

__all__ = ["build_model", "evaluate_task", "load_state", "score_tier"]


def build_model(spec: TaskSpec, registry: Registry) -> nn.Module:
    """Return the model of a task with new weights, on the CPU.

    Raises
    ------
    ProviderNotFound, PluginImportError
        If the model's plugin is not installed or broken.
    ParamsError
        If the row sets something that the dataset supplies.
    """
    with restored_torch_state():
        seed_everything(spec.seed)
        return make_model(spec, load_parts(spec, registry))


def load_state(model: nn.Module, path: str | Path, sha256: str | None = None) -> None:
    """Load a saved ``state_dict`` into `model`; nothing in the file is run.

    Parameters
    ----------
    model : torch.nn.Module
        Built from the same configs.
    path : str or Path
        The file.
    sha256 : str, optional
        What its digest must be.

    Raises
    ------
    CheckpointError
        If it is missing, not the expected one, not a ``state_dict``, or of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            "the saved model is missing", where=str(path), hint="Check model_save_dir in synicix.toml."
        )
    if sha256 is not None:
        found = file_sha256(path)
        if found != sha256:
            raise CheckpointError(
                "the saved model is not the one that was trained",
                where=str(path),
                why=f"its sha256 is {found}, the result says {sha256}",
            )
    put_state(model, load_plain(path), path)


def put_state(model: nn.Module, state: Any, path: Path) -> None:
    """Load what a file holds into `model`.

    Raises
    ------
    CheckpointError
        If it is not a ``state_dict``, or of another model.
    """
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(
            "the saved file is no state_dict", where=str(path), why=f"it holds a {type(state).__name__}"
        )
    try:
        model.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            "the saved weights do not fit the model", where=str(path), why=" ".join(str(error).split())
        ) from error


def evaluate_task(spec: TaskSpec, registry: Registry, model: nn.Module, tier: str) -> dict[str, float | None]:
    """Compute the metrics of a task on one tier.

    Parameters
    ----------
    spec : TaskSpec
        The task; its device is used, its files are not.
    registry : Registry
        Where the providers are found.
    model : torch.nn.Module
        With the weights to score. It is left where and as it was.
    tier : {"train", "validation", "test"}
        Which examples.

    Returns
    -------
    dict
        By metric name, in order; None where a value is not finite.

    Raises
    ------
    DatasetError
        If the tier is empty.
    """
    if tier not in TIERS:
        raise ParamsError("there is no such tier", [("tier", f"expected one of {', '.join(TIERS)}, got {tier!r}")])
    parts = load_parts(spec, registry)
    device = resolve_device(spec.device)
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with restored_torch_state():
        seed_everything(spec.seed)
        dataset = make_dataset(parts.dataset, spec.dataset_path, tier, spec.dataset.params)
        metrics = make_metrics(spec, parts, make_criterion(spec, parts))
        try:
            values = score_tier(spec, parts, metrics, model.to(device), dataset, tier, device)
        finally:
            model.to(home)
    if values is None:
        raise DatasetError(f"the dataset has no {tier} examples", file=spec.dataset_path)
    return values


def score_tier(
    spec: TaskSpec,
    parts: TaskParts,
    metrics: Mapping[str, Metric],
    model: nn.Module,
    dataset: Any,
    tier: str,
    device: torch.device,
    after_batch: Callable[[], None] | None = None,
    resident: ResidentTier | None = None,
) -> dict[str, float | None] | None:
    """Return the metrics of `model` on a tier, or None for an empty tier.

    Everything is computed in float32 or better, whatever the precision of training. Validation and test are read through
    their configured samplers, which say what is scored; ``train`` is read in order, every example once, unless a batch
    sampler is configured, which says what fits into a batch.
    """
    sampler = parts.samplers["train"]
    in_order = tier == "train" and (sampler is None or getattr(sampler.provider, "yields", "index") == "index")
    # The same numbers after training and years later, even where a sampler or dataset draws random numbers.
    seed_everything(derive_seed(spec.seed, f"score:{tier}"))
    loader = make_tier_loader(
        spec, parts, dataset, tier, device, in_order=in_order, after_batch=after_batch, resident=resident
    )
    if loader is None:
        return None
    set_float32_precision(tf32=False)
    result = run_tier(model, loader, device, collect=True, parts=spec.micro_batches)
    values = {name: metric(result.outputs, result.targets, loader.column) for name, metric in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
