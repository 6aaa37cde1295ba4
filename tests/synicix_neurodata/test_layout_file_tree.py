"""Static file trees, as folder and as zip file: what is read, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.tiers import Split, assign_tiers
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.trees import NEURONS, TIERS, TRIALS, pack, state, static_arrays, write_tree

PARTS = {"stimulus": "images", "responses": "responses", "behavior": "behavior", "pupil_center": "pupil_center"}


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "static1-2-3", static_arrays())


def in_form(tree, form):
    if form == "folder":
        return tree
    method = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
    return pack(tree, tree.with_suffix(".zip"), method, "" if form == "no top folder" else None)


@pytest.mark.parametrize("form", ["folder", "stored", "deflated", "no top folder"])
def test_everything_is_read_as_it_was_written(tree, form):
    path, written = in_form(tree, form), static_arrays()
    recording = describe_recording(path)
    assert (recording.layout, recording.trials, recording.is_movie) == ("static file tree", TRIALS, False)
    assert recording.shapes == {
        "stimulus": (1, 6, 8),
        "responses": (NEURONS,),
        "behavior": (3,),
        "pupil_center": (2,),
    }
    rows = np.array([7, 0, 7, 19])
    with Access(recording) as access:
        for part, name in PARTS.items():
            np.testing.assert_array_equal(access.trials(part, rows), written[f"data/{name}"][rows])
            assert access.trials(part, rows).dtype == written[f"data/{name}"].dtype
    np.testing.assert_array_equal(recording.tiers, TIERS)
    assert set(recording.columns) == {"frame_image_id", "frame_image_class", "trial_idx"}
    np.testing.assert_array_equal(recording.columns["trial_idx"], written["meta/trials/trial_idx"])
    assert set(recording.neurons) == {"unit_ids", "area", "cell_motor_coordinates"}
    assert recording.neurons["area"].tolist() == ["V1", "V1", "LM", "LM", "AL"]
    assert recording.stimulus_ids[:2].tolist() == ["imagenet/0", "imagenet/1"]
    assert recording.stimulus_ids[18] == recording.stimulus_ids[8] == "imagenet/8"
    assert (recording.notes, recording.noise_ceiling) == ((), {})


@pytest.mark.parametrize("form", ["folder", "deflated"])
def test_a_dataset_gives_the_trials_of_its_tier(tree, form):
    dataset = NeuroDataDataset(in_form(tree, form), "train", mode="full-encoding", normalize=False)
    inputs, targets = dataset.tensors()
    rows, written = TIERS == "train", static_arrays()
    np.testing.assert_array_equal(targets, written["data/responses"][rows].astype("f4"))
    np.testing.assert_array_equal(inputs["stimulus"], written["data/images"][rows])
    assert len(NeuroDataDataset(tree, "train", areas=("LM",)).tensors()[1][0]) == 2


def test_what_file_managers_leave_behind_is_ignored_and_nothing_is_written(tree, tmp_path):
    for litter in (".DS_Store", "data/.DS_Store", "data/images/.DS_Store", "data/images/._0.npy", "meta/._x"):
        (tree / litter).write_bytes(b"\0\0\0\1Bud1")
    for name in ("data/responses/Thumbs.db", "meta/trials/Thumbs.db", "desktop.ini", "data/images/list.txt"):
        (tree / name).write_bytes(b"x")
    packed = pack(tree, tmp_path / "a.zip")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/static1-2-3/data/images/._0.npy", b"x")
        archive.writestr("__MACOSX/._static1-2-3", b"x")
    before = state(tmp_path)
    for path in (tree, packed):
        dataset = NeuroDataDataset(path, "train", mode="full-encoding", memory_limit_mb=0)
        dataset.tensors(), dataset.column("trial_idx")
        assert dataset.notes == ()
    assert state(tmp_path) == before
    assert not (tree / "config.json").exists()


def test_links_in_the_config_give_a_part_another_folder(tree):
    plain = NeuroDataDataset(tree, "train").tensors()
    (tree / "data/responses").rename(tree / "data/deconvolved")
    (tree / "config.json").write_text(
        json.dumps({"links": {"responses": "deconvolved", "targets": "deconvolved", "x": "y"}})
    )
    linked = NeuroDataDataset(tree, "train").tensors()
    assert all(torch.equal(one, other) for one, other in zip(plain, linked, strict=True))


def test_parts_and_columns_may_be_missing_and_images_have_no_axis_of_channels(tmp_path):
    images = static_arrays()["data/images"]
    tree = write_tree(
        tmp_path / "a",
        static_arrays(),
        images=images[:, 0],
        behavior=None,
        pupil_center=None,
        tiers=None,
        frame_image_id=None,
        unit_ids=None,
    )
    recording = describe_recording(tree)
    assert recording.shapes == {"stimulus": (1, 6, 8), "responses": (NEURONS,)}
    assert (recording.tiers, recording.stimulus_ids) == (None, None)
    with Access(recording) as access:
        np.testing.assert_array_equal(access.trials("stimulus", np.arange(TRIALS)), images)
    assert not assign_tiers(recording, Split()).from_file


def test_arrays_of_one_part_may_differ_in_type_and_order(tree):
    responses = static_arrays()["data/responses"]
    np.save(tree / "data/responses/3.npy", np.array([1, 2, 3, 4, 300], "i8"))
    np.save(tree / "data/responses/4.npy", responses[4].astype(">f8"))
    np.save(tree / "data/images/5.npy", np.asfortranarray(static_arrays()["data/images"][5]))
    with Access(describe_recording(tree)) as access:
        got = access.trials("responses", np.array([3, 4, 5]))
        np.testing.assert_array_equal(got, [[1, 2, 3, 4, 300], responses[4], responses[5]])
        np.testing.assert_array_equal(access.trials("stimulus", np.array([5]))[0], static_arrays()["data/images"][5])


def test_withheld_test_responses_leave_no_test_tier(tmp_path):
    responses = np.where((TIERS == "test")[:, None], 0, static_arrays()["data/responses"])
    tree = write_tree(tmp_path / "a", static_arrays(), responses=responses)
    with pytest.warns(UserWarning, match="withheld"):
        assert len(NeuroDataDataset(tree, "test")) == 0


def test_a_column_that_cannot_be_used_is_left_out_and_told(tree):
    np.save(tree / "meta/trials/short.npy", np.arange(3))
    np.save(tree / "data/images/mean.npy", np.zeros((6, 8)))
    with pytest.warns(UserWarning) as caught:
        dataset = NeuroDataDataset(tree, "train")
    told = " ".join(str(warning.message) for warning in caught)
    for words in ("data/images holds mean.npy", "meta/trials/short.npy (shape (3,), int64)"):
        assert words in told
    assert "short" not in describe_recording(tree).columns
    assert len(dataset) == (TIERS == "train").sum()


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


@pytest.mark.parametrize("form", ["folder", "deflated"])
@pytest.mark.parametrize(
    ("name", "count"), [("meta/trials/tiers", TRIALS), ("data/responses/0", NEURONS), ("", TRIALS)]
)
def test_python_objects_are_never_loaded(tree, tmp_path, form, name, count):
    mark = tmp_path / "executed"
    trap = np.empty(count, object)
    trap[:] = [Trap(mark)] * count
    np.save(tree / f"{name or 'meta/trials/comment'}.npy", trap, allow_pickle=True)
    path = in_form(tree, form)
    if name:
        refused(path, f"'{name}.npy' holds Python objects, which are never loaded")
    else:
        with pytest.warns(UserWarning, match=r"meta/trials/comment.npy \(Python objects\)"):
            NeuroDataDataset(path, "train").tensors()
    assert not mark.exists()


def refused(path, *words, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DatasetError) as caught:
            NeuroDataDataset(path, "train", **params).tensors()
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message


def save(name, values):
    return lambda tree: np.save(tree / name, values)


def claiming(shape):
    """Return the bytes of a file whose header claims a shape that it does not hold."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(40)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree: (tree / "data/responses/7.npy").unlink(), ["data/responses lacks 7", "has 20 trials"]),
        (
            lambda tree: [(tree / f"data/images/{trial}.npy").unlink() for trial in range(4, 20)],
            ["data/images lacks 4, 5, 6, 7, 8, … (16 in all)"],
        ),
        (save("data/images/20.npy", np.zeros((1, 6, 8))), ["data/images has 21 trials", "20 trials"]),
        (save("meta/trials/tiers.npy", TIERS[:-1]), ["data/images has 20 trials", "19 trials"]),
        (save("meta/trials/tiers.npy", np.arange(TRIALS)), ["tiers.npy' is no list of names"]),
        (lambda tree: (tree / "meta/trials/tiers.npy").write_bytes(b""), ["tiers.npy' is empty"]),
        (save("data/images/3.npy", np.zeros((1, 6, 9))), ["3.npy' has shape (1, 6, 9)", "(1, 6, 8)"]),
        (save("data/images/3.npy", np.zeros((1, 8, 6), "f4")), ["3.npy' has shape (1, 8, 6)", "(1, 6, 8)"]),
        (save("data/images/0.npy", np.zeros((1, 1, 6, 8))), ["0.npy' has shape", "(channels, height, width)"]),
        (save("data/responses/0.npy", np.zeros((NEURONS, 1))), ["0.npy' has shape (5, 1)", "(columns,)"]),
        (save("data/responses/0.npy", np.zeros(0)), ["0.npy' has shape (0,)", "nothing in it"]),
        (save("data/responses/0.npy", np.array(["a", "b"])), ["0.npy' holds <U1 values, not numbers"]),
        (save("data/responses/0.npy", np.zeros(5, [("a", "f4")])), ["0.npy' holds", "not numbers"]),
        (save("data/responses/0.npy", np.zeros(5, complex)), ["complex128 values, not numbers"]),
        (lambda tree: (tree / "data/images/3.npy").write_bytes(b""), ["3.npy' is empty"]),
        (lambda tree: (tree / "data/images/3.npy").write_text("0.1,0.2"), ["3.npy' is not a NumPy file"]),
        (lambda tree: (tree / "data/images/3.npy").write_bytes(b"\x93NUMPY\1\0v\0{'d"), ["ends within its header"]),
        (
            lambda tree: (tree / "data/images/3.npy").write_bytes((tree / "data/images/2.npy").read_bytes()[:200]),
            ["3.npy' is cut off", "has 320 bytes, not 200"],
        ),
        (
            lambda tree: (tree / "data/images/3.npy").write_bytes((tree / "data/images/2.npy").read_bytes() + b"0"),
            ["3.npy' is longer than it should be"],
        ),
        (
            lambda tree: (tree / "data/responses/0.npy").write_bytes(claiming((2**40, 5))),
            ["0.npy' is cut off", "43980465111168 bytes"],
        ),
        (lambda tree: (tree / "data/responses/0.npy").write_bytes(claiming((-5,))), ["damaged header"]),
        (
            lambda tree: (tree / "data/responses/0.npy").write_bytes(
                claiming((5,)).replace(b"(5,)", b"(a,)").replace(b"'shape'", b"('shape'")
            ),
            ["0.npy' has a damaged header"],
        ),
        (lambda tree: (tree / "config.json").write_text("{"), ["'config.json' is not JSON"]),
        (lambda tree: (tree / "config.json").write_text("[" * 100_000), ["'config.json' is not JSON"]),
        (lambda tree: (tree / "config.json").write_text("[]"), ["'config.json' is no table"]),
        (lambda tree: (tree / "config.json").write_text('{"links": 3}'), ["links in config.json are no table"]),
        (
            lambda tree: (tree / "config.json").write_text('{"links": {"images": "../../x"}}'),
            ["config.json says that images is '../../x'", "data/images (20 files)"],
        ),
        (lambda tree: (tree / "meta/noise_ceiling.json").write_text('{"decoding": 2}'), ["noise ceiling", "is 2"]),
        (lambda tree: shutil.rmtree(tree / "data"), ["no folder data with one of images, responses"]),
    ],
)
@pytest.mark.parametrize("form", ["folder", "deflated"])
def test_what_is_wrong_is_told_in_one_sentence(tree, spoil, words, form):
    spoil(tree)
    refused(in_form(tree, form), *words)


