"""What this worker cannot train: configs that name providers or dataset files which are not here."""

from __future__ import annotations

import json
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.errors import DatasetError, ProviderNotFound
from synicix_core.registry import Registry
from synicix_core.settings import Settings
from synicix_core.tables.dataset_files import resolve_dataset_file
from synicix_core.tables.queue import Exclusions
from synicix_core.tables.schema import Tables

__all__ = ["find_exclusions", "find_missing_datasets"]

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


def find_missing_datasets(tables: Tables, settings: Settings) -> tuple[list[str], dict[str, DatasetError]]:
    """Look for the dataset file of each config, without reading any.

    A worker finds out when it has claimed a task, and gives it back; this is for who wants to know beforehand.

    Returns
    -------
    list of str
        The md5s of the dataset configs that cannot be trained on this machine.
    dict of str to DatasetError
        Why, by the name of the file.
    """
    configs: list[str] = []
    errors: dict[str, DatasetError] = {}
    fine = set[str]()
    table = tables.DatasetConfig.full_table_name
    sql = f"SELECT dataset_config_md5_hash, dataset_file_name FROM {table} ORDER BY dataset_file_name"
    for md5, name in execute(tables.connection, sql).fetchall():
        if name not in fine and name not in errors:
            try:
                resolve_dataset_file(settings.dataset_dir, name, follow_symlinks=settings.follow_symlinks)
                fine.add(name)
            except DatasetError as error:
                errors[name] = error
        if name in errors:
            configs.append(md5)
    return configs, errors


def _why_not(registry: Registry, kind: str, stored: str) -> str:
    try:
        registry.resolve_stored(kind, stored)
    except ProviderNotFound as error:
        return str(error)
    return ""


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value
