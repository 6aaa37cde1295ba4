"""What is found, what is removed, what is never touched, and when nothing is."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synicix_core import Pipeline
from synicix_core.errors import ConfigurationError
from synicix_core.runner.leftover_removal import remove_leftovers
from synicix_core.runner.leftovers import find_leftovers
from synicix_core.tables.housekeeping import result_files
from synicix_core.tables.transfer_export import export_database
from synicix_core.tables.transfer_file import ExportFile
from synicix_core.tables.transfer_import import import_database
from tests.rows import insert_tasks
from tests.saved import claim, commit, finish, histories, names, store_dir, touch
from tests.transferred import drop_schema

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
STRANGER = "f" * 32


@pytest.fixture
def tasks(pipeline):
    return insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)])


def find(pipeline):
    return find_leftovers(pipeline.tables, pipeline.settings.model_save_dir)


def found(pipeline) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in find(pipeline).leftovers}


def remove(pipeline, **options):
    return remove_leftovers(pipeline.tables, pipeline.settings.model_save_dir, find(pipeline), **options)


def lose(pipeline, *files: str) -> None:
    for name in files:
        (pipeline.settings.model_save_dir / name).unlink()


def history_names(pipeline, task: str) -> set[str]:
    """Return the names of the files in the store that the result of a task refers to."""
    rows = [row for row in result_files(pipeline.tables) if row.task == task]
    return {path.rpartition("/")[2] for row in rows for path in row.histories}


def test_nothing_is_left_over_after_a_clean_run(pipeline, tasks):
    for task in tasks[:3]:
        finish(pipeline, task)
    assert find(pipeline).leftovers == () and remove(pipeline).files == 0


def test_the_files_of_attempts_that_ended_go_and_what_is_needed_stays(pipeline, tasks):
    finished, released, running = tasks[:3]
    pipeline.queue.release(claim(pipeline, finished))
    model = finish(pipeline, finished)
    for _ in range(2):
        pipeline.queue.release(claim(pipeline, released))
    pipeline.queue.release(claim(pipeline, running))
    claim(pipeline, running)
    needed = {
        model,
        f"{released}.2.checkpoint",
        f"{running}.1.checkpoint",
        f".{running}.2.partial.pt",
        f"{running}.2.pt",
    }
    needless = {
        f"{finished}.1.checkpoint",
        f"{finished}.2.checkpoint",
        f"{finished}.1.pt",
        f"{released}.1.checkpoint",
        f".{released}.1.partial.pt",
        f".{released}.2.checkpoint.0123456789abcdef.tmp",
    }
    foreign = {"README.md", "model.pt", f"{finished}.1.pt.bak"}
    touch(pipeline, *needed, *needless, *foreign)
    leftovers = find(pipeline).leftovers
    assert {item.name for item in leftovers} == needless and not any(item.unknown for item in leftovers)
    assert all(item.size == len("weights") and item.why for item in leftovers)
    removal = remove(pipeline)
    assert (removal.files, removal.size, removal.errors) == (6, 6 * len("weights"), [])
    assert names(pipeline) == needed | foreign


@pytest.mark.parametrize("end", ["error", "paused"])
def test_a_task_that_may_go_on_keeps_its_checkpoint(pipeline, tasks, end):
    held = claim(pipeline, tasks[0])
    touch(pipeline, f"{tasks[0]}.1.checkpoint")
    pipeline.queue.release(held)
    status = {"error": "error", "paused": "ignore"}[end]
    pipeline.TrainingResult.jobs.update1({MD5: tasks[0], "status": status})
    remove(pipeline, unknown=True)
    assert names(pipeline) == {f"{tasks[0]}.1.checkpoint"}


def test_what_this_schema_knows_nothing_of_goes_only_when_asked(pipeline, tasks):
    pipeline.queue.release(claim(pipeline, tasks[0]))
    strange = {f"{STRANGER}.1.pt", f"{STRANGER}.1.checkpoint", f".{STRANGER}.1.partial.pt", f"{tasks[0]}.2.pt"}
    touch(pipeline, *strange)
    leftovers = find(pipeline).leftovers
    assert {item.name for item in leftovers} == strange and all(item.unknown for item in leftovers)
    assert {item.why for item in leftovers} == {"there is no such task here", "there is no such attempt here"}
    assert remove(pipeline).files == 0 and names(pipeline) == strange
    assert remove(pipeline, unknown=True).files == 4 and names(pipeline) == set()


def test_two_schemas_that_share_a_directory_keep_their_files(pipeline, tasks, monkeypatch):
    """The same task in both: attempts of one schema say nothing about the other's files."""
    finish(pipeline, tasks[0])
    other = Pipeline(schema_name=pipeline.schema_name + "_b", declare=True)
    try:
        insert_tasks(other, trainings=[{"seed": seed} for seed in range(6)])
        before = names(pipeline), histories(pipeline)
        assert all(item.unknown for item in find(other).leftovers)
        remove(other)
        assert (names(pipeline), histories(pipeline)) == before
    finally:
        drop_schema(other.connection, other.schema_name)
        other.connection.close()


