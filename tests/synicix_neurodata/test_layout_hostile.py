"""Recordings that do harm if they are trusted: each is one clear error, or is read as if the harm were not there."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import LAYOUTS, describe_recording, find_layout
from synicix_neurodata.layouts.experanto_meta import read_mapping
from synicix_neurodata.layouts.trial_columns import stimulus_identity

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.recordings import static_recording
from tests.synicix_neurodata.trees import NEURONS, static_arrays, write_tree

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")


class _TooLong(BaseException):
    """Nothing that reads a file catches this."""


@pytest.fixture(autouse=True)
def _at_once():
    """Fail where a test waits, as opening a pipe does."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def refused(path, *words, **options):
    with pytest.raises(DatasetError) as raised:
        describe_recording(path, options)
    assert all(word in str(raised.value) for word in (Path(path).name, *words)), str(raised.value)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "static1-2-3", static_arrays())


def experiment(root: Path) -> Path:
    (root / "screen/data").mkdir(parents=True)
    (root / "screen/meta").mkdir()
    (root / "responses").mkdir()
    (root / "screen/meta.yml").write_text("modality: screen\nframe_rate: 1\n")
    np.save(root / "screen/timestamps.npy", np.arange(4.0))
    for trial in range(4):
        np.save(root / f"screen/data/{trial:05}.npy", np.full((4, 5), trial, "u1"))
        (root / f"screen/meta/{trial:05}.yml").write_text(f"modality: image\nfirst_frame_idx: {trial}\n")
    (root / "responses/meta.yml").write_text(
        "modality: sequence\nsampling_rate: 10\nstart_time: 0\nend_time: 10\nn_signals: 2\nis_mem_mapped: false\n"
    )
    np.save(root / "responses/data.npy", np.arange(200.0).reshape(100, 2))
    return root


def retina(root: Path) -> Path:
    (root / "stimuli").mkdir(parents=True)
    with h5py.File(root / "one.h5", "w") as file:
        for name in "abc":
            np.save(root / f"stimuli/{name}.npy", np.zeros((1, 6, 4, 5), "f4"))
            file[f"responses_{name}"] = np.ones((2, 6))
    return root


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


# Pipes, sockets and links


@needs_pipes
@pytest.mark.parametrize("name", ["pipe", "pipe.h5", "pipe.zip", "pipe.nwb"])
def test_a_pipe_is_no_recording(tmp_path, name):
    pipe(tmp_path / name)
    assert find_layout(tmp_path / name) is None
    assert not any(layout.recognises(tmp_path / name) for layout in LAYOUTS)
    refused(tmp_path / name, "no layout that is known", "neither a file nor a folder")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no sockets in folders")
