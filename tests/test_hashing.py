"""The same content always has the same md5; other content has another."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synicix_core.errors import DatasetError, ParamsError
from synicix_core.hashing import canonical_json, content_md5, file_sha256, jsonable

text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
)


def through_postgresql(value: object) -> object:
    """Write and read as jsonb does: numbers are decimals, keys are reordered."""

    def number(literal: str) -> object:
        as_decimal = Decimal(literal)
        plain = format(as_decimal, "f")
        if as_decimal == 0:
            plain = plain.lstrip("-")
        return int(plain) if "." not in plain else float(plain)

    def reordered(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return dict(sorted(pairs, key=lambda pair: (len(pair[0]), pair[0])))

    return json.loads(json.dumps(value), parse_float=number, object_pairs_hook=reordered)


@given(documents)
def test_what_a_database_gives_back_hashes_the_same(value):
    assert content_md5([value]) == canonical_md5(through_postgresql([value]))


def canonical_md5(value: object) -> str:
    import hashlib

    return hashlib.md5(canonical_json(value).encode()).hexdigest()


@given(st.dictionaries(text, documents, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert content_md5({key: value[key] for key in keys}) == content_md5(value)


@given(documents, documents)
def test_equal_hashes_mean_equal_content(left, right):
    def levelled(value: object) -> object:
        if isinstance(value, float):
            return ("int", int(Decimal(repr(value)))) if abs(value) >= 1e16 else ("float", value + 0.0)
        if isinstance(value, dict):
            return ("dict", {key: levelled(item) for key, item in value.items()})
        if isinstance(value, list):
            return ("list", [levelled(item) for item in value])
        return (type(value).__name__, value)

    assert (content_md5(left) == content_md5(right)) == (levelled(left) == levelled(right))


def test_contents_that_differ_in_type_only_differ_in_hash():
    contents = [1, 1.0, "1", True, [1], {"1": 1}, None, "null", "", [], {}, 0, False, 0.0, [[]], [{}], "true"]
    assert len({content_md5(content) for content in contents}) == len(contents)


def test_a_tuple_is_a_list():
    assert content_md5({"betas": (0.9, 0.999)}) == content_md5({"betas": [0.9, 0.999]})


def test_the_hash_is_the_same_in_another_process():
    value = {"b": [1, 2.5, "é"], "a": {"z": None, "y": True}}
    code = f"from synicix_core.hashing import content_md5; print(content_md5({value!r}))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert found.stdout.strip() == content_md5(value) == "238e602c1b97ce23f1cbe5932e070343"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": math.nan}, "a: nan is not a JSON number"),
        ({"a": {"b": [math.inf]}}, "a.b[0]: inf"),
        ({"a": {1, 2}}, "a: a value of type set"),
        ({1: 2}, "the key is of type int"),
        ({"a": 2**63}, "does not fit into 64 bits"),
        ({"a": "x\0"}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": object()}, "of type object"),
    ],
)
def test_what_is_not_json_is_refused_by_path(value, words):
    with pytest.raises(ParamsError) as caught:
        jsonable(value)
    assert words in str(caught.value)


def test_all_places_are_named_at_once():
    with pytest.raises(ParamsError) as caught:
        jsonable({"a": math.nan, "b": {"c": {1}}}, "params")
    assert [path for path, _ in caught.value.mistakes] == ["params.a", "params.b.c"]


def test_a_numpy_array_is_refused():
    import numpy

    with pytest.raises(ParamsError, match="ndarray"):
        jsonable({"a": numpy.zeros(2)})


def test_the_digest_of_a_directory_covers_names_and_contents(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.npy").write_bytes(b"1")
        (folder / "b.npy").write_bytes(b"2")
    (second / ".DS_Store").write_bytes(b"left by a file browser")
    assert file_sha256(first) == file_sha256(second)
    (second / "b.npy").rename(second / "c.npy")
    assert file_sha256(first) != file_sha256(second)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.h5"):
        file_sha256(tmp_path / "gone.h5")
