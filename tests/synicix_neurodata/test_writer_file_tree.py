"""Static file trees that are written: complete, equal to the HDF5 file of the same simulation, and always the same."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.simulate import Simulation, simulate_recording
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.choice import WRITTEN

PARTS = ("images", "responses", "behavior", "pupil_center")
SMALL = Simulation(neurons=6, images=30, test_images=4, repeats=3)


@pytest.mark.parametrize("layout", ["static-tree", "static-tree-zip"])
def test_a_simulated_tree_holds_what_the_hdf5_file_holds(tmp_path, layout):
    told = simulate_recording(tmp_path / "a.h5", SMALL)
    written = simulate_recording(tmp_path / "a", SMALL, layout=layout)
    one, other = describe_recording(tmp_path / "a.h5"), describe_recording(tmp_path / "a")
    assert other.noise_ceiling == written.noise_ceiling == told.noise_ceiling == one.noise_ceiling
    assert (other.notes, other.shapes, other.stimulus_ids.tolist()) == ((), one.shapes, one.stimulus_ids.tolist())
    assert other.neurons["area"].tolist() == one.neurons["area"].tolist()
    for tier in ("train", "validation", "test"):
        for params in ({"mode": "full-encoding"}, {"mode": "decoding", "normalize": False}):
            expected, got = (NeuroDataDataset(r.path, tier, **params).tensors() for r in (one, other))
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert (
        NeuroDataDataset(other.path, "test").get_additional_model_params()["noise_ceiling"]["single_trial_correlation"]
        == told.noise_ceiling["stimulus-encoding"]
    )


def test_a_simulated_tree_carries_the_statistics_of_its_training_tier(tmp_path):
    simulate_recording(tmp_path / "a", SMALL, layout="static-tree")
    train = np.load(tmp_path / "a/meta/trials/tiers.npy") == "train"
    for part in PARTS:
        values = np.stack([np.load(tmp_path / f"a/data/{part}/{trial}.npy") for trial in np.flatnonzero(train)])
        axis = None if part == "images" else 0
        for name, expected in {
            "mean": values.mean(axis, dtype="f8"),
            "std": values.std(axis, ddof=1, dtype="f8"),
            "min": values.min(axis),
            "max": values.max(axis),
            "median": np.median(values, axis),
        }.items():
            for stimulus in ("all", "stimulus_frame"):
                got = np.load(tmp_path / f"a/meta/statistics/{part}/{stimulus}/{name}.npy")
                assert (got.shape, got.dtype) == (np.shape(expected), np.float32)
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "a/config.json").read_text()) == {"links": {}}


@pytest.mark.parametrize("layout", ["static-tree", "static-tree-zip"])
def test_of_an_exact_plan_nothing_is_written_that_it_does_not_tell(tmp_path, layout):
    responses = np.arange(12, dtype="f8").reshape(4, 3)
    plan = Plan(
        shapes={"responses": (3,)},
        tiers=np.full(4, ""),
        stimulus_ids=np.full(4, ""),
        columns={"mood": np.array(["calm", "calm", "wild", "calm"])},
        neurons={"area": np.array(["V1", "V1", "LM"])},
        dtypes={"responses": np.dtype("f8")},
        exact=True,
    )
    writer = WRITTEN[layout].open(tmp_path / "a", plan)
    writer.write(0, {"responses": responses[:3]})
    writer.write(3, {"responses": responses[3:]})
    writer.finish({"decoding": 0.5})
    writer.abandon()
    recording = describe_recording(tmp_path / "a")
    assert (recording.tiers, recording.stimulus_ids, recording.noise_ceiling) == (None, None, {"decoding": 0.5})
    assert recording.columns["mood"].tolist() == ["calm", "calm", "wild", "calm"]
    assert (list(recording.columns), list(recording.neurons)) == (["mood"], ["area"])
    with Access(recording) as access:
        np.testing.assert_array_equal(access.trials("responses", np.arange(4)), responses)


def test_the_same_simulation_gives_the_same_zip_file_byte_for_byte(tmp_path):
    for name in ("a.zip", "b.zip"):
        simulate_recording(tmp_path / name, SMALL, layout="static-tree-zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {name.split("/")[0] for name in archive.namelist()} == {"static60000-1-1-simulated"}
