"""NWB files whose trials are clips of a movie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError
from tests.synicix_neurodata import nwb_files as files
from tests.synicix_neurodata.nwb_files import CELLS, CLIPS, FRAME_RATE, HEIGHT, MOVIE, WIDTH, window_means

FIRST_FRAME = 1.0
CLIP_TIERS = ["train", "train", "validation", "test"]


def add_clips(nwb, tiers=CLIP_TIERS, clips=CLIPS, **columns):
    starts, stops = (FIRST_FRAME + np.array(edges) / FRAME_RATE for edges in zip(*clips, strict=True))
    files.add_trials(nwb, starts, stops, tiers, **columns)


def clips_of(path, part, **options):
    recording = describe_recording(path, options)
    assert recording.frames is not None
    with Access(recording) as access:
        return recording, [access.clip(part, trial, 0, int(n)) for trial, n in enumerate(recording.frames)]


def frame_starts(first, last):
    return FIRST_FRAME + np.arange(first, last) / FRAME_RATE


def test_clips_are_the_frames_between_start_and_stop(tmp_path):
    recording, clips = clips_of(
        files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces, add_clips), "stimulus"
    )
    assert recording.shapes["stimulus"] == (1, HEIGHT, WIDTH)
    assert recording.frames.tolist() == [last - first for first, last in CLIPS]
    assert recording.frame_rate == pytest.approx(FRAME_RATE)
    assert recording.tiers.tolist() == CLIP_TIERS
    assert recording.stimulus_ids is None
    for clip, (first, last) in zip(clips, CLIPS, strict=True):
        np.testing.assert_array_equal(clip, MOVIE[first:last][None])


def test_a_part_of_a_clip_is_read_as_the_whole_is(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces, add_clips)
    recording, clips = clips_of(path, "responses")
    with Access(recording) as access:
        np.testing.assert_array_equal(access.clip("responses", 1, 7, 30), clips[1][:, 7:30])
        np.testing.assert_array_equal(access.clip("stimulus", 3, 7, 30), MOVIE[247:270][None])


def test_slow_traces_are_interpolated_at_the_middle_of_each_frame(tmp_path):
    recording, clips = clips_of(
        files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces, add_clips), "responses"
    )
    assert recording.shapes["responses"] == (CELLS,)
    for clip, (first, last) in zip(clips, CLIPS, strict=True):
        middles = frame_starts(first, last) + 0.5 / FRAME_RATE
        expected = [np.interp(middles, files.TRACE_TIMES, cell) for cell in files.TRACES.T]
        np.testing.assert_allclose(clip, expected, rtol=1e-9)


def test_fast_traces_are_averaged_within_each_frame(tmp_path):
    rate, values = 200.0, np.random.default_rng(0).normal(size=(2400, CELLS))

    def fast(nwb):
        files.add_traces(nwb, values, starting_time=0.9987, rate=rate)

    _, clips = clips_of(files.write(tmp_path / "a.nwb", files.add_movie, fast, add_clips), "responses")
    times = 0.9987 + np.arange(len(values)) / rate
    for clip, (first, last) in zip(clips, CLIPS, strict=True):
        expected = window_means(times, values, frame_starts(first, last), 1 / FRAME_RATE)
        np.testing.assert_allclose(clip, expected.T, rtol=1e-9, atol=1e-12)


def test_traces_with_a_sample_for_each_frame_are_taken_as_they_are(tmp_path):
    values = np.random.default_rng(0).normal(size=(files.FRAMES, CELLS))

    def synchronous(nwb):
        files.add_traces(nwb, values, starting_time=FIRST_FRAME, rate=FRAME_RATE)

    _, clips = clips_of(files.write(tmp_path / "a.nwb", files.add_movie, synchronous, add_clips), "responses")
    for clip, (first, last) in zip(clips, CLIPS, strict=True):
        np.testing.assert_array_equal(clip, values[first:last].T)


def test_spikes_are_counted_in_each_frame(tmp_path):
    _, clips = clips_of(files.write(tmp_path / "a.nwb", files.add_movie, files.add_units, add_clips), "responses")
    for clip, (first, last) in zip(clips, CLIPS, strict=True):
        edges = FIRST_FRAME + np.arange(first, last + 1) / FRAME_RATE
        np.testing.assert_array_equal(clip, [np.histogram(unit, edges)[0] for unit in files.UNIT_SPIKES])
    assert sum(clip.sum() for clip in clips) > 0


def test_the_last_frame_before_a_pause_is_as_long_as_the_others(tmp_path):
    times = FIRST_FRAME + np.arange(files.FRAMES) / FRAME_RATE
    times[60:] += 4.0

    def paused(nwb):
        files.add_movie(nwb, timestamps=times)

    def clips(nwb):
        files.add_trials(nwb, [times[0], times[60]], [times[59] + 0.01, times[200]], ["train", "test"])

    spikes = [times[59] + np.array([0.01, 1.0, 2.0])]

    def one_unit(nwb):
        nwb.add_unit(spike_times=spikes[0])

    recording, counts = clips_of(files.write(tmp_path / "a.nwb", paused, one_unit, clips), "responses")
    assert recording.frames.tolist() == [60, 140]
    assert counts[0].sum() == 1


def test_frames_keep_to_trials_where_the_rate_has_few_digits(tmp_path):
    rate, frames = 29.97, 6000
    starts = 100 * np.arange(60)

    def movie(nwb):
        files.add_movie(nwb, np.zeros((frames, 2, 2), np.uint8), starting_time=0.0, rate=float(np.float32(rate)))

    def clips(nwb):
        files.add_trials(nwb, starts / rate, (starts + 100) / rate, ["train"] * 60)

    recording = describe_recording(files.write(tmp_path / "a.nwb", movie, files.add_units, clips))
    assert recording.frames.tolist() == [100] * 60
    assert recording.source.first.tolist() == starts.tolist()


def test_an_index_that_counts_frames_quickly_is_a_movie(tmp_path):
    rng = np.random.default_rng(1)
    index = rng.permutation(np.tile(np.arange(files.PICTURES), 40))[: files.FRAMES]
    index[60:120] = index[:60]
    onsets = FIRST_FRAME + np.arange(files.FRAMES) / FRAME_RATE

    def shown(nwb):
        files.add_images(nwb, index=index, onsets=onsets)
        files.add_stack(nwb)

    clips = [(0, 60), (60, 120), (120, 180), (200, 260)]
    path = files.write(
        tmp_path / "a.nwb",
        shown,
        files.add_traces,
        lambda nwb: add_clips(nwb, clips=clips),
        edit=files.to_indexed_frames,
    )
    recording, read = clips_of(path, "stimulus")
    for clip, (first, last) in zip(read, clips, strict=True):
        np.testing.assert_array_equal(clip, files.PIXELS[index[first:last]][None])
    # The first two trials showed the same frames.
    assert recording.stimulus_ids.tolist() == ["0", "0", "1", "2"]
    assert not describe_recording(path, {"kind": "images"}).is_movie


def test_images_can_be_the_frames_of_a_movie(tmp_path):
    onsets = FIRST_FRAME + np.arange(files.TRIALS) / FRAME_RATE

    def shown(nwb):
        files.add_images(nwb, onsets=onsets)

    def clips(nwb):
        add_clips(nwb, ["train", "test"], [(0, 10), (10, 24)])

    _, read = clips_of(files.write(tmp_path / "a.nwb", shown, files.add_traces, clips), "stimulus", kind="movie")
    np.testing.assert_array_equal(read[1], files.PIXELS[files.INDEX[10:24]][None])


def test_colour_movies_have_their_channels_first(tmp_path):
    frames = np.random.default_rng(2).integers(0, 256, (files.FRAMES, HEIGHT, WIDTH, 3)).astype(np.uint8)

    def movie(nwb):
        files.add_movie(nwb, frames)

    _, clips = clips_of(files.write(tmp_path / "a.nwb", movie, files.add_traces, add_clips), "stimulus")
    np.testing.assert_array_equal(clips[0], np.moveaxis(frames[:60], -1, 0))


@pytest.mark.parametrize("column", ["stimulus_id", "movie_name", "condition_hash"])
def test_a_column_tells_which_clip_was_shown(tmp_path, column):
    def clips(nwb):
        add_clips(nwb, **{column: ["a", "b", "c", "a"]})

    recording = describe_recording(files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces, clips))
    assert recording.stimulus_ids.tolist() == ["a", "b", "c", "a"]


def test_trials_without_frames_are_left_out(tmp_path):
    def clips(nwb):
        add_clips(nwb, [*CLIP_TIERS, "train"], [*CLIPS, (4000, 4060)])

    recording = describe_recording(files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces, clips))
    assert recording.trials == 4
    assert recording.notes == ("1 of 5 trials have no frame of stimulus/presentation/movie and are left out",)


def test_trials_with_blank_frames_are_left_out(tmp_path):
    index = np.arange(files.FRAMES) % files.PICTURES
    index[[65, 66]] = 2**32 - 1

    def shown(nwb):
        files.add_images(nwb, index=index, onsets=FIRST_FRAME + np.arange(files.FRAMES) / FRAME_RATE)

    path = files.write(tmp_path / "a.nwb", shown, files.add_traces, add_clips)
    recording = describe_recording(path, {"kind": "movie"})
    assert recording.columns["start_time"].tolist() == [
        FIRST_FRAME + CLIPS[trial][0] / FRAME_RATE for trial in (0, 2, 3)
    ]
    assert recording.notes == ("1 of 4 trials have frames without a picture and are left out",)


def test_a_movie_needs_a_table_of_trials(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_movie, files.add_traces)
    with pytest.raises(DatasetError, match=r"no table of trials.*holds no table of intervals"):
        describe_recording(path)


def test_a_movie_in_another_file_is_refused_by_its_name(tmp_path):
    from pynwb.image import ImageSeries

    def external(nwb):
        movie = ImageSeries(
            name="movie",
            external_file=["clip_7.avi"],
            format="external",
            starting_frame=[0],
            timestamps=frame_starts(0, files.FRAMES),
            unit="n.a.",
        )
        nwb.add_stimulus(movie)

    path = files.write(tmp_path / "a.nwb", external, files.add_traces, add_clips)
    with pytest.raises(DatasetError, match=r"in another file, 'clip_7.avi'.*Store them inside"):
        describe_recording(path)


def test_spawned_workers_give_the_same_clips(tmp_path):
    def behavior(nwb):
        files.add_behavior(nwb, np.arange(900) / 27)

    path = files.write(tmp_path / "a.nwb", files.add_movie, files.add_units, behavior, add_clips)
    data = NeuroDataDataset(path, "train", mode="full-encoding", clip_frames=20, memory_limit_mb=0)
    inputs, responses = data.tensors()
    batches = list(DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context="spawn"))
    assert torch.equal(torch.cat([batch[1] for batch in batches]), responses)
    for part, values in inputs.items():
        assert torch.equal(torch.cat([batch[0][part] for batch in batches]), values)
