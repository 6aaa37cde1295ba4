"""A lost connection is noticed, opened again, and never hides whether something was written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from synicix_core.database import connect, despite_conflicts, ensure_connected, execute, is_connection_lost, transaction
from synicix_core.database.quiet import datajoint
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.settings import Settings
from tests.database.test_connection import end_session

pytestmark = pytest.mark.database


@pytest.fixture
def rows(any_connection: Any) -> Iterator[str]:
    """The name of an empty table with a column n."""
    schema = datajoint.Schema("reconnect_test", connection=any_connection)
    name = any_connection.adapter.make_full_table_name("reconnect_test", "rows")
    execute(any_connection, f"CREATE TABLE {name} (n int primary key)")
    yield name
    ensure_connected(any_connection)
    schema.drop(prompt=False)


def count(connection: Any, rows: str) -> int:
    return int(execute(connection, f"SELECT count(*) FROM {rows}").fetchone()[0])


def test_a_block_is_committed_and_one_that_raises_is_not(any_connection: Any, rows: str) -> None:
    with transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (%s)", (1,))
        assert any_connection.in_transaction
    with pytest.raises(KeyError), transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (2)")
        raise KeyError
    assert not any_connection.in_transaction
    assert count(any_connection, rows) == 1


def test_a_percent_sign_without_parameters_stays(any_connection: Any) -> None:
    assert execute(any_connection, "SELECT 'a%b'").fetchone() == ("a%b",)


def test_a_drop_inside_a_transaction_writes_nothing_and_the_next_one_works(
    any_settings: Settings, any_connection: Any, rows: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match="connection to the database was lost"), transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
        end_session(any_settings, any_connection)
        execute(any_connection, f"INSERT INTO {rows} VALUES (2)")
    assert not any_connection._in_transaction
    with transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (3)")
    assert count(any_connection, rows) == 1


def test_a_drop_inside_a_transaction_is_noticed_by_datajoint_s_own_statements(
    any_settings: Settings, any_connection: Any, rows: str
) -> None:
    with pytest.raises(DatabaseUnavailable), transaction(any_connection):
        any_connection.query(f"INSERT INTO {rows} VALUES (1)")
        end_session(any_settings, any_connection)
        any_connection.query(f"INSERT INTO {rows} VALUES (2)")
    ensure_connected(any_connection)
    assert count(any_connection, rows) == 0


def test_a_drop_before_the_commit_says_that_the_outcome_is_unknown(
    any_settings: Settings, any_connection: Any, rows: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"lost during a commit.*unknown"), transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
        end_session(any_settings, any_connection)
    ensure_connected(any_connection)
    assert count(any_connection, rows) == 0


def test_a_drop_before_a_transaction_is_nothing(any_settings: Settings, any_connection: Any, rows: str) -> None:
    end_session(any_settings, any_connection)
    with transaction(any_connection):
        execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
    assert count(any_connection, rows) == 1


def test_a_statement_is_never_run_twice(any_settings: Settings, any_connection: Any, rows: str) -> None:
    end_session(any_settings, any_connection)
    with pytest.raises(DatabaseUnavailable):
        execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
    ensure_connected(any_connection)
    assert count(any_connection, rows) == 0


def test_an_error_that_the_block_swallows_does_not_pass_for_a_commit(any_connection: Any, rows: str) -> None:
    execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
    if any_connection.adapter.backend == "mysql":  # which goes on after a failed statement, as the block asked
        with transaction(any_connection):
            with pytest.raises(datajoint.errors.DuplicateError):
                execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
            execute(any_connection, f"INSERT INTO {rows} VALUES (2)")
        assert count(any_connection, rows) == 2
        return
    duplicate = pytest.raises(datajoint.errors.DuplicateError)
    with pytest.raises(datajoint.errors.DataJointError, match="rolled back"), transaction(any_connection), duplicate:
        execute(any_connection, f"INSERT INTO {rows} VALUES (1)")
    assert not any_connection._in_transaction


def test_a_mistake_in_the_statement_is_no_lost_connection(any_connection: Any) -> None:
    with pytest.raises(Exception) as caught:
        execute(any_connection, "SELECT * FROM no_such_table_anywhere")
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert not is_connection_lost(any_connection, caught.value)


def test_transactions_do_not_nest(any_connection: Any) -> None:
    with transaction(any_connection):
        with pytest.raises(datajoint.errors.DataJointError, match="do not nest"), transaction(any_connection):
            pass
        assert any_connection.in_transaction


def test_a_closed_connection_is_opened_again(any_settings: Settings) -> None:
    connection = connect(any_settings)
    before = connection.connection_id
    connection.close()
    ensure_connected(connection)
    assert execute(connection, "SELECT 1").fetchone() == (1,)
    assert connection.connection_id != before
    connection.close()


def test_a_good_connection_is_left_alone(any_connection: Any) -> None:
    driver = any_connection._conn
    ensure_connected(any_connection)
    assert any_connection._conn is driver


def test_a_transaction_that_the_server_gave_up_in_a_deadlock_is_done_again(
    any_settings: Settings, any_connection: Any, rows: str
) -> None:
    execute(any_connection, f"INSERT INTO {rows} VALUES (1), (2)")
    begun: list[tuple[int, int]] = []
    both_hold_one = threading.Barrier(2)

    @despite_conflicts
    def lock(connection: Any, first: int, second: int) -> tuple[int, int]:
        begun.append((first, second))
        with transaction(connection):
            for number, row in enumerate((first, second)):
                execute(connection, f"SELECT n FROM {rows} WHERE n = %s FOR UPDATE", (row,)).fetchone()
                if number == 0 and begun.count((first, second)) == 1:
                    both_hold_one.wait(30)
        return first, second

    with closing(connect(any_settings)) as other, ThreadPoolExecutor() as pool:
        ends = [pool.submit(lock, any_connection, 1, 2), pool.submit(lock, other, 2, 1)]
        assert [end.result(60) for end in ends] == [(1, 2), (2, 1)]
    assert len(begun) >= 3  # the one that begins again may meet the other once more


def test_a_login_or_name_that_fails_where_it_worked_before_is_a_database_that_is_away(
    any_connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise ConfigurationError("The database host is unknown", where="db.lab", why="no such name", hint="Check it.")

    any_connection._conn.close()
    with monkeypatch.context() as patched, pytest.raises(DatabaseUnavailable, match="no such name"):
        patched.setattr(any_connection, "connect", refused)
        ensure_connected(any_connection)
    ensure_connected(any_connection)
    assert execute(any_connection, "SELECT 1").fetchone() == (1,)


def test_what_is_no_conflict_is_not_done_again() -> None:
    begun: list[int] = []

    @despite_conflicts
    def fails() -> None:
        begun.append(1)
        raise KeyError("n")

    with pytest.raises(KeyError):
        fails()
    assert begun == [1]
