"""Tiers: the words of every dialect, splitting by stimulus, withheld responses, leaks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.tiers import Split, assign_tiers

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.recordings import static_recording

TRIALS = 40


def names(*groups):
    """Tier names of the trials: (name, count)."""
    return np.concatenate([np.full(count, name, dtype="S20") for name, count in groups])


def assigned(path, **split):
    return assign_tiers(describe_recording(path), Split(**split))


def sizes(tiers):
    return tuple(len(tiers.rows[tier]) for tier in ("train", "validation", "test"))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([("train", 20), ("validation", 10), ("test", 10)], (20, 10, 10)),
        ([("train", 20), ("oracle", 8), ("none", 7), ("live_test_main", 5)], (20, 8, 5)),
        ([("training", 30), ("val", 5), ("final_test", 5)], (30, 5, 5)),
        ([("train", 20), ("validation", 10), ("test", 6), ("final_test", 4)], (20, 10, 10)),
        ([("train", 20), ("oracle", 10), ("final_test_main", 4), ("final_test_bonus", 6)], (20, 10, 4)),
    ],
)
def test_dialects(tmp_path, groups, expected):
    tiers = assigned(static_recording(tmp_path / "r.h5", tiers=names(*groups)))
    assert sizes(tiers) == expected
    assert tiers.from_file
    assert tiers.notes == tiers.test_notes == ()
    for rows in tiers.rows.values():
        assert (np.diff(rows) > 0).all()


def test_a_tier_of_another_kind_is_a_test_only_when_it_is_named(tmp_path):
    path = static_recording(tmp_path / "r.h5", tiers=names(("train", 20), ("oracle", 10), ("final_test_bonus", 10)))
    tiers = assigned(path)
    assert sizes(tiers) == (20, 10, 0)
    assert "test_tiers can name final_test_bonus" in tiers.test_notes[0]
    assert sizes(assigned(path, test_tiers=("final_test_bonus",))) == (20, 10, 10)
    assert sizes(assigned(path, test_tiers=("oracle",))) == (20, 0, 10)
    with pytest.raises(DatasetError, match=r"'bonus'.*oracle, train"):
        assigned(path, test_tiers=("bonus",))


def test_a_tier_that_nobody_knows_is_left_out_and_said(tmp_path):
    path = static_recording(
        tmp_path / "r.h5", tiers=names(("train", 20), ("validation", 10), ("test", 5), ("habit", 5))
    )
    with pytest.warns(UserWarning, match="tier habit are not used"):
        assert len(NeuroDataDataset(path, "train")) == 20


def test_a_part_of_the_test_tiers_whose_responses_are_withheld_is_left_out(tmp_path):
    tiers = names(("train", 20), ("validation", 10), ("test", 6), ("final_test", 4))
    responses = np.random.default_rng(0).gamma(2, 1, (TRIALS, 6))
    responses[tiers == b"final_test"] = 0
    found = assigned(static_recording(tmp_path / "r.h5", tiers=tiers, responses=responses))
    assert sizes(found) == (20, 10, 6)
    assert "all 4 trials of the tier final_test are zero (withheld)" in found.test_notes[0]


def ids_of(path, tier, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return set(NeuroDataDataset(path, tier, **params).column("stimulus_id"))


def test_without_tiers_stimuli_are_split_and_never_trials(tmp_path):
    shown = np.arange(TRIALS) % 20  # every image twice, so nothing tells which are the test
    path = static_recording(tmp_path / "r.h5", tiers=None, **{"item_info/frame_image_id": shown})
    found = {tier: ids_of(path, tier) for tier in ("train", "validation", "test")}
    assert [len(found[tier]) for tier in found] == [16, 2, 2]
    assert len(set.union(*found.values())) == 20
    tiers = assigned(path)
    assert sizes(tiers) == (32, 4, 4)
    assert not tiers.from_file
    assert "train 16, validation 2, test 2; drawn at random" in tiers.notes[0]


def test_without_tiers_what_was_shown_more_than_once_is_the_test_tier(tmp_path):
    shown = np.where(np.arange(TRIALS) < 30, np.arange(TRIALS), 100 + np.arange(TRIALS) % 2)
    tiers = assigned(static_recording(tmp_path / "r.h5", tiers=None, **{"item_info/frame_image_id": shown}))
    np.testing.assert_array_equal(tiers.rows["test"], np.arange(30, 40))
    assert sizes(tiers) == (27, 3, 10)
    assert "shown more than once are the test tier" in tiers.notes[0]


def test_images_without_an_id_are_known_by_their_pixels(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (10, 1, 8, 12)).astype("f4")[np.arange(TRIALS) % 10]
    path = static_recording(tmp_path / "r.h5", tiers=None, images=images)
    tiers = assigned(path)
    groups = {tier: set(rows % 10) for tier, rows in tiers.rows.items()}
    assert [len(groups[tier]) for tier in groups] == [8, 1, 1]
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 10


def test_the_split_follows_from_its_own_seed_only(tmp_path):
    path = static_recording(tmp_path / "r.h5", tiers=None)
    first = ids_of(path, "test", split_seed=1)
    np.random.seed(7)
    assert ids_of(path, "test", split_seed=1) == first
    assert ids_of(path, "test", split_seed=2) != first
    # Another order of the trials is the same split: it goes by stimulus.
    assert len(ids_of(path, "validation", split_seed=1, validation_fraction=0.5)) == 18


def test_a_column_can_say_what_the_stimulus_was(tmp_path):
    objects = np.arange(TRIALS) % 8
    path = static_recording(tmp_path / "r.h5", tiers=None, **{"item_info/object": objects})
    assert ids_of(path, "test", stimulus_id="object", test_fraction=0.25) < set("01234567")
    with pytest.raises(DatasetError, match=r"'colour'.*object"):
        NeuroDataDataset(path, "train", stimulus_id="colour")


def test_trials_of_which_the_column_says_nothing_are_stimuli_of_their_own(tmp_path):
    objects = np.where(np.arange(TRIALS) % 2, np.arange(TRIALS) % 8, np.nan)
    path = static_recording(tmp_path / "r.h5", tiers=None, **{"item_info/object": objects})
    tiers = {tier: ids_of(path, tier, stimulus_id="object") for tier in ("train", "validation", "test")}
    assert tiers["test"] == {"1.0", "3.0", "5.0", "7.0"}  # the only ones that were shown again
    assert len(tiers["train"] | tiers["validation"]) == 20


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leaves? something for training"),
        ({"validation_fraction": 0.0}, "cannot be split into tiers"),
        ({"validation_fraction": float("nan")}, "validation_fraction is nan"),
        ({"test_fraction": float("nan")}, "test_fraction nan"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"test_tiers": ("final_test",)}, "test_tiers names 'final_test'.*the file has no tiers"),
    ],
)
def test_splits_that_make_no_sense(tmp_path, params, words):
    with pytest.raises(DatasetError, match=words):
        NeuroDataDataset(static_recording(tmp_path / "r.h5", tiers=None), "train", **params)


def test_one_stimulus_in_two_tiers_is_warned_of(tmp_path):
    shown = np.arange(TRIALS)
    shown[9] = shown[0]  # trial 0 is training, trial 9 test
    path = static_recording(tmp_path / "r.h5", **{"item_info/frame_image_id": shown})
    with pytest.warns(UserWarning, match="1 stimuli are in both the train and the test tier"):
        NeuroDataDataset(path, "train")
    images = np.random.default_rng(0).uniform(0, 255, (TRIALS, 1, 8, 12)).astype("f4")
    images[5] = images[1]  # validation and train, told by the pixels
    with pytest.warns(UserWarning, match="both the train and the validation tier"):
        NeuroDataDataset(static_recording(tmp_path / "p.h5", images=images), "train")


def test_a_recording_in_order_gives_no_warning(tmp_path):
    path = static_recording(tmp_path / "r.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tier in ("train", "validation", "test"):
            assert NeuroDataDataset(path, tier).notes == ()
