"""Configs are checked when they are inserted: all mistakes at once, nothing inserted."""

from __future__ import annotations

import os

import pytest

from synicix_core.errors import ParamsError
from tests.rows import DATASET, MODEL, TRAINING

pytestmark = pytest.mark.database


def mistakes(table, *rows):
    with pytest.raises(ParamsError) as caught:
        table.insert_tuples(rows)
    assert len(table()) == 0
    return dict(caught.value.mistakes)


def test_rows_are_completed_and_counted(pipeline):
    report = pipeline.DatasetConfig.insert_tuples([DATASET])
    assert (len(report.new), len(report.existing)) == (1, 0)
    row = pipeline.DatasetConfig.fetch1()
    assert row["dataset_provider"] == "toy-lab/Points"
    assert row["dataset_type"] == "Points"
    assert (row["input_shape"], row["output_shape"], row["additional_model_params"]) == ([3], [1], {})
    assert row["train_sampler_provider"] == ""
    again = pipeline.DatasetConfig().insert_tuple([DATASET, DATASET])
    assert (again.new, again.existing) == ([], report.new)
    assert str(again) == "DatasetConfig: 0 new, 1 there already"


def test_defaults_and_short_names_are_filled_in(pipeline):
    pipeline.TrainingConfig.insert_tuples([{"criterion_provider": "MSELoss"}])
    row = pipeline.TrainingConfig.fetch1()
    assert row["trainer_provider"] == "synicix-core/NNTrainer"
    assert row["optimizer_provider"] == "synicix-core/Adam"
    assert row["metrics"] == [{"provider": "synicix-core/loss", "params": {}}]
    assert (row["batch_size"], row["epoch_limit"], row["seed"]) == (128, 100, 0)


def test_the_label_the_file_name_and_neutral_parameters_stay_out_of_the_md5(pipeline, project):
    (project / "datasets" / "copy.txt").write_text("2.0")
    same = [
        DATASET,
        {**DATASET, "dataset_type": "another label"},
        {**DATASET, "dataset_file_name": "copy.txt"},
        {**DATASET, "dataset_class_params": {"chunk": 7}},
    ]
    assert len(pipeline.DatasetConfig.insert_tuples(same).new) == 1


def test_whatever_changes_the_numbers_changes_the_md5(pipeline, project):
    (project / "datasets" / "steep.txt").write_text("3.0")
    other = [
        DATASET,
        {**DATASET, "dataset_file_name": "steep.txt"},
        {**DATASET, "dataset_class_params": {"n": 17}},
        {**DATASET, "train_sampler_provider": "SequentialSampler"},
        {**DATASET, "validation_sampler_provider": "SequentialSampler"},
    ]
    assert len(pipeline.DatasetConfig.insert_tuples(other).new) == len(other)


def test_integers_for_floats_are_the_same_config(pipeline):
    rows = [{**MODEL, "model_class_params": {"penalty": penalty}} for penalty in (1, 1.0)]
    assert len(pipeline.ModelConfig.insert_tuples(rows).new) == 1
    assert isinstance(pipeline.ModelConfig.fetch1("model_class_params")["penalty"], float)


def test_what_the_database_gives_back_has_the_same_md5(pipeline):
    from synicix_core.hashing import content_md5

    values = {"how": "well", "seconds": 1e16}
    training = {**TRAINING, "trainer_provider": "Misbehaving", "trainer_class_params": values}
    pipeline.TrainingConfig.insert_tuples([training])
    given_back = pipeline.TrainingConfig.fetch1("trainer_class_params")
    assert content_md5(given_back) == content_md5(values)
    assert pipeline.TrainingConfig.insert_tuples([{**training, "trainer_class_params": given_back}]).new == []


def test_all_mistakes_of_a_batch_are_reported_and_nothing_is_inserted(pipeline):
    found = mistakes(
        pipeline.ModelConfig,
        MODEL,
        {"model_provider": "Lime"},
        {"model_provider": "Line", "model_class_params": {"penalty": "high", "bia": False}},
        {"model_class_params": {}},
        "Line",
    )
    assert "Did you mean Line" in found["row 2.model_provider"]
    assert "expected float" in found["row 3.model_class_params.penalty"]
    assert "did you mean 'bias'" in found["row 3.model_class_params.bia"]
    assert "missing" in found["row 4.model_provider"]
    assert "a row is a dict" in found["row 5"]


