"""Movie HDF5: ragged groups or whole arrays, what is read and what is refused."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.movie_hdf5 import frame_rate_of
from synicix_neurodata.simulate import Simulation, simulate_recording
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.trees import state

TRIALS, NEURONS = 20, 5
TIERS = np.array(["train", "validation", "test"])[np.arange(TRIALS) % 10 // 4]
ARRAYS = {"stimulus": "inputs", "responses": "responses", "behavior": "behavior", "pupil_center": "eye_position"}
SMALL = Simulation(neurons=4, images=6, test_images=2, repeats=2, frames=10, frame_rate=7.5)


def lengths(ragged: bool = True) -> np.ndarray:
    return 8 + np.arange(TRIALS) % 7 if ragged else np.full(TRIALS, 9)


def arrays(ragged: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "inputs": [rng.uniform(0, 255, (1, n, 6, 8)).astype("f4") for n in lengths(ragged)],
        "responses": [rng.gamma(2.0, 1.5, (n, NEURONS)).astype("f4") for n in lengths(ragged)],
        "behavior": [rng.uniform(1, 9, (n, 3)) for n in lengths(ragged)],
        "eye_position": [rng.normal(50, 4, (n, 2)) for n in lengths(ragged)],
        "tiers": TIERS.astype("S"),
        "types": np.full(TRIALS, b"stimulus.Clip"),
        "condition_hashes": np.where(TIERS == "test", np.arange(TRIALS) % 10, np.arange(TRIALS)).astype("S"),
        "movie_names": np.full(TRIALS, b"madmax"),
        "trial_idx": np.arange(TRIALS, dtype="u4"),
        "durations": (lengths(ragged) / 30).astype("f4"),
        "train_idx": TIERS == "train",
        "neurons/unit_ids": np.arange(7, 7 + NEURONS, dtype="u2"),
        "neurons/area": np.full(NEURONS, b"V1"),
        "statistics/inputs/all/mean": np.float32(3),
        "statistics/source": b"train",
    }
    return content if ragged else {name: np.stack(v) if isinstance(v, list) else v for name, v in content.items()}


def write(path: Path, content: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a recording; `changes` replaces arrays, None leaves one out. Lists become groups."""
    with h5py.File(path, "w") as file:
        for name, values in {**(content or arrays()), **changes}.items():
            if isinstance(values, list):
                file.create_group(name).attrs["_iterable"] = True
                for trial, value in enumerate(values):
                    file[f"{name}/{trial}"] = value
            elif values is not None:
                file[name] = values
    return path


def changed(name: str, trial: int, values: Any) -> dict[str, Any]:
    """Return the change of one trial of one part."""
    content = list(arrays()[name])
    content[trial] = values
    return {name: content}


@pytest.mark.parametrize("ragged", [True, False])
def test_everything_is_read_as_it_was_written(tmp_path, ragged):
    written = arrays(ragged)
    path = write(tmp_path / "movies1-2-3.h5", written)
    before = state(path)
    recording = describe_recording(path)
    assert (recording.layout, recording.trials, recording.frame_rate) == ("movie HDF5", TRIALS, 30)
    assert recording.shapes == {
        "stimulus": (1, 6, 8),
        "responses": (NEURONS,),
        "behavior": (3,),
        "pupil_center": (2,),
    }
    np.testing.assert_array_equal(recording.frames, lengths(ragged))
    np.testing.assert_array_equal(recording.tiers, TIERS)
    assert recording.stimulus_ids[18] == recording.stimulus_ids[8]
    assert {"types", "movie_names", "trial_idx", "durations", "train_idx"} < set(recording.columns)
    assert recording.neurons["unit_ids"].tolist() == [7, 8, 9, 10, 11]
    with Access(recording) as access:
        for trial, (start, stop) in {0: (0, 8), 6: (3, 9), 19: (5, 6)}.items():
            for part, name in ARRAYS.items():
                clip = written[name][trial]
                expected = clip[:, start:stop] if part == "stimulus" else clip[start:stop].T
                got = access.clip(part, trial, start, stop)
                np.testing.assert_array_equal(got, expected)
                assert got.dtype == clip.dtype
    assert state(path) == before