def test_a_socket_is_no_recording(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("plug")
        refused(tmp_path / "plug", "neither a file nor a folder")


@needs_pipes
@pytest.mark.parametrize(
    "name",
    ["screen/meta.yml", "screen/meta/00002.yml", "screen/timestamps.npy", "responses/meta.yml", "responses/data.npy"],
)
def test_a_pipe_in_an_experiment_is_never_opened(tmp_path, name):
    root = experiment(tmp_path / "experiment")
    pipe(root / name)
    refused(root, f"'{name}' is not a file")


@needs_pipes
def test_pipes_that_nobody_needs_do_no_harm(tmp_path, tree):
    pipe(tree / "data/meta.yml")
    assert describe_recording(tree).layout == "static file tree"
    root = retina(tmp_path / "retina")
    pipe(root / "two.h5")
    assert describe_recording(root).shapes["responses"] == (2,)


def test_a_link_that_leads_nowhere_does_no_harm_where_nothing_needs_it(tree):
    (tree / ".#notes").symlink_to("nobody@nowhere.1234")
    assert describe_recording(tree).shapes["responses"] == (NEURONS,)


def test_folders_may_be_links_and_what_changes_behind_them_is_seen(tmp_path, tree):
    (tree / "data").rename(tmp_path / "elsewhere")
    (tree / "data").symlink_to(tmp_path / "elsewhere")
    (tree / "data" / "back").symlink_to(tree)
    (tree / "root").symlink_to("/")
    before = describe_recording(tree)
    np.save(tmp_path / "elsewhere/responses/3.npy", np.zeros(NEURONS + 1))
    refused(tree, "responses/3.npy", f"({NEURONS + 1},)")
    assert before.shapes["responses"] == (NEURONS,)


def test_a_link_to_a_file_of_something_else_tells_nothing_of_what_is_in_it(tmp_path, tree):
    (tmp_path / "secret").write_text("password")
    (tree / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match=r"config\.json") as raised:
        describe_recording(tree)
    assert "password" not in str(raised.value)


# HDF5


@needs_pipes
@pytest.mark.parametrize("name", ["images", "nwb_version", "stimulus_a", "simulation/noise_ceiling/all"])
def test_no_link_into_another_file_is_ever_followed(tmp_path, name):
    # Whoever opens the pipe waits for ever.
    pipe(tmp_path / "other")
    path = Path(static_recording(tmp_path / "one.h5"))
    if name == "stimulus_a":
        path = retina(tmp_path / "retina")
    with h5py.File(path / "one.h5" if path.is_dir() else path, "r+") as file:
        file.pop("images", None)
        file[name] = h5py.ExternalLink(str(tmp_path / "other"), "/x")
    if name == "nwb_version":
        assert describe_recording(path).layout == "static HDF5"
    else:
        refused(path, f"'{name}' is a link into the file")


@needs_pipes
def test_a_movie_is_recognised_without_following_links(tmp_path):
    pipe(tmp_path / "other")
    with h5py.File(tmp_path / "movies.h5", "w") as file:
        file["responses/0"] = np.zeros((5, 3))
        file["images"] = h5py.ExternalLink(str(tmp_path / "other"), "/x")
    refused(tmp_path / "movies.h5", "is a link into the file")


def test_the_path_of_a_link_may_be_written_oddly(tmp_path):
    path = static_recording(tmp_path / "one.h5")
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = file.pop("images")
        file["images"] = h5py.SoftLink("/.//./elsewhere/")
    assert describe_recording(path).shapes["stimulus"] == (1, 8, 12)


def test_a_shape_whose_size_overflows_is_refused(tmp_path):
    path = static_recording(tmp_path / "one.h5", images=None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("images", (40, 2**20, 2**30, 2**14), "f4", chunks=(1, 1, 1, 1024))
    refused(path, "'images' claims")


def test_arrays_without_a_value_are_left_out_or_refused(tmp_path):
    nothing = h5py.Empty("f4")
    path = static_recording(
        tmp_path / "one.h5", trial_idx=nothing, **{"neurons/depth": nothing, "item_info/time": nothing}
    )
    recording = describe_recording(path)
    assert "depth" not in recording.neurons and not recording.columns
    refused(static_recording(tmp_path / "two.h5", tiers=h5py.Empty("S4")), "'tiers' is no list of names")


@pytest.mark.parametrize(("count", "length"), [(2**25, 1), (2**22, 2**12)], ids=["many", "long"])
def test_texts_that_would_fill_any_memory_are_refused(tmp_path, count, length):
    path = static_recording(tmp_path / "one.h5", tiers=None)
    with h5py.File(path, "r+") as file:
        tiers = file.create_dataset("tiers", (count,), h5py.string_dtype(), chunks=(2**20,))
        tiers[0] = "x" * length
    refused(path, f"'tiers' claims {count} texts")


@pytest.mark.parametrize("stated", ["high", 0.0, np.array([0.5, 0.6]), None])
def test_a_ceiling_that_is_no_number_is_refused(tmp_path, stated):
    path = static_recording(tmp_path / "one.h5")
    with h5py.File(path, "r+") as file:
        ceiling = file.create_dataset("simulation/noise_ceiling/decoding", data=1.0)
        if stated is not None:
            ceiling.attrs["mean"] = stated
    refused(path, "the noise ceiling for decoding is")


# NumPy's files


@pytest.mark.parametrize("values", [np.array([1 + 5j] * NEURONS, "c8"), np.array([1] * NEURONS, "M8[s]")])
def test_values_that_are_no_numbers_are_refused_even_if_their_file_is_as_long(tree, values):
    # The trial is not the first one, whose header stands for all files of its size.
    np.save(tree / "data/responses/1.npy", values)
    with pytest.raises(DatasetError, match=f"1.npy' holds {values.dtype}".replace("[", r"\[").replace("]", r"\]")):
        NeuroDataDataset(str(tree), "train")


def test_values_without_a_byte_fill_no_memory(tree):
    with (tree / "meta/trials/tiers.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<U0", "fortran_order": False, "shape": (10**12,)})
    refused(tree, "tiers.npy' holds values without a byte")


# YAML


def bomb(level: str) -> str:
    """Return nine lines that stand for millions of values, or more."""
    return (
        "a0: &a0 "
        + ("{k: v}\n" if "<<" in level else "[x]\n")
        + "".join(f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 10))}\n" for n in range(1, 10))
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb("[{}]") + "modality: *a9\n", "again and again"),
        (bomb("{{<<: [{}]}}"), "not merged"),
        ("modality: &a [*a]\n", "again and again"),
        ("modality: " + "[" * 100_000, "nested more than 200 levels deep"),
        ("modality: " + "- " * 100_000, "not YAML"),
        ("modality:\n" + "".join(" " * level + "-\n" for level in range(1, 1000)), "nested more than 200 levels deep"),
    ],
    ids=["aliases", "merged", "recursive", "brackets", "dashes", "columns"],
)
def test_yaml_that_grows_is_refused(tmp_path, content, words):
    (tmp_path / "meta.yml").write_text(content)
    # In a process of its own: what is nested deeply enough ends the process that reads it.
    code = "import sys; from pathlib import Path; from synicix_neurodata.layouts.experanto_meta import read_mapping\n"
    code += "try: read_mapping(Path(sys.argv[1]), 'meta.yml')\nexcept Exception as error: print(type(error).__name__, error)"
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("DatasetError") and words in ended.stdout