def test_a_tree_without_any_trial_is_refused(tmp_path):
    (tmp_path / "a/data/images").mkdir(parents=True)
    refused(tmp_path / "a", "there is no file data/images/0.npy")


def test_what_is_no_file_is_never_opened(tree):
    (tree / "data/images/3.npy").unlink()
    os.mkfifo(tree / "data/images/3.npy")
    refused(tree, "'data/images/3.npy' is not a file")


def test_a_link_that_leads_nowhere_is_told(tree):
    (tree / "data/images/3.npy").unlink()
    (tree / "data/images/3.npy").symlink_to(tree / "elsewhere")
    refused(tree, "No such file or directory")


@pytest.mark.parametrize("part", ["responses", "images"])
def test_a_file_that_is_damaged_after_the_recording_was_described_is_named(tree, part):
    recording = describe_recording(tree)
    place = tree / "data" / part / "7.npy"
    place.write_bytes(place.read_bytes()[:-8])
    with Access(recording) as access, pytest.raises(DatasetError, match=f"{part}/7.npy' is cut off"):
        access.trials("stimulus" if part == "images" else part, np.arange(TRIALS))
    place.unlink()
    with Access(recording) as access, pytest.raises(DatasetError, match=f"{part}/7.npy"):
        access.trials("stimulus" if part == "images" else part, np.arange(TRIALS))


