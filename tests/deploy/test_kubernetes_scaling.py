"""The number on which KEDA scales is the number of pending tasks, and whoever asks for it can do nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pymysql
import pytest

from synicix_core import Pipeline
from synicix_core.database.embedded_programs import newest_programs
from synicix_core.tables.queue_control import pause
from tests.cli.conftest import claim_task, fail, finish
from tests.deploy.manifests import ROOT, build, by_name
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

Connect = Callable[..., Any]
ZONES = {"mysql": ("-08:00", "+00:00", "+05:30"), "postgresql": ("-08", "UTC", "Asia/Kolkata")}


@pytest.fixture
def scaler(server: dict[str, str], pipeline: Pipeline) -> Iterator[Connect]:
    """``scaler()`` is a connection of the user whom the file in sql/ makes, in a session of any time zone."""
    user = f"scaler_{uuid.uuid4().hex[:8]}"
    make = _make_on_mysql if server["DJ_BACKEND"] == "mysql" else _make_on_postgresql
    connect, remove = make(server, user, pipeline.settings.schema_name)
    yield connect
    remove()


def test_the_number_is_that_of_status_in_every_state(server, pipeline, scaler):
    # Counted before there is anything, too.
    assert count(scaler, pipeline) == pipeline.counts()["pending"] == 0
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(12)])
    assert count(scaler, pipeline) == 12
    finish(pipeline, {tasks[0]: 0.5, tasks[1]: None})
    fail(pipeline, tasks[2], "ValueError: bad")
    claim_task(pipeline, tasks[3])
    pause(pipeline.tables, [tasks[4]])
    jobs = pipeline.tables.jobs_name
    soon = "UTC_TIMESTAMP(3)" if server["DJ_BACKEND"] == "mysql" else "(statement_timestamp() AT TIME ZONE 'UTC')"
    for task, moved in ((tasks[5], "+ INTERVAL {} "), (tasks[6], "- INTERVAL {} ")):
        hour = moved.format("1 HOUR" if server["DJ_BACKEND"] == "mysql" else "'1 hour'")
        execute(pipeline, f"UPDATE {jobs} SET scheduled_time = {soon} {hour} WHERE training_task_md5_hash = '{task}'")
    execute(pipeline, f"DELETE FROM {jobs} WHERE training_task_md5_hash = '{tasks[7]}'")

    counts = pipeline.counts()
    assert counts == {"pending": 6, "scheduled": 1, "running": 1, "finished": 2, "error": 1, "paused": 1}
    for zone in ZONES[server["DJ_BACKEND"]]:
        assert count(scaler, pipeline, zone) == counts["pending"], zone


def test_the_answer_is_one_whole_number(pipeline, scaler):
    insert_tasks(pipeline)
    with closing(scaler()) as connection, connection.cursor() as cursor:
        cursor.execute(query(pipeline))
        assert [[type(value) for value in row] for row in cursor.fetchall()] == [[int]]


def test_the_user_who_counts_can_do_nothing_else(server, pipeline, scaler):
    insert_tasks(pipeline)
    jobs, task = pipeline.tables.jobs_name, pipeline.TrainingTask.full_table_name
    statements = (
        f"UPDATE {jobs} SET status = 'ignore'",
        f"DELETE FROM {jobs}",
        f"INSERT INTO {task} (training_task_md5_hash) VALUES ('x')",
        f"SELECT COUNT(*) FROM {pipeline.TrainingAttempt.full_table_name}",
        f"SELECT COUNT(*) FROM {pipeline.DatasetConfig.full_table_name}",
        f"CREATE TABLE {pipeline.settings.schema_name}.mine (n INTEGER)",
        f"DROP TABLE {jobs}",
    )
    refusals = (psycopg2.errors.InsufficientPrivilege, pymysql.err.OperationalError)
    with closing(scaler()) as connection, connection.cursor() as cursor:
        for statement in statements:
            if server["DJ_BACKEND"] == "postgresql":
                # The user may switch off that its sessions are read-only; it is the rights that count.
                cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
                connection.commit()
            with pytest.raises(refusals, match=r"denied|must be owner"):
                cursor.execute(statement)
            connection.rollback()
    assert pipeline.counts()["pending"] == 1


def test_the_database_user_of_the_trial_can_make_the_tables(server, project, monkeypatch):
    """MySQL's image gives its user all rights in one schema, which it has made; PostgreSQL's image makes an owner of all."""
    if server["DJ_BACKEND"] != "mysql":
        pytest.skip("the user of the image is the administrator")
    schema, user = os.environ["SYNICIX_SCHEMA_NAME"], f"trial_{uuid.uuid4().hex[:8]}"
    with closing(_administrator(server, None)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{schema}`")
        cursor.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'trial'")
        cursor.execute(f"GRANT ALL ON `{schema}`.* TO '{user}'@'%'")
        try:
            with monkeypatch.context() as patch:
                patch.setenv("DJ_USER", user)
                patch.setenv("DJ_PASS", "trial")
                (project / "datasets" / "line.txt").write_text("2.0")
                pipeline = Pipeline(declare=True)
                insert_tasks(pipeline)
                assert pipeline.counts()["pending"] == 1
                pipeline.connection.close()
        finally:
            cursor.execute(f"DROP USER '{user}'@'%'")


def query(pipeline: Pipeline) -> str:
    """Return the query of the trigger, for the schema of this test."""
    backend = pipeline.connection.adapter.backend
    [trigger] = by_name(build(f"overlays/keda-{backend}"), "ScaledJob/synicix")["spec"]["triggers"]
    text, replaced = re.subn(r'(["`])synicix\1', rf"\1{pipeline.settings.schema_name}\1", trigger["metadata"]["query"])
    assert replaced == 3
    return text


def count(scaler: Connect, pipeline: Pipeline, zone: str | None = None) -> int:
    with closing(scaler(zone)) as connection, connection.cursor() as cursor:
        cursor.execute(query(pipeline))
        [[number]] = cursor.fetchall()
    return number


def execute(pipeline: Pipeline, sql: str) -> None:
    pipeline.connection.query(sql)


def _make_on_mysql(server: dict[str, str], user: str, schema: str) -> tuple[Connect, Callable[[], None]]:
    text = re.sub(r"^--.*$", "", (ROOT / "sql" / "mysql" / "scaler.sql").read_text(), flags=re.MULTILINE)
    with closing(_administrator(server, schema)) as connection, connection.cursor() as cursor:
        password = ""
        for statement in filter(str.strip, text.replace("synicix_scaler", user).split(";")):
            cursor.execute(statement)
            password = password or cursor.fetchall()[0][2]
    assert len(password) >= 20

    def connect(zone: str | None = None) -> Any:
        connection = pymysql.connect(
            host=server["DJ_HOST"], port=int(server["DJ_PORT"]), user=user, password=password, database=schema
        )
        if zone is not None:
            with connection.cursor() as cursor:
                cursor.execute("SET time_zone = %s", (zone,))
        return connection

    def remove() -> None:
        with closing(_administrator(server, schema)) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP USER '{user}'@'%'")

    return connect, remove


def _make_on_postgresql(server: dict[str, str], user: str, schema: str) -> tuple[Connect, Callable[[], None]]:
    text = (ROOT / "sql" / "postgresql" / "scaler.sql").read_text().replace("synicix_scaler", user)
    psql = [
        str(newest_programs().directory / "psql"),
        "--no-psqlrc",
        f"--host={server['DJ_HOST']}",
        "--username=postgres",
    ]
    subprocess.run(
        [*psql, "--dbname=postgres", f"--set=schema={schema}", "--file=-"],
        input=text,
        env={**os.environ, "SCALER_PASSWORD": "it's quoted"},
        text=True,
        check=True,
        timeout=60,
    )

    def connect(zone: str | None = None) -> Any:
        connection = psycopg2.connect(host=server["DJ_HOST"], user=user, password="it's quoted", dbname="postgres")
        with connection.cursor() as cursor:
            cursor.execute("SHOW default_transaction_read_only")
            assert cursor.fetchall() == [("on",)]
            if zone is not None:
                cursor.execute("SELECT set_config('timezone', %s, false)", (zone,))
        connection.commit()
        return connection

    def remove() -> None:
        with closing(_administrator(server, schema)) as connection, connection.cursor() as cursor:
            # Trust lets everybody in here, so that there is a password at all is looked up.
            cursor.execute("SELECT rolpassword LIKE 'SCRAM-%%' FROM pg_authid WHERE rolname = %s", (user,))
            assert cursor.fetchall() == [(True,)]
            cursor.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")
            connection.commit()

    return connect, remove


def _administrator(server: dict[str, str], schema: str | None) -> Any:
    if server["DJ_BACKEND"] == "mysql":
        return pymysql.connect(
            host=server["DJ_HOST"],
            port=int(server["DJ_PORT"]),
            user=server["DJ_USER"],
            password=server["DJ_PASS"],
            database=schema,
        )
    return psycopg2.connect(host=server["DJ_HOST"], user=server["DJ_USER"], dbname="postgres")
