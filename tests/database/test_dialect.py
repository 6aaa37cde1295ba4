"""The same SQL means the same on both back ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from synicix_core.database import connect, execute, transaction
from synicix_core.database.dialect import (
    advisory_lock,
    age_in_seconds,
    columns_of,
    now_utc,
    quote,
    quote_table,
    seconds_ago,
    seconds_later,
    table_exists,
)
from synicix_core.database.quiet import datajoint
from synicix_core.errors import DatabaseUnavailable
from synicix_core.settings import Settings
from tests.database.test_connection import end_session

pytestmark = pytest.mark.database


@pytest.fixture
def second(any_settings: Settings) -> Iterator[Any]:
    connection = connect(any_settings)
    yield connection
    connection.close()


def value(connection: Any, sql: str, *params: object) -> Any:
    return execute(connection, f"SELECT {sql}", params).fetchone()[0]


def test_now_is_utc_in_milliseconds_whatever_the_session_s_zone(any_connection: Any) -> None:
    postgresql = any_connection.adapter.backend == "postgresql"
    execute(any_connection, "SET TIME ZONE 'Asia/Tokyo'" if postgresql else "SET time_zone = '+09:00'")
    now = value(any_connection, now_utc(any_connection.adapter))
    assert now.tzinfo is None
    assert now.microsecond % 1000 == 0
    assert abs((datetime.now(UTC).replace(tzinfo=None) - now).total_seconds()) < 5


def test_now_moves_on_inside_a_transaction(any_connection: Any) -> None:
    with transaction(any_connection):
        first = value(any_connection, now_utc(any_connection.adapter))
        time.sleep(0.02)
        assert value(any_connection, now_utc(any_connection.adapter)) > first


def test_times_are_added_and_subtracted_with_fractions(any_connection: Any) -> None:
    adapter = any_connection.adapter
    sql = f"SELECT {seconds_ago(adapter)}, {now_utc(adapter)}, {seconds_later(adapter)}, {seconds_later(adapter, '60')}"
    ago, now, later, minute = execute(any_connection, sql, (1.5, 90)).fetchone()
    assert (now - ago).total_seconds() == 1.5
    assert (later - now).total_seconds() == 90
    assert (minute - now).total_seconds() == 60
    age = value(any_connection, age_in_seconds(adapter, seconds_ago(adapter)), 2.25)
    assert float(age) == pytest.approx(2.25, abs=0.01)


def test_columns_and_tables_are_found_with_their_types(any_connection: Any) -> None:
    adapter = any_connection.adapter
    schema = datajoint.Schema("dialect_test", connection=any_connection)
    table = quote_table(adapter, "dialect_test", "~~rows")
    execute(any_connection, f"CREATE TABLE {table} ({quote(adapter, 'order')} int, name char(32))")
    try:
        assert table_exists(any_connection, "dialect_test", "~~rows")
        assert not table_exists(any_connection, "dialect_test", "rows")
        assert not table_exists(any_connection, "no_such_schema", "~~rows")
        found = columns_of(any_connection, "dialect_test", "~~rows")
        assert list(found) == ["order", "name"]
        assert found["name"] in ("char(32)", "character(32)")
    finally:
        schema.drop(prompt=False)


def test_a_lock_keeps_others_out_until_it_is_given_back(any_connection: Any, second: Any) -> None:
    with advisory_lock(any_connection, "one thing") as held:
        assert held is True
        with advisory_lock(second, "one thing", timeout=0, required=False) as other:
            assert other is False
        with advisory_lock(second, "another thing", timeout=0) as unrelated:
            assert unrelated is True
        refused = pytest.raises(DatabaseUnavailable, match=r"lock 'one thing'.*0\.1 seconds")
        with refused, advisory_lock(second, "one thing", timeout=0.1):
            pytest.fail("the lock was not kept")
    with advisory_lock(second, "one thing", timeout=0) as held:
        assert held is True


def test_a_lock_is_waited_for(any_connection: Any, second: Any) -> None:
    with advisory_lock(any_connection, "slow") as _:
        got: list[float] = []

        def wait() -> None:
            with advisory_lock(second, "slow", timeout=10):
                got.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        released = time.monotonic()
    thread.join()
    assert got[0] >= released


def test_a_lock_is_given_back_when_the_block_raises_even_in_a_failed_transaction(
    any_connection: Any, second: Any
) -> None:
    with pytest.raises(ZeroDivisionError), advisory_lock(any_connection, "broken"):
        raise ZeroDivisionError
    failing = pytest.raises(Exception, match="no_such")
    with failing, transaction(any_connection), advisory_lock(any_connection, "broken"):
        execute(any_connection, "SELECT * FROM no_such_schema.no_such_table")
    with advisory_lock(second, "broken", timeout=2) as held:
        assert held


def test_a_lock_dies_with_its_session_and_the_loss_is_told_by_the_statement(
    any_settings: Settings, any_connection: Any, second: Any
) -> None:
    with pytest.raises(DatabaseUnavailable, match="lost"), advisory_lock(any_connection, "gone"):
        end_session(any_settings, any_connection)
        execute(any_connection, "SELECT 1")
    with advisory_lock(second, "gone", timeout=5) as held:
        assert held
