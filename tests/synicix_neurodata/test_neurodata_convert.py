"""`synicix-run neurodata convert`: what comes out is what went in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from synicix_neurodata.commands import neurodata
from synicix_neurodata.convert import convert_recording, converted_path
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.identity import stimulus_ids
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
from synicix_neurodata.usable import MODES
from synicix_neurodata.writers.choice import WRITTEN

from synicix_core.errors import DatasetError

SMALL = {"neurons": 6, "images": 30, "test_images": 4, "repeats": 3, "behavior_gain": 0.3}
TRIALS = 40


def run(*arguments):
    return CliRunner().invoke(neurodata, ["convert", *map(str, arguments)])


@pytest.fixture
def static(tmp_path):
    """A static recording in words, types and columns that no simulation has."""
    rng = np.random.default_rng(0)
    path = tmp_path / "source.h5"
    tiers = np.array(["train", "oracle", "final_test", "none", "übung"])[np.arange(TRIALS) % 10 // 2]
    with h5py.File(path, "w") as file:
        file["images"] = rng.integers(0, 256, (TRIALS, 3, 5, 7), dtype="u1")
        file["responses"] = rng.gamma(2, 1, (TRIALS, 4))
        file["behavior"] = rng.integers(-5, 5, (TRIALS, 2), dtype="i2")
        file["tiers"] = np.char.encode(tiers, "utf-8")
        file["item_info/colorframeprojector_image_id"] = np.arange(TRIALS) // 2
        file["item_info/colorframeprojector_image_class"] = np.full(TRIALS, b"imagenet")
        file["item_info/note"] = np.array([f"Größe {trial}".encode() for trial in range(TRIALS)])
        file["trial_idx"] = rng.permutation(TRIALS).astype("u4")
        file["neurons/unit_ids"] = np.array([70000, 3, 9, 11], "u4")
        file["neurons/area"] = np.array([b"V1", b"LM", b"V1", b"AL"])
        file["neurons/cell_motor_coordinates"] = rng.normal(size=(4, 3))
        file.create_group("simulation/noise_ceiling").create_dataset("full-encoding", data=0.6).attrs["mean"] = 0.6
    return path


def items(path, mode, tier, **params):
    """Return the tensors of a dataset and its stimulus ids, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = NeuroDataDataset(path, tier, mode=mode, **params)
        except DatasetError as error:
            return error.what
    inputs, targets = dataset.tensors()
    named = inputs if isinstance(inputs, dict) else {"": inputs}
    extra = dataset.get_additional_model_params()
    return {**named, "target": targets}, dataset.column("stimulus_id"), dataset.notes, extra


def assert_same_items(source, target, **params):
    for mode in MODES:
        for tier in ("train", "validation", "test"):
            for normalize in (True, False):
                one, other = (items(path, mode, tier, normalize=normalize, **params) for path in (source, target))
                if isinstance(one, str):
                    assert one == other
                    continue
                assert one[0].keys() == other[0].keys()
                assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
                np.testing.assert_array_equal(one[1], other[1])
                assert one[3].keys() == other[3].keys()
                assert one[3].get("noise_ceiling") == other[3].get("noise_ceiling")


