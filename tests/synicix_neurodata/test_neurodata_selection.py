"""Which neurons, pixels and trials of a recording are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synicix_neurodata.dataset import NeuroDataDataset

from synicix_core.errors import DatasetError
from synicix_core.parameters import as_arguments, check_params
from synicix_core.registry import Registry
from tests.synicix_neurodata.recordings import static_recording


@pytest.fixture
def path(tmp_path):
    return static_recording(tmp_path / "r.h5", **{"neurons/unit_ids": np.arange(10, 16, dtype="u2")})


@pytest.mark.parametrize(
    ("params", "units"),
    [
        ({"areas": ("LM",)}, [12, 15]),
        ({"layers": ("L4",)}, [11, 13, 15]),
        ({"areas": ("V1",), "layers": ("L2/3",)}, [10, 14]),
        ({"unit_ids": (15, 10)}, [10, 15]),
        ({"areas": ("V1", "LM")}, [10, 11, 12, 13, 14, 15]),
    ],
)
def test_neurons_are_chosen_by_what_is_known_of_them(path, params, units):
    everything = NeuroDataDataset(path, "test")
    some = NeuroDataDataset(path, "test", **params)
    columns = [unit - 10 for unit in units]
    assert some.output_shape == (len(units),)
    # A neuron is normalised as it would be among all the others.
    assert torch.equal(some.tensors()[1], everything.tensors()[1][:, columns])
    supplied = some.get_additional_model_params()
    np.testing.assert_array_equal(supplied["unit_ids"], units)
    np.testing.assert_array_equal(supplied["neurons"], columns)
    assert supplied["normalization"]["responses"]["divide"].shape == (len(units),)


@pytest.mark.parametrize("dtype", ["u2", "i8", "f8", "S4"])
def test_unit_ids_are_compared_as_numbers_or_as_text(tmp_path, dtype):
    path = static_recording(tmp_path / "r.h5", **{"neurons/unit_ids": np.arange(10, 16).astype(dtype)})
    dataset = NeuroDataDataset(path, "train", unit_ids=(15, 10))
    np.testing.assert_array_equal(dataset.get_additional_model_params()["neurons"], [0, 5])


def test_a_subset_is_drawn_by_its_own_seed_and_draws_of_two_sizes_are_not_nested(tmp_path):
    path = static_recording(tmp_path / "r.h5", neurons=60)

    def drawn(count, seed):
        dataset = NeuroDataDataset(path, "train", max_neurons=count, neuron_seed=seed)
        assert dataset.output_shape == (count,)
        return set(dataset.get_additional_model_params()["unit_ids"].tolist())

    assert drawn(10, 0) == drawn(10, 0)
    assert drawn(10, 0) != drawn(10, 1)
    assert not drawn(10, 0) <= drawn(20, 0)
    few = NeuroDataDataset(path, "train", max_neurons=5, areas=("LM",)).get_additional_model_params()["unit_ids"]
    assert all((unit - 10) % 3 == 2 for unit in few)


def test_in_decoding_the_chosen_neurons_are_the_input(path):
    dataset = NeuroDataDataset(path, "train", mode="decoding", areas=("LM",))
    assert (dataset.input_shape, dataset.output_shape) == ((2,), (1, 8, 12))
    assert dataset[0][0].shape == (2,)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"areas": ("V2",)}, r"areas names V2.*LM, V1"),
        ({"unit_ids": (3,)}, r"unit_ids names 3.*10, 11"),
        # In uint16, as files hold unit ids, this is 10.
        ({"unit_ids": (65546,)}, r"unit_ids names 65546.*10, 11"),
        ({"unit_ids": (-65526,)}, r"unit_ids names -65526.*10, 11"),
        ({"max_neurons": 2, "neuron_seed": -1}, r"neuron_seed is -1.*0 or more"),
        ({"areas": ("LM",), "unit_ids": (10,)}, r"No neuron is left.*areas = \['LM'\]"),
        ({"max_neurons": 7}, r"max_neurons is 7.*6 neurons"),
        ({"max_neurons": 0}, r"max_neurons is 0"),
        ({"stimulus_scale": 0.0}, "stimulus_scale is 0.0"),
        ({"stimulus_scale": 2.0}, "stimulus_scale is 2.0"),
        ({"clip_frames": 5}, "for movies"),
        ({"layout_params": {"delay": 1}}, r"'delay'.*static HDF5"),
    ],
)
def test_choices_that_cannot_be_made(path, params, words):
    with pytest.raises(DatasetError) as caught:
        NeuroDataDataset(path, "train", **params)
    import re

    assert re.search(words, str(caught.value), re.DOTALL), caught.value


def test_neurons_of_which_nothing_is_told_cannot_be_chosen(tmp_path):
    path = static_recording(tmp_path / "r.h5", **{"neurons/area": None})
    with pytest.raises(DatasetError, match=r"by areas.*it tells layer, unit_ids"):
        NeuroDataDataset(path, "train", areas=("V1",))


def test_scaling_averages_the_area_of_each_new_pixel(path):
    whole = NeuroDataDataset(path, "train", normalize=False).tensors()[0]
    half = NeuroDataDataset(path, "train", normalize=False, stimulus_scale=0.5)
    assert half.input_shape == (1, 4, 6)
    blocks = whole.reshape(-1, 1, 4, 2, 6, 2).mean((3, 5))
    torch.testing.assert_close(half.tensors()[0], blocks, rtol=1e-5, atol=1e-4)
    # 8 pixels become 3, and 12 become 5: those on a border count in part on either side.
    odd = NeuroDataDataset(path, "train", normalize=False, stimulus_scale=0.4)
    fine = whole.repeat_interleave(3, 2).repeat_interleave(5, 3).reshape(-1, 1, 3, 8, 5, 12).mean((3, 5))
    torch.testing.assert_close(odd.tensors()[0], fine, rtol=1e-5, atol=1e-4)
    # Averaging lowers contrast: the statistics are those of what the model sees.
    seen = NeuroDataDataset(path, "train", stimulus_scale=0.5).tensors()[0]
    assert seen.std().item() == pytest.approx(1, abs=1e-3)


def test_trials_with_missing_values_are_left_out_when_asked(tmp_path):
    path = static_recording(tmp_path / "clean.h5")
    pupil = np.random.default_rng(0).normal(50, 4, (40, 2))
    pupil[[1, 12, 9]] = np.nan  # two training trials and one of the test tier
    missing = static_recording(tmp_path / "r.h5", pupil_center=pupil)
    with pytest.raises(DatasetError, match=r"pupil_center in 2 of 16 trials of the train tier \(rows 1, 12\)"):
        NeuroDataDataset(missing, "train", mode="full-encoding")
    with pytest.warns(UserWarning, match="2 of 16 trials of the train tier are left out"):
        dataset = NeuroDataDataset(missing, "train", mode="full-encoding", drop_missing=True)
    kept = [row for row in range(40) if row % 10 < 4 and row not in (1, 12)]
    np.testing.assert_array_equal(dataset.column("trial"), kept)
    assert all(part.isfinite().all() for part in dataset.tensors()[0].values())
    # Where the pupil is not used, nothing is missing.
    assert len(NeuroDataDataset(missing, "train")) == len(NeuroDataDataset(path, "train"))


def test_behaviour_without_a_pupil_is_enough(tmp_path):
    path = static_recording(tmp_path / "r.h5", pupil_center=None)
    assert NeuroDataDataset(path, "train", mode="full-encoding").input_shape == {
        "stimulus": (1, 8, 12),
        "behavior": (3,),
    }
    assert NeuroDataDataset(path, "train", mode="behavior-encoding").input_shape == (3,)


def test_every_parameter_can_be_written_in_an_experiment_file():
    dataset = Registry.discover().resolve("dataset", "NeuroDataDataset")
    params = {
        "areas": ["V1"],
        "unit_ids": [1, 2],
        "max_neurons": 5,
        "stimulus_scale": 0.25,
        "test_tiers": ["final_test"],
        "clip_frames": None,
        "layout_params": {"delay": 0.05, "behavior": ["a", "b"]},
        "drop_missing": True,
    }
    checked = check_params(dataset, params)
    assert checked.mistakes == ()
    arguments = as_arguments(dataset, checked.values)
    assert arguments["areas"] == ("V1",)
    assert arguments["layout_params"] == {"delay": 0.05, "behavior": ["a", "b"]}
