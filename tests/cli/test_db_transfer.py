"""`db export` and `db import`: from the PostgreSQL inside a project to a server and back, and everybody sees the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from synicix_core import Pipeline
from synicix_core.settings import create_project
from synicix_core.tables.queue_control import set_priority
from synicix_core.tables.transfer_columns import TABLES, fingerprint, transfer_tables
from synicix_core.tables.transfer_snapshot import read_rows
from tests.conftest import TOY_LAB
from tests.rows import insert_tasks
from tests.saved import claim, store_dir
from tests.transferred import MD5, drop_schema, fill, printed

pytestmark = pytest.mark.database


@pytest.fixture
def embedded(server, monkeypatch):
    """A project with a PostgreSQL of its own; the server, which is another one, is configured by `on_server`."""
    from synicix_core.database import embedded

    folder = Path(tempfile.mkdtemp(prefix="synicix-transfer-"))
    settings = create_project(folder)
    (settings.dataset_dir / "line.txt").write_text("2.0")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SYNICIX_SCHEMA_NAME", f"test_{uuid.uuid4().hex[:12]}")
    monkeypatch.setenv("PYTHONPATH", TOY_LAB)
    yield folder
    embedded.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture
def on_server(server, embedded):
    """Turn the project to the server, and back to its own PostgreSQL with ``on_server(False)``."""
    patch = pytest.MonkeyPatch()

    def turn(there=True):
        patch.undo()
        if there:
            for name, value in {**server, "DJ_IGNORE_CONFIG_FILE": "1"}.items():
                patch.setenv(name, value)

    yield turn
    turn()
    pipeline = Pipeline(declare=True)
    drop_schema(pipeline.connection, pipeline.schema_name)
    pipeline.connection.close()
    patch.undo()


@pytest.fixture
def own():
    """Make pipelines that are closed in the end."""
    made = []

    def make():
        made.append(Pipeline(declare=True))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.connection.close()


def assert_same(views, others):
    for name, view in views.items():
        assert view == others[name], name


def fingerprints(pipeline):
    """Return all rows, the same on both backends."""
    tables = transfer_tables(pipeline.tables)
    return {
        name: [fingerprint(tables[name], row) for row in read_rows(pipeline.connection, tables[name])]
        for name in TABLES
    }


def test_to_a_server_and_back(embedded, on_server, own, run, run_json):
    first = own()
    world = fill(first)
    rows, seen = fingerprints(first), printed(run_json, world)
    run("db", "export", "out.synicix")
    on_server()
    run("init")
    assert run_json("db", "import", "out.synicix", "--files", "all")["tasks"] == {"new": 16}
    there = own()
    assert there.connection.adapter.backend == os.environ["DJ_BACKEND"]
    assert there.connection.conn_info["host"] != first.connection.conn_info["host"]
    assert fingerprints(there) == rows
    assert_same(printed(run_json, world), seen)
    run("db", "export", "back.synicix")
    on_server(False)
    drop_schema(first.connection, first.schema_name)
    assert run_json("db", "import", "back.synicix")["tasks"] == {"new": 16}
    again = own()
    assert fingerprints(again) == rows
    assert_same(printed(run_json, world), seen)


def test_workers_carry_on_where_the_others_stopped(embedded, on_server, own, run, run_json):
    trainings = [{"seed": seed, "epoch_limit": 3, "batch_size": 4} for seed in range(3)]
    slow = {"model_provider": "Slow", "model_class_params": {"seconds": 0.2}}
    (long,) = insert_tasks(own(), trainings=trainings[:1], models=[slow])
    tasks = [long, *insert_tasks(own(), trainings=trainings)]
    run("populate", "--max-tasks", "1", "--where", "model=Line", "--fuse", "off")
    checkpoint = _interrupt(embedded, long)
    run("db", "export", "out.synicix")
    on_server()
    run("init")
    assert run_json("db", "import", "out.synicix")["tasks"] == {"new": 4}
    assert run_json("show", long)["checkpoint_file"] == str(checkpoint)
    run("populate", "--fuse", "off")
    resumed = run_json("show", long)
    assert [attempt["state"] for attempt in resumed["attempts"]] == ["released", "finished"]
    assert resumed["attempts"][0]["epoch"] >= 1 and not checkpoint.exists()
    moved = {task: run_json("show", task)["result"] for task in tasks}
    # The same tasks where nothing happened to them: the old database, with models of its own.
    on_server(False)
    shutil.rmtree("models")
    (embedded / "models").mkdir()
    first = own()
    (first.TrainingResult & "test_score >= 0").delete(prompt=False)
    first.TrainingAttempt().delete(prompt=False)
    first.queue.enqueue()
    run("populate", "--fuse", "off")
    for task, result in moved.items():
        alone = run_json("show", task)["result"]
        same = ("test_score", "scores", "model_sha256", "training_epoch_loss_history", "validation_epoch_loss_history")
        assert {name: result[name] for name in same} == {name: alone[name] for name in same}, task


def _interrupt(project, task):
    """Train a task in a worker of its own until it has a checkpoint, then stop it as a scheduler does."""
    command = ["populate", "--where", "model=Slow", "--checkpoint-epochs", "1", "--grace", "20"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "synicix_core.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoint = project / "models" / f"{task}.1.checkpoint"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    printed, _ = worker.communicate(timeout=60)
    assert worker.returncode == 75 and checkpoint.exists(), printed
    return checkpoint


def test_what_export_says(pipeline, run, run_json):
    fill(pipeline)
    text = run("db", "export", "lab.synicix").stdout
    assert f"Exported 16 tasks with 4 results and 8 attempts of schema {pipeline.schema_name} (" in text
    assert "to lab.synicix, " in text and "as user" not in text
    assert f"4 models, 160 B: {pipeline.settings.model_save_dir}" in text
    assert f"1 checkpoint, 7 B: {pipeline.settings.model_save_dir}" in text
    store = pipeline.connection._config.get_store_spec("external_training_result")["location"]
    files = len([each for each in store_dir(pipeline).rglob("*") if each.is_file()])
    assert f"the histories of 4 results ({files} files), " in text and f": {store}" in text
    assert "Stop the workers here that wait for tasks" in text and " session" not in text
    assert "use that database alone" in text and text.endswith("synicix-run db import lab.synicix\n")
    found = run_json("db", "export", "lab.synicix", "--force")
    assert found["rows"]["TrainingTask"] == 16 and found["released"] == 0 and found["other_tables"] == []
    assert found["file"] == str(Path("lab.synicix").absolute()) and found["size"] == Path("lab.synicix").stat().st_size
    assert found["files"]["models"] == 4 and found["files"]["store"] == str(store)


def test_an_export_replaces_no_file_unasked(pipeline, run):
    Path("lab.synicix").write_text("mine")
    assert (
        "exists already (lab.synicix). To replace it, add --force." in run("db", "export", "lab.synicix", code=2).stderr
    )
    assert Path("lab.synicix").read_text() == "mine"
    run("db", "export", "lab.synicix", "--force")
    assert "there is no such directory" in run("db", "export", "no/such/lab.synicix", code=2).stderr
    run("db", "export", ".", code=2)


def test_tasks_that_are_being_trained(pipeline, run, run_json):
    (task,) = insert_tasks(pipeline)
    claim(pipeline, task)
    error = run("db", "export", "lab.synicix", code=2).stderr
    assert "1 task is being trained" in error and "node7:41 (heartbeat " in error and not Path("lab.synicix").exists()
    text = run("db", "export", "lab.synicix", "--running", "release").stdout
    assert "1 task being trained here is pending in it." in text
    assert run_json("db", "export", "lab.synicix", "--running", "release", "--force")["released"] == 1


def test_what_import_says(pipeline, run, run_json, monkeypatch):
    fill(pipeline)
    run("db", "export", "lab.synicix")
    text = run("db", "import", "lab.synicix").stdout
    assert f"Imported into schema {pipeline.schema_name} (" in text and "  16 tasks are here already\n" in text
    assert "New rows: none." in text and "The models and histories of 4 results were read" in text
    found = run_json("db", "import", "lab.synicix", "--files", "none")
    assert found["imported"] is True and found["tasks"] == {"same": 16} and found["results_looked_at"] == 0
    assert found["there"]["TrainingTask"] == 16 and found["new"]["TrainingTask"] == 0
    set_priority(pipeline.tables, run_json("queue", "list")["next"][0]["task"].split(), 5)
    text = run("db", "import", "lab.synicix").stdout
    assert "  15 tasks are here already\n" in text
    assert "  1 task is further here than in the export, or queued otherwise, and stays as it is\n" in text
    (pipeline.settings.dataset_dir / "line.txt").unlink()
    assert "not in dataset_dir" in run("db", "import", "lab.synicix").stderr
    assert run_json("db", "import", "lab.synicix")["missing_dataset_files"] == ["line.txt"]


def test_new_tasks_and_conflicts(pipeline, run, run_json):
    world = fill(pipeline)
    run("db", "export", "lab.synicix")
    gone, changed = world.pending, world.finished[0]
    (pipeline.TrainingTask & {MD5: gone}).delete(prompt=False)
    (pipeline.TrainingResult & {MD5: changed}).delete(prompt=False)
    (pipeline.TrainingAttempt & {MD5: changed}).delete(prompt=False)
    pipeline.queue.enqueue()
    claim(pipeline, changed)
    error = run("db", "import", "lab.synicix", code=2).stderr
    assert "1 task contradicts what is in the database" in error and changed[:8] in error and "--keep-existing" in error
    result = run("db", "import", "lab.synicix", "--json", code=2)
    found = json.loads(result.stdout)
    assert found["imported"] is False and [conflict["task"] for conflict in found["conflicts"]] == [changed]
    done = run("db", "import", "lab.synicix", "--keep-existing")
    assert (
        "  1 task is new\n" in done.stdout
        and "  1 task contradicts what is here and was left as it is\n" in done.stdout
    )
    assert f"{changed[:8]}: a worker on node7 is training it here; left as it is here." in done.stderr
    assert "New rows: 1 in TrainingTask, 1 in Job." in done.stdout


def test_a_wrong_file_is_the_users_mistake(pipeline, run):
    Path("notes.txt").write_text("hello")
    error = run("db", "import", "notes.txt", code=2).stderr
    assert "no whole export of a database (notes.txt)" in error and "synicix-run db export FILE" in error
    assert "No such file" in run("db", "import", "nowhere", code=2).stderr


def test_a_schema_that_is_not_declared(pipeline, run, monkeypatch):
    run("db", "export", "lab.synicix")
    monkeypatch.setenv("SYNICIX_SCHEMA_NAME", pipeline.schema_name + "_c")
    assert "has no tables yet. Run: synicix-run init" in run("db", "import", "lab.synicix", code=2).stderr
