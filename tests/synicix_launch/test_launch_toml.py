"""What is written as TOML is read the same."""

from __future__ import annotations

import datetime
import math
import string
import tomllib

from hypothesis import given
from hypothesis import strategies as st
from synicix_launch.toml_text import toml_text

TEXTS = st.text(st.characters(codec="utf-8"))
SCALARS = (
    TEXTS
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(st.dictionaries(TEXTS | st.text(string.ascii_letters + "-_", min_size=1), VALUES, max_size=4))
def test_any_document_comes_back(document):
    assert tomllib.loads(toml_text(document)) == document


def test_what_is_no_number_comes_back():
    assert math.isnan(tomllib.loads(toml_text({"x": float("nan")}))["x"])


def test_it_reads_as_people_write_it():
    document = {"schema_name": "lab", "worker": {"grace_seconds": 60.0}, "plugins": {"my-lab": {"on": True}}}
    assert toml_text(document) == (
        'schema_name = "lab"\n\n[worker]\ngrace_seconds = 60.0\n\n[plugins.my-lab]\non = true\n'
    )
