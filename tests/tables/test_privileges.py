"""Whoever lacks one privilege that a worker needs is told so before the first task."""

from __future__ import annotations

import os
import uuid

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.errors import ConfigurationError
from synicix_core.tables.privileges import prove_permitted
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

NEEDED = {
    "attempts": ("INSERT", "UPDATE"),
    "results": ("INSERT",),
    "jobs": ("INSERT", "UPDATE", "DELETE"),
    "versions": ("UPDATE",),
}


@pytest.fixture
def as_user(pipeline, server, monkeypatch):
    """``as_user(granted)`` opens the pipeline as a user with SELECT and these privileges, by table."""
    name, postgres = f"u{uuid.uuid4().hex[:8]}", pipeline.connection.adapter.backend == "postgresql"
    user, schema = (name if postgres else f"'{name}'@'%'"), os.environ["SYNICIX_SCHEMA_NAME"]
    names = {
        "attempts": pipeline.TrainingAttempt.full_table_name,
        "results": pipeline.TrainingResult.full_table_name,
        "jobs": pipeline.tables.jobs_name,
        "versions": pipeline.connection.adapter.make_full_table_name(schema, "synicix_schema"),
    }

    def run(*statements):
        for statement in statements:
            execute(pipeline.connection, statement)

    opened = []

    def become(granted):
        if postgres:
            run(f"GRANT USAGE ON SCHEMA {schema} TO {user}", f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user}")
        else:
            run(f"GRANT SELECT ON `{schema}`.* TO {user}")
        run(*(f"GRANT {', '.join(rights)} ON {names[table]} TO {user}" for table, rights in granted.items() if rights))
        monkeypatch.setenv("DJ_USER", name)
        monkeypatch.setenv("DJ_PASS", "secret")
        opened.append(Pipeline())
        return opened[-1]

    password = "PASSWORD 'secret'" if postgres else "IDENTIFIED BY 'secret'"
    run(f"CREATE {'ROLE' if postgres else 'USER'} {user} {'LOGIN ' if postgres else ''}{password}")
    yield become
    for variable in ("DJ_USER", "DJ_PASS"):
        monkeypatch.setenv(variable, server[variable])
    for other in opened:
        other.connection.close()
    run(*([f"DROP OWNED BY {user}", f"DROP ROLE {user}"] if postgres else [f"DROP USER {user}"]))


def test_a_worker_s_privileges_are_enough_and_nothing_is_written(pipeline, as_user):
    insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])
    held = pipeline.queue.claim("a" * 32, "node7", 41, "cpu")
    before = [table().to_dicts() for table in (pipeline.TrainingAttempt, pipeline.TrainingResult)]
    working = as_user(NEEDED)
    prove_permitted(working.tables)
    assert not working.connection.in_transaction
    assert [table().to_dicts() for table in (pipeline.TrainingAttempt, pipeline.TrainingResult)] == before
    assert len(pipeline.TrainingResult().jobs) == 2 and held is not None


@pytest.mark.parametrize(("table", "right"), [(table, right) for table, rights in NEEDED.items() for right in rights])
def test_one_privilege_that_is_lacking_is_named(as_user, server, table, right):
    if table == "versions" and server["DJ_BACKEND"] == "mysql":
        pytest.skip("since 8.0.22 a MySQL lets whoever may read a row lock it FOR SHARE")
    granted = {name: tuple(one for one in rights if (name, one) != (table, right)) for name, rights in NEEDED.items()}
    lacking = as_user(granted)
    with pytest.raises(ConfigurationError, match="may read, but not train") as caught:
        prove_permitted(lacking.tables)
    said = {"attempts": "training_attempt", "results": "training_result", "jobs": "~~training_result"}
    assert said.get(table, "synicix_schema") in caught.value.why
    assert os.environ["DJ_USER"] in caught.value.where
    assert not lacking.connection.in_transaction
