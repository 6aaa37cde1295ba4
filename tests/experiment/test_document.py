"""Random draws: the same everywhere, and of the distribution that was asked for."""

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synicix_core.experiment.document import Distribution, RandomSweep

BOUND = st.floats(-1e300, 1e300, allow_nan=False)


def draws(kind, values, number=2000, seed=0, path="params.a"):
    return [Distribution(kind, values).draw(seed, path, sample) for sample in range(number)]


def test_draws_are_these_numbers_forever():
    """A change here would give other configs for the experiment files that people have."""
    assert draws("uniform", (0.0, 1.0), 3, seed=1) == [0.457569, 0.738457, 0.047408]
    assert draws("loguniform", (1e-6, 1e-2), 3, seed=1) == [6.76515e-05, 0.000899139, 1.54751e-06]
    assert draws("int", (16, 256), 3, seed=1) == [126, 193, 27]
    assert draws("choice", ("a", "b", "c"), 3, seed=1) == ["b", "c", "a"]


@given(st.tuples(BOUND, BOUND), st.integers(), st.integers(0, 10**6))
def test_uniform_stays_in_its_bounds(bounds, seed, sample):
    low, high = sorted(bounds)
    if low < high:
        value = Distribution("uniform", (low, high)).draw(seed, "params.a", sample)
        assert low <= value <= high
        assert json.loads(json.dumps(value)) == value


@given(st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)), st.integers(), st.integers(0, 10**6))
def test_loguniform_stays_in_its_bounds(bounds, seed, sample):
    low, high = sorted(bounds)
    if low < high:
        assert low <= Distribution("loguniform", (low, high)).draw(seed, "params.a", sample) <= high


@given(st.integers(-(2**62), 2**62), st.integers(0, 2**62), st.integers(), st.integers(0, 10**6))
def test_int_stays_in_its_bounds(low, width, seed, sample):
    value = Distribution("int", (low, low + width)).draw(seed, "params.a", sample)
    assert isinstance(value, int)
    assert low <= value <= low + width


def test_the_shapes_are_those_of_the_distributions():
    assert statistics.mean(draws("uniform", (2, 4))) == pytest.approx(3, abs=0.05)
    assert statistics.stdev(draws("uniform", (2, 4))) == pytest.approx(2 / 12**0.5, rel=0.05)
    assert statistics.median(draws("loguniform", (1e-6, 1e-2))) == pytest.approx(1e-4, rel=0.3)
    counts = [draws("int", (1, 4)).count(value) for value in (1, 2, 3, 4)]
    assert sum(counts) == 2000
    assert min(counts) > 400
    assert {repr(value) for value in draws("choice", (1, "1", True), 100)} == {"1", "'1'", "True"}


def test_floats_are_floats_even_between_integers():
    assert {type(value) for kind in ("uniform", "loguniform") for value in draws(kind, (1, 3), 50)} == {float}


def test_a_narrow_range_far_from_zero_keeps_its_values_apart():
    assert len(set(draws("uniform", (1000.0, 1000.001), 100))) > 90


def test_keys_and_seeds_are_drawn_apart_and_samples_are_stable():
    assert draws("uniform", (0, 1), 10) != draws("uniform", (0, 1), 10, seed=1)
    assert draws("uniform", (0, 1), 10) != draws("uniform", (0, 1), 10, path="params.b")
    few = RandomSweep(2, 0, (("params.a", Distribution("uniform", (0, 1))),))
    more = RandomSweep(9, 0, (("params.a", Distribution("uniform", (0, 1))), ("params.b", Distribution("int", (0, 9)))))
    assert [more.draw(sample)[0] for sample in range(2)] == [few.draw(sample)[0] for sample in range(2)]