@pytest.fixture
def moved(pipeline, tasks, tmp_path):
    """The rows of five results in a schema of another name, their files where they were."""
    for index, task in enumerate(tasks[:5]):
        finish(pipeline, task, [float(index)])
    export_database(pipeline.tables, tmp_path / "lab.synicix", pipeline.settings.model_save_dir, "")
    settings = dataclasses.replace(pipeline.settings, schema_name=pipeline.schema_name + "_b")
    there = Pipeline(settings=settings, declare=True)
    there.connection._config.stores = pipeline.connection._config.stores
    export = ExportFile(tmp_path / "lab.synicix")
    import_database(there.tables, export, settings.model_save_dir, there.registry, files="none")
    yield there
    drop_schema(there.connection, there.schema_name)
    there.connection.close()


def test_histories_of_the_schema_that_rows_were_moved_from_are_found_and_left_alone(pipeline, tasks, moved):
    assert find(moved).refusal is None and find(moved).leftovers == ()
    # One of its own, and one that no row of it refers to.
    finish(moved, tasks[5], [5.0])
    (moved.TrainingResult & {MD5: tasks[0]}).delete(prompt=False)
    assert found(moved) == {("model", f"{tasks[0]}.1.pt")}
    (lost,) = history_names(pipeline, tasks[1])
    (store_dir(pipeline) / lost).unlink()
    before = histories(pipeline)
    assert ("result", tasks[1]) in found(moved)
    removal = remove(moved)
    assert (removal.results, removal.queued) == (1, 2) and histories(pipeline) == before
    assert histories(moved) == history_names(moved, tasks[5])
    # That all of them are missing is still no reason to remove anything.
    shutil.rmtree(store_dir(pipeline))
    assert "the histories of 3 of 4 results are not where" in str(find(moved).refusal)


def test_so_they_are_in_an_object_store(pipeline, remote_store, tasks, moved):
    assert find(moved).refusal is None and find(moved).leftovers == ()
    folder = f"/lab/results/_hash/{pipeline.schema_name}"
    remote_store.rm(sorted(remote_store.find(folder))[0])
    assert [kind for kind, _ in found(moved)].count("result") == 1


def test_so_they_are_where_the_store_has_another_layout_by_now(pipeline, tasks):
    for index, task in enumerate(tasks[:5]):
        finish(pipeline, task, [float(index)])
    config, name = pipeline.connection._config, "external_training_result"
    config.stores = {**config.stores, name: {**config.stores[name], "hash_prefix": "_elsewhere"}}
    assert find(pipeline).refusal is None and find(pipeline).leftovers == ()
    (lost,) = history_names(pipeline, tasks[1])
    (store_dir(pipeline) / lost).unlink()
    assert ("result", tasks[1]) in found(pipeline)


def test_histories_of_no_result_go_and_shared_ones_stay(pipeline, tasks):
    finish(pipeline, tasks[0], [1.0])
    finish(pipeline, tasks[1], [1.0])
    finish(pipeline, tasks[2], [2.0])
    (shared,) = history_names(pipeline, tasks[0])
    (store_dir(pipeline) / f"{shared}.saving").write_text("half")  # DataJoint's own
    (store_dir(pipeline) / f"{shared}.0123456789abcdef.saving").write_text("half")
    (store_dir(pipeline) / "notes.txt").write_text("mine")
    for task in tasks[1:3]:
        (pipeline.TrainingResult & {MD5: task}).delete(prompt=False)
    listed = [item for item in find(pipeline).leftovers if item.kind == "history"]
    assert len(listed) == 3 and all(item.size > 0 and not item.unknown for item in listed)
    remove(pipeline)
    assert histories(pipeline) == {shared, "notes.txt"}


def test_histories_in_folds_are_found(project, tasks_in_folds):
    pipeline, tasks = tasks_in_folds
    finish(pipeline, tasks[0], [1.0])
    finish(pipeline, tasks[1], [2.0])
    (pipeline.TrainingResult & {MD5: tasks[1]}).delete(prompt=False)
    (item,) = (item for item in find(pipeline).leftovers if item.kind == "history")
    *_, first, second, name = item.name.split("/")
    assert name.startswith(first + second)
    remove(pipeline)
    assert len(histories(pipeline)) == 1
    assert list((pipeline.TrainingResult & {MD5: tasks[0]}).fetch1("training_epoch_loss_history")) == [1.0]


@pytest.fixture
def tasks_in_folds(project, pipeline):
    stores = pipeline.connection._config.stores
    name = "external_training_result"
    pipeline.connection._config.stores = {**stores, name: {**stores[name], "subfolding": [2, 3]}}
    return pipeline, insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])


