"""Rows are exported as they are at one moment, and imported as they were: all of them or none."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.database.dialect import columns_of
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.tables.transfer_columns import TABLES, transfer_tables
from synicix_core.tables.transfer_export import export_database
from synicix_core.tables.transfer_file import ExportFile
from synicix_core.tables.transfer_import import import_database
from tests.saved import claim, finish, store_dir
from tests.transferred import MD5, contents, drop_schema, fill

pytestmark = pytest.mark.database


@pytest.fixture
def target(pipeline):
    """An empty schema beside the one that is exported, on the same server and with the same files."""
    name = pipeline.schema_name + "_b"
    made = Pipeline(settings=dataclasses.replace(pipeline.settings, schema_name=name), declare=True)
    yield made
    drop_schema(made.connection, name)
    made.connection.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lab.synicix"


def export(pipeline, path, **options):
    return export_database(pipeline.tables, path, pipeline.settings.model_save_dir, "the lab's", **options)


def load(pipeline, path, **options):
    return import_database(
        pipeline.tables, ExportFile(path), pipeline.settings.model_save_dir, pipeline.registry, **options
    )


def test_everything_arrives_as_it_was(pipeline, target, path):
    world = fill(pipeline)
    done = export(pipeline, path)
    assert done.rows["TrainingTask"] == 16 and done.rows["TrainingResult"] == len(world.finished) == 4
    imported = load(target, path, files="all")
    assert imported.new == done.rows and imported.tasks == {"new": 16} and imported.results_looked_at == 4
    assert imported.unproved == () and imported.notes == ()
    assert contents(target) == contents(pipeline)
    again = path.with_name("again")
    export(target, again)
    with zipfile.ZipFile(path) as first, zipfile.ZipFile(again) as second:
        for name in TABLES:
            assert first.read(f"{name}.jsonl") == second.read(f"{name}.jsonl"), name


def test_all_columns_are_moved(pipeline):
    tables = transfer_tables(pipeline.tables)
    for name in TABLES[:-1]:
        assert tables[name].names == list(getattr(pipeline, name).heading.names), name
        assert tables[name].key == tuple(getattr(pipeline, name).heading.primary_key), name
    assert tables["Job"].names == list(pipeline.TrainingResult().jobs.heading.names)
    for table in tables.values():
        found = columns_of(pipeline.connection, pipeline.schema_name, table.full_name.split(".")[1].strip('"`'))
        assert table.names == list(found), table.name


def test_importing_twice_adds_nothing(pipeline, target, path):
    fill(pipeline)
    export(pipeline, path)
    load(target, path)
    before = contents(target)
    imported = load(target, path)
    assert sum(imported.new.values()) == 0 and imported.tasks == {"same": 16}
    assert contents(target) == before
    assert execute(target.connection, f"SELECT COUNT(*) FROM {_imports(target)}").fetchone()[0] == 1
    # Into the schema that it is of, too.
    assert sum(load(pipeline, path).new.values()) == 0


def test_the_import_records_where_the_rows_came_from(pipeline, target, path):
    fill(pipeline)
    done = export(pipeline, path)
    load(target, path)
    sha256, source, schema = execute(
        target.connection, f"SELECT export_sha256, source, schema_name FROM {_imports(target)}"
    ).fetchone()
    assert sha256 == done.sha256 and schema == target.schema_name
    assert source.startswith(f"the lab's, schema {pipeline.schema_name}, exported on ")
    # The next one knows of this one, too.
    export(target, path)
    manifest = ExportFile(path).manifest
    assert [row["export_sha256"] for row in manifest["imports"]] == [sha256]


def test_an_empty_schema_can_be_moved(pipeline, target, path):
    assert sum(export(pipeline, path).rows.values()) == 0
    assert load(target, path).tasks == {}


def test_what_is_being_trained_is_refused(pipeline, target, path):
    world = fill(pipeline)
    claim(pipeline, world.pending)
    with pytest.raises(
        ConfigurationError, match=f"1 task is being trained: {world.pending[:8]} by node7:41"
    ) as refused:
        export(pipeline, path)
    assert "--running release" in str(refused.value) and "queue refresh" in str(refused.value)
    assert not path.exists() and list(path.parent.glob(".*")) == []


def test_or_is_pending_in_the_export_with_its_attempt(pipeline, target, path):
    world = fill(pipeline)
    claim(pipeline, world.pending)
    jobs = pipeline.TrainingResult().jobs
    reserved = (jobs & {MD5: world.urgent}).fetch1()
    jobs.update1({MD5: world.urgent, "status": "reserved", "user": "ann", "host": "laptop"})
    assert export(pipeline, path, release_running=True).released == 2
    load(target, path)
    attempt = (target.TrainingAttempt & {MD5: world.pending}).fetch1()
    assert (attempt["state"], attempt["attempt"], attempt["worker"]) == ("released", 1, "a" * 32)
    job = (target.TrainingResult().jobs & {MD5: world.pending}).fetch1()
    assert (job["status"], job["host"], job["pid"], job["reserved_time"]) == ("pending", "", 0, None)
    assert (target.TrainingResult().jobs & {MD5: world.urgent}).fetch1() == reserved
    # Here nothing changed: the worker goes on.
    assert (pipeline.TrainingAttempt & {MD5: world.pending}).fetch1("state") == "running"


def test_the_next_worker_gets_the_next_attempt(pipeline, target, path):
    world = fill(pipeline)
    export(pipeline, path)
    load(target, path)
    held = claim(target, world.given_back)
    assert held.attempt == 2 and target.queue.tries(world.later).failures == 1
    # Nobody claims what is paused, cancelled, in error or not due.
    claimed = set()
    while (held := target.queue.claim("c" * 32, "node1", 1, "cpu")) is not None:
        claimed.add(held.task)
    assert not claimed & {world.paused, world.cancelled, world.failed, world.later, *world.finished}
    assert world.urgent in claimed and world.pending in claimed and world.unqueued not in claimed
    assert target.queue.enqueue() == 1


def test_a_snapshot_has_nothing_that_came_later(pipeline, target, path):
    world = fill(pipeline)
    late = Pipeline(settings=pipeline.settings)

    class Meanwhile:
        """Commits a result and queues a task when the first rows are read."""

        done = False

        def start(self, label, total):
            assert label == "Exporting"

        def advance(self, steps):
            if not self.done:
                self.done = True
                finish(late, world.pending)
                late.queue.enqueue()

    before = contents(pipeline)
    export(pipeline, path, progress=(meanwhile := Meanwhile()))
    assert meanwhile.done
    load(target, path)
    assert contents(target) == before
    assert contents(pipeline) != before
    late.connection.close()
    assert "READ" in _isolation(pipeline) and "REPEATABLE" not in _isolation(pipeline)


def test_a_connection_that_is_lost_leaves_nothing(pipeline, target, path):
    fill(pipeline)
    export(pipeline, path)
    other = Pipeline(settings=pipeline.settings)

    class Cut:
        """Ends the session of a connection when the first rows are done."""

        def __init__(self, connection, stage):
            self.connection, self.stage, self.label = connection, stage, ""

        def start(self, label, total):
            self.label = label

        def advance(self, steps):
            if self.label == self.stage:
                _end_session(other.connection, self.connection)
                self.stage = None

    with pytest.raises(DatabaseUnavailable):
        export(pipeline, path.with_name("new"), progress=Cut(pipeline.connection, "Exporting"))
    assert [each.name for each in path.parent.glob("*new*")] == []
    with pytest.raises(DatabaseUnavailable):
        load(target, path, progress=Cut(target.connection, "Writing rows"))
    assert not any(contents(target).values())
    assert load(target, path).tasks == {"new": 16}
    assert export(pipeline, path).rows["TrainingTask"] == 16
    other.connection.close()


def test_where_the_files_lie_is_said(pipeline, path):
    world = fill(pipeline)
    (pipeline.settings.model_save_dir / f"{world.finished[0]}.1.pt").unlink()
    files = export(pipeline, path).files
    assert (files.models, files.models_missing, files.checkpoints) == (4, 1, 1)
    assert files.model_bytes == 3 * len(f"weights {world.pending}") and files.checkpoint_bytes == len("weights")
    # Four results of four histories each, of which three are equal in all of them, or two of the three to each other.
    store = pipeline.connection._config.get_store_spec("external_training_result")["location"]
    assert files.histories == len({path.name for path in _histories(pipeline)}) and files.store == store
    assert files.history_bytes == sum(path.stat().st_size for path in _histories(pipeline))
    assert json.loads(json.dumps(ExportFile(path).manifest["files"])) == vars(files)


def test_files_out_of_reach_are_refused_before_anything_is_written(pipeline, target, path):
    world = fill(pipeline)
    export(pipeline, path)
    model = pipeline.settings.model_save_dir / f"{world.finished[0]}.1.pt"
    content = model.read_text()
    model.unlink()
    with pytest.raises(ConfigurationError, match=rf"files of 1 of 4 results .*{model.name}: No such file"):
        load(target, path)
    model.write_text("other weights")
    with pytest.raises(ConfigurationError, match="is another file: its sha256 differs"):
        load(target, path, files="all")
    model.write_text(content)
    history = _histories(pipeline)[0]
    whole = history.read_bytes()
    history.write_bytes(whole[:-1])
    with pytest.raises(ConfigurationError, match="its hash differs"):
        load(target, path)
    history.unlink()
    with pytest.raises(ConfigurationError, match="no such file in the store"):
        load(target, path)
    assert len(target.TrainingTask()) == 0
    assert load(target, path, files="none").tasks == {"new": 16}


def test_tables_that_are_not_moved_are_named(pipeline, path):
    import datajoint as dj

    class Mine(dj.Manual):
        definition = "number : int32"

    dj.Schema(pipeline.schema_name, connection=pipeline.connection)(Mine, context={})
    assert export(pipeline, path).other_tables == ("mine",)


def _imports(pipeline):
    quote = pipeline.connection.adapter.quote_identifier
    return f"{quote(pipeline.schema_name)}.{quote('synicix_import')}"


def _end_session(connection, victim):
    if connection.adapter.backend == "postgresql":
        execute(connection, f"SELECT pg_terminate_backend({victim.connection_id})").fetchall()
    else:
        execute(connection, f"KILL {victim.connection_id}")


def _histories(pipeline):
    return sorted(path for path in store_dir(pipeline).rglob("*") if path.is_file())


def _isolation(pipeline):
    postgres = pipeline.connection.adapter.backend == "postgresql"
    sql = "SHOW transaction_isolation" if postgres else "SELECT @@transaction_isolation"
    return execute(pipeline.connection, sql).fetchone()[0].upper().replace("-", " ")
