"""Descriptors refuse what cannot work when they are made."""

from __future__ import annotations

import dataclasses

import pytest

from synicix_core import ModelProvider, SamplerProvider
from synicix_core.providers import KINDS


def test_a_descriptor_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelProvider("Net", target="a.b:Net").name = "other"


@pytest.mark.parametrize("name", ["", "1st", "a b", "a/b", "a@2", "ä", "x" * 101, None])
def test_a_name_that_rows_cannot_hold_is_refused(name):
    with pytest.raises(ValueError, match="not allowed"):
        ModelProvider(name, target="a.b:Net")


@pytest.mark.parametrize("target", ["a.b.Net", "a.b:", ":Net", "a b:Net", "a:b:c", 3])
def test_a_target_that_cannot_be_imported_is_refused(target):
    with pytest.raises(ValueError, match="target"):
        ModelProvider("Net", target=target)


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.0])
def test_a_version_is_a_positive_integer(version):
    with pytest.raises(ValueError, match="version"):
        ModelProvider("Net", target="a.b:Net", version=version)


def test_a_string_of_aliases_is_refused():
    with pytest.raises(ValueError, match="tuples of names"):
        ModelProvider("Net", target="a.b:Net", aliases="Old")


def test_a_sampler_yields_indices_or_batches():
    assert SamplerProvider("S", target="a:S").yields == "index"
    with pytest.raises(ValueError, match="yields"):
        SamplerProvider("S", target="a:S", yields="clips")


def test_every_kind_has_its_descriptor():
    assert {kind: cls.kind for kind, cls in KINDS.items()} == {kind: kind for kind in KINDS}
