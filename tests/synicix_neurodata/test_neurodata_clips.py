"""Movies: how trials are cut into clips, and what NeuroDataDataset gives of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synicix_neurodata.clips import cut_clips
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.movies import clip_rates, natural_clip
from synicix_neurodata.population import draw_population
from synicix_neurodata.recording import Recording
from synicix_neurodata.simulate import Simulation, simulate_recording
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError, ParamsError

MOVIE = Simulation(neurons=5, images=6, test_images=2, repeats=3, image_shape=(8, 12), frames=20, behavior_gain=0.3)


def recording(*frames):
    return Recording("r", "movie", {"stimulus": (1, 2, 2)}, len(frames), frames=np.array(frames))


def cut(lengths, frames, stride, rows=None):
    described = recording(*lengths)
    every = np.arange(len(lengths))
    return cut_clips(described, every if rows is None else np.array(rows), frames, stride, of_all_tiers=every)


def test_clips_follow_one_another_and_never_leave_their_trial():
    clips = cut([10, 7, 3], 3, None)
    assert list(zip(clips.trial.tolist(), clips.start.tolist(), strict=True)) == [
        (0, 0),
        (0, 3),
        (0, 6),
        (1, 0),
        (1, 3),
        (2, 0),
    ]
    assert clips.notes == ()


@pytest.mark.parametrize(("stride", "starts"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (5, [0])])
def test_a_shorter_stride_gives_clips_that_overlap(stride, starts):
    assert cut([6], 3, stride).start.tolist() == starts


def test_whole_trials_need_one_length_in_all_tiers():
    assert cut([6, 6], None, None).frames == 6
    with pytest.raises(DatasetError, match=r"6 to 9 frames.*clip_frames, for example to 6"):
        cut([6, 9], None, None, rows=[0])


def test_a_stride_of_whole_trials_makes_no_sense():
    with pytest.raises(DatasetError, match=r"clip_stride is 2.*without clip_frames.*Set clip_frames, too"):
        cut([6, 6], None, 2)


def test_trials_shorter_than_a_clip_are_left_out_and_said():
    clips = cut([6, 2], 4, None)
    assert clips.trial.tolist() == [0]
    assert "1 of 2 trials are shorter than clip_frames = 4" in clips.notes[0]
    with pytest.raises(DatasetError, match=r"No trial has 8 frames.*longest of the tier has 6"):
        cut([6, 2], 8, None)


@pytest.mark.parametrize(("frames", "stride", "name"), [(0, None, "clip_frames is 0"), (3, -1, "clip_stride is -1")])
def test_numbers_of_frames_are_one_or_more(frames, stride, name):
    with pytest.raises(DatasetError, match=name):
        cut([6], frames, stride)


@pytest.fixture
def path(tmp_path):
    simulate_recording(tmp_path / "m.h5", MOVIE, layout="movie-hdf5")
    return tmp_path / "m.h5"


def test_the_modes_have_an_axis_of_time(path):
    shapes = {"stimulus": (1, 20, 8, 12), "behavior": (3, 20), "pupil_center": (2, 20)}
    full = NeuroDataDataset(path, "train", mode="full-encoding")
    assert (full.input_shape, full.output_shape) == (shapes, (5, 20))
    inputs, target = full[0]
    assert {name: tuple(part.shape) for name, part in inputs.items()} == shapes
    assert target.shape == (5, 20)
    decoding = NeuroDataDataset(path, "train", mode="decoding", clip_frames=5)
    assert (decoding.input_shape, decoding.output_shape) == ((5, 5), (1, 5, 8, 12))


@pytest.mark.parametrize("limit", [0, 512])
def test_clips_are_the_frames_of_their_trial(path, limit):
    whole = NeuroDataDataset(path, "train", mode="full-encoding")
    clips = NeuroDataDataset(path, "train", mode="full-encoding", clip_frames=8, clip_stride=4, memory_limit_mb=limit)
    assert len(clips) == 4 * len(whole)
    trials, starts = clips.column("trial"), clips.column("start_frame")
    inputs, targets = clips.tensors()
    all_inputs, all_targets = whole.tensors()
    rows = {trial: row for row, trial in enumerate(whole.column("trial"))}
    for item, (trial, start) in enumerate(zip(trials, starts, strict=True)):
        frames = slice(start, start + 8)
        assert torch.equal(targets[item], all_targets[rows[trial]][:, frames])
        assert torch.equal(inputs["stimulus"][item], all_inputs["stimulus"][rows[trial]][:, frames])
        assert torch.equal(clips[item][0]["behavior"], all_inputs["behavior"][rows[trial]][:, frames])


def test_only_clips_of_the_training_tier_overlap(path):
    for tier, clips in (("train", 13 * 6), ("validation", 2 * 1), ("test", 2 * 6)):
        assert len(NeuroDataDataset(path, tier, clip_frames=8, clip_stride=1)) == clips


def test_repeats_of_a_clip_are_known_by_stimulus_and_frame(path):
    ids = NeuroDataDataset(path, "test", clip_frames=10).column("stimulus_id")
    names, counts = np.unique(ids, return_counts=True)
    assert len(names) == 4
    assert set(counts) == {3}
    assert {name.rsplit("@")[1] for name in names} == {"0", "10"}


def test_normalisation_counts_frames_as_trials(path):
    raw, normalised = (NeuroDataDataset(path, "train", normalize=normalize) for normalize in (False, True))
    responses = raw.tensors()[1]
    scale = responses.movedim(1, -1).reshape(-1, 5).std(0)
    torch.testing.assert_close(normalised.tensors()[1], responses / scale[:, None], rtol=1e-4, atol=1e-5)
    stimulus = normalised.tensors()[0]
    assert abs(stimulus.mean().item()) < 1e-4
    assert stimulus.std().item() == pytest.approx(1, abs=1e-4)


def test_scaling_is_of_the_frames(path):
    assert NeuroDataDataset(path, "train", stimulus_scale=0.5).input_shape == (1, 20, 4, 6)


def test_spawned_processes_read_the_same_clips(path):
    dataset = NeuroDataDataset(path, "train", clip_frames=5, memory_limit_mb=0)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    inputs, targets = dataset.tensors()
    assert torch.equal(torch.cat([batch for batch, _ in batches]), inputs)
    assert torch.equal(torch.cat([batch for _, batch in batches]), targets)


def test_the_stated_ceiling_is_what_the_truth_reaches(tmp_path):
    long = Simulation(neurons=20, images=4, test_images=8, repeats=12, image_shape=(16, 24), frames=60)
    stated = simulate_recording(tmp_path / "m.h5", long, layout="movie-hdf5").noise_ceiling["stimulus-encoding"]
    dataset = NeuroDataDataset(tmp_path / "m.h5", "test", normalize=False)
    assert dataset.get_additional_model_params()["noise_ceiling"] == {"single_trial_correlation": pytest.approx(stated)}
    shown, counts = (part.numpy() for part in dataset.tensors())
    seeds = np.random.SeedSequence([long.seed, 1]).spawn(5)
    population = draw_population(
        np.random.default_rng(seeds[1]), 20, (16, 24), complex_fraction=0.0, behavior_gain=0.0, mean_rate=2.0
    )
    rates = np.concatenate([clip_rates(population, clip[0]) for clip in shown])
    responses = np.moveaxis(counts, 1, -1).reshape(-1, 20)
    reached = [np.corrcoef(rates[:, cell], responses[:, cell])[0, 1] for cell in range(20)]
    assert np.mean(reached) == pytest.approx(stated, abs=0.01)


def test_cells_see_the_past_and_never_the_future():
    population = draw_population(
        np.random.default_rng(0), 6, (8, 12), complex_fraction=0.5, behavior_gain=0, mean_rate=1
    )
    clip = natural_clip(np.random.default_rng(1), 30, (8, 12))
    changed = clip.copy()
    changed[15:] = 255 - changed[15:]
    before, after = clip_rates(population, clip), clip_rates(population, changed)
    np.testing.assert_array_equal(before[:15], after[:15])
    assert not np.allclose(before[16:], after[16:])


def test_movies_and_images_have_layouts_of_their_own(tmp_path):
    with pytest.raises(ParamsError, match=r"frames.*movie-hdf5.*1 or more"):
        simulate_recording(tmp_path / "m.h5", Simulation(), layout="movie-hdf5")
    with pytest.raises(ParamsError, match=r"frames.*static-hdf5.*got 20"):
        simulate_recording(tmp_path / "m.h5", MOVIE)
    with pytest.raises(ParamsError, match=r"layout.*static-hdf5.*'hdf6'"):
        simulate_recording(tmp_path / "m.h5", MOVIE, layout="hdf6")
    assert list(tmp_path.iterdir()) == []
