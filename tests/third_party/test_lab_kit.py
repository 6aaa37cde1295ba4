"""A plugin with a trainer of its own: installed it trains, uninstalled its tasks wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.third_party.fresh_environment import PLUGINS, Workplace

pytestmark = [pytest.mark.database, pytest.mark.slow]

INSERT = """
import json
from synicix_core import Pipeline

pipeline = Pipeline()
[npz, scan] = pipeline.DatasetConfig.insert_tuples(
    [
        dict(dataset_file_name="lab.npz", dataset_provider="NpzDataset", dataset_class_params=dict(scale=1)),
        dict(dataset_file_name="scan.npz", dataset_provider="ScanDataset"),
    ]
).new
[readout, net] = pipeline.ModelConfig.insert_tuples(
    [
        dict(model_provider="Readout", model_class_params=dict(l2=0.001)),
        dict(model_provider="TwoLayerNet", model_class_params=dict(hidden_size=4)),
    ]
).new
shared = dict(criterion_provider="MSELoss", optimizer_class_params=dict(lr=0.05), batch_size=16, epoch_limit=4)
[plain, checkpoint, later, core] = pipeline.TrainingConfig.insert_tuples(
    [
        dict(shared, trainer_provider="PlainTrainer", trainer_class_params=dict(decay=0.9)),
        dict(shared, trainer_provider="lab-kit/CheckpointTrainer", metrics=["loss", "correlation"]),
        dict(shared, trainer_provider="PlainTrainer", epoch_limit=1),
        dict(shared, trainer_provider="NNTrainer", epoch_limit=1),
    ]
).new
tasks = pipeline.TrainingTask.insert_tuples(
    [npz | readout | plain, npz | readout | checkpoint, scan | net | later, scan | net | core]
).new
print(json.dumps([task["training_task_md5_hash"] for task in tasks]))
"""

READ = """
import json
from synicix_core import Pipeline

pipeline = Pipeline()
rows = (pipeline.TrainingResult * pipeline.TrainingTask * pipeline.TrainingConfig).to_dicts()
tried = pipeline.TrainingAttempt.to_arrays("training_task_md5_hash")
results = {row["training_task_md5_hash"]: row for row in rows}
supplied = (pipeline.DatasetConfig & dict(dataset_file_name="lab.npz")).fetch1("additional_model_params")
print(json.dumps([results, [str(task) for task in tried], supplied], default=str))
"""


@dataclass(frozen=True)
class Trained:
    """What one worker did with a task of each of lab-kit's trainers, and two tasks that it was told to leave."""

    place: Workplace
    plain: str
    checkpointing: str
    waiting: str
    """Names a trainer of lab-kit."""
    waiting_for_others: str
    """Names nothing of lab-kit."""
    output: str
    events: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    supplied: dict[str, Any]
    """additional_model_params of the dataset."""


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Iterator[Workplace]:
    workplace.environment.install(PLUGINS / "lab_kit", PLUGINS / "old_lab")
    yield workplace.with_schema("lab_kit")
    workplace.environment.uninstall("lab-kit", "old-lab")


