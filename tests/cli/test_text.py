"""Tables, numbers, curves and JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from synicix_core.cli.json_output import plain
from synicix_core.cli.sparkline import sparkline
from synicix_core.cli.text_table import format_table, shorten
from synicix_core.cli.wording import count, duration, number, percent, value_text


def test_numbers_are_aligned_to_the_right_and_text_to_the_left():
    table = format_table(["name", "score", "time"], [["a", "0.5", "1.2 s"], ["long", "-", "3 min 20 s"]])
    assert table.splitlines() == ["name  score        time", "a       0.5       1.2 s", "long      -  3 min 20 s"]


def test_a_column_may_be_kept_to_the_left():
    assert format_table(["task"], [["12"], ["1234"]], left=("task",)).splitlines() == ["task", "12", "1234"]


def test_text_is_shortened_to_the_width_and_numbers_never():
    row = ["recording-of-the-left-hemisphere.h5", "another-rather-long-name", "0.123456789"]
    lines = format_table(["dataset", "model", "score"], [row], width=40).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert "0.123456789" in lines[1] and lines[1].startswith("recor")


def test_a_column_of_names_to_copy_is_never_shortened():
    lines = format_table(["task", "dataset"], [["0123abcd", "a" * 40]], left=("task",), width=20).splitlines()
    assert lines[1] == "0123abcd  aaaa..aaaa"


def test_a_table_that_cannot_be_squeezed_is_left_whole():
    assert "0.123456789" in format_table(["score", "other"], [["0.123456789", "1"]], width=5)


def test_shorten_keeps_both_ends():
    assert shorten("static60000-1-1.h5", 12) == "stati..-1.h5"
    assert shorten("short", 12) == "short"
    assert all(len(shorten("static60000-1-1.h5", limit)) == limit for limit in range(18))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"),
        (18720, "5 h 12 min"), (86400 * 2 + 3600 * 3, "2 d 3 h"), (-3, "0.0 s"), (None, "-"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_numbers():
    assert [number(0.123456), number(None), number(0.0), percent(0.9044), percent(None)] == [
        "0.1235",
        "-",
        "0",
        "90.4%",
        "-",
    ]
    assert [count(1, "task"), count(2000, "task"), count(0, "mistake")] == ["1 task", "2,000 tasks", "0 mistakes"]


def test_values():
    assert value_text({"a": [1, 2.5e-7, True, None], "b": "x"}) == "{a: [1, 2.5e-07, yes, none], b: x}"


def test_a_curve_falls_from_the_highest_block_to_the_lowest():
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([3.0, 2.0, 1.0], encoding="ascii") == "#=_"


def test_a_curve_has_gaps_where_it_is_not_finite():
    assert sparkline([1.0, math.nan, None, 2.0, math.inf]) == "▁  █ "
    assert sparkline([]) == "" and sparkline([math.nan]) == " "


def test_a_flat_curve_and_a_long_one():
    assert sparkline([2.0, 2.0]) == "▁▁"
    long = sparkline([float(value) for value in range(1000)], width=10)
    assert len(long) == 10 and list(long) == sorted(long)


def test_two_curves_on_one_scale():
    assert sparkline([1.0], bounds=(0.0, 1.0)) == "█" and sparkline([2.0, -1.0], bounds=(0.0, 1.0)) == "█▁"


def test_json_takes_what_rows_hold():
    value = {
        "time": datetime(2026, 1, 2, 3, 4, 5, 678000), "aware": datetime(2026, 1, 2, tzinfo=UTC), "nan": math.nan,
        "array": np.arange(3), "scalar": np.float32(0.5), "bad": np.array([math.inf]), "path": Path("a/b"), "tuple": (1, None),
    }  # fmt: skip
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "time": "2026-01-02T03:04:05.678Z", "aware": "2026-01-02T00:00:00.000Z", "nan": None,
        "array": [0, 1, 2], "scalar": 0.5, "bad": [None], "path": "a/b", "tuple": [1, None],
    }  # fmt: skip
