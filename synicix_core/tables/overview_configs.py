"""Configs for people who look: without blobs, and the noise ceilings that datasets state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from synicix_core.tables.schema import Tables

__all__ = ["CONFIG_KINDS", "config_rows", "noise_ceilings"]

CONFIG_KINDS = {"dataset": "DatasetConfig", "model": "ModelConfig", "training": "TrainingConfig"}
"""The config table of each kind."""

_BLOBS = ("additional_model_params",)


def config_rows(tables: Tables, kind: str) -> dict[str, dict[str, Any]]:
    """Return the configs of one kind by md5, without their blobs."""
    table = getattr(tables, CONFIG_KINDS[kind])
    names = [name for name in table.heading.names if name not in _BLOBS]
    return {row[f"{kind}_config_md5_hash"]: row for row in table.proj(*names).to_dicts()}


def noise_ceilings(tables: Tables, datasets: Collection[str]) -> dict[str, Mapping[str, float]]:
    """Return ``{md5 of a DatasetConfig: {metric name: ceiling}}`` for the datasets that state a noise ceiling."""
    if not datasets:
        return {}
    chosen = tables.DatasetConfig & [{"dataset_config_md5_hash": md5} for md5 in sorted(datasets)]
    ceilings: dict[str, Mapping[str, float]] = {}
    for row in chosen.proj("additional_model_params").to_dicts():
        stated = row["additional_model_params"].get("noise_ceiling")
        if isinstance(stated, Mapping):
            values = {str(name): float(value) for name, value in stated.items() if value is not None}
            ceilings[row["dataset_config_md5_hash"]] = values
    return ceilings