def test_a_dataset_gives_the_clips_of_its_tier(tmp_path):
    path = write(tmp_path / "a.h5")
    dataset = NeuroDataDataset(path, "train", mode="full-encoding", normalize=False, clip_frames=4)
    inputs, targets = dataset.tensors()
    assert len(dataset) == sum(lengths()[TIERS == "train"] // 4)
    trial, start = int(dataset.column("trial")[1]), int(dataset.column("start_frame")[1])
    np.testing.assert_array_equal(targets[1], arrays()["responses"][trial][start : start + 4].T)
    np.testing.assert_array_equal(inputs["stimulus"][1], arrays()["inputs"][trial][:, start : start + 4])


def test_worker_processes_read_the_same(tmp_path):
    dataset = NeuroDataDataset(write(tmp_path / "a.h5"), "train", clip_frames=4, memory_limit_mb=0)
    _, targets = dataset.tensors()
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).tensors()[1], targets)
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([target for _, target in loader]), targets)


def test_parts_and_columns_may_be_missing(tmp_path):
    path = write(tmp_path / "a.h5", inputs=None, behavior=None, tiers=None, durations=None, condition_hashes=None)
    recording = describe_recording(path)
    assert recording.shapes == {"responses": (NEURONS,), "pupil_center": (2,)}
    assert (recording.tiers, recording.frame_rate, recording.stimulus_ids) == (None, None, None)
    assert describe_recording(write(tmp_path / "b.h5", inputs=None, eye_position=None)).layout == "movie HDF5"


def test_large_compressed_clips_are_read_too(tmp_path):
    path = write(tmp_path / "a.h5", inputs=None)
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 9, (1, n, 700, 1800)).astype("f8") for n in lengths()[:1]]
    with h5py.File(path, "a") as file:
        for trial, length in enumerate(lengths()):
            shape = (1, length, 700, 1800)
            file.create_dataset(f"inputs/{trial}", shape, "f8", chunks=(1, 1, 700, 1800), compression=1)
        file["inputs/0"][...] = clips[0]
    recording = describe_recording(path)
    assert recording.shapes["stimulus"] == (1, 700, 1800)
    with Access(recording) as access:
        np.testing.assert_array_equal(access.clip("stimulus", 0, 2, 4), clips[0][:, 2:4])


@pytest.mark.parametrize(
    ("frames", "durations", "expected"),
    [
        ([30, 60], [1, 2], 30),
        ([30, 61], [1, 2], 30.25),
        ([30, 60], [1, 3], None),
        ([30, 60], [1, 0], None),
        ([30, 60], [1, np.nan], None),
        ([30, 60], ["1", "2"], None),
        ([30, 0], [1, 2], None),
        ([30, 60], None, None),
    ],
)
def test_the_frame_rate_is_told_by_durations_that_agree(frames, durations, expected):
    told = frame_rate_of(np.array(frames), None if durations is None else np.array(durations))
    assert told == expected


def refused(path, *words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DatasetError) as caught:
            NeuroDataDataset(path, "train", clip_frames=4).tensors()
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": arrays()["inputs"][:-1]}, ["'inputs' has 19 trials and 'tiers' has 20"]),
        ({"tiers": TIERS[:3].astype("S")}, ["'inputs' has 20 trials and 'tiers' has 3"]),
        ({"tiers": np.arange(TRIALS)}, ["'tiers' is no list of names"]),
        ({"tiers": None, "behavior": arrays()["behavior"][:-1]}, ["'behavior' has 19 trials and another part has 20"]),
        (changed("inputs", 3, np.zeros((10, 6, 8))), ["'inputs/3' has shape (10, 6, 8)", "(channels, frames, height"]),
        (changed("inputs", 3, np.zeros((1, 11, 6, 9))), ["'inputs/3' has shape (1, 6, 9)", "trial 0 is (1, 6, 8)"]),
        (changed("responses", 3, np.zeros((11, 4))), ["'responses/3' has shape (4,)", "trial 0 is (5,)"]),
        (changed("responses", 3, np.zeros((12, 5))), ["in trial 3, 'responses' has 12 frames and 'inputs' 11"]),
        (changed("responses", 3, np.zeros(5)), ["'responses/3' has shape (5,)", "(frames, columns)"]),
        (changed("responses", 3, np.zeros((0, 5))), ["'responses/3' has shape (0, 5)", "nothing in it"]),
        (changed("responses", 3, np.full((11, 5), b"x")), ["'responses/3' holds |S1 values, not numbers"]),
        (changed("responses", 3, h5py.Empty("f4")), ["'responses/3' holds nothing"]),
        ({"responses": np.zeros((TRIALS, 5))}, ["'responses' has shape (5,)", "(frames, columns)"]),
        ({"inputs": [], "responses": [], "behavior": [], "eye_position": [], "tiers": None}, ["has no trials"]),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, changes, words):
    refused(write(tmp_path / "a.h5", **changes), *words)


