"""The trials table of an NWB file: tiers, columns, and which presentations count."""

from __future__ import annotations

import warnings

import numpy as np
from pynwb.epoch import TimeIntervals
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording

from tests.synicix_neurodata import nwb_files as files
from tests.synicix_neurodata.nwb_files import CELLS, INDEX, ONSETS, PIXELS, TIERS, TRIALS, window_means

FULL = (files.add_images, files.add_traces, files.add_behavior, files.add_trials)


def test_tiers_columns_and_cells_come_from_the_tables(tmp_path):
    def trials(nwb):
        files.add_trials(nwb, contrast=np.linspace(0, 1, TRIALS), block=[f"b{row}" for row in range(TRIALS)])

    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, trials)
    recording = describe_recording(path)
    np.testing.assert_array_equal(recording.tiers, TIERS)
    np.testing.assert_array_equal(recording.columns["contrast"], np.linspace(0, 1, TRIALS))
    assert recording.columns["block"][3] == "b3"
    np.testing.assert_array_equal(recording.columns["start_time"], ONSETS)
    assert recording.neurons["unit_ids"].tolist() == [101, 102, 103]
    assert recording.neurons["layer"].tolist() == ["L1", "L2", "L3"]
    assert recording.neurons["area"].tolist() == ["VISp"] * CELLS
    assert "image_mask" not in recording.neurons
    # The name of the image tells which it is; their order is not that of the names.
    assert recording.stimulus_ids.tolist() == [f"im{8 - number:03d}" for number in INDEX]


def test_the_dataset_takes_tiers_and_neurons_as_of_any_other_layout(tmp_path):
    path = files.write(tmp_path / "a.nwb", *FULL)
    data = NeuroDataDataset(path, "test", mode="full-encoding", normalize=False, layers=("L2",))
    rows = np.flatnonzero(TIERS == "test")
    inputs, responses = data.tensors()
    np.testing.assert_array_equal(inputs["stimulus"], PIXELS[INDEX[rows]][:, None].astype("f4"))
    expected = window_means(files.TRACE_TIMES, files.TRACES, ONSETS[rows] + 0.05, 0.5)[:, [1]]
    np.testing.assert_allclose(responses, expected, rtol=1e-6)


def test_trials_are_matched_by_time_then_by_order(tmp_path):
    def some(nwb):
        files.add_trials(nwb, ONSETS[4:] - 0.1, ONSETS[4:] + 0.4, TIERS[4:])

    recording = describe_recording(files.write(tmp_path / "some.nwb", files.add_images, files.add_traces, some))
    np.testing.assert_array_equal(recording.tiers, TIERS[4:])
    assert recording.notes == (f"4 of {TRIALS} presentations are in no trial of intervals/trials and left out",)

    def other_clock(nwb):
        files.add_trials(nwb, ONSETS + 1000)

    recording = describe_recording(files.write(tmp_path / "order.nwb", files.add_images, files.add_traces, other_clock))
    np.testing.assert_array_equal(recording.tiers, TIERS)
    assert "matched to presentations by their order" in recording.notes[0]


def test_a_table_without_tiers_that_does_not_fit_is_not_used(tmp_path):
    def unrelated(nwb):
        files.add_trials(nwb, [500.0, 600.0], tiers=None)

    recording = describe_recording(files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, unrelated))
    assert recording.tiers is None
    assert recording.trials == TRIALS
    assert "its columns are not used" in recording.notes[0]


def test_another_table_and_column_can_be_named(tmp_path):
    def presentations(nwb):
        nwb.add_trial(start_time=0.0, stop_time=1.0)
        table = TimeIntervals(name="scene_presentations", description="shown")
        table.add_column("subset", "tier")
        for onset, tier in zip(ONSETS, TIERS, strict=True):
            table.add_interval(start_time=onset, stop_time=onset + 0.5, subset=tier)
        nwb.add_time_intervals(table)

    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, presentations)
    recording = describe_recording(path, {"trials": "intervals/scene_presentations", "tier_column": "subset"})
    np.testing.assert_array_equal(recording.tiers, TIERS)


def test_trials_in_invalid_times_are_left_out(tmp_path):
    def invalid(nwb):
        nwb.add_invalid_time_interval(start_time=ONSETS[5] + 0.3, stop_time=ONSETS[7] + 0.01)

    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, files.add_trials, invalid)
    recording = describe_recording(path)
    np.testing.assert_array_equal(recording.columns["start_time"], np.delete(ONSETS, [5, 6, 7]))
    assert "3 of 24 trials are within the file's invalid_times" in recording.notes[0]


def test_without_tiers_stimuli_are_split(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiers = {tier: NeuroDataDataset(path, tier, test_fraction=0.25) for tier in ("train", "validation", "test")}
    shown = {tier: set(data.column("stimulus_id")) for tier, data in tiers.items()}
    assert not shown["train"] & shown["test"]
    assert sum(map(len, tiers.values())) == TRIALS