def assert_same_description(source, target, *, added=()):
    one, other = describe_recording(source), describe_recording(target)
    assert (one.shapes, one.trials, one.is_movie) == (other.shapes, other.trials, other.is_movie)
    assert (one.noise_ceiling, one.frame_rate) == (other.noise_ceiling, other.frame_rate)
    for name in ("tiers", "frames", "stimulus_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert other.columns.keys() - one.columns.keys() <= set(added)
    for name in ("columns", "neurons"):
        for key, values in getattr(one, name).items():
            np.testing.assert_array_equal(values, getattr(other, name)[key])


@pytest.mark.parametrize("layout", WRITTEN)
def test_every_layout_converts_to_the_same_items(tmp_path, layout):
    movie = WRITTEN[layout].movie
    source = tmp_path / recording_name(1, layout)
    simulate_recording(source, Simulation(**SMALL, frames=9 if movie else 0), layout=layout)
    before = state(tmp_path)
    target = tmp_path / "converted" / "out.h5"
    target.parent.mkdir()
    result = run(source, target)
    assert result.exit_code == 0, result.output
    assert {key: value for key, value in state(tmp_path).items() if "converted" not in key} == before
    assert_same_description(source, target, added=("frame_image_id", "durations"))
    assert_same_items(source, target)
    assert describe_recording(target).layout == ("movie HDF5" if movie else "static HDF5")
    assert ("movie HDF5" if movie else "static HDF5") in result.stdout


def state(folder):
    """Return size and time of change of every file below a folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_types_words_columns_and_neurons_stay(static, tmp_path):
    target = tmp_path / "out.h5"
    assert convert_recording(static, target).notes == ()
    assert_same_description(static, target)
    assert describe_recording(static).neurons.keys() == describe_recording(target).neurons.keys()
    assert_same_items(static, target)
    with h5py.File(static) as one, h5py.File(target) as other:
        for name in ("images", "responses", "behavior", "trial_idx"):
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
        assert other["tiers"][8].decode() == "übung"


def test_a_recording_without_tiers_gets_none_and_is_split_in_the_same_way(static, tmp_path):
    with h5py.File(static, "r+") as file:
        del file["tiers"]
    target = tmp_path / "out.h5"
    convert_recording(static, target)
    assert describe_recording(target).tiers is None
    for seed in (0, 1):
        assert_same_items(static, target, split_seed=seed)


def test_a_recording_that_does_not_tell_stimuli_stays_so(static, tmp_path):
    with h5py.File(static, "r+") as file:
        del file["item_info"]
        file["images"][1] = file["images"][0]
    target = tmp_path / "out.h5"
    convert_recording(static, target)
    assert describe_recording(target).stimulus_ids is None
    ids = stimulus_ids(describe_recording(target))
    assert ids[0] == ids[1] != ids[2]
    assert_same_items(static, target)


def test_gaps_and_lone_parts_are_kept(static, tmp_path):
    with h5py.File(static, "r+") as file:
        file["responses"][3] = np.nan
        for name in ("images", "neurons"):
            del file[name]
    target = tmp_path / "out.h5"
    convert_recording(static, target)
    assert_same_description(static, target)
    assert_same_items(static, target, drop_missing=True)
    with h5py.File(target) as file:
        assert np.isnan(file["responses"][3]).all()
        assert "images" not in file


def movie(path, frames=(6, 9, 7, 6), **columns):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for trial, length in enumerate(frames):
            file[f"inputs/{trial}"] = rng.integers(0, 256, (1, length, 4, 5), dtype="u1")
            file[f"responses/{trial}"] = rng.gamma(2, 1, (length, 3))
        for name, values in columns.items():
            file[name] = values
    return path


def test_movies_of_unequal_length_without_tiers_rate_and_identity(tmp_path):
    source, target = movie(tmp_path / "source.h5"), tmp_path / "out.h5"
    convert_recording(source, target)
    assert_same_description(source, target)
    recording = describe_recording(target)
    assert (recording.tiers, recording.frame_rate, recording.stimulus_ids) == (None, None, None)
    assert recording.frames.tolist() == [6, 9, 7, 6]
    assert_same_items(source, target, clip_frames=3)
    with h5py.File(target) as file:
        assert (file["inputs/1"].dtype, file["responses/1"].dtype) == (np.uint8, np.float64)


def test_movies_with_durations_keep_rate_and_identity(tmp_path):
    columns = {
        "tiers": np.array([b"train", b"train", b"oracle", b"live_test_main"]),
        "durations": np.array([6, 9, 7, 6]) / 25,
        "condition_hashes": np.array([b"a", b"b", b"c", b"d"]),
    }
    source, target = movie(tmp_path / "source.h5", **columns), tmp_path / "out.h5"
    convert_recording(source, target)
    assert_same_description(source, target)
    assert describe_recording(target).frame_rate == 25
    assert_same_items(source, target, clip_frames=3)


def test_nothing_is_written_over_the_source_or_into_its_folder(static, tmp_path):
    tree = tmp_path / "tree"
    simulate_recording(tree, Simulation(**SMALL), layout="static-tree")
    link = tmp_path / "link.h5"
    link.symlink_to(static)
    hard = tmp_path / "hard.h5"
    os.link(static, hard)
    before = state(tmp_path)
    for source, output in (
        (static, static),
        (static, tmp_path / "." / "source.h5"),
        (static, tmp_path),
        (link, static),
        (static, link),
        (static, hard),
        (tree, tree),
        (tree, tree / "out.h5"),
        (tree, tree / "data" / "new" / "out.h5"),
    ):
        result = run(source, output, "--force")
        assert isinstance(result.exception, DatasetError), (source, output)
        assert "never written to" in str(result.exception)
    assert state(tmp_path) == before


def test_a_folder_as_output_gets_the_name_of_the_source(static, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    assert run(static, folder).exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["source.h5"]
    names = {"static1-2-3": "static1-2-3.h5", "a.b.zip": "a.b.h5", "static1.5-x": "static1.5-x.h5"}
    for name, expected in names.items():
        assert converted_path(tmp_path / name, folder).name == expected


def test_a_recording_as_output_folder_is_refused(static, tmp_path):
    tree = tmp_path / "tree"
    simulate_recording(tree, Simulation(**SMALL), layout="static-tree")
    before = state(tree)
    result = run(static, tree)
    assert "another recording" in str(result.exception)
    assert state(tree) == before


def test_existing_files_are_replaced_only_when_forced(static, tmp_path):
    target = tmp_path / "out.h5"
    target.write_bytes(b"mine")
    result = run(static, target)
    assert isinstance(result.exception, DatasetError)
    assert "--force" in str(result.exception)
    assert target.read_bytes() == b"mine"
    result = run(static, target, "--force", "--json")
    told = json.loads(result.stdout)
    assert (told["file"], told["trials"], told["bytes"]) == (str(target), TRIALS, target.stat().st_size)
    assert (told["layout"], told["source_layout"], told["notes"]) == ("static HDF5", "static HDF5", [])
    assert_same_items(static, target)


def test_a_damaged_source_leaves_nothing_behind(tmp_path):
    source = movie(tmp_path / "source.h5", frames=(6,) * 30)
    with h5py.File(source, "r+") as file:
        values = file["responses/20"][()]
        del file["responses/20"]
        file.create_dataset("responses/20", data=values, chunks=values.shape, compression="gzip")
        chunk = file["responses/20"].id.get_chunk_info(0)
    with source.open("rb+") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * chunk.size)
    kept = tmp_path / "out.h5"
    kept.write_bytes(b"mine")
    result = run(source, kept, "--force")
    assert isinstance(result.exception, DatasetError)
    assert "responses" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "source.h5"]
    assert kept.read_bytes() == b"mine"


def test_progress_counts_every_trial(static, tmp_path):
    counted: list[int] = []
    convert_recording(static, tmp_path / "out.h5", progress=counted.append)
    assert sum(counted) == TRIALS


@pytest.mark.parametrize("layout", ["static", "movie"])
def test_a_file_larger_than_a_block_is_streamed(tmp_path, layout):
    source, trials = tmp_path / "large.h5", 5000
    rng = np.random.default_rng(0)
    with h5py.File(source, "w") as file:
        file["tiers"] = np.full(trials if layout == "static" else 50, b"train")
        if layout == "static":
            images = file.create_dataset("images", (trials, 1, 64, 128), "f4")
            for start in range(0, trials, 500):
                images[start : start + 500] = rng.uniform(0, 255, (500, 1, 64, 128))
            file["responses"] = rng.gamma(2, 1, (trials, 20)).astype("f4")
        else:
            for trial in range(50):
                file[f"inputs/{trial}"] = rng.uniform(0, 255, (1, 100, 64, 128)).astype("f4")
                file[f"responses/{trial}"] = rng.gamma(2, 1, (100, 20)).astype("f4")
    size = source.stat().st_size
    tracemalloc.start()
    try:
        convert_recording(source, tmp_path / "out.h5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 150e6
    assert peak < 0.7 * size
    with h5py.File(source) as one, h5py.File(tmp_path / "out.h5") as other:
        where = "images" if layout == "static" else "inputs/7"
        assert np.array_equal(one[where][-1], other[where][-1])


@pytest.mark.parametrize("layout", ["static-hdf5", "movie-hdf5"])
def test_a_disk_without_room_is_told_before_anything_is_read(tmp_path, monkeypatch, layout):
    source, free = tmp_path / recording_name(1, layout), 10_000
    simulate_recording(source, Simulation(frames=8 if "movie" in layout else 0, **SMALL), layout=layout)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=free))
    with pytest.raises(DatasetError, match=r"MB and the disk has 0\.0 MB left") as raised:
        convert_recording(source, tmp_path / "out.h5")
    assert raised.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    free = source.stat().st_size
    convert_recording(source, tmp_path / "out.h5")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the size of files is limited on Unix only")
@pytest.mark.parametrize("layout", ["static-hdf5", "movie-hdf5"])
def test_a_disk_that_fills_up_is_told_and_nothing_is_left(tmp_path, layout):
    source, target = tmp_path / "source.h5", tmp_path / "out.h5"
    simulate_recording(source, Simulation(frames=8 if "movie" in layout else 0, **SMALL), layout=layout)
    # In a process of its own, because HDF5 may crash after a write that failed.
    code = (
        "import resource, sys; from synicix_core.errors import DatasetError\n"
        "from synicix_neurodata.convert import convert_recording\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "try: convert_recording(sys.argv[1], sys.argv[2])\n"
        "except DatasetError as error: print(error.what, error.why, flush=True)\n"
    )
    for limit in (0, source.stat().st_size // 3):
        command = [sys.executable, "-c", code, source, target, str(limit)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        crashed = ended.returncode < 0 and "File too large" in ended.stderr
        assert crashed or ended.stdout == "The recording is not written File too large\n", ended.stderr[-500:]
        assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_trials_of_several_types_get_one_that_holds_them_all(tmp_path):
    tree = tmp_path / recording_name(1, "static-tree")
    simulate_recording(tree, Simulation(**SMALL), layout="static-tree")
    later = tree / "data" / "responses" / "7.npy"
    np.save(later, np.load(later).astype("f8") + 1e-12)
    convert_recording(tree, tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["responses"].dtype == np.float64
        np.testing.assert_array_equal(file["responses"][7], np.load(later))
        assert file["images"].dtype == np.float32
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([tree.name, "c.h5"])


def test_a_folder_that_does_not_exist_is_not_made(static, tmp_path):
    result = run(static, tmp_path / "nowhere" / "a.h5")
    assert "there is no folder" in str(result.exception)
    assert not (tmp_path / "nowhere").exists()