def test_a_trial_that_is_missing_or_a_group_is_refused(tmp_path):
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["responses/20"] = file["responses/3"][:]
        del file["responses/3"]
    refused(path, "'responses' lacks the trial 3")
    with h5py.File(path, "a") as file:
        del file["responses/20"]
        file["responses/3/x"] = np.zeros((11, 5))
    refused(path, "'responses/3' is a group")


def test_values_in_other_files_are_never_followed(tmp_path):
    secret = write(tmp_path / "secret.h5")
    linked = write(tmp_path / "linked.h5", **changed("responses", 3, np.zeros((11, 5), "f4")))
    with h5py.File(linked, "a") as file:
        del file["responses/3"]
        file["responses/3"] = h5py.ExternalLink(str(secret), "/responses/3")
    refused(linked, "'responses/3' is a link into the file")
    whole = write(tmp_path / "whole.h5", inputs=None)
    with h5py.File(whole, "a") as file:
        file["inputs"] = h5py.ExternalLink(str(secret), "/inputs")
    refused(whole, "'inputs' is a link into the file")
    outside = write(tmp_path / "outside.h5")
    (tmp_path / "raw").write_bytes(bytes(11 * 5 * 4))
    with h5py.File(outside, "a") as file:
        del file["responses/3"]
        file.create_dataset("responses/3", (11, 5), "f4", external=[(str(tmp_path / "raw"), 0, 220)])
    refused(outside, "'responses/3' are in another file")
    virtual = write(tmp_path / "virtual.h5")
    with h5py.File(virtual, "a") as file:
        del file["responses/3"]
        layout = h5py.VirtualLayout((11, 5), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "responses/3", (11, 5))
        file.create_virtual_dataset("responses/3", layout)
    refused(virtual, "'responses/3' are in another file")


def test_a_shape_that_the_file_cannot_hold_is_refused(tmp_path):
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["responses/3"]
        file.create_dataset("responses/3", (2**40, 5), "f4", chunks=(2**10, 5))
    refused(path, "'responses/3' claims")


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    whole = write(tmp_path / "a.h5").read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    refused(cut, "cut off")


def test_a_simulated_recording_is_complete(tmp_path):
    written = simulate_recording(tmp_path / "a.h5", SMALL, layout="movie-hdf5")
    recording = describe_recording(tmp_path / "a.h5")
    assert recording.file_tiers() == written.tier_sizes
    assert (recording.frames == 10).all()
    assert recording.frame_rate == 7.5
    params = NeuroDataDataset(tmp_path / "a.h5", "test").get_additional_model_params()
    assert params["noise_ceiling"]["single_trial_correlation"] == written.noise_ceiling["stimulus-encoding"] > 0.1
    assert recording.noise_ceiling == written.noise_ceiling
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["inputs"].attrs["_iterable"]
        assert file["inputs/0"].shape == (1, 10, 16, 24)
        assert file["responses/0"].shape == (10, 4)
        assert (file["train_idx"][:] == (recording.tiers == "train")).all()
        train = np.concatenate([file[f"responses/{trial}"][:] for trial in np.flatnonzero(file["train_idx"][:])])
        assert file["statistics/source"][()] == b"train"
        for stimulus in ("all", "stimulus.Clip"):
            stored = file[f"statistics/responses/{stimulus}"]
            np.testing.assert_allclose(stored["mean"][:], train.mean(0), rtol=1e-5)
            np.testing.assert_allclose(stored["std"][:], train.std(0, ddof=1), rtol=1e-5)
            assert file[f"statistics/inputs/{stimulus}/mean"].shape == ()


def test_clips_of_one_stimulus_are_the_same_and_no_stimulus_is_in_two_tiers(tmp_path):
    simulate_recording(tmp_path / "a.h5", SMALL, layout="movie-hdf5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = NeuroDataDataset(tmp_path / "a.h5", "test")
    ids, clips = dataset.column("stimulus_id"), dataset.tensors()[0]
    assert len(set(ids)) == 2
    for name in set(ids):
        assert (clips[ids == name] == clips[ids == name][0]).all()
