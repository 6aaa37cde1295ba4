"""TrainingConfig: a way to train."""

from __future__ import annotations

from typing import Any

from synicix_core.hashing import content_md5
from synicix_core.registry import CORE
from synicix_core.tables.config_table import ConfigTable, RowCheck
from synicix_core.tables.model_config import without_neutral

__all__ = ["TrainingConfig"]

_PARTS = {"trainer": "trainer_provider", "optimizer": "optimizer_provider", "criterion": "criterion_provider"}


class TrainingConfig(ConfigTable):
    """A trainer, an optimizer, a criterion, the metrics, and the numbers that go with them."""

    definition = """
    # A way to train
    training_config_md5_hash : char(32)
    ---
    trainer_provider         : varchar(256)
    trainer_class_params     : json
    batch_size               : int32
    epoch_limit              : int32
    seed                     : int64
    optimizer_provider       : varchar(256)
    optimizer_class_params   : json
    criterion_provider       : varchar(256)
    criterion_class_params   : json
    metrics                  : json          # the first one is the score
    """
    md5 = "training_config_md5_hash"
    required = ("criterion_provider",)
    defaults = {
        "trainer_provider": f"{CORE}/NNTrainer",
        "trainer_class_params": {},
        "batch_size": 128,
        "epoch_limit": 100,
        "seed": 0,
        "optimizer_provider": f"{CORE}/Adam",
        "optimizer_class_params": {},
        "criterion_class_params": {},
        "metrics": [f"{CORE}/loss"],
    }
    old_names = _PARTS

    def _complete(self, row: dict[str, Any], check: RowCheck) -> dict[str, Any] | None:
        complete: dict[str, Any] = {
            "batch_size": check.integer("batch_size", row["batch_size"], 1, 2**31 - 1),
            "epoch_limit": check.integer("epoch_limit", row["epoch_limit"], 1, 2**31 - 1),
            "seed": check.integer("seed", row["seed"], 0, 2**63 - 1),
        }
        content: dict[str, Any] = dict(complete)
        for kind, column in _PARTS.items():
            registered = check.provider(column, kind, row[column])
            params = check.params(f"{kind}_class_params", registered, row[f"{kind}_class_params"])
            if registered is not None:
                complete |= {column: registered.qualified, f"{kind}_class_params": params}
                content[kind] = [registered.qualified, without_neutral(registered, params)]
        complete["metrics"] = content["metrics"] = _metrics(row["metrics"], check)
        if check.mistakes:
            return None
        return {"training_config_md5_hash": content_md5(content), **complete}


def _metrics(given: Any, check: RowCheck) -> list[dict[str, Any]]:
    if not isinstance(given, list | tuple) or not given:
        check.mistake("metrics", f"is a list of at least one metric, not {given!r}")
        return []
    metrics, names = [], set()
    for index, item in enumerate(given):
        key = f"metrics[{index}]"
        entry = {"provider": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or set(entry) - {"provider", "params"} or "provider" not in entry:
            check.mistake(key, f"is a name, or a table of provider and params, not {item!r}")
            continue
        registered = check.provider(f"{key}.provider", "metric", entry["provider"])
        params = check.params(f"{key}.params", registered, entry.get("params", {}))
        if registered is None:
            continue
        if registered.name in names:
            check.mistake(key, f"the metric {registered.name!r} is listed twice")
        names.add(registered.name)
        metrics.append({"provider": registered.qualified, "params": params})
    return metrics