def test_good_rows_may_be_inserted_without_the_bad_ones(pipeline):
    report = pipeline.ModelConfig.insert_tuples([MODEL, {"model_provider": "Lime"}], skip_invalid=True)
    assert len(report.new) == 1
    assert report.invalid[0][0] == "row 2.model_provider"


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"batch_size": 0}, "batch_size", "from 1"),
        ({"batch_size": 2.5}, "batch_size", "integer"),
        ({"batch_size": True}, "batch_size", "integer"),
        ({"epoch_limit": -1}, "epoch_limit", "from 1"),
        ({"seed": -1}, "seed", "from 0"),
        ({"metrics": []}, "metrics", "at least one"),
        ({"metrics": ["loss", "loss"]}, "metrics[1]", "twice"),
        ({"metrics": [{"provider": "loss", "parms": {}}]}, "metrics[0]", "provider and params"),
        ({"metrics": ["los"]}, "metrics[0].provider", "Did you mean loss"),
        ({"criterion_provider": 3}, "criterion_provider", "as a string"),
        ({"optimizer_class_params": {"lr": "x"}}, "optimizer_class_params.lr", "expected float"),
        ({"batchsize": 3}, "batchsize", "did you mean 'batch_size'"),
        ({"training_config_md5_hash": "x"}, "training_config_md5_hash", "computed"),
        ({"optimizer_provider": "torch.optim.Adam"}, "optimizer_provider", "no installed plugin"),
    ],
)
def test_a_mistake_in_a_training_config_is_named(pipeline, change, key, words):
    found = mistakes(pipeline.TrainingConfig, {**TRAINING, **change})
    assert words in found[f"row 1.{key}"]


@pytest.mark.parametrize("name", ["../line.txt", "/etc/passwd", "a/../../line.txt", "C:\\line.txt", "a\\b", ""])
def test_a_file_name_that_leads_out_of_dataset_dir_is_refused(pipeline, name):
    (message,) = mistakes(pipeline.DatasetConfig, {**DATASET, "dataset_file_name": name}).values()
    assert "not allowed" in message


def test_a_missing_file_is_answered_with_what_there_is(pipeline):
    (message,) = mistakes(pipeline.DatasetConfig, {**DATASET, "dataset_file_name": "lime.txt"}).values()
    assert "holds: line.txt" in message


def test_a_link_out_of_dataset_dir_is_refused_unless_allowed(pipeline, project, tmp_path, monkeypatch):
    from synicix_core import Pipeline

    (tmp_path / "elsewhere.txt").write_text("2.0")
    (project / "datasets" / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    row = {**DATASET, "dataset_file_name": "link.txt"}
    (message,) = mistakes(pipeline.DatasetConfig, row).values()
    assert "follow_symlinks" in message
    monkeypatch.setenv("SYNICIX_FOLLOW_SYMLINKS", "true")
    assert len(Pipeline().DatasetConfig.insert_tuples([row]).new) == 1


def test_dataset_dir_itself_may_be_a_link(pipeline, project, tmp_path):
    (project / "datasets").rename(tmp_path / "disk")
    (project / "datasets").symlink_to(tmp_path / "disk")
    assert len(pipeline.DatasetConfig.insert_tuples([DATASET]).new) == 1


def test_a_dataset_without_validation_examples_is_refused(pipeline):
    (message,) = mistakes(pipeline.DatasetConfig, {**DATASET, "dataset_class_params": {"empty": "validation"}}).values()
    assert "validation" in message


def test_a_file_that_the_dataset_cannot_read_is_named(pipeline, project):
    (project / "datasets" / "bad.txt").write_text("steep")
    (message,) = mistakes(pipeline.DatasetConfig, {**DATASET, "dataset_file_name": "bad.txt"}).values()
    assert "bad.txt" in message


def test_sampler_parameters_without_a_sampler_are_refused(pipeline):
    found = mistakes(pipeline.DatasetConfig, {**DATASET, "test_sampler_class_params": {"replacement": True}})
    assert "names no sampler" in found["row 1.test_sampler_class_params"]


def test_a_row_in_the_old_form_is_answered_with_the_new_form(pipeline):
    old = {
        "model_class_module_name": "synicix_ml_pipeline.models.SimpleMLP",
        "model_class_name": "SimpleMLP",
        "model_class_params": {"hidden_size": 1000},
    }
    (message,) = mistakes(pipeline.ModelConfig, old).values()
    assert "{'model_provider': 'SimpleMLP', 'model_class_params': {'hidden_size': 1000}}" in message


def test_an_old_dataset_row_keeps_its_samplers_in_the_new_form(pipeline):
    old = {
        "dataset_file_name": "line.txt",
        "dataset_type": "Points",
        "dataset_class_module_name": "lab.datasets",
        "dataset_class_name": "Points",
        "dataset_class_params": {},
        "train_sampler_module_name": "lab.samplers",
        "train_sampler_class_name": "RandomSampler",
        "train_sampler_class_params": {},
    }
    (message,) = mistakes(pipeline.DatasetConfig, old).values()
    new = eval(message.partition("\n")[2].strip())
    assert new["train_sampler_provider"] == "RandomSampler"
    assert len(pipeline.DatasetConfig.insert_tuples([new]).new) == 1


def test_a_null_in_a_row_is_an_error_not_a_crash(pipeline):
    found = mistakes(pipeline.ModelConfig, {"model_provider": None}, {**MODEL, "model_class_params": None})
    assert set(found) == {"row 1.model_provider", "row 2.model_class_params"}


def test_a_file_that_cannot_be_opened_is_named(pipeline, project):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (project / "datasets" / "line.txt").chmod(0)
    (message,) = mistakes(pipeline.DatasetConfig, DATASET).values()
    assert "Permission denied" in message
