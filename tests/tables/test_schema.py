"""The schema is declared once, however many try, and what is not ours is left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import datajoint as dj
import pytest

from synicix_core import Pipeline
from synicix_core.database import connect, execute
from synicix_core.errors import ConfigurationError
from synicix_core.settings import load_settings
from synicix_core.tables import schema as schemas

pytestmark = pytest.mark.database


@pytest.fixture
def connection(project):
    opened = connect(load_settings())
    yield opened
    opened.close()


@pytest.fixture
def name():
    return load_settings().schema_name


def test_many_processes_declare_at_once(project, connection, name):
    code = "from synicix_core import Pipeline; p = Pipeline(declare=True); print(len(p.TrainingTask()))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)
    ]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 6, ended
    assert [out.strip() for out, _ in ended] == [b"0"] * 6
    assert schemas.is_declared(connection, name)


def test_declaring_again_changes_nothing(project, connection, name):
    assert schemas.declare(connection, name) is True
    assert schemas.declare(connection, name) is False


def test_on_a_server_the_tables_are_declared_by_init_alone(project):
    with pytest.raises(ConfigurationError, match="synicix-run init"):
        Pipeline()


def test_two_pipelines_live_in_one_process(project, pipeline, name):
    other = Pipeline(schema_name=name + "_b", declare=True)
    pipeline.ModelConfig.insert_tuples([{"model_provider": "Line"}])
    assert (len(pipeline.ModelConfig()), len(other.ModelConfig())) == (1, 0)
    other.connection.close()
    postgres = pipeline.connection.adapter.backend == "postgresql"
    execute(pipeline.connection, f'DROP SCHEMA "{name}_b" CASCADE' if postgres else f"DROP DATABASE `{name}_b`")


def test_tables_of_the_old_pipeline_are_left_alone(project, connection, name):
    old = type(dj.Manual)(
        "ModelConfig",
        (dj.Manual,),
        {"definition": "model_config_md5_hash : char(32)\n---\nmodel_class_name : varchar(64)"},
    )
    dj.Schema(name, connection=connection)(old, context={})
    old.insert1({"model_config_md5_hash": "0" * 32, "model_class_name": "SimpleMLP"})
    for attempt in (lambda: schemas.declare(connection, name), lambda: schemas.is_declared(connection, name)):
        with pytest.raises(ConfigurationError, match="schema_name") as caught:
            attempt()
        assert "ModelConfig" in str(caught.value)
    assert len(old()) == 1


def test_an_interrupted_declaration_is_made_good(project, connection, name):
    schemas.declare(connection, name)
    version = connection.adapter.make_full_table_name(name, "synicix_schema")
    execute(connection, f"DROP TABLE {version}")
    assert schemas.is_declared(connection, name) is False
    assert schemas.declare(connection, name) is True
    assert len(Pipeline().ModelConfig.insert_tuples([{"model_provider": "Line"}]).new) == 1


def test_rows_without_a_version_row_are_not_dropped(project, connection, name, pipeline):
    pipeline.ModelConfig.insert_tuples([{"model_provider": "Line"}])
    version = connection.adapter.make_full_table_name(name, "synicix_schema")
    execute(connection, f"DROP TABLE {version}")
    with pytest.raises(ConfigurationError, match="left alone"):
        schemas.declare(connection, name)
    assert len(pipeline.ModelConfig()) == 1


def test_a_newer_schema_is_refused(project, connection, name):
    schemas.declare(connection, name)
    version = connection.adapter.make_full_table_name(name, "synicix_schema")
    execute(connection, f"UPDATE {version} SET schema_version = 99")
    with pytest.raises(ConfigurationError, match="version 99"):
        Pipeline()


def test_a_changed_job_table_is_refused(project, connection, name):
    schemas.declare(connection, name)
    jobs = connection.adapter.make_full_table_name(name, "~~training_result")
    execute(connection, f"ALTER TABLE {jobs} DROP COLUMN priority")
    with pytest.raises(ConfigurationError, match="lacks the columns priority"):
        Pipeline()


@pytest.mark.parametrize("bad", ["Synicix", "my.schema", "1st", "a b", "x" * 64, ""])
def test_a_schema_name_that_a_database_folds_or_cuts_is_refused(project, connection, bad):
    with pytest.raises(ConfigurationError, match="not allowed"):
        schemas.declare(connection, bad)


def test_importing_connects_to_nothing(project):
    code = "import synicix_core, synicix_core.pipeline, synicix_core.tables.schema"
    environment = {**os.environ, "DJ_HOST": "203.0.113.1"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
