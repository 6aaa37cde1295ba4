"""TrainingTask: one config of each kind, to be trained."""

from __future__ import annotations

from typing import Any

from synicix_core.hashing import content_md5
from synicix_core.parameters import describe
from synicix_core.tables.config_table import ConfigTable, RowCheck

__all__ = ["TrainingTask"]

_FEW = 500

_CONFIGS = {
    "dataset_config_md5_hash": "DatasetConfig",
    "model_config_md5_hash": "ModelConfig",
    "training_config_md5_hash": "TrainingConfig",
}


class TrainingTask(ConfigTable):
    """A combination worth training: one DatasetConfig, one ModelConfig, one TrainingConfig."""

    definition = """
    # One config of each kind, to be trained
    training_task_md5_hash : char(32)
    ---
    -> DatasetConfig
    -> ModelConfig
    -> TrainingConfig
    unique index (dataset_config_md5_hash, model_config_md5_hash, training_config_md5_hash)
    """
    md5 = "training_task_md5_hash"
    required = tuple(_CONFIGS)
    tables: dict[str, Any]
    """The bound config tables by name; set when the pipeline binds the tables."""
    enqueue: Any
    """Queues new tasks; set when the pipeline binds the tables."""

    def _before_rows(self, rows: list[Any]) -> None:
        """Read, once for the batch, which configs there are and what the models of them need."""
        self._known = {column: self._existing(column, rows) for column in _CONFIGS}
        self._models = self._read_models(self._known["model_config_md5_hash"])
        self._supplied: dict[str, frozenset[str]] = {}
        self._pairs: dict[tuple[str, str], list[str]] = {}

    def _complete(self, row: dict[str, Any], check: RowCheck) -> dict[str, Any] | None:
        for column, table in _CONFIGS.items():
            if row[column] not in self._known[column]:
                check.mistake(column, f"there is no {table} {row[column]!r}; insert it first")
        if check.mistakes:
            return None
        for message in self._pair(row["dataset_config_md5_hash"], row["model_config_md5_hash"]):
            check.mistake("model_config_md5_hash", message)
        keys = {column: row[column] for column in _CONFIGS}
        return {self.md5: content_md5(keys), **keys}

    def _after_insert(self, keys: list[str]) -> None:
        if keys:
            type(self).enqueue()

    def _existing(self, column: str, rows: list[Any]) -> set[str]:
        keys = {row.get(column) for row in rows if isinstance(row, dict)}
        found: set[str] = self.tables[_CONFIGS[column]]().existing(sorted(key for key in keys if isinstance(key, str)))
        return found

    def _pair(self, dataset: str, model: str) -> list[str]:
        """Say what is wrong between a dataset's additional parameters and a model's own, once for each pair."""
        if (dataset, model) not in self._pairs:
            name, required, accepted, given = self._model(model)
            supplied = self._additional(dataset) & accepted
            mistakes = [
                f"{name} needs the parameter {missing!r}, which neither its ModelConfig nor the dataset supplies"
                for missing in sorted(required - given - supplied)
            ]
            mistakes += [
                f"the parameter {both!r} of {name} is set by its ModelConfig and supplied by the dataset; set it in one place"
                for both in sorted(given & supplied)
            ]
            self._pairs[dataset, model] = mistakes
        return self._pairs[dataset, model]

    def _read_models(self, keys: set[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return provider and parameters of model configs by md5; of all of them where most are asked for."""
        table = self.tables["ModelConfig"]()
        few = [{"model_config_md5_hash": key} for key in sorted(keys)] if len(keys) <= _FEW else True
        rows = (table & few).to_dicts() if keys else []
        return {row["model_config_md5_hash"]: (row["model_provider"], row["model_class_params"]) for row in rows}

    def _model(self, key: str) -> tuple[str, frozenset[str], frozenset[str], frozenset[str]]:
        """Return a model's name, the parameters it requires, those it accepts, and those its config gives."""
        provider, params = self._models[key]
        registered = self.services.registry.resolve_stored("model", provider)
        parameters = describe(registered).parameters
        required = frozenset(parameter.name for parameter in parameters if parameter.required)
        return registered.qualified, required, frozenset(parameter.name for parameter in parameters), frozenset(params)

    def _additional(self, key: str) -> frozenset[str]:
        if key not in self._supplied:
            table = self.tables["DatasetConfig"] & {"dataset_config_md5_hash": key}
            self._supplied[key] = frozenset(table.fetch1("additional_model_params"))
        return self._supplied[key]
