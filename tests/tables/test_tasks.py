"""Tasks are combinations of configs that exist and fit each other."""

from __future__ import annotations

import itertools

import pytest

from synicix_core.errors import ParamsError
from tests.rows import DATASET, MODEL, TRAINING, insert_tasks

pytestmark = pytest.mark.database


def test_all_combinations_in_the_old_way(pipeline):
    insert_tasks(
        pipeline, trainings=[{"seed": seed} for seed in range(3)], models=[{}, {"model_class_params": {"bias": False}}]
    )
    assert len(pipeline.TrainingTask()) == 6
    joined = pipeline.TrainingTask * pipeline.ModelConfig * pipeline.TrainingConfig & "seed = 1"
    assert len(joined) == 2


def test_inserting_tasks_twice_adds_nothing(pipeline):
    first = insert_tasks(pipeline)
    assert insert_tasks(pipeline) == first
    assert len(pipeline.TrainingTask()) == 1


def test_new_tasks_are_queued(pipeline):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    jobs = pipeline.TrainingResult.jobs.pending
    assert set(jobs.to_arrays("training_task_md5_hash")) == set(tasks)


def test_a_task_names_configs_that_exist(pipeline):
    insert_tasks(pipeline)
    key = pipeline.TrainingTask.fetch1()
    key.pop("training_task_md5_hash")
    with pytest.raises(ParamsError) as caught:
        pipeline.TrainingTask.insert_tuples(
            [{**key, "model_config_md5_hash": "0" * 32}, {"model_config_md5_hash": None}]
        )
    found = dict(caught.value.mistakes)
    assert "there is no ModelConfig" in found["row 1.model_config_md5_hash"]
    assert "is missing" in found["row 2.dataset_config_md5_hash"]


def test_a_parameter_that_nobody_supplies_is_found_when_the_task_is_inserted(pipeline):
    with pytest.raises(ParamsError, match="needs the parameter 'width'"):
        insert_tasks(pipeline, models=[{"model_provider": "NeedsMore"}])
    assert len(pipeline.TrainingTask()) == 0


def test_a_parameter_may_come_from_the_dataset(pipeline):
    datasets = [{"dataset_class_params": {"offer": "width"}}]
    assert len(insert_tasks(pipeline, models=[{"model_provider": "NeedsMore"}], datasets=datasets)) == 1


def test_a_parameter_of_both_dataset_and_model_config_is_refused(pipeline):
    models = [{"model_provider": "NeedsMore", "model_class_params": {"width": 3}}]
    with pytest.raises(ParamsError, match="set it in one place"):
        insert_tasks(pipeline, models=models, datasets=[{"dataset_class_params": {"offer": "width"}}])


def test_what_the_model_does_not_name_is_not_supplied_to_it(pipeline):
    assert len(insert_tasks(pipeline, datasets=[{"dataset_class_params": {"offer": "unheard_of"}}])) == 1


def test_methods_work_on_the_class_and_on_an_instance(pipeline):
    assert len(pipeline.ModelConfig.insert_tuples([MODEL]).new) == 1
    assert len(pipeline.ModelConfig().insert_tuples([MODEL]).existing) == 1
    assert len(pipeline.DatasetConfig.prepare([DATASET]).rows) == 1
    assert len(pipeline.TrainingConfig().prepare([TRAINING]).rows) == 1
    assert len(pipeline.TrainingConfig()) == 0


def test_a_diagram_shows_the_six_tables(pipeline):
    import datajoint

    names = {name.rpartition(".")[2].strip('`"') for name in datajoint.Diagram(pipeline.schema).nodes_to_show}
    assert {
        "dataset_config",
        "model_config",
        "training_config",
        "training_task",
        "training_attempt",
        "__training_result",
    } <= names


def test_every_two_tables_can_be_joined(pipeline):
    tables = [
        pipeline.DatasetConfig, pipeline.ModelConfig, pipeline.TrainingConfig, pipeline.TrainingTask,
        pipeline.TrainingAttempt, pipeline.TrainingResult,
    ]  # fmt: skip
    insert_tasks(pipeline)
    for left, right in itertools.combinations(tables, 2):
        assert len(left * right) in (0, 1), (left, right)
    everything = tables[0]
    for table in (*tables[1:4], tables[5]):
        everything = everything * table
    assert len(everything) == 0


def test_deleting_a_config_deletes_its_tasks(pipeline):
    insert_tasks(pipeline)
    pipeline.ModelConfig().delete(prompt=False)
    assert len(pipeline.TrainingTask()) == 0
    pipeline.queue.enqueue()
    assert len(pipeline.TrainingResult.jobs) == 0
