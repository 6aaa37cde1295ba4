"""Zip files that nobody should trust: none of them is unpacked, and each is refused in one sentence."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording

from synicix_core.errors import DatasetError
from tests.synicix_neurodata.trees import TRIALS, pack, state, static_arrays, write_tree


@pytest.fixture
def packed(tmp_path):
    return pack(write_tree(tmp_path / "tree" / "rec", static_arrays()), tmp_path / "rec.zip")


def refused(path, *words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DatasetError) as caught:
            NeuroDataDataset(path, "train").tensors()
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message, message


def add(path, name, content=b"x", **attributes):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        entry = zipfile.ZipInfo(name)
        # ZipInfo cleans the name that it is given.
        entry.filename = name
        for attribute, value in attributes.items():
            setattr(entry, attribute, value)
        archive.writestr(entry, content)


def patch(path, name, offset, layout, *values):
    """Overwrite fields of a member's entry in the directory of a zip file."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    while content[start + 46 : start + 46 + len(name)] != name.encode():
        start = content.index(b"PK\x01\x02", start + 4)
    struct.pack_into(layout, content, start + offset, *values)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["../evil.npy", "rec/../../evil.npy", "/evil.npy", "rec\\..\\evil.npy", "C:evil", "a//b"]
)
def test_names_that_lead_out_of_the_file_are_refused(packed, tmp_path, name):
    add(packed, name)
    before = state(tmp_path)
    refused(packed, f"the zip file names {name!r}, which is no plain path")
    assert state(tmp_path) == before


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o020644])
def test_links_and_devices_are_refused(packed, kind):
    add(packed, "rec/data/images/99.npy", b"/etc/passwd", external_attr=kind << 16)
    refused(packed, "'rec/data/images/99.npy' in the zip file is a link or a device")


def test_a_name_that_is_there_twice_is_refused(packed):
    add(packed, "rec/data/images/3.npy")
    refused(packed, "has 'rec/data/images/3.npy' twice")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_members_are_refused(packed, flag):
    patch(packed, "rec/data/images/3.npy", 8, "<H", flag)
    refused(packed, "encrypted")


def test_members_packed_in_another_way_are_refused(packed):
    add(packed, "rec/data/images/99.npy", compress_type=zipfile.ZIP_LZMA)
    refused(packed, "'rec/data/images/99.npy' in the zip file is neither stored nor deflated")


def test_a_member_that_claims_more_than_it_can_hold_is_refused(packed):
    patch(packed, "rec/data/images/3.npy", 24, "<I", 2**31)
    refused(packed, "'rec/data/images/3.npy' in the zip file claims 2147483648 bytes")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = pack(write_tree(tmp_path / "rec", static_arrays()), tmp_path / "rec.zip", zipfile.ZIP_STORED)
    size = path.stat().st_size
    for trial in range(3):
        patch(path, f"rec/data/images/{trial}.npy", 20, "<II", size // 2, size // 2)
    refused(path, "the files in the zip file overlap")


def test_a_bomb_is_never_inflated(packed):
    # 64 MiB of zeros in 64 KiB: no lie, but nothing that a trial of this recording could be.
    add(packed, "rec/data/images/20.npy", bytes(2**26), compress_type=zipfile.ZIP_DEFLATED)
    # And one that says that it is small.
    add(packed, "rec/meta/trials/more.npy", bytes(2**26), compress_type=zipfile.ZIP_DEFLATED)
    patch(packed, "rec/meta/trials/more.npy", 24, "<I", 400)
    tracemalloc.start()
    refused(packed, "data/images has 21 trials")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_small_member_that_inflates_to_more_is_refused_without_inflating_it(packed):
    name = "rec/meta/neurons/unit_ids.npy"
    with zipfile.ZipFile(packed) as archive:
        content = archive.read(name)
    add(packed, "rec/meta/neurons/more.npy", content + bytes(2**26), compress_type=zipfile.ZIP_DEFLATED)
    patch(packed, "rec/meta/neurons/more.npy", 24, "<I", len(content))
    tracemalloc.start()
    refused(packed, "'meta/neurons/more.npy' does not have the 168 bytes that the zip file states")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_member_with_another_checksum_is_refused(packed):
    patch(packed, "rec/data/responses/3.npy", 16, "<I", 1)
    refused(packed, "'data/responses/3.npy' is damaged: its checksum")


def test_a_member_that_is_elsewhere_is_refused(packed):
    patch(packed, "rec/data/responses/3.npy", 42, "<I", 5)
    refused(packed, "'data/responses/3.npy' is not where the directory of the zip file says")


def test_a_file_that_was_cut_off_is_refused(packed):
    packed.write_bytes(packed.read_bytes()[:-300])
    refused(packed, "the zip file is cut off or damaged")


def test_a_zip_file_of_other_things_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3), responses=np.zeros(3))
    refused(tmp_path / "a.npz", "no folder data with one of images, responses", "it holds images.npy, responses.npy")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    refused(tmp_path / "empty.zip", "it holds nothing")


def test_a_zip_file_of_several_recordings_is_refused(packed):
    add(packed, "other/data/images/0.npy")
    refused(packed, "holds several recordings: other, rec")


def test_a_file_beside_the_folder_is_no_harm(packed):
    add(packed, "README.txt")
    add(packed, "notes/a.txt")
    assert describe_recording(packed).trials == TRIALS


def test_files_damaged_anywhere_are_refused_or_give_what_was_written(packed, tmp_path):
    whole, written = packed.read_bytes(), static_arrays()
    rng = np.random.default_rng(0)
    refusals = 0
    for trial in range(150):
        damaged = bytearray(whole)
        # Half of the damage goes to the directory at the end.
        start = 0 if trial % 2 else len(whole) * 3 // 4
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(start, len(whole))] = rng.integers(256)
        path = tmp_path / f"{trial}.zip"
        path.write_bytes(damaged)
        try:
            recording = describe_recording(path)
            with Access(recording) as access:
                for part, name in (("stimulus", "images"), ("responses", "responses")):
                    if part in recording.shapes:
                        got = access.trials(part, np.arange(recording.trials))
                        np.testing.assert_array_equal(got, written[f"data/{name}"])
        except DatasetError:
            refusals += 1
    assert 100 < refusals < 150
