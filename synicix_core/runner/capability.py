"""What this worker cannot train: configs that name providers which are not installed here in the row's version."""

from __future__ import annotations

import json
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.errors import ProviderNotFound
from synicix_core.registry import Registry
from synicix_core.tables.queue import Exclusions
from synicix_core.tables.schema import Tables

__all__ = ["find_exclusions"]

_COLUMNS = {
    ("DatasetConfig", "dataset_provider"): "dataset",
    ("DatasetConfig", "train_sampler_provider"): "sampler",
    ("DatasetConfig", "validation_sampler_provider"): "sampler",
    ("DatasetConfig", "test_sampler_provider"): "sampler",
    ("ModelConfig", "model_provider"): "model",
    ("TrainingConfig", "trainer_provider"): "trainer",
    ("TrainingConfig", "optimizer_provider"): "optimizer",
    ("TrainingConfig", "criterion_provider"): "criterion",
}


def find_exclusions(tables: Tables, registry: Registry) -> tuple[Exclusions, list[str]]:
    """Resolve every provider that the configs name, without importing any.

    Returns
    -------
    Exclusions
        For `Queue.claim`.
    list of str
        Why each of them is excluded.
    """
    providers: dict[tuple[str, str], list[str]] = {}
    reasons: dict[str, None] = {}
    for (table, column), kind in _COLUMNS.items():
        full_name = getattr(tables, table).full_table_name
        for (name,) in execute(tables.connection, f"SELECT DISTINCT {column} FROM {full_name}").fetchall():
            if name and (reason := _why_not(registry, kind, name)):
                providers.setdefault((table, column), []).append(name)
                reasons[reason] = None
    training_configs = []
    sql = f"SELECT training_config_md5_hash, metrics FROM {tables.TrainingConfig.full_table_name}"
    for md5, metrics in execute(tables.connection, sql).fetchall():
        missing = [_why_not(registry, "metric", metric["provider"]) for metric in _decoded(metrics)]
        if any(missing):
            training_configs.append(md5)
            reasons.update(dict.fromkeys(reason for reason in missing if reason))
    return Exclusions(providers, training_configs), list(reasons)


def _why_not(registry: Registry, kind: str, stored: str) -> str:
    try:
        registry.resolve_stored(kind, stored)
    except ProviderNotFound as error:
        return str(error)
    return ""


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value
