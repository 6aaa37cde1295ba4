"""The samplers: what an epoch holds, that only the generator decides it, and that a killed training goes on."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from synicix_neurodata.metrics import CorrelationToAverage, FEVENeurons
from synicix_neurodata.samplers import BalancedSampler, ContiguousClips, RepeatsBatchSampler

from synicix_core import DatasetProvider, MetricProvider, SamplerProvider, builtin
from synicix_core.errors import DatasetError, ParamsError
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import PROVIDERS, Linear, Recorder, nn_spec

CLASSES = np.array(["b", "a", "c", "a", "b", "a", "a", "a", "b", "c", "a"])  # six a, three b, two c
STIMULI = np.array([7, 3, 3, 5, 7, 3, 9, 5])


class Columns:
    """A dataset of which only the columns matter."""

    path = "/data/scan.h5"

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def column(self, name):
        return self.columns[name]


DATASET = Columns(cell=CLASSES)
SHOWN = Columns(stimulus_id=STIMULI)
CLIPS = Columns(trial=np.repeat([4, 2, 11], [5, 1, 3]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shortest_takes_as_many_of_each_class_as_the_rarest_has():
    sampler = BalancedSampler(DATASET, "cell", generator=generator())
    epochs = [list(sampler) for _ in range(200)]
    for epoch in epochs:
        assert Counter(CLASSES[epoch]) == {"a": 2, "b": 2, "c": 2}
        assert len(set(epoch)) == len(epoch) == len(sampler) == 6
    drawn = Counter(index for epoch in epochs for index in epoch)
    assert set(drawn) == set(range(11))
    assert all(abs(drawn[index] - 200 * 2 / 6) < 25 for index in np.flatnonzero(CLASSES == "a"))


def test_longest_draws_the_rarer_classes_with_replacement():
    sampler = BalancedSampler(DATASET, "cell", mode="longest", generator=generator())
    epochs = [list(sampler) for _ in range(50)]
    for epoch in epochs:
        assert Counter(CLASSES[epoch]) == {"a": 6, "b": 6, "c": 6}
        assert len(epoch) == len(sampler) == 18
        assert set(np.flatnonzero(CLASSES == "a")) <= set(epoch), "of the most frequent class each comes once"
    assert any(not set(np.flatnonzero(CLASSES == "b")) <= set(epoch) for epoch in epochs)
    assert {index for epoch in epochs for index in epoch} == set(range(11))


def test_classes_come_in_random_order():
    sampler = BalancedSampler(Columns(cell=np.repeat([0, 1], 100)), "cell", generator=generator())
    first_half = np.array(list(sampler)[:100]) < 100
    assert 30 < first_half.sum() < 70


def test_repeats_come_together_in_the_order_of_the_dataset():
    assert list(RepeatsBatchSampler(SHOWN)) == [[0, 4], [1, 2, 5], [3, 7]]
    assert list(RepeatsBatchSampler(SHOWN, min_repeats=3)) == [[1, 2, 5]]
    assert list(RepeatsBatchSampler(SHOWN, min_repeats=1)) == [[0, 4], [1, 2, 5], [3, 7], [6]]
    assert list(RepeatsBatchSampler(Columns(hash=STIMULI.astype(str)), column="hash")) == [[0, 4], [1, 2, 5], [3, 7]]
    assert len(RepeatsBatchSampler(SHOWN)) == 3


def test_shuffled_repeats_are_the_same_batches():
    sampler = RepeatsBatchSampler(SHOWN, min_repeats=1, shuffle=True, generator=generator())
    epochs = [list(sampler) for _ in range(20)]
    assert all(sorted(epoch) == [[0, 4], [1, 2, 5], [3, 7], [6]] for epoch in epochs)
    assert len({tuple(map(tuple, epoch)) for epoch in epochs}) > 5
    epochs[0][0].append(99)
    assert sorted(sampler) == [[0, 4], [1, 2, 5], [3, 7], [6]], "a batch that is changed is the reader's own"


def test_each_trial_gives_as_many_clips_at_random_places():
    trials = CLIPS.column("trial")
    sampler = ContiguousClips(CLIPS, clips_per_trial=2, generator=generator())
    epochs = [list(sampler) for _ in range(60)]
    for epoch in epochs:
        assert Counter(trials[epoch]) == {4: 2, 2: 2, 11: 2}
        assert len(epoch) == len(sampler) == 6
        assert len(set(epoch)) == 5, "a clip comes twice only where its trial has no other"
    assert {index for epoch in epochs for index in epoch} == set(range(9))
    assert len({tuple(sorted(epoch)) for epoch in epochs}) > 10
    once = ContiguousClips(CLIPS, generator=generator())
    assert len(once) == len(list(once)) == 3
    many = list(ContiguousClips(CLIPS, clips_per_trial=7, generator=generator()))
    assert {Counter(many)[index] for index in range(5)} == {1, 2}


def samplers(seed):
    return [
        BalancedSampler(DATASET, "cell", generator=generator(seed)),
        BalancedSampler(DATASET, "cell", mode="longest", generator=generator(seed)),
        RepeatsBatchSampler(Columns(stimulus_id=np.arange(60) // 2), shuffle=True, generator=generator(seed)),
        ContiguousClips(CLIPS, clips_per_trial=3, generator=generator(seed)),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_the_generator_decides_and_nothing_else(kind):
    sampler, same, other = samplers(1)[kind], samplers(1)[kind], samplers(2)[kind]
    before = torch.get_rng_state()
    state = sampler.generator.get_state()
    first, second = list(sampler), list(sampler)
    assert first != second
    np.random.seed(5)
    assert list(same) == first != list(other)
    sampler.generator.set_state(state)
    assert [list(sampler), list(sampler)] == [first, second]
    assert list(pickle.loads(pickle.dumps(same))) == second
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_torchs_own_is_drawn_from():
    for sampler in (BalancedSampler(DATASET, "cell"), ContiguousClips(CLIPS), RepeatsBatchSampler(SHOWN, shuffle=True)):
        torch.manual_seed(3)
        first = list(sampler)
        torch.manual_seed(3)
        assert list(sampler) == first


def test_a_tier_without_trials_has_empty_epochs():
    nobody = Columns(cell=np.array([]), trial=np.array([]))
    for sampler in (BalancedSampler(nobody, "cell"), ContiguousClips(nobody)):
        assert (len(sampler), list(sampler)) == (0, [])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: BalancedSampler(Linear("", "train"), "cell"),
            r"needs the column 'cell'.*Linear has no column\(name\)",
        ),
        (lambda: ContiguousClips(Columns(trial=np.zeros((3, 2)))), r"'trial' has shape \(3, 2\), and there are 3"),
        (
            lambda: RepeatsBatchSampler(Columns(stimulus_id=np.arange(5))),
            "/data/scan.h5.*'stimulus_id' comes 2 times.*the most is 1",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(make, words):
    with pytest.raises(DatasetError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BalancedSampler(DATASET, "cell", mode="middle"), "mode.*shortest or longest"),
        (lambda: RepeatsBatchSampler(SHOWN, min_repeats=0), "min_repeats"),
        (lambda: ContiguousClips(CLIPS, clips_per_trial=0), "clips_per_trial"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ParamsError, match=words):
        make()


class Shown(Linear):
    """Every tier shows stimuli three times each; examples are noisy, so that resuming has to restore that too."""

    def __init__(self, path, tier):
        super().__init__(path, tier, augment=tier == "train")
        first = torch.arange(len(self)) // 3 * 3
        noise = 0.5 * torch.randn(len(self), 3, generator=generator())
        self.x, self.y = self.x[first], self.y[first] + noise

    def column(self, name):
        return {
            "stimulus_id": np.arange(len(self)) // 3,
            "cell": np.arange(len(self)) % 7 % 3,
            "trial": np.arange(len(self)) // 4,
        }[name]


REGISTRY = registry(
    EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin),
    plugin(
        "toys",
        *PROVIDERS,
        DatasetProvider("Shown", target=Shown),
        SamplerProvider("BalancedSampler", target=BalancedSampler),
        SamplerProvider("RepeatsBatchSampler", target=RepeatsBatchSampler, yields="batch"),
        SamplerProvider("ContiguousClips", target=ContiguousClips),
        MetricProvider("correlation_to_average", target=CorrelationToAverage),
        MetricProvider("feve_neurons", target=FEVENeurons),
    ),
)

CONFIGURED = {
    "shortest": Component("sampler", "toys/BalancedSampler", {"column": "cell"}),
    "longest": Component("sampler", "toys/BalancedSampler", {"column": "cell", "mode": "longest"}),
    "repeats": Component("sampler", "toys/RepeatsBatchSampler", {"shuffle": True}),
    "clips": Component("sampler", "toys/ContiguousClips", {"clips_per_trial": 2}),
}


def spec_of(folder, sampler):
    # Validation shows its stimuli in batches of repeats, whatever trains: metrics over repeats work with any sampler.
    samplers = {"train": CONFIGURED[sampler], "validation": CONFIGURED["repeats"], "test": None}
    names = ("toys/correlation_to_average", "toys/feve_neurons", "synicix-core/loss")
    spec = nn_spec(folder, {}, dataset=Component("dataset", "toys/Shown"), samplers=samplers, epoch_limit=4)
    return dataclasses.replace(spec, metrics=tuple(Component("metric", name) for name in names))


def numbers(outcome):
    return {k: v for k, v in outcome.to_wire().items() if k not in ("train_seconds", "provenance", "notes")}


@pytest.mark.parametrize("sampler", CONFIGURED)
def test_killed_and_gone_on_equals_uninterrupted(tmp_path, sampler):
    whole = run_task(spec_of(tmp_path / "whole", sampler), REGISTRY, Recorder())
    assert whole.metrics["test"]["correlation_to_average"] > 0.5
    assert whole.metrics["train"]["feve_neurons"] == 3, "a tier is scored whole, whatever was drawn for training"
    halves = spec_of(tmp_path / "halves", sampler)
    stops = 0
    for stop_at in (2, 7, 5, 9):
        try:
            run_task(halves, REGISTRY, Recorder(stop_at=stop_at))
        except TrainingInterrupted:
            stops += 1
            assert Path(halves.checkpoint_path).exists()
            # What another task would leave behind in this process.
            torch.manual_seed(stop_at)
    resumed = run_task(halves, REGISTRY, Recorder())
    assert stops >= 3
    assert numbers(resumed) == numbers(whole)
