"""Users who may only read see primary keys, and a privilege that is lacking is an error of ours and of DataJoint's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from synicix_core.database import check_session, connect, execute
from synicix_core.database.adapters import AccessRefused, mend_adapter
from synicix_core.database.dialect import quote, quote_table
from synicix_core.database.quiet import datajoint
from synicix_core.errors import ConfigurationError
from synicix_core.settings import Settings
from tests.database.conftest import configured

pytestmark = pytest.mark.database

SCHEMA = "adapters_test"
READER = "adapters_reader"
PASSWORD = "it's secret"


@pytest.fixture
def reader(any_settings: Settings, any_connection: Any) -> Iterator[Any]:
    """A connection of a user who may select from two tables and from nothing else."""
    adapter = any_connection.adapter
    postgres = adapter.backend == "postgresql"
    schema = datajoint.Schema(SCHEMA, connection=any_connection)
    parent, child = (quote_table(adapter, SCHEMA, name) for name in ("order", "#child"))
    first, second, other = (quote(adapter, name) for name in ("when", "a", "payload"))
    execute(any_connection, f"CREATE TABLE {parent} ({other} int, {second} int, {first} int, PRIMARY KEY ({first}, a))")
    execute(
        any_connection,
        f"CREATE TABLE {child} ({first} int, {second} int, n int, {other} int UNIQUE, PRIMARY KEY (n), "
        f"FOREIGN KEY ({first}, {second}) REFERENCES {parent} ({first}, {second}))",
    )
    user = READER if postgres else f"'{READER}'@'%'"
    password = PASSWORD.replace("'", "''")
    if postgres:
        execute(any_connection, f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        execute(any_connection, f"GRANT USAGE ON SCHEMA {SCHEMA} TO {user}")
    else:
        execute(any_connection, f"CREATE USER {user} IDENTIFIED BY '{password}'")
    for table in (parent, child):
        execute(any_connection, f"GRANT SELECT ON {table} TO {user}")
    info = any_connection.conn_info
    with configured(
        host=info["host"], port=info["port"], user=READER, password=PASSWORD, backend=adapter.backend, name=None
    ):
        connection = connect(any_settings)
    yield connection
    connection.close()
    schema.drop(prompt=False)
    execute(any_connection, f"DROP {'ROLE' if postgres else 'USER'} {user}")


def test_a_reader_sees_the_primary_keys_and_dependencies_that_the_owner_sees(any_connection: Any, reader: Any) -> None:
    parent, child = (quote_table(reader.adapter, SCHEMA, name) for name in ("order", "#child"))
    seen = []
    for connection in (any_connection, reader):
        keys = [datajoint.FreeTable(connection, name).primary_key for name in (parent, child)]
        dependencies = datajoint.dependencies.Dependencies(connection)
        dependencies.load(schema_names={SCHEMA})
        nodes = {name: sorted(node["primary_key"]) for name, node in dependencies.nodes(data=True) if node}
        edges = [(start, end, sorted(edge["attr_map"].items())) for start, end, edge in dependencies.edges(data=True)]
        seen.append((keys, nodes, edges))
    assert seen[0] == seen[1]
    keys, nodes, edges = seen[1]
    assert [sorted(key) for key in keys] == [["a", "when"], ["n"]]
    assert nodes == {parent: ["a", "when"], child: ["n"]}
    assert edges == [(parent, child, [("a", "a"), ("when", "when")])]


def test_the_mended_queries_answer_the_owner_as_datajoint_s_own_do(any_connection: Any, reader: Any) -> None:
    own = datajoint.adapters.get_adapter(any_connection.adapter.backend)
    answers = []
    for adapter in (own, any_connection.adapter):
        one = [
            any_connection.query(adapter.get_primary_key_sql(SCHEMA, name)).fetchall() for name in ("order", "#child")
        ]
        every = any_connection.query(adapter.load_primary_keys_sql(f"'{SCHEMA}'", "'~%%'")).fetchall()
        answers.append((one, sorted(every)))
    assert answers[0] == answers[1]
    assert answers[1][0][0] == (("when",), ("a",)) or answers[1][0][0] == [("when",), ("a",)]


def test_a_refused_privilege_names_user_and_table_and_where_the_grants_are(reader: Any) -> None:
    table = quote_table(reader.adapter, SCHEMA, "order")
    with pytest.raises(datajoint.errors.AccessError) as caught:
        execute(reader, f"DELETE FROM {table}")
    error = caught.value
    assert isinstance(error, AccessRefused) and isinstance(error, ConfigurationError)
    assert READER in error.where and "order" in error.why and "docs/operating.md" in error.hint
    said = str(error)
    assert "denied" in said and "\n" not in said and "('" not in said and PASSWORD not in said
    with pytest.raises(AccessRefused):
        datajoint.FreeTable(reader, table).insert1({"when": 1, "a": 2, "payload": 3})


def test_a_connection_that_the_user_made_is_mended_once_and_a_strange_adapter_is_left_alone(
    any_connection: Any,
) -> None:
    info = any_connection.conn_info
    own = datajoint.Connection(
        info["host"], info["user"], info["passwd"], info["port"], backend=any_connection.adapter.backend
    )
    before = own.adapter
    check_session(own)
    assert type(own.adapter) is type(any_connection.adapter) is not type(before)
    assert isinstance(own.adapter, type(before))
    mended = own.adapter
    mend_adapter(own)
    assert own.adapter is mended
    strange = type("Strange", (type(before),), {})()
    own.adapter = strange
    mend_adapter(own)
    assert own.adapter is strange
    own.close()