def test_yaml_may_name_a_value_and_use_it_again(tmp_path):
    size = [36, 64]
    (tmp_path / "meta.yml").write_text(yaml.safe_dump({"one": size, "two": size}))
    assert "*id" in (tmp_path / "meta.yml").read_text()
    assert read_mapping(tmp_path, "meta.yml") == {"one": size, "two": size}
    (tmp_path / "meta.yml").write_text("spike_indices: " + str(list(range(5000))))
    assert read_mapping(tmp_path, "meta.yml") == {"spike_indices": list(range(5000))}


# Options and identities


def test_options_that_are_no_json_are_refused(tmp_path):
    refused(static_recording(tmp_path / "one.h5"), "layout_params", "date", delay=datetime.date(2024, 1, 1))


def test_a_library_that_fails_while_looking_is_told_with_the_file(tmp_path, monkeypatch):
    def fails(_name):
        raise KeyError("no such thing")

    path = static_recording(tmp_path / "one.h5")
    monkeypatch.setattr(h5py.File, "__enter__", fails)
    refused(path, "KeyError")


def test_a_column_of_one_type_of_stimulus_tells_nothing_of_the_others():
    hashes = np.array(["p", "q", "r", "r", ""])
    ids = {"frame_image_id": np.array([3, 3, np.nan, np.nan, np.nan]), "condition_hashes": hashes}
    assert list(stimulus_identity(ids)) == ["3.0", "3.0", "r", "r", "trial 4"]
    text = {"frame_image_id": np.array(["3", "3", "nan", "None", ""]), "frame_image_class": np.array(["a"] * 5)}
    assert list(stimulus_identity(text)) == ["a/3", "a/3", "trial 2", "trial 3", "trial 4"]
    assert stimulus_identity({"image_id": np.array([np.nan, np.nan])}) is None
