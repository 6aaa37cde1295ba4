"""ModelConfig: a model and its parameters."""

from __future__ import annotations

from typing import Any

from synicix_core.hashing import content_md5
from synicix_core.tables.config_table import ConfigTable, RowCheck

__all__ = ["ModelConfig", "without_neutral"]


class ModelConfig(ConfigTable):
    """A model that a plugin provides, and the parameters it is built with."""

    definition = """
    # A model and its parameters
    model_config_md5_hash : char(32)
    ---
    model_provider        : varchar(256)
    model_class_params    : json
    """
    md5 = "model_config_md5_hash"
    required = ("model_provider",)
    defaults = {"model_class_params": {}}
    old_names = {"model": "model_provider"}

    def _complete(self, row: dict[str, Any], check: RowCheck) -> dict[str, Any] | None:
        registered = check.provider("model_provider", "model", row["model_provider"])
        # A dataset may supply what is missing here; that is known when the task is inserted.
        params = check.params("model_class_params", registered, row["model_class_params"], optional_missing=True)
        if registered is None:
            return None
        content = {"model": registered.qualified, "params": without_neutral(registered, params)}
        return {
            "model_config_md5_hash": content_md5(content),
            "model_provider": registered.qualified,
            "model_class_params": params,
        }


def without_neutral(registered: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that can change the numbers: those that the provider does not declare neutral."""
    return {name: value for name, value in params.items() if name not in registered.provider.neutral}