def test_a_store_of_which_no_result_has_a_file_may_be_somebody_elses(pipeline, tasks):
    finish(pipeline, tasks[0])
    pipeline.TrainingResult.delete(prompt=False)
    (item,) = (item for item in find(pipeline).leftovers if item.kind == "history")
    assert item.unknown
    remove(pipeline)
    assert len(histories(pipeline)) == 1
    remove(pipeline, unknown=True)
    assert histories(pipeline) == set()


def test_a_store_that_another_table_uses_as_well_is_left_alone(pipeline, tasks, monkeypatch):
    finish(pipeline, tasks[0], [1.0])
    finish(pipeline, tasks[1], [2.0])
    (pipeline.TrainingResult & {MD5: tasks[1]}).delete(prompt=False)
    monkeypatch.setattr("synicix_core.runner.leftovers.other_tables_in_store", lambda _: ["note"])
    result = find(pipeline)
    assert not any(item.kind == "history" for item in result.leftovers)
    assert "note in this schema keeps files there, too" in result.notes[0]


def test_a_store_that_cannot_be_listed_is_skipped(pipeline, tasks):
    finish(pipeline, tasks[0])
    touch(pipeline, f"{tasks[0]}.1.checkpoint")
    location = store_dir(pipeline).parents[1]
    location.rename(location.with_name("unplugged"))
    result = find(pipeline)
    assert "is skipped, because it cannot be listed" in result.notes[0]
    assert [item.kind for item in result.leftovers] == ["checkpoint"]


def test_a_remote_store_is_listed_through_datajoint(pipeline, tasks, remote_store):
    finish(pipeline, tasks[0], [1.0])
    finish(pipeline, tasks[1], [2.0])
    finish(pipeline, tasks[2], [3.0])
    (pipeline.TrainingResult & {MD5: tasks[1]}).delete(prompt=False)
    (item,) = (item for item in find(pipeline).leftovers if item.kind == "history")
    assert item.size == remote_store.size(f"/lab/results/{item.name}") and not item.unknown
    remove(pipeline)
    assert len(remote_store.find("/lab/results")) == 2
    # Gone behind our back: the storage itself is asked.
    remote_store.rm(sorted(remote_store.find("/lab/results"))[0])
    assert [item.kind for item in find(pipeline).leftovers].count("result") == 1


@pytest.fixture
def remote_store(pipeline, monkeypatch):
    """A store in memory, reached as one on S3 is."""
    import fsspec
    from datajoint import storage_adapter

    class Memory(storage_adapter.StorageAdapter):
        protocol = "memory"
        allowed_keys = ("location",)

        def create_filesystem(self, spec):
            return fsspec.filesystem("memory")

    monkeypatch.setitem(storage_adapter._adapter_registry, "memory", Memory())
    config = pipeline.connection._config
    config.stores = {**config.stores, "external_training_result": {"protocol": "memory", "location": "lab/results"}}
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/lab", recursive=True)


def test_a_result_whose_model_is_gone_goes_and_its_task_is_trained_again(pipeline, tasks):
    for index, task in enumerate(tasks):
        finish(pipeline, task, [float(index)])
    lose(pipeline, f"{tasks[2]}.1.pt")
    assert {kind for kind, _ in found(pipeline)} == {"history", "result"}
    removal = remove(pipeline)
    assert (removal.results, removal.queued, removal.files) == (1, 1, 1)
    assert set(pipeline.TrainingResult.to_arrays(MD5)) == set(tasks) - {tasks[2]}
    assert len(histories(pipeline)) == 5 and find(pipeline).leftovers == ()
    assert claim(pipeline, tasks[2]).attempt == 2


def test_a_result_whose_history_is_gone_goes_with_its_model(pipeline, tasks):
    for index, task in enumerate(tasks):
        finish(pipeline, task, [float(index)])
    (name,) = history_names(pipeline, tasks[2])
    (store_dir(pipeline) / name).unlink()
    assert found(pipeline) == {("result", tasks[2]), ("model", f"{tasks[2]}.1.pt")}
    remove(pipeline)
    assert found(pipeline) == set() and len(names(pipeline)) == 5
    assert len(pipeline.TrainingResult()) == 5


def test_a_result_whose_model_came_back_meanwhile_stays_with_its_files(pipeline, tasks):
    for index, task in enumerate(tasks):
        finish(pipeline, task, [float(index)])
    lose(pipeline, f"{tasks[2]}.1.pt")
    findings = find(pipeline)
    touch(pipeline, f"{tasks[2]}.1.pt")
    removal = remove_leftovers(pipeline.tables, pipeline.settings.model_save_dir, findings)
    assert (removal.results, removal.files, removal.kept) == (0, 0, 2)
    assert list((pipeline.TrainingResult & {MD5: tasks[2]}).fetch1("training_epoch_loss_history")) == [2.0]


