"""Movie file trees in both forms, time last and time first, as folder and as zip file."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.simulate import Simulation, simulate_recording
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.choice import WRITTEN
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.trees import (
    NEURONS,
    PADDED,
    TIERS,
    TRIALS,
    movie_arrays,
    movie_lengths,
    pack,
    state,
    write_tree,
)

SMALL = Simulation(neurons=4, images=6, test_images=2, repeats=2, frames=10, frame_rate=7.5)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "dynamic1-2-3-Video-abc", movie_arrays())


def in_form(tree, form):
    return tree if form == "folder" else pack(tree, tree.with_suffix(".zip"))


def time_first(root):
    """Write the other form: inputs (1, T, H, W), else (T, columns), every trial as long as it is."""
    arrays, renamed = movie_arrays(), {"videos": "inputs", "pupil_center": "eye_position"}
    for name, values in arrays.items():
        if not name.startswith("data/"):
            continue
        folder = root / "data" / renamed.get(name[5:], name[5:])
        folder.mkdir(parents=True)
        for trial, length in enumerate(movie_lengths()):
            clip = np.moveaxis(values[trial, ..., :length], -1, 0)
            np.save(folder / f"{trial}.npy", clip[None] if name == "data/videos" else clip)
    (root / "meta/trials").mkdir(parents=True)
    np.save(root / "meta/trials/tiers.npy", arrays["meta/trials/tiers"])
    np.save(root / "meta/trials/durations.npy", (movie_lengths() / 30).astype("f4"))
    np.save(root / "meta/trials/condition_hashes.npy", np.array([f"h{trial % 18}" for trial in range(TRIALS)]))
    return root


@pytest.mark.parametrize("form", ["folder", "zip", "time first", "time first zip"])
def test_everything_is_read_as_it_was_written(tree, tmp_path, form):
    path = in_form(time_first(tmp_path / "other") if "time" in form else tree, "zip" if "zip" in form else "folder")
    recording, written, lengths = describe_recording(path), movie_arrays(), movie_lengths()
    assert (recording.layout, recording.trials, recording.is_movie) == ("movie file tree", TRIALS, True)
    assert recording.shapes == {
        "stimulus": (1, 6, 8),
        "responses": (NEURONS,),
        "behavior": (2,),
        "pupil_center": (2,),
    }
    np.testing.assert_array_equal(recording.frames, lengths)
    assert recording.file_tiers() == {"train": 8, "oracle": 8, "live_test_main": 4}
    with Access(recording) as access:
        for trial, (start, stop) in {0: (0, 8), 6: (3, 14), 19: (5, 6)}.items():
            video = np.moveaxis(written["data/videos"][trial], -1, 0)[None, start:stop]
            np.testing.assert_array_equal(access.clip("stimulus", trial, start, stop), video)
            for part in ("responses", "behavior", "pupil_center"):
                got = access.clip(part, trial, start, stop)
                np.testing.assert_array_equal(got, written[f"data/{part}"][trial, :, start:stop])
                assert got.dtype == written[f"data/{part}"].dtype
    if "time" in form:
        assert recording.frame_rate == 30
        assert recording.stimulus_ids[18] == recording.stimulus_ids[0] == "h0"
    else:
        assert (recording.frame_rate, recording.stimulus_ids) == (None, None)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_datasets_cut_clips_out_of_what_is_no_padding(tree, tmp_path, form):
    path = in_form(tree, form)
    before = state(tmp_path)
    dataset = NeuroDataDataset(path, "validation", mode="full-encoding", normalize=False, clip_frames=4)
    inputs, targets = dataset.tensors()
    assert len(dataset) == sum(movie_lengths()[TIERS == "validation"] // 4)
    assert targets.isfinite().all()
    assert all(part.isfinite().all() for part in inputs.values())
    trial, start = int(dataset.column("trial")[1]), int(dataset.column("start_frame")[1])
    np.testing.assert_array_equal(targets[1], movie_arrays()["data/responses"][trial, :, start : start + 4])
    assert state(tmp_path) == before


def test_worker_processes_read_the_same(tree):
    dataset = NeuroDataDataset(tree, "train", clip_frames=4, memory_limit_mb=0)
    _, targets = dataset.tensors()
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).tensors()[1], targets)
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([target for _, target in loader]), targets)


def test_a_part_that_is_missing_from_a_whole_trial_is_no_padding(tree):
    pupil = np.full((2, PADDED), np.nan)
    np.save(tree / "data/pupil_center/3.npy", pupil)
    recording = describe_recording(tree)
    np.testing.assert_array_equal(recording.frames, movie_lengths())
    with pytest.raises(DatasetError, match="not finite"):
        NeuroDataDataset(tree, "train", mode="behavior-encoding", clip_frames=4)


def test_a_gap_within_a_trial_is_no_padding(tree):
    responses = movie_arrays()["data/responses"][6]
    responses[0, 2] = np.nan
    np.save(tree / "data/responses/6.npy", responses)
    assert describe_recording(tree).frames[6] == movie_lengths()[6]


def test_the_shortest_part_tells_how_long_a_trial_is(tree):
    behavior = movie_arrays()["data/behavior"][6]
    behavior[:, 11:] = np.nan
    np.save(tree / "data/behavior/6.npy", behavior)
    assert describe_recording(tree).frames[6] == 11


def test_a_trial_without_any_value_has_no_frames(tree):
    for name, values in movie_arrays().items():
        if name.startswith("data/"):
            np.save(tree / name / "6.npy", np.full_like(values[6], np.nan))
    assert describe_recording(tree).frames[6] == 0


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_long_rows_other_orders_of_axes_and_integers(tmp_path, form):
    rng, frames = np.random.default_rng(3), 3000
    responses = rng.uniform(1, 2, (TRIALS, NEURONS, frames))
    responses[..., 2500:] = np.nan
    videos = rng.integers(0, 255, (TRIALS, 2, 3, frames), dtype="u1")
    tree = write_tree(
        tmp_path / "a", movie_arrays(), responses=responses, videos=videos, behavior=None, pupil_center=None
    )
    np.save(tree / "data/responses/4.npy", np.asfortranarray(responses[4]))
    recording = describe_recording(in_form(tree, form))
    np.testing.assert_array_equal(recording.frames, 2500)
    with Access(recording) as access:
        np.testing.assert_array_equal(access.clip("responses", 4, 10, 20), responses[4, :, 10:20])
        np.testing.assert_array_equal(access.clip("stimulus", 4, 10, 20)[0], np.moveaxis(videos[4], -1, 0)[10:20])


def test_movies_without_a_stimulus_are_known_by_their_responses(tmp_path):
    tree = write_tree(tmp_path / "a", movie_arrays(), videos=None)
    recording = describe_recording(tree)
    assert (recording.layout, "stimulus" in recording.shapes) == ("movie file tree", False)
    np.testing.assert_array_equal(recording.frames, movie_lengths())


def refused(path, *words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DatasetError) as caught:
            NeuroDataDataset(path, "train", clip_frames=4).tensors()
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("videos/0", np.zeros((1, 6, 8, PADDED)), ["'data/videos/0.npy' has shape", "(height, width, frames)"]),
        ("responses/0", np.zeros(NEURONS), ["'data/responses/0.npy' has shape (5,)", "(columns, frames)"]),
        ("videos/5", np.zeros((6, 9, PADDED)), ["'data/videos/5.npy' has shape (1, 6, 9)", "trial 0 is (1, 6, 8)"]),
        ("responses/5", np.zeros((NEURONS, 9)), ["responses/5.npy' has 9 frames", "videos/5.npy' 14"]),
        ("responses/5", np.zeros((PADDED, NEURONS)), ["responses/5.npy' has shape (14,)"]),
        ("behavior/5", np.array([["a"] * PADDED] * 2), ["behavior/5.npy' holds <U1 values, not numbers"]),
        ("behavior/5", np.zeros((2, 0)), ["behavior/5.npy' has shape (2, 0)", "nothing in it"]),
        ("behavior/20", np.zeros((2, PADDED)), ["data/behavior has 21 trials"]),
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_what_is_wrong_is_told_in_one_sentence(tree, form, name, values, words):
    np.save(tree / f"data/{name}.npy", values)
    refused(in_form(tree, form), *words)


def test_files_that_are_cut_off_or_missing_are_refused(tree):
    place = tree / "data/responses/5.npy"
    place.write_bytes(place.read_bytes()[:-4])
    refused(tree, "'data/responses/5.npy' is cut off")
    place.unlink()
    refused(tree, "data/responses lacks 5")


def test_a_file_that_is_cut_off_after_the_recording_was_described_is_named(tree):
    recording = describe_recording(tree)
    place = tree / "data/responses/5.npy"
    place.write_bytes(place.read_bytes()[:-4])
    with Access(recording) as access, pytest.raises(DatasetError, match=r"responses/5.npy' is cut off"):
        access.clip("responses", 5, 0, 4)


def test_the_other_form_has_its_own_axes(tmp_path):
    tree = time_first(tmp_path / "a")
    np.save(tree / "data/inputs/0.npy", np.zeros((6, 8, 9)))
    refused(tree, "'data/inputs/0.npy' has shape (6, 8, 9)", "(channels, frames, height, width)")


@pytest.mark.parametrize("layout", ["movie-tree", "movie-tree-zip"])
def test_a_simulated_tree_holds_what_the_hdf5_file_holds(tmp_path, layout):
    told = simulate_recording(tmp_path / "a.h5", SMALL, layout="movie-hdf5")
    written = simulate_recording(tmp_path / "a", SMALL, layout=layout)
    one, other = describe_recording(tmp_path / "a.h5"), describe_recording(tmp_path / "a")
    assert other.noise_ceiling == written.noise_ceiling == told.noise_ceiling == one.noise_ceiling != {}
    assert (other.notes, other.shapes, other.frame_rate) == ((), one.shapes, 7.5)
    assert other.stimulus_ids.tolist() == one.stimulus_ids.tolist()
    assert set(other.neurons["area"]) == {"V1"}
    for tier in ("train", "validation", "test"):
        for params in ({"mode": "full-encoding"}, {"mode": "decoding", "clip_frames": 3}):
            expected, got = (NeuroDataDataset(r.path, tier, **params).tensors() for r in (one, other))
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_shorter_clips_are_filled_up_and_statistics_are_those_of_each_frame(tmp_path):
    frames, rng = np.array([5, 7, 3, 6]), np.random.default_rng(0)
    plan = Plan(
        shapes={"stimulus": (1, 2, 3), "responses": (4,)},
        tiers=np.array(["train", "train", "validation", "train"]),
        stimulus_ids=np.arange(4),
        frames=frames,
    )
    writer = WRITTEN["movie-tree"].open(tmp_path / "a", plan)
    clips = [{"stimulus": rng.random((1, 1, n, 2, 3)), "responses": rng.random((1, 4, n))} for n in frames]
    for trial, parts in enumerate(clips):
        writer.write(trial, parts)
    writer.finish({})
    responses = np.stack([np.load(tmp_path / f"a/data/responses/{trial}.npy") for trial in range(4)])
    assert responses.shape == (4, 4, 7)
    assert np.isnan(responses[2, :, 3:]).all()
    recording = describe_recording(tmp_path / "a")
    assert (recording.frames.tolist(), recording.noise_ceiling) == (frames.tolist(), {})
    with Access(recording) as access:
        for trial, parts in enumerate(clips):
            for part, values in parts.items():
                np.testing.assert_array_equal(access.clip(part, trial, 0, frames[trial]), values[0].astype("f4"))
    statistics = tmp_path / "a/meta/statistics"
    train = responses[[0, 1, 3]].astype("f8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {"mean": np.nanmean(train, 0), "std": np.nanstd(train, 0, ddof=1), "max": np.nanmax(train, 0)}
    for name, values in expected.items():
        np.testing.assert_allclose(np.load(statistics / f"responses/all/{name}.npy"), values, rtol=1e-5)
    assert np.load(statistics / "videos/stimulus_clip/mean.npy").shape == (2, 3, 7)


def test_movies_in_colour_are_not_written(tmp_path):
    plan = Plan({"stimulus": (3, 2, 3), "responses": (4,)}, np.array(["train"]), np.arange(1), np.array([5]))
    with pytest.raises(DatasetError, match="3 channels"):
        WRITTEN["movie-tree-zip"].open(tmp_path / "a", plan)
