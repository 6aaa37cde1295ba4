"""A model and a trainer written for the predecessor train unchanged, once a hook module names them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest

from tests.third_party.fresh_environment import PLUGINS, Workplace

pytestmark = [pytest.mark.database, pytest.mark.slow]

INSERT = """
import json
from synicix_core import Pipeline

pipeline = Pipeline()
pipeline.DatasetConfig.insert_tuples(
    [dict(dataset_file_name="scan.npz", dataset_provider="ScanDataset", dataset_class_params=dict(mode="encoding"))]
)
pipeline.ModelConfig.insert_tuples(
    [dict(model_provider="TwoLayerNet", model_class_params=dict(hidden_size=16, l1_loss_lamda=0.0001))]
)
pipeline.TrainingConfig.insert_tuples(
    [
        dict(
            trainer_provider="LabTrainer",
            trainer_class_params=dict(patience=30),
            batch_size=16,
            epoch_limit=20,
            optimizer_provider="Adam",
            optimizer_class_params=dict(lr=0.02),
            criterion_provider="MSELoss",
        )
    ]
)

tuple_dicts = []
for dataset_key in pipeline.DatasetConfig.fetch("KEY"):
    for model_key in pipeline.ModelConfig.fetch("KEY"):
        for training_key in pipeline.TrainingConfig.fetch("KEY"):
            tuple_dicts.append({**dataset_key, **model_key, **training_key})
pipeline.TrainingTask.insert_tuple(tuple_dicts)
print(json.dumps(None))
"""

READ = """
import json
import numpy
import torch
from synicix_core import Pipeline

pipeline = Pipeline()
[key] = pipeline.TrainingResult.keys()
row = (pipeline.TrainingResult & key).fetch1()
model = pipeline.load_model(key)
output, penalty = model(torch.zeros(2, 2, 3))
print(
    json.dumps(
        {
            "row": row,
            "again": {tier: pipeline.evaluate(key, tier) for tier in ("train", "validation", "test")},
            "model": [type(model).__module__, list(output.shape), penalty.item()],
            "weights": numpy.shape(row["model_class_params_history"][0]["hidden.weight"]),
        },
        default=str,
    )
)
"""


@pytest.fixture(scope="module")
def trained(workplace: Workplace) -> Iterator[dict[str, Any]]:
    workplace.environment.install(PLUGINS / "old_lab")
    place = workplace.with_schema("old_lab")
    place.python(INSERT)
    worker = place.synicix("populate")
    assert worker.returncode == 0, worker.stdout + worker.stderr
    yield place.python(READ)
    workplace.environment.uninstall("old-lab")


def test_nothing_of_ours_is_imported_outside_the_hook_module() -> None:
    files = [file for file in (PLUGINS / "old_lab" / "old_lab").rglob("*.py") if file.name != "hooks.py"]
    assert len(files) >= 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("synicix") for name in names), file


def test_all_histories_are_stored(trained: dict[str, Any]) -> None:
    row = trained["row"]
    for name in ("training_epoch_loss_history", "validation_epoch_loss_history", "regularization_loss_history"):
        assert len(row[name]) == 20, name
        assert all(isinstance(value, float) and value > 0 for value in row[name]), name
    assert row["training_epoch_loss_history"][-1] < 0.5 * row["training_epoch_loss_history"][0]
    assert len(row["model_class_params_history"]) == 20
    assert trained["weights"] == [16, 6], "whatever the trainer keeps of its parameters is there"


def test_the_score_is_that_of_the_best_epoch(trained: dict[str, Any]) -> None:
    row = trained["row"]
    assert row["status"] == "completed"
    # LabTrainer averages over batches; all batches of the validation tier have one size, so that is the mean.
    assert row["scores"]["validation"]["loss"] == pytest.approx(min(row["validation_epoch_loss_history"]), rel=1e-5)
    assert row["test_score"] == row["scores"]["test"]["loss"]


def test_the_model_loads_and_evaluates_to_what_is_stored(trained: dict[str, Any]) -> None:
    module, shape, penalty = trained["model"]
    assert (module, shape) == ("old_lab.models.TwoLayerNet", [2, 3])
    assert penalty > 0
    for tier, scores in trained["again"].items():
        assert scores == pytest.approx(trained["row"]["scores"][tier]), tier
