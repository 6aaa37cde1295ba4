"""A pipeline from Python, in the plain DataJoint way."""

from __future__ import annotations

import pytest
import torch

from synicix_core.errors import CheckpointError, ConfigurationError
from tests.rows import insert_tasks

pytestmark = pytest.mark.database


def test_populate_returns_datajoint_s_summary(pipeline):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    summary = pipeline.TrainingResult.populate("seed < 2", reserve_jobs=True, order="random")
    assert summary == {"success_count": 2, "error_list": []}
    assert pipeline.TrainingResult().populate(max_calls=1)["success_count"] == 1
    assert pipeline.TrainingResult.populate() == {"success_count": 0, "error_list": []}


def test_the_old_constructor_names_directories(pipeline, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "line.txt").write_text("2.0")
    insert_tasks(pipeline)
    result = pipeline.TrainingResult(
        dataset_dir=tmp_path / "data",
        dataset_cache_dir=tmp_path / "cache",
        model_save_dir=tmp_path / "models",
        num_workers=0,
    )
    assert result.populate(reserve_jobs=True, order="random")["success_count"] == 1
    assert (tmp_path / "models" / pipeline.TrainingResult.fetch1("model_save_path")).exists()


def test_errors_of_tasks_are_raised_unless_suppressed(pipeline):
    insert_tasks(pipeline, trainings=[{"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "raise"}}])
    with pytest.raises(ConfigurationError, match="the toy trainer failed"):
        pipeline.TrainingResult.populate()
    pipeline.queue.retry(list(pipeline.TrainingTask.to_arrays("training_task_md5_hash")))
    summary = pipeline.TrainingResult.populate(suppress_errors=True)
    assert summary["success_count"] == 0
    ((key, message),) = summary["error_list"]
    assert key == {"training_task_md5_hash": pipeline.TrainingTask.fetch1("training_task_md5_hash")}
    assert "failed" in message


@pytest.mark.parametrize("options", [{"reserve_jobs": False}, {"processes": 2}, {"order": "shuffled"}])
def test_what_populate_cannot_do_is_refused(pipeline, options):
    with pytest.raises(ConfigurationError):
        pipeline.TrainingResult.populate(**options)


def test_a_model_is_loaded_back_and_scores_the_same(pipeline):
    (task,) = insert_tasks(pipeline, trainings=[{"epoch_limit": 3}])
    pipeline.TrainingResult.populate()
    row = pipeline.TrainingResult.fetch1()
    for key in (task, task[:6], {"training_task_md5_hash": task}, pipeline.TrainingResult.keys()[0]):
        model = pipeline.load_model(key)
    assert not model.training
    output, penalty = model(torch.zeros(2, 3))
    assert output.shape == (2, 1)
    assert penalty.item() == 0.0
    assert pipeline.evaluate(task) == row["scores"]["test"]
    assert pipeline.evaluate(task, "validation") == row["scores"]["validation"]


def test_a_model_needs_no_dataset_to_be_loaded(pipeline, project):
    (task,) = insert_tasks(pipeline)
    pipeline.TrainingResult.populate()
    (project / "datasets" / "line.txt").unlink()
    assert pipeline.load_model(task) is not None


def test_a_model_file_that_is_gone_or_changed_is_refused(pipeline, project):
    (task,) = insert_tasks(pipeline)
    with pytest.raises(ConfigurationError, match="no result yet"):
        pipeline.load_model(task)
    pipeline.TrainingResult.populate()
    path = project / "models" / pipeline.TrainingResult.fetch1("model_save_path")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="sha256"):
        pipeline.load_model(task)
    path.unlink()
    with pytest.raises(CheckpointError, match="model"):
        pipeline.load_model(task)


@pytest.mark.parametrize("key", ["", "abc", "xyz!", "ffffffff", {"other": 1}])
def test_what_names_no_task_is_said(pipeline, key):
    with pytest.raises(ConfigurationError, match="does not name a task"):
        pipeline.task(key)