def test_what_a_worker_took_up_meanwhile_stays(pipeline, tasks):
    pipeline.queue.release(claim(pipeline, tasks[0]))
    touch(pipeline, f"{tasks[0]}.1.pt", f"{tasks[0]}.2.pt")
    findings = find(pipeline)
    held = claim(pipeline, tasks[0])
    removal = remove_leftovers(pipeline.tables, pipeline.settings.model_save_dir, findings, unknown=True)
    assert names(pipeline) == {f"{tasks[0]}.2.pt"} and (removal.files, removal.kept) == (1, 1)
    commit(pipeline, held)
    assert find(pipeline).leftovers == ()


def test_a_file_that_was_written_anew_meanwhile_stays(pipeline, tasks):
    pipeline.queue.release(claim(pipeline, tasks[0]))
    touch(pipeline, f"{tasks[0]}.1.pt")
    findings = find(pipeline)
    lose(pipeline, f"{tasks[0]}.1.pt")
    time.sleep(0.01)
    touch(pipeline, f"{tasks[0]}.1.pt", content="new")
    assert remove_leftovers(pipeline.tables, pipeline.settings.model_save_dir, findings).kept == 1
    assert names(pipeline) == {f"{tasks[0]}.1.pt"}


@pytest.mark.parametrize("lost", ["one of one", "all of three", "three of five", "directory", "store"])
def test_a_disk_that_is_not_mounted_is_no_reason_to_remove_anything(pipeline, tasks, lost):
    directory = pipeline.settings.model_save_dir
    amount = {"one of one": 1, "all of three": 3}.get(lost, 5)
    models = [finish(pipeline, task, [float(index)]) for index, task in enumerate(tasks[:amount])]
    if lost == "directory":
        shutil.rmtree(directory)
    elif lost == "store":
        shutil.rmtree(store_dir(pipeline))
    else:
        lose(pipeline, *models[: {"one of one": 1}.get(lost, 3)])
        touch(pipeline, f"{tasks[0]}.1.checkpoint")
    files = names(pipeline) if directory.exists() else None
    refusal = find(pipeline).refusal
    assert refusal is not None and refusal.exit_code == 2
    with pytest.raises(ConfigurationError, match=r"results are not where they should be.*not mounted"):
        remove(pipeline, unknown=True)
    assert len(pipeline.TrainingResult()) == amount
    assert files is None or names(pipeline) == files


def test_half_of_the_models_may_have_been_lost(pipeline, tasks):
    models = [finish(pipeline, task) for task in tasks[:4]]
    lose(pipeline, *models[:2])
    assert remove(pipeline).results == 2


def test_what_cannot_be_removed_is_said_and_the_rest_goes(pipeline, tasks, monkeypatch):
    finish(pipeline, tasks[0])
    touch(pipeline, f"{tasks[0]}.1.checkpoint", f".{tasks[0]}.1.partial.pt")
    unlink = Path.unlink

    def refuse(path, *args, **kwargs):
        if path.suffix == ".checkpoint":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", refuse)
    removal = remove(pipeline)
    assert removal.errors == [(f"{tasks[0]}.1.checkpoint", "Permission denied")] and removal.files == 1


def test_killed_at_any_time_it_leaves_nothing_that_is_not_found_again(pipeline, tasks):
    for index, task in enumerate(tasks[:5]):
        finish(pipeline, task, [float(index)])
    lose(pipeline, f"{tasks[4]}.1.pt")
    needless = [f".{tasks[0]}.1.checkpoint.{number:016x}.tmp" for number in range(3000)]
    touch(pipeline, *needless)
    alphabet = "abcdefghijklmnop"
    for number in range(3000):
        name = "".join(alphabet[int(digit, 16)] for digit in f"{number:026x}")
        (store_dir(pipeline) / name).write_text("blob")
    everything = len(names(pipeline)) + len(histories(pipeline))
    kills = 0
    for goal in (1, 1500, 3500, 5000):
        child = subprocess.Popen([sys.executable, "-m", "synicix_core.cli", "gc", "--yes"], stdout=subprocess.DEVNULL)
        while child.poll() is None and everything - len(names(pipeline)) - len(histories(pipeline)) < goal:
            time.sleep(0.002)
        kills += child.poll() is None
        child.kill()
        child.wait()
        for task in tasks[:4]:
            assert len((pipeline.TrainingResult & {MD5: task}).fetch1("training_epoch_loss_history")) == 1
    assert kills >= 2
    remove(pipeline)
    assert find(pipeline).leftovers == ()
    assert len(names(pipeline)) == 4 and len(histories(pipeline)) == 4
    assert len(pipeline.TrainingResult()) == 4 and claim(pipeline, tasks[4]).attempt == 2
