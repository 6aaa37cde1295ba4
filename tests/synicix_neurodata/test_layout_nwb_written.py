"""NWB files that the simulator writes are valid, and read back as what was simulated."""

from __future__ import annotations

import warnings

import numpy as np
import pynwb
import pytest
from synicix_neurodata.access import Access
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.recording import PARTS
from synicix_neurodata.simulate import Simulation, simulate_recording
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.choice import WRITTEN

from synicix_core.errors import DatasetError

SIMULATION = {"neurons": 6, "images": 20, "test_images": 3, "repeats": 3, "image_shape": (8, 10), "behavior_gain": 0.5}


@pytest.fixture(scope="module", params=["nwb-ophys", "nwb-units", "nwb-movie"])
def pair(request, tmp_path_factory):
    """One simulation, as NWB and as HDF5."""
    folder = tmp_path_factory.mktemp(request.param)
    simulation = Simulation(**SIMULATION, frames=11 if request.param == "nwb-movie" else 0)
    plain = "movie-hdf5" if simulation.frames else "static-hdf5"
    written = simulate_recording(folder / "a.nwb", simulation, layout=request.param)
    simulate_recording(folder / "a.h5", simulation, layout=plain)
    return written, describe_recording(folder / "a.nwb"), describe_recording(folder / "a.h5")


def test_it_is_valid_nwb(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pynwb.validate(path=str(pair[0].file)) == []


def test_its_arrays_are_those_that_were_simulated(pair):
    _, nwb, plain = pair
    assert nwb.notes == ()
    assert nwb.shapes == plain.shapes
    assert nwb.is_movie == plain.is_movie
    with Access(nwb) as one, Access(plain) as other:
        for part in PARTS:
            for trial in range(nwb.trials):
                if nwb.is_movie:
                    assert nwb.frames[trial] == plain.frames[trial] == 11
                    read = [access.clip(part, trial, 2, 11) for access in (one, other)]
                else:
                    read = [access.trials(part, np.array([trial])) for access in (one, other)]
                np.testing.assert_array_equal(*read)


def test_its_tiers_repeats_cells_and_ceilings_are_those_that_were_simulated(pair):
    written, nwb, plain = pair
    np.testing.assert_array_equal(nwb.tiers, plain.tiers)
    same = [np.equal.outer(recording.stimulus_ids, recording.stimulus_ids) for recording in (nwb, plain)]
    np.testing.assert_array_equal(*same)
    for column in ("unit_ids", "area", "layer"):
        np.testing.assert_array_equal(nwb.neurons[column], plain.neurons[column])
    assert nwb.noise_ceiling == pytest.approx(written.noise_ceiling)
    assert set(nwb.noise_ceiling) == {"stimulus-encoding", "full-encoding", "behavior-encoding"}


def plan(**changes):
    told = {
        "shapes": {"stimulus": (1, 4, 5), "responses": (2,)},
        "tiers": np.array(["train", "validation", "test"]),
        "stimulus_ids": np.array(["a", "b", "a"]),
    }
    return Plan(**{**told, **changes})


def test_colours_other_columns_and_neurons_are_kept(tmp_path):
    told = plan(
        shapes={"stimulus": (3, 4, 5), "responses": (2,), "behavior": (4,)},
        columns={"contrast": np.array([0.1, 0.2, 0.3]), "frame_image_class": np.array(["x", "y", "z"])},
        neurons={
            "unit_ids": np.array([7, 3]),
            "area": np.array(["V1", "LM"]),
            "position": np.arange(6.0).reshape(2, 3),
        },
        dtypes={"stimulus": np.dtype(np.uint8)},
    )
    values = {
        "stimulus": np.arange(180, dtype=np.uint8).reshape(3, 3, 4, 5),
        "responses": np.array([[1.5, 2.5], [0.1, -3.0], [4.0, 5.0]], np.float32),
        "behavior": np.arange(12, dtype=np.float32).reshape(3, 4),
    }
    values["stimulus"][2] = values["stimulus"][0]
    writer = WRITTEN["nwb-ophys"].open(tmp_path / "a.nwb", told)
    writer.write(0, {part: array[:2] for part, array in values.items()})
    writer.write(2, {part: array[2:] for part, array in values.items()})
    writer.finish({})
    recording = describe_recording(tmp_path / "a.nwb")
    assert recording.noise_ceiling == {}
    with Access(recording) as access:
        for part, array in values.items():
            np.testing.assert_array_equal(access.trials(part, np.arange(3)), array)
        assert access.trials("stimulus", np.arange(3)).dtype == np.uint8
    assert recording.columns["contrast"].tolist() == [0.1, 0.2, 0.3]
    assert recording.columns["frame_image_class"].tolist() == ["x", "y", "z"]
    assert recording.neurons["unit_ids"].tolist() == [7, 3]
    assert recording.neurons["area"].tolist() == ["V1", "LM"]
    np.testing.assert_array_equal(recording.neurons["position"], np.arange(6.0).reshape(2, 3))


def test_trials_of_a_movie_may_differ_in_length(tmp_path):
    told = plan(frames=np.array([3, 5, 4]), frame_rate=29.97)
    rng = np.random.default_rng(0)
    writer = WRITTEN["nwb-movie"].open(tmp_path / "a.nwb", told)
    trials = []
    for trial, frames in enumerate(told.frames):
        parts = {"stimulus": rng.normal(size=(1, 1, frames, 4, 5)), "responses": rng.normal(size=(1, 2, frames))}
        trials.append({part: values.astype(np.float32) for part, values in parts.items()})
        writer.write(trial, trials[-1])
    writer.finish({})
    recording = describe_recording(tmp_path / "a.nwb")
    assert recording.frames.tolist() == [3, 5, 4]
    with Access(recording) as access:
        for trial, parts in enumerate(trials):
            for part, values in parts.items():
                np.testing.assert_array_equal(access.clip(part, trial, 0, int(told.frames[trial])), values[0])


@pytest.mark.parametrize("response", [0.5, -1.0, np.nan])
def test_units_take_counts_only(tmp_path, response):
    writer = WRITTEN["nwb-units"].open(tmp_path / "a.nwb", plan())
    parts = {"stimulus": np.zeros((1, 1, 4, 5)), "responses": np.array([[1.0, response]])}
    with pytest.raises(DatasetError, match="whole numbers of spikes"):
        writer.write(0, parts)
    writer.abandon()


@pytest.mark.parametrize("layout", ["nwb-ophys", "nwb-units", "nwb-movie"])
def test_images_are_grey_or_rgb(tmp_path, layout):
    told = plan(shapes={"stimulus": (2, 4, 5), "responses": (2,)}, frames=np.array([1, 1, 1]))
    with pytest.raises(DatasetError, match="2 channels, and NWB has grey"):
        WRITTEN[layout].open(tmp_path / "a.nwb", told)
