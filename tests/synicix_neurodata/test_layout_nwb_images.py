"""NWB files whose trials are images: what is read, equal to the arrays that were written."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pynwb import TimeSeries
from pynwb.behavior import BehavioralEpochs, BehavioralEvents
from pynwb.misc import IntervalSeries
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording, nwb_series
from torch.utils.data import DataLoader

from tests.synicix_neurodata import nwb_files as files
from tests.synicix_neurodata.nwb_files import CELLS, HEIGHT, INDEX, ONSETS, PIXELS, TIERS, TRIALS, WIDTH, window_means

FULL = (files.add_images, files.add_traces, files.add_behavior, files.add_trials)


def parts(path, **options):
    recording = describe_recording(path, options)
    every = np.arange(recording.trials)
    with Access(recording) as access:
        return recording, {part: access.trials(part, every) for part in recording.shapes}


def test_images_traces_and_behaviour_are_those_of_the_file(tmp_path):
    recording, read = parts(files.write(tmp_path / "a.nwb", *FULL))
    assert recording.layout == "NWB"
    assert recording.trials == TRIALS
    assert recording.notes == ()
    assert recording.shapes == {
        "stimulus": (1, HEIGHT, WIDTH),
        "responses": (CELLS,),
        "behavior": (2,),
        "pupil_center": (2,),
    }
    np.testing.assert_array_equal(read["stimulus"], PIXELS[INDEX][:, None])
    starts = ONSETS + 0.05
    np.testing.assert_allclose(
        read["responses"], window_means(files.TRACE_TIMES, files.TRACES, starts, 0.5), rtol=1e-12
    )
    pupil, running = files.PUPIL, files.RUNNING * 0.5 + 1
    behavior = np.stack([window_means(files.RUN_TIMES, one, starts, 0.5) for one in (pupil, running)], axis=1)
    np.testing.assert_allclose(read["behavior"], behavior, rtol=1e-6)
    np.testing.assert_allclose(
        read["pupil_center"], window_means(files.RUN_TIMES, files.EYE, starts, 0.5), rtol=1e-10, atol=1e-12
    )


def test_delay_and_window_move_the_window(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces)
    _, read = parts(path, delay=0.2, window=0.3)
    np.testing.assert_allclose(
        read["responses"], window_means(files.TRACE_TIMES, files.TRACES, ONSETS + 0.2, 0.3), rtol=1e-12
    )


def test_conversion_and_offset_of_traces_are_applied(tmp_path):
    def traces(nwb):
        files.add_traces(nwb, starting_time=files.START, rate=files.RATE, conversion=2.0, offset=-1.0)

    _, read = parts(files.write(tmp_path / "a.nwb", files.add_images, traces))
    means = window_means(files.TRACE_TIMES, files.TRACES, ONSETS + 0.05, 0.5)
    np.testing.assert_allclose(read["responses"], means * 2 - 1, rtol=1e-12)


def test_any_trials_are_read_as_all_of_them_are(tmp_path):
    recording, read = parts(files.write(tmp_path / "a.nwb", *FULL))
    with Access(recording) as access:
        for rows in (np.array([3]), np.array([20, 2, 2, 9]), np.arange(0, TRIALS, 2)):
            for part, values in read.items():
                np.testing.assert_array_equal(access.trials(part, rows), values[rows])


def test_windows_that_are_not_read_together_give_the_same(tmp_path, monkeypatch):
    path = files.write(tmp_path / "a.nwb", *FULL)
    _, together = parts(path)
    monkeypatch.setattr(nwb_series, "_SLAB_BYTES", 8 * 20 * CELLS)
    _, apart = parts(path)
    for part, values in together.items():
        np.testing.assert_array_equal(apart[part], values)


def test_a_series_slower_than_the_window_is_interpolated_at_its_middle(tmp_path):
    def slow(nwb):
        files.add_traces(nwb, files.TRACES[:40], starting_time=0.0, rate=1.0)

    _, read = parts(files.write(tmp_path / "a.nwb", files.add_images, slow))
    middles = ONSETS + 0.05 + 0.25
    expected = np.stack([np.interp(middles, np.arange(40.0), cell) for cell in files.TRACES[:40].T], axis=1)
    np.testing.assert_allclose(read["responses"], expected, rtol=1e-10)


def test_a_window_outside_of_the_traces_is_missing_and_can_be_left_out(tmp_path):
    def short(nwb):
        files.add_traces(nwb, files.TRACES[:250], starting_time=files.START, rate=files.RATE)

    path = files.write(tmp_path / "a.nwb", files.add_images, short, files.add_trials)
    _, read = parts(path)
    end = files.TRACE_TIMES[249] + 1 / files.RATE
    late = end < ONSETS + 0.55
    assert 0 < late.sum() < TRIALS
    np.testing.assert_array_equal(np.isnan(read["responses"]).all(axis=1), late)
    with pytest.raises(Exception, match="not finite"):
        NeuroDataDataset(path, "train")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kept = NeuroDataDataset(path, "train", drop_missing=True)
    assert len(kept) == int(((TIERS == "train") & ~late).sum())
    assert "left out" in str(told[0].message)


def test_a_pause_of_the_traces_is_missing(tmp_path):
    times = np.where(files.TRACE_TIMES > 10, files.TRACE_TIMES + 5, files.TRACE_TIMES)

    def traces(nwb):
        files.add_traces(nwb, timestamps=times)

    _, read = parts(files.write(tmp_path / "a.nwb", files.add_images, traces))
    held = np.array([((times >= onset + 0.05) & (times < onset + 0.55)).any() for onset in ONSETS])
    assert 0 < (~held).sum() < TRIALS
    np.testing.assert_array_equal(np.isfinite(read["responses"]).all(axis=1), held)


def test_colour_images_have_their_channels_first(tmp_path):
    def colours(nwb):
        files.add_images(nwb, files.COLOURS)

    recording, read = parts(files.write(tmp_path / "a.nwb", colours, files.add_traces))
    assert recording.shapes["stimulus"] == (3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(read["stimulus"], np.moveaxis(files.COLOURS, -1, 1)[INDEX])


def test_axes_turns_images_that_are_stored_as_the_schema_says(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces)
    recording, read = parts(path, axes="columns-rows")
    assert recording.shapes["stimulus"] == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(read["stimulus"][:, 0], PIXELS[INDEX].swapaxes(1, 2))


def test_an_index_into_a_stack_of_images_is_read(tmp_path):
    def stack(nwb):
        files.add_stack(nwb, conversion=0.5, offset=2.0)

    path = files.write(tmp_path / "a.nwb", files.add_images, stack, files.add_traces, edit=files.to_indexed_frames)
    recording, read = parts(path)
    np.testing.assert_array_equal(read["stimulus"], (PIXELS[INDEX] * 0.5 + 2.0)[:, None].astype("f4"))
    assert recording.stimulus_ids.tolist() == INDEX.astype(str).tolist()


@pytest.mark.parametrize("dtype, blank", [("u4", 2**32 - 1), ("i4", -1)])
def test_blank_presentations_are_left_out(tmp_path, dtype, blank):
    index = INDEX.astype(np.int64)
    index[[4, 9]] = blank

    def replace(file):
        del file["stimulus/presentation/shown/data"]
        file["stimulus/presentation/shown/data"] = index.astype(dtype)

    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, files.add_trials, edit=replace)
    recording, read = parts(path)
    kept = np.setdiff1d(np.arange(TRIALS), [4, 9])
    np.testing.assert_array_equal(read["stimulus"], PIXELS[INDEX[kept]][:, None])
    np.testing.assert_array_equal(recording.tiers, TIERS[kept])
    assert recording.notes == (f"2 of {TRIALS} presentations show no picture and are left out",)


def test_frames_of_a_series_can_be_images(tmp_path):
    def slides(nwb):
        files.add_movie(nwb, PIXELS[INDEX], timestamps=ONSETS)

    recording, read = parts(files.write(tmp_path / "a.nwb", slides, files.add_traces, files.add_trials), kind="images")
    assert not recording.is_movie
    np.testing.assert_array_equal(read["stimulus"], PIXELS[INDEX][:, None])


def test_several_series_of_traces_are_put_side_by_side(tmp_path):
    def two_planes(nwb):
        for name, values in (("one", files.TRACES), ("two", files.TRACES[:, :2] + 5)):
            files.add_traces(nwb, values, name=name, rois=files.add_cells(nwb, values.shape[1], name, f"area {name}"))

    path = files.write(tmp_path / "a.nwb", files.add_images, two_planes)
    recording, read = parts(path, responses=["processing/ophys/DfOverF/one", "/processing/ophys/DfOverF/two"])
    values = np.concatenate([files.TRACES, files.TRACES[:, :2] + 5], axis=1)
    expected = window_means(files.TRACE_TIMES, values, ONSETS + 0.05, 0.5)
    np.testing.assert_allclose(read["responses"], expected, rtol=1e-12)
    assert recording.neurons["area"].tolist() == ["area one"] * 3 + ["area two"] * 2


def test_behaviour_is_what_is_named_in_that_order(tmp_path):
    path = files.write(tmp_path / "a.nwb", *FULL)
    every = parts(path)[1]["behavior"]
    names = ["processing/behavior/BehavioralTimeSeries/running_speed", "processing/behavior/PupilTracking/pupil_size"]
    np.testing.assert_array_equal(parts(path, behavior=names)[1]["behavior"], every[:, ::-1])
    without = describe_recording(path, {"behavior": [], "pupil_center": ""})
    assert set(without.shapes) == {"stimulus", "responses"}


def test_events_and_intervals_are_no_behaviour_unless_they_are_named(tmp_path):
    times = np.arange(9.0)

    def add_events(nwb):
        events = BehavioralEvents(time_series=TimeSeries(name="reward", data=np.ones(9), timestamps=times, unit="ml"))
        running = IntervalSeries(name="running", data=np.array([1, -1] * 4, "i1"), timestamps=times[:8])
        module = nwb.processing["behavior"]
        module.add(
            [
                events,
                BehavioralEpochs(interval_series=running),
                IntervalSeries(name="calm", data=np.array([1], "i1"), timestamps=[1.0]),
            ]
        )

    path = files.write(tmp_path / "one.nwb", files.add_images, files.add_traces, files.add_behavior, add_events)
    assert describe_recording(path).shapes["behavior"] == (2,)
    named = {"behavior": ["processing/behavior/BehavioralEvents/reward"]}
    assert describe_recording(path, named).shapes["behavior"] == (1,)


def test_a_broken_series_that_nobody_named_is_left_out_with_a_note(tmp_path):
    def spoil(file):
        file["processing/behavior/PupilTracking/pupil_size/data"][:] = 1.0
        del file["processing/behavior/PupilTracking/pupil_size/timestamps"]
        file["processing/behavior/PupilTracking/pupil_size/timestamps"] = files.RUN_TIMES[::-1]
        file["processing/behavior/PupilTracking/pupil_size/timestamps"].attrs.update(interval=1, unit="seconds")

    recording = describe_recording(files.write(tmp_path / "a.nwb", *FULL, edit=spoil))
    assert recording.shapes["behavior"] == (1,)
    assert "pupil_size is left out of the behaviour" in recording.notes[0]
    assert "run backwards" in recording.notes[0]


def test_reading_changes_nothing_in_the_folder(tmp_path):
    path = Path(files.write(tmp_path / "a.nwb", *FULL))
    before = (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir()))
    parts(path)
    assert (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


@pytest.mark.parametrize("responses", [files.add_traces, files.add_units])
def test_spawned_workers_give_the_same_items(tmp_path, responses):
    path = files.write(tmp_path / "a.nwb", files.add_images, responses, files.add_trials)
    data = NeuroDataDataset(path, "train", memory_limit_mb=0)
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="spawn")
    inputs, responses = data.tensors()
    batches = list(loader)
    assert torch.equal(torch.cat([batch[0] for batch in batches]), inputs)
    assert torch.equal(torch.cat([batch[1] for batch in batches]), responses)


def test_a_process_that_loads_data_needs_no_pynwb(tmp_path):
    recording, read = parts(files.write(tmp_path / "a.nwb", *FULL))
    (tmp_path / "recording.pickle").write_bytes(pickle.dumps(recording))
    program = (
        "import pickle, sys, numpy, pathlib\n"
        "sys.modules['pynwb'] = sys.modules['hdmf'] = None\n"
        "from synicix_neurodata.access import Access\n"
        "recording = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(float(Access(recording).trials('responses', numpy.arange(recording.trials)).sum()))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "recording.pickle")], capture_output=True, text=True, timeout=120
    )
    assert out.stderr == ""
    assert float(out.stdout) == pytest.approx(read["responses"].sum())


def test_what_pynwb_warns_of_does_not_reach_the_user(tmp_path):
    path = files.write(
        tmp_path / "a.nwb", files.add_images, files.add_stack, files.add_traces, edit=files.to_indexed_frames
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        describe_recording(path)


def test_what_was_chosen_of_the_file_is_told(tmp_path):
    told = describe_recording(files.write(tmp_path / "a.nwb", *FULL), {"window": 0.25}).taken_from
    assert list(told) == ["stimulus", "responses", "behavior", "pupil_center", "trials", "window"]
    assert told["responses"] == "processing/ophys/DfOverF/traces"
    assert told["trials"] == "intervals/trials, with their tiers"
    assert told["window"] == "from 0.05 s to 0.3 s after the onset of an image"
