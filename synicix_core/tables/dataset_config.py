"""DatasetConfig: a dataset file and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synicix_core.hashing import content_md5, file_sha256
from synicix_core.registry import Registered
from synicix_core.tables.config_table import ConfigTable, DatasetFacts, RowCheck
from synicix_core.tables.dataset_files import resolve_dataset_file
from synicix_core.tables.model_config import without_neutral

__all__ = ["TIERS", "DatasetConfig"]

TIERS = ("train", "validation", "test")


class DatasetConfig(ConfigTable):
    """A dataset file, the dataset that reads it, its samplers, and what models need to know about it."""

    definition = """
    # A dataset file and how it is read
    dataset_config_md5_hash         : char(32)
    ---
    dataset_file_name               : varchar(256)  # relative to dataset_dir
    dataset_file_sha256             : char(64)
    dataset_type                    : varchar(256)  # a label
    dataset_provider                : varchar(256)
    dataset_class_params            : json
    train_sampler_provider          : varchar(256)  # empty: shuffled
    train_sampler_class_params      : json
    validation_sampler_provider     : varchar(256)  # empty: in order
    validation_sampler_class_params : json
    test_sampler_provider           : varchar(256)  # empty: in order
    test_sampler_class_params       : json
    input_shape                     : json
    output_shape                    : json
    additional_model_params         : <blob>
    """
    md5 = "dataset_config_md5_hash"
    required = ("dataset_file_name", "dataset_provider")
    defaults = {
        "dataset_type": None,
        "dataset_class_params": {},
        **{f"{tier}_sampler_provider": "" for tier in TIERS},
        **{f"{tier}_sampler_class_params": {} for tier in TIERS},
    }
    old_names = {"dataset": "dataset_provider", **{f"{tier}_sampler": f"{tier}_sampler_provider" for tier in TIERS}}

    def _before_rows(self, rows: list[Any]) -> None:
        del rows
        self._digests: dict[Path, str] = {}
        self._facts: dict[tuple[str, str], DatasetFacts] = {}

    def _complete(self, row: dict[str, Any], check: RowCheck) -> dict[str, Any] | None:
        registered = check.provider("dataset_provider", "dataset", row["dataset_provider"])
        params = check.params("dataset_class_params", registered, row["dataset_class_params"])
        samplers = {tier: self._sampler(tier, row, check) for tier in TIERS}
        name = check.text("dataset_file_name", row["dataset_file_name"])
        label = check.text("dataset_type", row["dataset_type"]) if row["dataset_type"] is not None else None
        if registered is None or check.mistakes:
            return None
        settings = self.services.settings
        path = resolve_dataset_file(settings.dataset_dir, name, follow_symlinks=settings.follow_symlinks)
        sha256 = self._digests.get(path) or self._digests.setdefault(path, file_sha256(path))
        facts = self._inspect(registered, path, params, sha256)
        check.notes += [f"{name}: {note}" for note in facts.notes]
        content = {
            "file": sha256,
            "dataset": [registered.qualified, without_neutral(registered, params)],
            "samplers": {tier: samplers[tier][1] for tier in TIERS},
        }
        complete: dict[str, Any] = {
            "dataset_config_md5_hash": content_md5(content),
            "dataset_file_name": name,
            "dataset_file_sha256": sha256,
            "dataset_type": registered.name if label is None else label,
            "dataset_provider": registered.qualified,
            "dataset_class_params": params,
            "input_shape": facts.input_shape,
            "output_shape": facts.output_shape,
            "additional_model_params": facts.additional_model_params,
        }
        for tier in TIERS:
            complete |= samplers[tier][0]
        return complete

    def _sampler(self, tier: str, row: dict[str, Any], check: RowCheck) -> tuple[dict[str, Any], Any]:
        """Return the columns of a tier's sampler, and what of it goes into the md5."""
        column, params_column = f"{tier}_sampler_provider", f"{tier}_sampler_class_params"
        name, params = row[column], row[params_column]
        if name in ("", None):
            if params:
                check.mistake(params_column, f"has parameters, but {column} names no sampler")
            return {column: "", params_column: {}}, None
        registered = check.provider(column, "sampler", name)
        params = check.params(params_column, registered, params)
        if registered is None:
            return {}, None
        columns = {column: registered.qualified, params_column: params}
        return columns, [registered.qualified, without_neutral(registered, params)]

    def _inspect(self, registered: Registered, path: Path, params: dict[str, Any], sha256: str) -> DatasetFacts:
        key = (sha256, content_md5([registered.qualified, params]))
        if key not in self._facts:
            self._facts[key] = self.services.inspect_dataset(registered, path, params)
        return self._facts[key]
