"""An import into a schema with rows: what is the same is skipped, what is further goes on, what contradicts is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import time

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.tables import transfer_import
from synicix_core.tables.queue import Problem
from synicix_core.tables.queue_control import pause, set_priority
from synicix_core.tables.transfer_columns import Column
from synicix_core.tables.transfer_conflicts import ImportConflicts
from synicix_core.tables.transfer_export import export_database
from synicix_core.tables.transfer_file import ExportFile
from synicix_core.tables.transfer_import import import_database
from synicix_core.tables.transfer_write import RowWriter
from tests.rows import insert_tasks
from tests.saved import RESULT, claim, touch
from tests.transferred import MD5, contents, drop_schema, fill

pytestmark = pytest.mark.database


@pytest.fixture
def target(pipeline):
    name = pipeline.schema_name + "_b"
    made = Pipeline(settings=dataclasses.replace(pipeline.settings, schema_name=name), declare=True)
    yield made
    drop_schema(made.connection, name)
    made.connection.close()


@pytest.fixture
def tasks(pipeline):
    return sorted(insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(4)]))


@pytest.fixture
def move(tmp_path):
    def moved(source, to, **options):
        path = tmp_path / f"{time.monotonic_ns()}.synicix"
        export_database(source.tables, path, source.settings.model_save_dir, "the lab's")
        return import_database(
            to.tables, ExportFile(path), to.settings.model_save_dir, to.registry, **{"files": "none", **options}
        )

    return moved


def finish(pipeline, task, score=0.5):
    held = claim(pipeline, task)
    model = f"{task}.{held.attempt}.pt"
    touch(pipeline, model)
    pipeline.queue.commit(held, {**RESULT, "model_save_path": model, "test_score": score})


def job(pipeline, task):
    return (pipeline.TrainingResult().jobs & {MD5: task}).fetch1()


def test_back_again_with_what_was_done_meanwhile(pipeline, target, tasks, move):
    finish(pipeline, tasks[0])
    pipeline.queue.release(claim(pipeline, tasks[1]))
    assert move(pipeline, target).tasks == {"new": 4}
    finish(target, tasks[1], 0.25)
    target.queue.fail(claim(target, tasks[2]), Problem("ValueError: no", "stack"))
    insert_tasks(target, trainings=[{"seed": 9}])
    done = move(target, pipeline)
    assert done.tasks == {"same": 2, "ahead": 2, "new": 1} and done.conflicts == []
    assert done.new == {
        "DatasetConfig": 0,
        "ModelConfig": 0,
        "TrainingConfig": 1,
        "TrainingTask": 1,
        "TrainingAttempt": 2,
        "TrainingResult": 1,
        "Job": 2,
    }
    assert contents(pipeline) == contents(target)
    assert job(pipeline, tasks[2])["status"] == "error" and len(pipeline.TrainingResult().jobs & {MD5: tasks[1]}) == 0


def test_an_older_export_takes_nothing_back(pipeline, target, tasks, move, tmp_path):
    move(pipeline, target)
    finish(target, tasks[0])
    target.queue.fail(claim(target, tasks[1]), Problem("no"))
    set_priority(target.tables, [tasks[2]], 1)
    before = contents(target)
    done = move(pipeline, target)
    assert done.tasks == {"behind": 3, "same": 1} and sum(done.new.values()) == 0
    assert contents(target) == before


def test_a_result_that_was_deleted_to_be_trained_again_stays_deleted(pipeline, target, tasks, move):
    finish(pipeline, tasks[0])
    move(pipeline, target)
    (target.TrainingResult & {MD5: tasks[0]}).delete(prompt=False)
    target.queue.enqueue()
    assert move(pipeline, target).tasks == {"behind": 1, "same": 3}
    assert len(target.TrainingResult()) == 0 and job(target, tasks[0])["status"] == "pending"


def test_a_task_that_only_stands_there_gets_everything(pipeline, target, tasks, move):
    insert_tasks(target, trainings=[{"seed": seed} for seed in range(4)])
    pause(target.tables, tasks[:2])
    finish(pipeline, tasks[0])
    done = move(pipeline, target)
    assert done.tasks == {"ahead": 1, "behind": 3} and done.there["DatasetConfig"] == 1
    assert len(target.TrainingResult()) == 1 and len(target.TrainingResult().jobs) == 3
    # What people decided about a task that is no further in the export stays.
    assert job(target, tasks[1])["status"] == "ignore"


def test_another_result_is_a_conflict_and_nothing_is_imported(pipeline, target, tasks, move):
    insert_tasks(target, trainings=[{"seed": seed} for seed in range(4)])
    finish(pipeline, tasks[0], 0.5)
    finish(target, tasks[0], 0.75)
    finish(pipeline, tasks[1])
    insert_tasks(pipeline, trainings=[{"seed": 9}])
    before = contents(target)
    with pytest.raises(ImportConflicts) as found:
        move(pipeline, target)
    (conflict,) = found.value.conflicts
    assert conflict.task == tasks[0] and tasks[0][:8] in str(found.value) and "--keep-existing" in str(found.value)
    assert contents(target) == before
    done = move(pipeline, target, keep_existing=True)
    assert done.tasks == {"conflict": 1, "ahead": 1, "behind": 2, "new": 1} and done.conflicts == [conflict]
    assert (target.TrainingResult & {MD5: tasks[0]}).fetch1("test_score") == 0.75
    assert len(target.TrainingResult()) == 2 and len(target.TrainingTask()) == 5


def test_an_attempt_of_another_worker_is_a_conflict(pipeline, target, tasks, move):
    insert_tasks(target, trainings=[{"seed": seed} for seed in range(4)])
    pipeline.queue.release(claim(pipeline, tasks[0]))
    claim(target, tasks[0])
    finish(target, tasks[1])
    pipeline.queue.fail(claim(pipeline, tasks[1]), Problem("no"))
    with pytest.raises(ImportConflicts) as found:
        move(pipeline, target)
    assert [conflict.task for conflict in found.value.conflicts] == tasks[:2]
    assert "a worker on node7 is training it here" in str(found.value)
    here = (target.TrainingAttempt & {MD5: tasks[1]}).fetch1("started_at").strftime("%Y-%m-%d %H:%M:%S UTC")
    assert (
        f"its attempt 1 is another one here: finished on node7, begun {here}; in the export: failed on node7, begun 20"
        in str(found.value)
    )


def test_a_conflict_comes_before_the_files_which_may_be_of_the_same_names(pipeline, target, tasks, move):
    """Whoever was told to copy the files first would write over the models that are here."""
    insert_tasks(target, trainings=[{"seed": seed} for seed in range(4)])
    finish(pipeline, tasks[0], 0.5)
    finish(target, tasks[0], 0.75)
    finish(pipeline, tasks[1])
    models = pipeline.settings.model_save_dir
    (models / f"{tasks[1]}.1.pt").unlink()
    for files in ("sample", "all"):
        with pytest.raises(ImportConflicts) as found:
            move(pipeline, target, files=files)
        assert [conflict.task for conflict in found.value.conflicts] == [tasks[0]]
        # Those of other tasks are asked for once that is settled, those of this one never.
        with pytest.raises(ConfigurationError, match=rf"files of 1 of 1 results .*{tasks[1]}"):
            move(pipeline, target, files=files, keep_existing=True)
    assert len(target.TrainingResult()) == 1
    sha256 = hashlib.sha256(b"weights").hexdigest()
    (models / f"{tasks[1]}.1.pt").write_text("weights")
    pipeline.TrainingResult().update1({MD5: tasks[1], "model_sha256": sha256})
    (models / f"{tasks[0]}.1.pt").write_text("the model that is here")
    for files, new in (("sample", 1), ("all", 0)):
        done = move(pipeline, target, files=files, keep_existing=True)
        assert done.results_looked_at == 1 and done.new["TrainingResult"] == new


def test_the_files_of_a_result_that_was_deleted_here_are_not_asked_for(pipeline, target, tasks, move):
    finish(pipeline, tasks[0])
    move(pipeline, target)
    (target.TrainingResult & {MD5: tasks[0]}).delete(prompt=False)
    (pipeline.settings.model_save_dir / f"{tasks[0]}.1.pt").unlink()
    assert move(pipeline, target, files="all").results_looked_at == 0


def test_a_worker_that_claims_meanwhile_is_noticed(pipeline, target, tasks, move, monkeypatch):
    insert_tasks(target, trainings=[{"seed": seed} for seed in range(4)])
    finish(pipeline, tasks[0])
    other = Pipeline(settings=target.settings)
    compare = transfer_import.compare

    def slowly(theirs, here, tables):
        if theirs.key == tasks[0]:
            claim(other, tasks[0])
        return compare(theirs, here, tables)

    monkeypatch.setattr(transfer_import, "compare", slowly)
    with pytest.raises(DatabaseUnavailable, match="workers took tasks while they were imported"):
        move(pipeline, target)
    assert len(target.TrainingResult()) == 0
    other.connection.close()


def test_configs_that_differ_in_what_their_md5_does_not_cover_stay(pipeline, target, tasks, move):
    insert_tasks(target, datasets=[{"dataset_type": "another label"}])
    done = move(pipeline, target)
    (note,) = done.notes
    assert "DatasetConfig" in note and "dataset_type" in note
    assert target.DatasetConfig().fetch1("dataset_type") == "another label"


def test_a_job_left_of_a_deleted_task_is_no_obstacle(pipeline, target, tasks, move):
    insert_tasks(target, trainings=[{"seed": 0}])
    (left,) = target.TrainingTask().to_arrays(MD5)
    execute(target.connection, f"DELETE FROM {target.TrainingTask.full_table_name}")
    assert job(target, left)["status"] == "pending"
    set_priority(pipeline.tables, [left], 2)
    assert move(pipeline, target).tasks == {"new": 4} and job(target, left)["priority"] == 2
    # Nor is such a one exported.
    execute(target.connection, f"DELETE FROM {target.TrainingTask.full_table_name} WHERE {MD5} = '{left}'")
    assert move(target, pipeline).tasks == {"same": 3}


def test_what_the_database_returns_otherwise_is_refused(pipeline, target, tasks, move, monkeypatch):
    held = claim(pipeline, tasks[0])
    pipeline.queue.heartbeat(held, {"epoch": 1, "train_loss": 0.1 + 0.2})
    pipeline.queue.release(held)
    decode = Column._decode
    monkeypatch.setattr(Column, "_decode", lambda self, value: 0.3 if self.kind == "float" else decode(self, value))
    with pytest.raises(
        ConfigurationError, match=r"returns a row otherwise .*train_loss.*0.30000000000000004 became 0.3"
    ):
        move(pipeline, target)
    assert len(target.TrainingTask()) == 0


def test_a_killed_import_leaves_nothing(pipeline, target, tmp_path, server):
    fill(pipeline)
    path = tmp_path / "lab.synicix"
    export_database(pipeline.tables, path, pipeline.settings.model_save_dir, "")
    program = (
        "import os, signal, sys, pathlib\n"
        "from synicix_core import Pipeline\n"
        "from synicix_core.tables import transfer_import\n"
        "from synicix_core.tables.transfer_file import ExportFile\n"
        "pipeline = Pipeline()\n"
        "transfer_import._Import._record = lambda self, file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "transfer_import.import_database(pipeline.tables, ExportFile(pathlib.Path(sys.argv[1])),\n"
        "    pipeline.settings.model_save_dir, pipeline.registry)\n"
    )
    environment = {**os.environ, "SYNICIX_SCHEMA_NAME": target.schema_name}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, timeout=120, env=environment
    )
    assert ended.returncode == -9
    assert {name: len(rows) for name, rows in contents(target).items() if rows} == {}
    # The lock of the one that was killed went with its session, and nothing of it is in the way.
    done = import_database(target.tables, ExportFile(path), target.settings.model_save_dir, target.registry)
    assert done.tasks == {"new": 16} and contents(target) == contents(pipeline)


def test_many_rows_are_written_in_several_statements(pipeline, target, move, monkeypatch):
    fill(pipeline)
    monkeypatch.setattr("synicix_core.tables.transfer_write._ROWS", 3)
    monkeypatch.setattr("synicix_core.tables.transfer_write._BYTES", 2000)
    monkeypatch.setattr("synicix_core.tables.transfer_import._AT_ONCE", 5)
    monkeypatch.setattr("synicix_core.tables.transfer_snapshot._PAGE", 2)
    chunks = []
    insert = RowWriter._insert

    def counting(self, table, rows):
        chunks.append(len(rows))
        insert(self, table, rows)

    monkeypatch.setattr(RowWriter, "_insert", counting)
    assert move(pipeline, target).tasks == {"new": 16}
    assert contents(target) == contents(pipeline) and max(chunks) == 3 and len(chunks) > 16
