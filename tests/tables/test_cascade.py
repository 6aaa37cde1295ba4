"""Deleting a config with DataJoint takes everything with it that was made of it; the queue and `gc` do the rest."""

from __future__ import annotations

import pytest

from synicix_core.runner.leftover_removal import remove_leftovers
from synicix_core.runner.leftovers import find_leftovers
from tests.rows import insert_tasks
from tests.saved import claim, finish, histories, names, touch

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
CHANGES = {
    "DatasetConfig": {"datasets": [{}, {"dataset_class_params": {"n": 32}}]},
    "ModelConfig": {"models": [{}, {"model_class_params": {"bias": False}}]},
    "TrainingConfig": {"trainings": [{}, {"seed": 1}]},
}


@pytest.mark.parametrize("table", list(CHANGES))
def test_deleting_a_config_takes_tasks_attempts_and_results_with_it(pipeline, table):
    insert_tasks(pipeline, **CHANGES[table])
    column = getattr(pipeline, table).primary_key[0]
    going, staying = sorted(pipeline.TrainingTask.to_dicts(), key=lambda row: row[column])
    lost = finish(pipeline, going[MD5], [1.0])
    kept = finish(pipeline, staying[MD5], [2.0])
    touch(pipeline, f"{going[MD5]}.1.checkpoint")

    (getattr(pipeline, table) & {column: going[column]}).delete(prompt=False)

    for name in ("TrainingTask", "TrainingAttempt", "TrainingResult"):
        left = getattr(pipeline, name).to_arrays(MD5)
        assert list(left) == [staying[MD5]], name
    assert names(pipeline) == {lost, kept, f"{going[MD5]}.1.checkpoint"}

    directory = pipeline.settings.model_save_dir
    found = find_leftovers(pipeline.tables, directory)
    assert {(item.kind, item.name.rpartition("/")[2], item.unknown) for item in found.leftovers if item.unknown} == {
        ("model", lost, True),
        ("checkpoint", f"{going[MD5]}.1.checkpoint", True),
    }
    # Its histories can be nobody else's, because each schema has its own part of the store.
    (history,) = (item for item in found.leftovers if item.kind == "history")
    assert not history.unknown and history.name.rpartition("/")[2] in histories(pipeline)
    remove_leftovers(pipeline.tables, directory, found, unknown=True)
    assert names(pipeline) == {kept} and len(histories(pipeline)) == 1
    row = (pipeline.TrainingResult & {MD5: staying[MD5]}).fetch1()
    assert list(row["training_epoch_loss_history"]) == [2.0]


def test_the_job_of_a_deleted_task_goes_when_tasks_are_queued(pipeline):
    going, staying = insert_tasks(pipeline, trainings=[{}, {"seed": 1}])
    (pipeline.TrainingTask & {MD5: going}).delete(prompt=False)
    assert set(pipeline.TrainingResult.jobs.to_arrays(MD5)) == {going, staying}
    pipeline.queue.enqueue()
    assert set(pipeline.TrainingResult.jobs.to_arrays(MD5)) == {staying}
    assert claim(pipeline, staying).task == staying


def test_a_task_that_is_deleted_and_added_again_is_trained_again(pipeline):
    (task,) = insert_tasks(pipeline)
    finish(pipeline, task)
    pipeline.TrainingConfig.delete(prompt=False)
    assert insert_tasks(pipeline) == [task]
    held = claim(pipeline, task)
    assert held.attempt == 1
