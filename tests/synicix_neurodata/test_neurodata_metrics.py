"""The metrics against closed forms on Poisson populations, plain loops, scipy, and what must not change them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import synicix_neurodata.neuron_blocks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synicix_neurodata.metrics import (
    FEVE,
    CorrelationToAverage,
    ExplainableVariance,
    FEVENeurons,
    FractionOracle,
    Oracle,
    SingleTrialCorrelation,
)

from synicix_core.errors import ParamsError, SynicixError
from synicix_core.training.contract import Metric

OVER_REPEATS = [
    CorrelationToAverage(),
    ExplainableVariance(),
    FEVE(),
    FEVENeurons(),
    Oracle(),
    Oracle(kind="conservative"),
    FractionOracle(),
]
ALL = [SingleTrialCorrelation(), *OVER_REPEATS]


def score(metric, outputs, targets, ids=None):
    """As the core computes what it stores."""
    takes_column = not isinstance(metric, SingleTrialCorrelation)
    tensors = (torch.tensor(values) for values in (outputs, targets))
    return Metric("m", metric, True, takes_column)(*tensors, (lambda _: np.asarray(ids)) if takes_column else None)


def per_neuron(metric, outputs, targets, ids):
    return metric(torch.as_tensor(outputs), torch.as_tensor(targets), lambda _: np.asarray(ids))


class Population:
    """Poisson cells with log-normal rates over images, all images shown `repeats` times (or as often as each says)."""

    def __init__(self, mean_rate, repeats, images=100, neurons=100, seed=0):
        rng = np.random.default_rng(seed)
        log_rate = rng.standard_normal((images, neurons)) * rng.uniform(0.4, 1.2, neurons)
        cell_means = mean_rate * np.exp(0.4 * rng.standard_normal(neurons))
        rate = np.exp(log_rate)
        rate *= cell_means / rate.mean(0)
        self.repeats = np.broadcast_to(repeats, images)
        order = rng.permutation(self.repeats.sum())
        self.ids = np.repeat(np.arange(images), self.repeats)[order]
        self.rates = rate[self.ids]
        self.counts = rng.poisson(self.rates).astype(np.float32)
        self.S, self.E = rate.var(0), rate.mean(0)


SIZES = [(1.0, 10), (0.2, 10), (5.0, 10), (1.0, 4)]


@pytest.mark.parametrize(("mean_rate", "repeats"), SIZES)
def test_the_true_rates_score_what_the_closed_forms_say(mean_rate, repeats):
    p = Population(mean_rate, repeats)
    S, E, K = p.S, p.E, repeats
    expected = {
        SingleTrialCorrelation(): np.sqrt(S / (S + E)).mean(),
        CorrelationToAverage(): np.sqrt(S / (S + E / K)).mean(),
        ExplainableVariance(): (S / (S + E)).mean(),
        Oracle(): (S / np.sqrt((S + E) * (S + E / (K - 1)))).mean(),
        Oracle(kind="conservative"): np.sqrt((S + E / K) / (S + E)).mean(),
    }
    for metric, value in expected.items():
        assert score(metric, p.rates, p.counts, p.ids) == pytest.approx(value, abs=0.01), type(metric).__name__
    model, oracle = np.sqrt(S / (S + E)), S / np.sqrt((S + E) * (S + E / (K - 1)))
    slope = (model @ oracle) / (oracle @ oracle)
    assert score(FractionOracle(), p.rates, p.counts, p.ids) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize(
    ("mean_rate", "repeats", "margin"), [(*SIZES[0], 0.01), (*SIZES[1], 0.03), (*SIZES[2], 0.01), (*SIZES[3], 0.02)]
)
def test_feve_is_one_for_the_truth_and_zero_for_the_mean(mean_rate, repeats, margin):
    p = Population(mean_rate, repeats)
    assert score(FEVE(), p.rates, p.counts, p.ids) == pytest.approx(1, abs=margin)
    constant = np.broadcast_to(p.counts.mean(0), p.counts.shape)
    assert score(FEVE(), constant, p.counts, p.ids) == pytest.approx(0, abs=0.02)
    kept = score(FEVENeurons(), p.rates, p.counts, p.ids)
    assert kept == (per_neuron(ExplainableVariance(), p.rates, p.counts, p.ids) >= 0.15).sum()
    assert len(per_neuron(FEVE(), p.rates, p.counts, p.ids)) == kept > 30
    assert kept == pytest.approx((p.S / (p.S + p.E) >= 0.15).sum(), abs=8)


def test_who_knows_what_differs_between_repeats_has_a_feve_above_one():
    p = Population(5.0, 10)
    rng = np.random.default_rng(1)
    gain = np.exp(0.4 * rng.standard_normal((len(p.ids), 1)) - 0.08)
    counts = rng.poisson(p.rates * gain).astype(np.float32)
    total = (p.S + p.E**2) * np.exp(0.16) - p.E**2 + p.E
    seen, explainable = total - p.E, p.S
    kept = explainable / total >= 0.15
    assert score(FEVE(), p.rates, counts, p.ids) == pytest.approx(1, abs=0.03)
    everything = score(FEVE(), p.rates * gain, counts, p.ids)
    assert everything == pytest.approx((seen / explainable)[kept].mean(), rel=0.1)
    assert everything > 1.1


def test_where_no_neuron_is_reliable_there_is_no_feve_and_the_count_says_so():
    p = Population(0.02, 10, neurons=20)
    p.counts[:] = np.random.default_rng(1).poisson(0.5, p.counts.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(score(FEVE(), p.rates, p.counts, p.ids))
        assert score(FEVENeurons(), p.rates, p.counts, p.ids) == 0
    assert score(ExplainableVariance(), p.rates, p.counts, p.ids) == pytest.approx(0, abs=0.02)


def test_other_rates_score_between():
    p = Population(1.0, 10)
    half = p.rates.mean(0) + 0.5 * (p.rates - p.rates.mean(0))
    assert score(FEVE(), half, p.counts, p.ids) == pytest.approx(0.75, abs=0.02)
    assert score(SingleTrialCorrelation(), half, p.counts) == pytest.approx(
        score(SingleTrialCorrelation(), p.rates, p.counts)
    )
    rng = np.random.default_rng(3)
    shuffled = p.rates[rng.permutation(len(p.rates))]
    for metric in (SingleTrialCorrelation(), CorrelationToAverage(), FractionOracle()):
        assert abs(score(metric, shuffled, p.counts, p.ids)) < 0.05
    assert score(FEVE(), shuffled, p.counts, p.ids) < -0.5


def test_unequal_repeats_are_no_bias():
    repeats = np.tile([2, 3, 5, 30], 50)
    p = Population(2.0, repeats, images=200)
    S, E = p.S, p.E
    assert score(FEVE(), p.rates, p.counts, p.ids) == pytest.approx(1, abs=0.02)
    assert score(CorrelationToAverage(), p.rates, p.counts, p.ids) == pytest.approx(
        np.sqrt(S / (S + E * (1 / repeats).mean())).mean(), abs=0.02
    )
    trials = p.rates  # what varies over trials, in which often shown images weigh more
    S, E = trials.var(0), trials.mean(0)
    assert score(ExplainableVariance(), p.rates, p.counts, p.ids) == pytest.approx((S / (S + E)).mean(), abs=0.02)
    noise_of_others = (repeats / (repeats - 1)).sum() / repeats.sum()
    jackknife = (S / np.sqrt((S + E) * (S + E * noise_of_others))).mean()
    assert score(Oracle(), p.rates, p.counts, p.ids) == pytest.approx(jackknife, abs=0.02)


def by_loops(outputs, targets, ids):
    """Everything once more, neuron by neuron and stimulus by stimulus, from the definitions."""
    found = {}
    shown = [np.flatnonzero(ids == one) for one in np.unique(ids)]
    shown = [trials for trials in shown if len(trials) > 1]
    used = np.concatenate(shown)
    for n in range(targets.shape[1]):
        x, y = outputs[:, n].astype(float), targets[:, n].astype(float)
        noise = sum(len(trials) * np.var(y[trials], ddof=1) for trials in shown) / len(used)
        total = np.var(y[used], ddof=1)
        mse = np.mean([(x[t] - y[t]) ** 2 for t in used])
        others = [(y[t], np.mean([y[o] for o in trials if o != t])) for trials in shown for t in trials]
        means = np.array([y[trials].mean() for trials in shown])
        sizes = np.array([len(trials) for trials in shown])
        between = np.average((means - np.average(means, weights=sizes)) ** 2, weights=sizes)
        within = sum(len(trials) * np.var(y[trials]) for trials in shown) / len(used)
        values = {
            "single": stats.pearsonr(x, y).statistic,
            "average": stats.pearsonr([x[trials].mean() for trials in shown], means).statistic,
            "fev": (total - noise) / total,
            "feve": 1 - (mse - noise) / (total - noise),
            "jackknife": stats.pearsonr(*zip(*others, strict=True)).statistic,
            "conservative": between / np.sqrt(between * (between + within)),
            "model": stats.pearsonr(x[used], y[used]).statistic,
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def drawn(seed, sizes, neurons=4):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat([f"image {i}" for i in range(len(sizes))], sizes))
    signal = rng.normal(size=(len(sizes), neurons))[np.unique(ids, return_inverse=True)[1]]
    targets = (3 + signal + rng.normal(size=signal.shape)).astype(np.float32)
    return (3 + signal + 0.5 * rng.normal(size=signal.shape)).astype(np.float32), targets, ids


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), max_size=5))
def test_every_metric_is_what_plain_loops_find(seed, sizes):
    outputs, targets, ids = drawn(seed, [2, 4, 3, *sizes])
    expected = by_loops(outputs, targets, ids)
    np.testing.assert_allclose(
        SingleTrialCorrelation()(torch.tensor(outputs), torch.tensor(targets)), expected["single"]
    )
    for metric, name in [
        (CorrelationToAverage(), "average"),
        (ExplainableVariance(), "fev"),
        (Oracle(), "jackknife"),
        (Oracle(kind="conservative"), "conservative"),
    ]:
        found = per_neuron(metric, outputs, targets, ids)
        np.testing.assert_allclose(found, expected[name], rtol=1e-7, atol=1e-9, err_msg=name)
    kept = expected["fev"] >= 0.15
    np.testing.assert_allclose(per_neuron(FEVE(), outputs, targets, ids), expected["feve"][kept], rtol=1e-7)
    assert per_neuron(FEVENeurons(), outputs, targets, ids) == kept.sum()
    slope = np.linalg.lstsq(expected["jackknife"][:, None], expected["model"], rcond=None)[0][0]
    assert per_neuron(FractionOracle(), outputs, targets, ids) == pytest.approx(slope)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_order_and_scale_do_not_matter(seed, factor):
    outputs, targets, ids = drawn(seed, [3, 1, 2, 4, 5])
    outputs, targets = outputs.astype(float), targets.astype(float)  # so that scaling rounds nothing that shows
    rng = np.random.default_rng(seed)
    trials, neurons = rng.permutation(len(ids)), rng.permutation(4)
    for metric in ALL:
        value = score(metric, outputs, targets, ids)
        same = pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True)
        assert score(metric, outputs[trials], targets[trials], ids[trials]) == same
        assert score(metric, outputs[:, neurons], targets[:, neurons], ids) == same
        assert score(metric, outputs * factor, targets * factor, ids) == same
        renamed = np.array([int(one.split()[1]) * 7 for one in ids])
        assert score(metric, outputs, targets, renamed) == same
    for metric in (SingleTrialCorrelation(), CorrelationToAverage(), FractionOracle()):
        assert score(metric, 5 + factor * outputs, targets, ids) == pytest.approx(
            score(metric, outputs, targets, ids), rel=1e-6, abs=1e-9
        )


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: type(metric).__name__)
def test_frames_are_further_observations(metric):
    outputs, targets, ids = drawn(1, [4, 3, 1, 2], neurons=6 * 5)
    clips = [values.reshape(-1, 6, 5) for values in (outputs, targets)]
    # The same as images: each frame of a stimulus becomes a stimulus of its own.
    flat = [values.transpose(0, 2, 1).reshape(-1, 6) for values in clips]
    conditions = [f"{one} frame {frame}" for one in ids for frame in range(5)]
    value = score(metric, *clips, ids)
    assert math.isfinite(value)
    assert value == pytest.approx(score(metric, *flat, conditions))
    skipping = type(metric)(skip_frames=2, **({"kind": metric.kind} if isinstance(metric, Oracle) else {}))
    assert score(skipping, *clips, ids) == pytest.approx(score(metric, *(values[..., 2:] for values in clips), ids))
    assert isinstance(metric, FEVENeurons) or score(skipping, *clips, ids) != pytest.approx(value)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: type(metric).__name__)
def test_blocks_of_neurons_change_nothing(metric, monkeypatch):
    outputs, targets, ids = drawn(2, [4, 3, 2], neurons=7)
    whole = score(metric, outputs, targets, ids)
    monkeypatch.setattr(synicix_neurodata.neuron_blocks, "_BLOCK_VALUES", 2 * len(ids))
    assert score(metric, outputs, targets, ids) == pytest.approx(whole, rel=1e-12)


def test_stimuli_shown_once_are_left_out_of_what_needs_repeats():
    outputs, targets, ids = drawn(3, [4, 3, 5, 1, 1, 1])
    often = np.isin(ids, ["image 0", "image 1", "image 2"])
    for metric in OVER_REPEATS:
        assert score(metric, outputs, targets, ids) == score(metric, outputs[often], targets[often], ids[often])
    unknown = np.where(np.char.startswith(ids, "image 0"), np.nan, np.arange(len(ids)) % 3)
    known = ~np.isnan(unknown)
    assert score(Oracle(), outputs, targets, unknown) == score(Oracle(), outputs[known], targets[known], unknown[known])


@pytest.mark.parametrize("metric", OVER_REPEATS, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("ids", [np.arange(12), np.array([0] * 2 + list(range(2, 12)))])
def test_without_repeats_there_is_no_value_and_no_complaint(metric, ids):
    outputs, targets, _ = drawn(4, [12])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(score(metric, outputs, targets, ids))


def test_neurons_that_do_not_vary_count_as_zero():
    outputs, targets, ids = drawn(5, [4, 3, 5])
    outputs, targets = outputs.astype(float), targets.astype(float)
    live = [per_neuron(metric, outputs, targets, ids) for metric in (CorrelationToAverage(), Oracle())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        targets[:, 1] = 0.1  # whose averages over three and four trials differ by rounding
        outputs[:, 2] = -7.3
        assert SingleTrialCorrelation()(torch.tensor(outputs), torch.tensor(targets))[1:3].tolist() == [0, 0]
        average = per_neuron(CorrelationToAverage(), outputs, targets, ids)
        assert average.tolist() == [live[0][0], 0, 0, live[0][3]]
        assert per_neuron(Oracle(), outputs, targets, ids).tolist() == [live[1][0], 0, live[1][2], live[1][3]]
        assert per_neuron(Oracle(kind="conservative"), outputs, targets, ids)[1] == 0
        assert per_neuron(ExplainableVariance(), outputs, targets, ids)[1] == 0
        assert per_neuron(FEVENeurons(threshold=1e-9), outputs, targets, ids) < 4
        assert math.isnan(score(FractionOracle(), outputs, np.zeros_like(targets), ids))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_model_has_no_score(bad):
    outputs, targets, ids = drawn(6, [4, 3, 5])
    outputs[2, 1] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (SingleTrialCorrelation(), CorrelationToAverage(), FEVE(), FractionOracle()):
            assert not math.isfinite(score(metric, outputs, targets, ids))


def test_one_observation_is_no_correlation():
    assert math.isnan(score(SingleTrialCorrelation(), np.ones((1, 3)), np.ones((1, 3))))


def test_float32_keeps_the_last_digits_of_large_offsets():
    rng = np.random.default_rng(0)
    x = (1e6 + rng.normal(size=(500, 3))).astype(np.float32)
    y = (1e6 + rng.normal(size=(500, 3))).astype(np.float32)
    exact = [stats.pearsonr(x[:, n].astype(float), y[:, n].astype(float)).statistic for n in range(3)]
    np.testing.assert_allclose(SingleTrialCorrelation()(torch.tensor(x), torch.tensor(y)), exact, rtol=1e-8)


def test_the_column_can_be_chosen():
    outputs, targets, ids = drawn(7, [4, 3, 5])
    asked = []

    def column(name):
        asked.append(name)
        return ids

    CorrelationToAverage(group_by="frame_image_id")(torch.tensor(outputs), torch.tensor(targets), column)
    Oracle()(torch.tensor(outputs), torch.tensor(targets), column)
    assert asked == ["frame_image_id", "stimulus_id"]


@pytest.mark.parametrize(
    ("outputs", "targets", "skip", "words"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3), 0, r"'oracle'.*\(4, 2\).*\(4, 3\)"),
        ({"a": torch.zeros(4, 2)}, torch.zeros(4, 2), 0, "outputs are a dict"),
        (torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2), 0, "expected .*neurons, frames"),
        (torch.zeros(4, 2), torch.zeros(4, 2), 3, "skip_frames is 3, and there are no frames"),
        (torch.zeros(4, 2, 3), torch.zeros(4, 2, 3), 3, "skip_frames is 3, and there are 3 frames"),
    ],
)
def test_what_cannot_be_scored_is_said(outputs, targets, skip, words):
    with pytest.raises(SynicixError, match=words):
        Oracle(skip_frames=skip)(outputs, targets, lambda _: np.zeros(4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SingleTrialCorrelation(skip_frames=-1), "single_trial_correlation.*skip_frames"),
        (lambda: FEVE(threshold=0.0), "feve.*threshold"),
        (lambda: FEVENeurons(threshold=1.0), "feve_neurons.*threshold"),
        (lambda: Oracle(kind="generous"), "oracle.*kind.*jackknife or conservative"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ParamsError, match=words):
        make()
