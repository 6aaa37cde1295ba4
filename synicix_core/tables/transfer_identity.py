"""Prove that a row of a config or task is the one that its key names: compute the md5 of its content again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from synicix_core.errors import ProviderNotFound
from synicix_core.hashing import canonical_json
from synicix_core.registry import Registry
from synicix_core.tables.dataset_config import TIERS

__all__ = ["is_itself"]

_CONFIGS = ("dataset_config_md5_hash", "model_config_md5_hash", "training_config_md5_hash")


def is_itself(table: str, row: Mapping[str, Any], registry: Registry) -> bool | None:
    """Tell whether the md5 of a row's content is its key.

    Parameters
    ----------
    table : {"DatasetConfig", "ModelConfig", "TrainingConfig", "TrainingTask"}
        Whose row it is.
    row : mapping
        Its columns, as an export holds them.
    registry : Registry
        Says which parameters are neutral and do not count.

    Returns
    -------
    bool or None
        None where that cannot be known, because a plugin that the row names is not installed here.
    """
    key = str(row[_KEYS[table]])
    known = True
    for neutral_counts in (False, True):
        parts = _Parts(registry, neutral_counts)
        if _md5(_CONTENT[table](row, parts)) == key:
            return True
        known = known and parts.known
    return False if known else None


class _Parts:
    """What of a provider and its parameters goes into an md5."""

    def __init__(self, registry: Registry, neutral_counts: bool) -> None:
        self._registry = registry
        self._neutral_counts = neutral_counts
        self.known = True

    def __call__(self, kind: str, provider: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the provider's name and the parameters that count."""
        if self._neutral_counts:
            return provider, dict(params)
        try:
            neutral = self._registry.resolve_stored(kind, provider).provider.neutral
        except ProviderNotFound:
            self.known = False
            neutral = ()
        return provider, {name: value for name, value in params.items() if name not in neutral}


def _dataset(row: Mapping[str, Any], parts: _Parts) -> Any:
    samplers = {tier: (row[f"{tier}_sampler_provider"], row[f"{tier}_sampler_class_params"]) for tier in TIERS}
    return {
        "file": row["dataset_file_sha256"],
        "dataset": parts("dataset", row["dataset_provider"], row["dataset_class_params"]),
        "samplers": {tier: parts("sampler", *sampler) if sampler[0] else None for tier, sampler in samplers.items()},
    }


def _model(row: Mapping[str, Any], parts: _Parts) -> Any:
    return dict(zip(("model", "params"), parts("model", row["model_provider"], row["model_class_params"]), strict=True))


def _training(row: Mapping[str, Any], parts: _Parts) -> Any:
    kinds = ("trainer", "optimizer", "criterion")
    return {
        **{name: row[name] for name in ("batch_size", "epoch_limit", "seed", "metrics")},
        **{kind: parts(kind, row[f"{kind}_provider"], row[f"{kind}_class_params"]) for kind in kinds},
    }


def _task(row: Mapping[str, Any], _parts: _Parts) -> Any:
    return {column: row[column] for column in _CONFIGS}


_CONTENT = {"DatasetConfig": _dataset, "ModelConfig": _model, "TrainingConfig": _training, "TrainingTask": _task}
_KEYS = {
    "DatasetConfig": "dataset_config_md5_hash",
    "ModelConfig": "model_config_md5_hash",
    "TrainingConfig": "training_config_md5_hash",
    "TrainingTask": "training_task_md5_hash",
}


def _md5(content: Any) -> str:
    # Without the checks of `hashing.content_md5`: PostgreSQL returns a float of 1e19 as an integer beyond 64 bits.
    return hashlib.md5(canonical_json(content).encode(), usedforsecurity=False).hexdigest()