def test_a_number_may_be_as_large_as_it_likes(tmp_path):
    tree = write_tree(tmp_path / "a", static_arrays(), tiers=None)
    np.save(tree / "data/images/99999999999.npy", np.zeros((1, 6, 8)))
    refused(tree, "data/images lacks 20, 21, 22, 23, 24, … (99999999979 in all)")


def test_a_folder_of_other_things_is_no_tree(tmp_path):
    (tmp_path / "project/data/tables").mkdir(parents=True)
    refused(tmp_path / "project", "no layout that is known", "static file tree")


@pytest.mark.parametrize("form", ["folder", "deflated"])
def test_worker_processes_read_the_same(tree, form):
    dataset = NeuroDataDataset(in_form(tree, form), "train", mode="full-encoding", memory_limit_mb=0)
    inputs, targets = dataset.tensors()
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).tensors()[1], targets)
    batches = list(DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="spawn"))
    assert torch.equal(torch.cat([target for _, target in batches]), targets)
    assert torch.equal(torch.cat([part["stimulus"] for part, _ in batches]), inputs["stimulus"])


def test_text_in_one_trial_is_an_error_that_names_the_recording(tree):
    np.save(tree / "data/behavior/7.npy", np.array(["a", "b", "c"]))
    with pytest.raises(DatasetError, match=r"behavior.*not numbers") as caught:
        NeuroDataDataset(tree, "train", mode="full-encoding")
    assert str(tree) in str(caught.value)
