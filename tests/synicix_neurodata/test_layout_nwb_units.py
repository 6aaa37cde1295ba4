"""NWB files with the spike times of sorted units."""

from __future__ import annotations

import numpy as np
from synicix_neurodata.access import Access
from synicix_neurodata.layouts import describe_recording

from tests.synicix_neurodata import nwb_files as files
from tests.synicix_neurodata.nwb_files import ONSETS


def counts(path, **options):
    recording = describe_recording(path, options)
    with Access(recording) as access:
        return recording, access.trials("responses", np.arange(recording.trials))


def test_spikes_are_counted_in_the_window(tmp_path):
    recording, read = counts(files.write(tmp_path / "a.nwb", files.add_images, files.add_units, files.add_trials))
    starts = ONSETS + 0.05
    expected = [[((one >= start) & (one < start + 0.5)).sum() for one in files.UNIT_SPIKES] for start in starts]
    np.testing.assert_array_equal(read, expected)
    assert np.sum(expected) > 0
    assert recording.neurons["unit_ids"].tolist() == [10, 11, 12, 13]
    assert recording.neurons["area"].tolist() == ["VISp", "VISl", "VISl", "VISl"]


def test_units_are_chosen_by_a_column(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_units)
    every, good = counts(path)[1], counts(path, units_where={"quality": "good"})
    np.testing.assert_array_equal(good[1], every[:, [0, 1, 3]])
    assert good[0].neurons["unit_ids"].tolist() == [10, 11, 13]


def test_units_whose_times_are_not_finite_are_left_out_and_unsorted_ones_are_counted(tmp_path):
    spikes = [*files.UNIT_SPIKES]
    spikes[0] = spikes[0][::-1]
    spikes[3] = np.append(spikes[3], np.nan)

    def units(nwb):
        files.add_units(nwb, spikes)

    whole = counts(files.write(tmp_path / "whole.nwb", files.add_images, files.add_units))[1]
    recording, read = counts(files.write(tmp_path / "a.nwb", files.add_images, units))
    np.testing.assert_array_equal(read, whole[:, :3])
    assert "1 of 4 units are left out" in recording.notes[0]
    assert "13" in recording.notes[0]


def test_the_area_of_units_is_where_their_electrode_is(tmp_path):
    def electrodes(nwb):
        device = nwb.create_device(name="probe")
        group = nwb.create_electrode_group(name="shank", description="s", location="cortex", device=device)
        for location in ("V1", "V1", "LM"):
            nwb.add_electrode(group=group, location=location)
        for unit, times in enumerate(files.UNIT_SPIKES):
            nwb.add_unit(spike_times=times, electrodes=[2, 0] if unit == 1 else [unit % 2])

    recording = describe_recording(files.write(tmp_path / "a.nwb", files.add_images, electrodes))
    assert recording.neurons["area"].tolist() == ["V1", "LM", "V1", "V1"]
