"""What is wrong with an NWB file is said in one sentence that names what the file does hold."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import TimeSeries
from pynwb.ophys import DfOverF, Fluorescence
from synicix_neurodata.layouts import describe_recording, layout_of

from synicix_core.errors import DatasetError
from tests.synicix_neurodata import nwb_files as files

BASE = (files.add_images, files.add_traces, files.add_behavior, files.add_trials)
SHOWN = "stimulus/presentation/shown"
TRACES = "processing/ophys/DfOverF/traces"


def refused(path, **options):
    with pytest.raises(DatasetError) as told:
        describe_recording(path, options)
    assert str(path) in str(told.value)
    return str(told.value)


def replaced(name, values):
    """Return an edit that puts other values in the place of an array, its attributes kept."""

    def edit(file):
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return edit


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("good") / "a.nwb", *BASE)


@pytest.mark.parametrize(
    "option, what",
    [
        ({"stimulus": "stimulus/presentation/other"}, f"holds {SHOWN} (IndexSeries, (24,))"),
        ({"responses": "processing/ophys/none"}, f"holds {TRACES} (RoiResponseSeries, (400, 3))"),
        ({"responses": "units"}, f"holds {TRACES} (RoiResponseSeries, (400, 3))"),
        ({"behavior": ["processing/behavior/x"]}, "BehavioralTimeSeries/running_speed (TimeSeries, (900,))"),
        ({"pupil_center": "x"}, "EyeTracking/pupil_location (SpatialSeries, (900, 2))"),
        ({"trials": "intervals/x"}, "intervals/trials (TimeIntervals, 24 rows: start_time, stop_time, tier)"),
        ({"tier_column": "x"}, "start_time, stop_time, tier"),
        ({"units_where": {"quality": "good"}}, f"for units with spike times; the responses are {TRACES}"),
        ({"responses": []}, "neither one or more series"),
        ({"pupil_center": "processing/behavior/PupilTracking/pupil_size"}, "has 1 columns"),
        ({"kind": "film"}, "images or movie"),
        ({"axes": "xy"}, "rows-columns or columns-rows"),
        ({"delay": "late"}, "a number of seconds"),
        ({"window": 0}, "a number of seconds above 0"),
        ({"window": True}, "a number of seconds above 0"),
        ({"stimulus": 3}, "a text"),
        ({"behavior": [1]}, "a list of paths"),
        ({"units_where": ["good"]}, "columns and their values"),
        ({"windo": 1}, "its options are stimulus, responses"),
    ],
)
def test_options_that_do_not_fit(good, option, what):
    assert what in refused(good, **option)


@pytest.mark.parametrize(
    "steps, why",
    [
        ((files.add_traces,), "a stimulus is missing; the file holds no stimulus"),
        ((files.add_images,), "responses are missing; the file holds no responses"),
        (
            (files.add_images, files.add_movie, files.add_traces),
            "it is not clear which stimulus is meant; the file holds stimulus/presentation/movie (OpticalSeries, "
            "(300, 5, 7)), stimulus/presentation/shown",
        ),
        ((files.add_images, files.add_traces, files.add_units), "which responses are meant"),
        (
            (lambda nwb: nwb.add_stimulus(TimeSeries(name="gratings", data=[1.0, 2.0], rate=1.0, unit="deg")),),
            "a stimulus is missing; the file holds stimulus/presentation/gratings (TimeSeries, (2,))",
        ),
        (
            (
                lambda nwb: files.add_images(
                    nwb, [np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 5))], [0, 1, 2], [1.0, 2, 3]
                ),
            ),
            "must be of one size; there are (4, 4) 2 times, (4, 5) 1 times",
        ),
        ((lambda nwb: files.add_images(nwb, index=files.INDEX + 1),), "shows picture 8, and there are 8"),
        ((lambda nwb: files.add_images(nwb, onsets=files.ONSETS[::-1]),), "run backwards at sample 1"),
        ((lambda nwb: files.add_images(nwb, onsets=np.repeat(files.ONSETS[:12], 2)),), "two pictures at the same time"),
        (
            (lambda nwb: files.add_images(nwb, onsets=np.append(files.ONSETS[:-1], np.nan)),),
            "not finite from sample 23",
        ),
        (
            (
                files.add_images,
                files.add_traces,
                lambda nwb: files.add_trials(nwb, files.ONSETS[:5] + 900, tiers=files.TIERS),
            ),
            "24 of 24 presentations are in none of the 5 trials",
        ),
        (
            (
                files.add_images,
                files.add_traces,
                lambda nwb: nwb.add_invalid_time_interval(start_time=0.0, stop_time=900.0),
            ),
            "no trial is left; 24 of 24 trials are within the file's invalid_times",
        ),
    ],
)
def test_files_that_hold_too_little_or_too_much(tmp_path, steps, why):
    extra = () if any(step is files.add_traces for step in steps) or why.startswith("resp") else (files.add_traces,)
    path = files.write(tmp_path / "a.nwb", *steps, *extra)
    assert why in refused(path)


def test_ready_traces_are_taken_before_raw_ones_and_the_user_is_told(tmp_path):
    def both(nwb):
        rois = files.add_cells(nwb)
        files.add_traces(nwb, kind=Fluorescence, rois=rois, name="raw")
        files.add_traces(nwb, kind=DfOverF, name="clean", rois=files.add_cells(nwb, name="again"))

    recording = describe_recording(files.write(tmp_path / "a.nwb", files.add_images, both))
    assert recording.notes == ("the responses are processing/ophys/DfOverF/clean",)


@pytest.mark.parametrize(
    "edit, why",
    [
        (replaced(f"{TRACES}/data", np.zeros((400, 2))), "has 2 columns, and its rois name 3"),
        (replaced(f"{TRACES}/data", np.zeros((4, 3, 2))), rf"{TRACES}: .*incorrect shape .*\(4, 3, 2\)"),
        (replaced(f"{TRACES}/data", np.array([b"a", b"b"])), "not numbers"),
        (replaced(f"{TRACES}/rois", np.array([1, 2, 9])), "name rows that the table .* does not have"),
        (replaced(f"{SHOWN}/data", files.INDEX[:5].astype("u4")), "5 samples, and its timestamps have the shape"),
        (replaced(f"{SHOWN}/data", files.INDEX.astype("f4")), "no list of picture numbers"),
        (
            replaced("intervals/trials/tier", np.array(["train"] * 7, "S")),
            "intervals/trials: .*must be the same length",
        ),
        (
            replaced("intervals/trials/start_time", np.full(24, np.nan)),
            "start_time .* missing, or has values that are no",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, edit, why):
    path = files.write(tmp_path / "a.nwb", *BASE, edit=edit)
    with pytest.raises(DatasetError, match=why):
        describe_recording(path)


@pytest.mark.parametrize(
    "edit, why",
    [
        (replaced("units/spike_times_index", np.array([700, 600, 850, 890], "u4")), "spike_times_index does not fit"),
        (replaced("units/spike_times_index", np.array([700, 700, 850, 9999], "u4")), "spike_times_index does not fit"),
        (replaced("units/spike_times", np.zeros((890, 2))), "expected .spikes,."),
    ],
)
def test_units_that_do_not_fit(tmp_path, edit, why):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_units, edit=edit)
    with pytest.raises(DatasetError, match=why):
        describe_recording(path)


def test_units_of_which_none_can_be_used(tmp_path):
    def only_broken(nwb):
        nwb.add_unit(spike_times=[1.0, np.nan])

    path = files.write(tmp_path / "a.nwb", files.add_images, only_broken)
    assert "none of the 1 units can be used; 1 of 1 units are left out" in refused(path)


def test_units_that_nobody_is_among(tmp_path):
    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_units)
    assert "none of the 4 units has quality = ['great']" in refused(path, units_where={"quality": "great"})
    assert "the units have" in refused(path, units_where={"snr": 1})


def test_images_without_an_order_mean_nothing(tmp_path):
    def forget(file):
        del file["stimulus/templates/shown_images/order_of_images"]

    path = files.write(tmp_path / "a.nwb", files.add_images, files.add_traces, edit=forget)
    assert "have no order (order_of_images)" in refused(path)


def test_nwb_1_is_refused_by_its_version(tmp_path):
    path = tmp_path / "old.nwb"
    with h5py.File(path, "w") as file:
        file["nwb_version"] = "NWB-1.0.6"
        file["stimulus/templates/x"] = 1
    assert "NWB of version 1.0.6, and pynwb reads version 2 only" in refused(path)


def test_pynwb_that_is_missing_is_named_with_its_command(good, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    told = refused(good, delay=0.051)
    assert "pynwb is not installed" in told
    assert told.endswith("pip install 'synicix-neurodata[nwb]'")


def test_links_into_other_files_are_never_followed(tmp_path, good):
    def link(file):
        del file[f"{TRACES}/data"]
        file[f"{TRACES}/data"] = h5py.ExternalLink(good, f"{TRACES}/data")

    path = files.write(tmp_path / "a.nwb", *BASE, edit=link)
    told = refused(path)
    assert "is a link into the file" in told
    assert "never followed" in told


def test_values_in_other_files_are_never_followed(tmp_path):
    (tmp_path / "secret.raw").write_bytes(bytes(8 * 1200))

    def store_outside(file):
        attributes = dict(file[f"{TRACES}/data"].attrs)
        del file[f"{TRACES}/data"]
        made = file.create_dataset(f"{TRACES}/data", (400, 3), "f8", external=[(str(tmp_path / "secret.raw"), 0, 9600)])
        made.attrs.update(attributes)

    path = files.write(tmp_path / "a.nwb", *BASE, edit=store_outside)
    assert "are in another file, which is never followed" in refused(path)


def test_an_array_that_claims_more_than_the_file_can_hold(tmp_path):
    def swell(file):
        attributes = dict(file[f"{TRACES}/data"].attrs)
        del file[f"{TRACES}/data"]
        made = file.create_dataset(f"{TRACES}/data", (10**12, 3), "f8", chunks=(1000, 3))
        made.attrs.update(attributes)

    path = files.write(tmp_path / "a.nwb", *BASE, edit=swell)
    assert "claims 2.4e+13 bytes" in refused(path)


def test_a_file_that_is_cut_off(tmp_path, good):
    whole = Path(good).read_bytes()
    path = tmp_path / "cut.nwb"
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refused(path) or "HDF5" in refused(path)


def test_a_file_that_breaks_the_schema(tmp_path):
    def spoil(file):
        del file["processing/ophys/DfOverF/traces/rois"]

    path = files.write(tmp_path / "a.nwb", *BASE, edit=spoil)
    assert "pynwb cannot make sense of it" in refused(path)


def test_other_hdf5_files_are_not_taken_for_nwb(tmp_path):
    path = tmp_path / "static.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((4, 1, 3, 3))
        file["responses"] = np.zeros((4, 2))
    assert layout_of(describe_recording(path)).name == "static HDF5"