@pytest.fixture(scope="module")
def trained(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    log = tmp_path_factory.mktemp("events") / "events.jsonl"
    plain, checkpointing, waiting, others = place.python(INSERT)
    worker = place.synicix("populate", "--where", "epoch_limit = 4", LAB_KIT_EVENTS=str(log))
    assert worker.returncode == 0, worker.stderr
    events = [json.loads(line) for line in log.read_text().splitlines()]
    results, tried, supplied = place.python(READ)
    assert sorted(tried) == sorted([plain, checkpointing])
    output = worker.stdout + worker.stderr
    return Trained(place, plain, checkpointing, waiting, others, output, events, results, supplied)


def test_the_list_of_plugins_shows_what_lab_kit_provides(place: Workplace) -> None:
    listed = place.synicix("plugins", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)
    ours = {
        (provider["kind"], provider["qualified"], provider["distribution_version"])
        for provider in found["providers"]
        if provider["distribution"] == "lab-kit"
    }
    assert ours == {
        ("dataset", "lab-kit/NpzDataset", "1.2.0"),
        ("model", "lab-kit/Readout", "1.2.0"),
        ("trainer", "lab-kit/PlainTrainer", "1.2.0"),
        ("trainer", "lab-kit/CheckpointTrainer", "1.2.0"),
    }
    assert found["problems"] == []


def test_its_command_is_one_of_synicix_run(place: Workplace) -> None:
    said = place.synicix("lab-kit-hello", "--name", "Turing")
    assert (said.returncode, said.stdout) == (0, "Hello, Turing.\n")


@pytest.mark.parametrize("trainer", ["PlainTrainer", "CheckpointTrainer"])
def test_its_trainers_train(trained: Trained, trainer: str) -> None:
    row = trained.results[trained.plain if trainer == "PlainTrainer" else trained.checkpointing]
    assert row["trainer_provider"] == f"lab-kit/{trainer}"
    losses = row["training_epoch_loss_history"]
    assert (len(losses), len(row["validation_epoch_loss_history"]), row["epochs"]) == (4, 4, 4)
    assert losses[-1] < 0.5 * losses[0]
    assert row["status"] == "completed"
    assert row["best_epoch"] == 1 + row["validation_epoch_loss_history"].index(
        min(row["validation_epoch_loss_history"])
    )
    assert row["test_score"] == pytest.approx(row["scores"]["test"]["loss"])
    assert row["provenance"]["providers"], "every result says which distributions took part"
    assert "1.2.0" in json.dumps(row["provenance"])


def test_a_history_that_a_trainer_lacks_is_empty_and_said_once(trained: Trained) -> None:
    plain, checkpointing = trained.results[trained.plain], trained.results[trained.checkpointing]
    assert plain["regularization_loss_history"] == [] and plain["model_class_params_history"] == []
    assert len(checkpointing["regularization_loss_history"]) == 4
    assert set(checkpointing["model_class_params_history"][0]) == {"linear.weight", "linear.bias"}
    notes = [note for note in plain["provenance"]["notes"] if "regularization_loss_history" in note]
    assert len(notes) == 1
    assert trained.output.count(notes[0]) == 1


def test_metrics_are_those_of_the_config(trained: Trained) -> None:
    assert list(trained.results[trained.plain]["scores"]["test"]) == ["loss"]
    assert set(trained.results[trained.checkpointing]["scores"]["test"]) == {"loss", "correlation"}


def test_events_arrive_in_order_with_the_numbers_of_the_result(trained: Trained) -> None:
    events = [event for event in trained.events if event["task"] == trained.checkpointing]
    between = ["EpochFinished", "CheckpointSaved"] * 4
    assert [event["event"] for event in events] == ["TaskStarted", *between, "TaskFinished"]
    row = trained.results[trained.checkpointing]
    epochs = events[1:-1:2]
    assert [(event["epoch"], event["epoch_limit"]) for event in epochs] == [(n, 4) for n in range(1, 5)]
    assert [event["train_loss"] for event in epochs] == row["training_epoch_loss_history"]
    assert [event["validation_loss"] for event in epochs] == row["validation_epoch_loss_history"]
    assert [event["regularization_loss"] for event in epochs] == row["regularization_loss_history"]
    assert {event["metrics"]["learning_rate"] for event in epochs} == {0.05}
    assert [event["epoch"] for event in events[2:-1:2]] == [1, 2, 3, 4]
    started, finished = events[0], events[-1]
    assert started["training"]["trainer_provider"] == "lab-kit/CheckpointTrainer"
    assert started["dataset"]["dataset_file_name"] == "lab.npz"
    assert started["model"]["model_class_params"] == {"l2": 0.001}
    assert (finished["status"], finished["test_score"]) == (row["status"], row["test_score"])
    assert (finished["epochs"], finished["best_epoch"], finished["metrics"]) == (4, row["best_epoch"], row["scores"])
    assert finished["model_path"] == str(trained.place.project / "models" / row["model_save_path"])
    assert {event["attempt"] for event in events} == {1}


def test_a_trainer_without_context_is_still_observed(trained: Trained) -> None:
    events = [event["event"] for event in trained.events if event["task"] == trained.plain]
    assert events == ["TaskStarted", "TaskFinished"]


def test_observers_run_in_the_supervisor(trained: Trained) -> None:
    assert len({event["pid"] for event in trained.events}) == 1
    assert len({event["worker"] for event in trained.events}) == 1
    assert not any(event["torch"] for event in trained.events)


def test_the_model_gets_the_additional_params_that_it_names(trained: Trained) -> None:
    # Readout takes `n_neurons`; had it been given `unused` too, it would not have been built.
    assert trained.supplied == {"n_neurons": 3, "unused": 1}
    assert len(trained.results) == 2


def test_a_worker_without_the_plugin_leaves_its_tasks_alone(trained: Trained) -> None:
    place = trained.place
    place.environment.uninstall("lab-kit")
    try:
        first = place.synicix("populate")
        assert first.returncode == 0, first.stderr
        results, tried, _ = place.python(READ)
        assert trained.waiting_for_others in results
        assert trained.waiting not in tried

        second = place.synicix("populate")
        assert second.returncode == 78, second.stdout + second.stderr
        assert "lab-kit is not installed" in second.stdout + second.stderr
    finally:
        place.environment.install(PLUGINS / "lab_kit")

    third = place.synicix("populate")
    assert third.returncode == 0, third.stderr
    results, tried, _ = place.python(READ)
    assert trained.waiting in results
    assert tried.count(trained.waiting) == 1
