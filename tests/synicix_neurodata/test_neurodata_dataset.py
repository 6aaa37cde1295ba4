"""NeuroDataDataset: what is read, in which shape, how it is normalised, and what is refused."""

from __future__ import annotations

import os
import pickle
import stat
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
from torch.utils.data import DataLoader, default_collate

from synicix_core.errors import DatasetError

TRIALS, NEURONS = 30, 5
TIERS = np.array(["train", "validation", "test"])[np.arange(TRIALS) % 10 // 4]
MODES = ("stimulus-encoding", "full-encoding", "behavior-encoding", "decoding")


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "images": rng.uniform(0, 255, (TRIALS, 1, 4, 6)).astype("f4"),
        "responses": rng.gamma(2.0, 1.5, (TRIALS, NEURONS)),
        "behavior": rng.uniform(1, 9, (TRIALS, 3)),
        "pupil_center": rng.normal(50, 4, (TRIALS, 2)),
        "tiers": TIERS.astype("S"),
        "trial_idx": rng.permutation(TRIALS).astype("u4"),
        "item_info/frame_image_id": np.arange(TRIALS),
        "item_info/frame_image_class": np.full(TRIALS, b"imagenet"),
    }


def write(path: Path, content: dict[str, Any] | None = None, **changes: Any) -> str:
    """Write `content` with some arrays changed, or left out where the change is None."""
    content = {**(arrays() if content is None else content), **changes}
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
    return str(path)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "recording.h5")


def plain(path, tier="train", mode="full-encoding"):
    return NeuroDataDataset(path, tier, mode=mode, normalize=False)


@pytest.mark.parametrize("tier", ["train", "validation", "test"])
def test_each_tier_gives_its_own_trials_in_the_order_of_the_file(path, tier):
    dataset, written, rows = plain(path, tier), arrays(), tier == TIERS
    assert len(dataset) == rows.sum() > 0
    inputs, targets = dataset.tensors()
    for name, part in (("stimulus", "images"), ("behavior", "behavior"), ("pupil_center", "pupil_center")):
        np.testing.assert_array_equal(inputs[name], written[part][rows].astype("f4"))
    np.testing.assert_array_equal(targets, written["responses"][rows].astype("f4"))


@pytest.mark.parametrize(
    ("mode", "input_shape", "output_shape"),
    [
        ("stimulus-encoding", (1, 4, 6), (NEURONS,)),
        ("full-encoding", {"stimulus": (1, 4, 6), "behavior": (3,), "pupil_center": (2,)}, (NEURONS,)),
        ("behavior-encoding", {"behavior": (3,), "pupil_center": (2,)}, (NEURONS,)),
        ("decoding", (NEURONS,), (1, 4, 6)),
    ],
)
def test_modes(path, mode, input_shape, output_shape):
    dataset = NeuroDataDataset(path, "validation", mode=mode)
    assert (dataset.input_shape, dataset.output_shape) == (input_shape, output_shape)
    example, target = dataset[0]
    shape = {name: tuple(part.shape) for name, part in example.items()} if isinstance(example, dict) else example.shape
    assert (shape, tuple(target.shape)) == (input_shape, output_shape)
    assert target.dtype == torch.float32


@pytest.mark.parametrize("limit", [0, 512])
@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_items_batches_and_tensors_are_equal_bit_for_bit(tmp_path_factory, mode, limit, data):
    file = write(tmp_path_factory.mktemp("r") / "r.h5")
    dataset = NeuroDataDataset(file, "train", mode=mode, memory_limit_mb=limit)
    indices = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=20))
    batch = default_collate(dataset.__getitems__(indices))
    singles = default_collate([dataset[index] for index in indices])
    whole = dataset.tensors()
    for some in (batch, singles):
        torch.testing.assert_close(some[1], whole[1][indices], rtol=0, atol=0)
        if isinstance(whole[0], dict):
            for name, part in whole[0].items():
                torch.testing.assert_close(some[0][name], part[indices], rtol=0, atol=0)
        else:
            torch.testing.assert_close(some[0], whole[0][indices], rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0, 512])
def test_an_index_beyond_the_tier_is_an_index_error(path, limit):
    with pytest.raises(IndexError):
        NeuroDataDataset(path, "train", memory_limit_mb=limit)[TRIALS]


def test_a_tier_that_fits_is_read_once_and_a_larger_one_batch_by_batch(path, monkeypatch):
    reads = []
    whole_read = NeuroDataDataset._read
    monkeypatch.setattr(NeuroDataDataset, "_read", lambda self, rows: reads.append(len(rows)) or whole_read(self, rows))
    for limit, expected in ((512, [int((TIERS == "train").sum())]), (0, [1, 2])):
        reads.clear()
        dataset = NeuroDataDataset(path, "train", memory_limit_mb=limit)
        dataset[0], dataset.__getitems__([1, 2])
        assert reads == expected


def test_what_is_kept_cannot_be_changed_from_outside(path):
    dataset = NeuroDataDataset(path, "train")
    dataset.tensors()[1].zero_()
    assert dataset.tensors()[1].any()


def test_normalisation_uses_the_training_tier_only_and_its_rule(path):
    train = {name: values[TIERS == "train"] for name, values in arrays().items()}
    written, rows = arrays(), TIERS == "test"
    inputs, targets = NeuroDataDataset(path, "test", mode="full-encoding").tensors()
    images = train["images"].astype("f8")
    expected = {
        "stimulus": (written["images"][rows] - images.mean()) / images.std(ddof=1),
        "behavior": written["behavior"][rows] / train["behavior"].std(0, ddof=1),
        "pupil_center": (written["pupil_center"][rows] - train["pupil_center"].mean(0))
        / train["pupil_center"].std(0, ddof=1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(inputs[name], values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(targets, written["responses"][rows] / train["responses"].std(0, ddof=1), rtol=1e-5)


def test_the_statistics_in_the_file_are_not_used(tmp_path):
    plainly = NeuroDataDataset(write(tmp_path / "a.h5"), "train").tensors()
    misled = write(tmp_path / "b.h5", **{"statistics/images/all/mean": 1e6, "statistics/images/all/std": 1e6})
    torch.testing.assert_close(NeuroDataDataset(misled, "train").tensors()[0], plainly[0], rtol=0, atol=0)


def test_nearly_silent_neurons_are_divided_by_one_percent_of_the_mean_std(tmp_path):
    responses = arrays()["responses"]
    responses[:, 0] = 3.0
    responses[:, 1] = np.where(np.arange(TRIALS) % 2, 1e-6, 0.0)
    dataset = NeuroDataDataset(write(tmp_path / "r.h5", responses=responses), "train")
    floor = 0.01 * responses[TIERS == "train"].std(0, ddof=1).mean()
    divide = dataset.get_additional_model_params()["normalization"]["responses"]["divide"]
    np.testing.assert_allclose(divide[:2], floor, rtol=1e-5)
    assert (divide[2:] > 10 * floor).all()
    np.testing.assert_allclose(dataset.tensors()[1][:, 0], 3.0 / floor, rtol=1e-5)


def test_a_column_of_behaviour_that_never_changes_stays_finite(tmp_path):
    behavior = arrays()["behavior"]
    behavior[:, 2] = 0.0
    inputs, _ = NeuroDataDataset(
        write(tmp_path / "r.h5", behavior=behavior), "train", mode="behavior-encoding"
    ).tensors()
    assert (inputs["behavior"][:, 2] == 0).all()
    assert inputs["behavior"].isfinite().all()


def test_parts_can_be_normalised_one_by_one(path):
    raw, _ = plain(path).tensors()
    dataset = NeuroDataDataset(path, "train", mode="full-encoding", normalize=("pupil_center",))
    inputs, _ = dataset.tensors()
    assert torch.equal(inputs["stimulus"], raw["stimulus"])
    assert inputs["pupil_center"].mean(0).abs().max() < 1e-5
    assert set(dataset.get_additional_model_params()["normalization"]) == {"pupil_center"}
    with pytest.raises(DatasetError, match="normalize"):
        NeuroDataDataset(path, "train", normalize=("image",))


def test_what_was_done_is_recorded_so_that_it_can_be_undone_and_is_the_same_for_every_tier(path):
    params = [NeuroDataDataset(path, tier).get_additional_model_params() for tier in ("train", "validation", "test")]
    assert repr(params[0]) == repr(params[1]) == repr(params[2])
    inputs, targets = NeuroDataDataset(path, "test").tensors()
    raw, raw_targets = plain(path, "test", "stimulus-encoding").tensors()
    applied = params[0]["normalization"]
    for part, values, original in (("stimulus", inputs, raw), ("responses", targets, raw_targets)):
        undone = values.numpy() * applied[part]["divide"] + applied[part]["subtract"]
        np.testing.assert_allclose(undone, original, rtol=1e-4, atol=1e-3)


def test_the_model_is_told_whether_targets_can_be_negative(tmp_path):
    path = write(tmp_path / "counts.h5")
    fluorescence = write(tmp_path / "fluorescence.h5", responses=arrays()["responses"] - 1)
    assert NeuroDataDataset(path, "validation").get_additional_model_params()["nonnegative_output"] is True
    for dataset in (
        NeuroDataDataset(path, "validation", mode="decoding"),
        NeuroDataDataset(fluorescence, "validation"),
    ):
        assert dataset.get_additional_model_params()["nonnegative_output"] is False


def test_the_noise_ceiling_is_given_for_the_mode_that_the_file_states_it_for(tmp_path, path):
    assert "noise_ceiling" not in NeuroDataDataset(path, "train").get_additional_model_params()
    with h5py.File(path, "r+") as file:
        file["simulation/noise_ceiling/full-encoding"] = np.full(NEURONS, 0.7)
        file["simulation/noise_ceiling/full-encoding"].attrs["mean"] = 0.7
    params = NeuroDataDataset(path, "train", mode="full-encoding").get_additional_model_params()
    assert params["noise_ceiling"] == {"correlation": 0.7, "single_trial_correlation": 0.7}
    # The file says it of its test tier and of no other.
    other = NeuroDataDataset(path, "train", mode="full-encoding", test_tiers=("validation",))
    assert "noise_ceiling" not in other.get_additional_model_params()
    assert "noise_ceiling" not in NeuroDataDataset(path, "train").get_additional_model_params()


def test_columns_belong_to_the_tier_and_bytes_are_text(path):
    dataset, rows = plain(path, "test"), TIERS == "test"
    np.testing.assert_array_equal(dataset.column("frame_image_id"), np.flatnonzero(rows))
    np.testing.assert_array_equal(dataset.column("trial_idx"), arrays()["trial_idx"][rows])
    assert set(dataset.column("frame_image_class")) == {"imagenet"}
    with pytest.raises(DatasetError, match=r"frame_image_id"):
        dataset.column("image_id")


@pytest.mark.parametrize("kind", ["S", h5py.string_dtype(), h5py.string_dtype("ascii")])
def test_tiers_may_be_bytes_or_text(tmp_path, kind):
    path = write(tmp_path / "r.h5", tiers=TIERS.astype("S").astype(kind))
    assert len(plain(path, "test")) == (TIERS == "test").sum()


@pytest.mark.parametrize("dtype", ["u1", "f8", "f2"])
def test_any_number_becomes_float32(tmp_path, dtype):
    images = arrays()["images"].astype("u1").astype(dtype)
    inputs, _ = plain(write(tmp_path / "r.h5", images=images), mode="stimulus-encoding").tensors()
    assert inputs.dtype == torch.float32
    np.testing.assert_array_equal(inputs, images[TIERS == "train"].astype("f4"))


def test_large_parts_are_summarised_block_by_block_as_in_one_go(path, monkeypatch):
    from synicix_neurodata import statistics

    def summarised():
        statistics._summarise.cache_clear()
        return statistics.summarise(describe_recording(path), "responses", np.flatnonzero(TIERS == "train"))

    whole = summarised()
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 3 * 8 * NEURONS)
    blocks = summarised()
    responses = arrays()["responses"][TIERS == "train"]
    for summary in (whole, blocks):
        np.testing.assert_allclose(summary.mean, responses.mean(0))
        np.testing.assert_allclose(summary.std, responses.std(0, ddof=1))
        np.testing.assert_array_equal(summary.maximum, responses.max(0))


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "r.h5"
    before = NeuroDataDataset(write(path), "train").get_additional_model_params()
    write(tmp_path / "new.h5", responses=arrays()["responses"] * 10)
    (tmp_path / "new.h5").replace(path)
    after = NeuroDataDataset(path, "train").get_additional_model_params()
    np.testing.assert_allclose(
        after["normalization"]["responses"]["divide"], 10 * before["normalization"]["responses"]["divide"], rtol=1e-5
    )


def test_nothing_is_written_into_the_folder_of_the_data(path, tmp_path):
    Path(path).chmod(stat.S_IRUSR)
    before = (list(tmp_path.iterdir()), Path(path).stat().st_mtime_ns)
    dataset = NeuroDataDataset(path, "train")
    dataset.tensors(), dataset[0], dataset.column("trial_idx")
    assert (list(tmp_path.iterdir()), Path(path).stat().st_mtime_ns) == before


def test_the_open_file_is_not_pickled(path):
    dataset = NeuroDataDataset(path, "train", mode="full-encoding")
    first = dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0][1], first[1])
    assert torch.equal(copy[0][0]["stimulus"], first[0]["stimulus"])


@pytest.mark.parametrize(("method", "limit"), [("spawn", 512), ("fork", 0)])
def test_worker_processes_read_the_same(path, method, limit):
    dataset = NeuroDataDataset(path, "train", mode="full-encoding", memory_limit_mb=limit)
    # The parent has the file open by now, which a forked worker must not use.
    inputs, targets = dataset.tensors()
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    assert torch.equal(torch.cat([target for _, target in batches]), targets)
    assert torch.equal(torch.cat([part["stimulus"] for part, _ in batches]), inputs["stimulus"])


def test_a_forked_process_opens_its_own_file(path, monkeypatch):
    dataset = NeuroDataDataset(path, "train", memory_limit_mb=0)
    dataset[0]
    parents = dataset._examples.access._opened.reader
    monkeypatch.setattr(os, "getpid", lambda: -1)
    dataset[0]
    assert dataset._examples.access._opened.reader is not parents


@pytest.mark.parametrize("limit", [0, 512])
@pytest.mark.parametrize("layout", ["static-hdf5", "static-tree-zip"])
def test_threads_read_what_one_alone_reads(tmp_path, layout, limit):
    place = tmp_path / recording_name(1, layout)
    simulate_recording(place, Simulation(neurons=4, images=30, test_images=2, image_shape=(8, 12)), layout=layout)
    inputs, targets = NeuroDataDataset(place, "train").tensors()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(4):
            dataset = NeuroDataDataset(place, "train", memory_limit_mb=limit)
            with ThreadPoolExecutor(8) as pool:
                items = list(pool.map(dataset.__getitem__, range(len(dataset))))
            assert torch.equal(torch.stack([image for image, _ in items]), inputs)
            assert torch.equal(torch.stack([response for _, response in items]), targets)
    finally:
        sys.setswitchinterval(before)


def refused(path, *words, tier="train", **params):
    with pytest.raises(DatasetError) as caught:
        NeuroDataDataset(path, tier, **params)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, message


def test_missing_file(tmp_path):
    refused(tmp_path / "none.h5", "No such file")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "text.h5").write_text("trial,response\n" * 100)
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "text.h5", "no layout that is known", "neither HDF5 nor zip")
    refused(tmp_path / "empty.h5", "no layout that is known", "the file is empty")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    refused(tmp_path / "folder", "no layout that is known", "the folder holds notes.txt", "static HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["spam/eggs"] = np.zeros(3)
    refused(tmp_path / "other.h5", "no layout that is known", "the file is HDF5 and holds spam/")


def test_a_file_that_was_cut_off(path, tmp_path):
    whole = (tmp_path / "recording.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.h5", "cut off", "Copy it again")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tiers": np.arange(TRIALS)}, ["'tiers' is no list of names"]),
        ({"images": np.zeros((TRIALS, 4, 6))}, ["'images' has shape (30, 4, 6)", "(trials, channels, height, width)"]),
        ({"responses": np.zeros((TRIALS - 1, 2))}, ["'responses' has 29 trials and 'tiers' has 30"]),
        ({"responses": np.zeros((TRIALS, 0))}, ["(30, 0)"]),
        ({"responses": np.full((TRIALS, 2), "x", dtype=h5py.string_dtype())}, ["'responses' holds object values"]),
        ({"responses": None, "responses/a": np.zeros(3)}, ["'responses' is a group"]),
        ({"images": None}, ["no stimulus", "behavior-encoding"]),
        ({"images": np.zeros((TRIALS, 1, 4, 6))}, ["The stimulus cannot be normalised", "the same"]),
        ({"responses": np.ones((TRIALS, 2))}, ["The responses never change", "every neuron", "the same"]),
        (
            {"tiers": np.where(TIERS == "train", "exercise", TIERS).astype("S")},
            ["train tier", "exercise 12", "at least 2"],
        ),
    ],
)
def test_layouts_that_are_wrong(tmp_path, changes, words):
    refused(write(tmp_path / "r.h5", **changes), *words)


@pytest.mark.parametrize("normalize", [True, False])
def test_neurons_of_which_none_responds_are_refused_with_or_without_normalisation(tmp_path, normalize):
    responses = arrays()["responses"]
    responses[:, [1, 3]] = 0
    path = write(tmp_path / "r.h5", **{"responses": responses, "neurons/unit_ids": np.arange(NEURONS)})
    assert len(NeuroDataDataset(path, "train", normalize=normalize, unit_ids=(1, 2))) == 12
    words = "The responses never change", "each of the 2 neurons that are used", "all 12 trials"
    refused(path, *words, normalize=normalize, unit_ids=(1, 3))
    refused(write(tmp_path / "c.h5", responses=np.ones((TRIALS, 2))), "every neuron", normalize=normalize)


def test_negative_responses_are_said_because_no_rate_is(tmp_path):
    responses = arrays()["responses"]
    responses[TIERS == "train", 2] -= 9
    path = write(tmp_path / "r.h5", **{"responses": responses, "neurons/unit_ids": np.arange(NEURONS)})
    with pytest.warns(
        UserWarning, match=r"1 of 5 neurons are negative in places \(down to -7.9\).*PoissonLoss.*MSELoss"
    ):
        NeuroDataDataset(path, "train")
    for tier, params in (("train", {"unit_ids": (0, 1)}), ("train", {"mode": "decoding"}), ("validation", {})):
        assert NeuroDataDataset(path, tier, **params).notes == ()


def test_the_message_says_which_modes_the_file_can_serve(tmp_path):
    path = write(tmp_path / "r.h5", behavior=None, pupil_center=None)
    missing = "no behavior or pupil_center"
    refused(path, missing, "stimulus (1, 4, 6)", "stimulus-encoding or decoding", mode="full-encoding")
    nothing = write(tmp_path / "nothing.h5", images=None, behavior=None, pupil_center=None)
    refused(nothing, "no stimulus", "docs/recordings.md")


def test_unknown_mode_and_tier(path):
    refused(path, "no mode 'encoding'", "full-encoding", mode="encoding")
    refused(path, "no tier 'val'", "validation", tier="val")


@pytest.mark.parametrize("part", ["images", "responses"])
@pytest.mark.parametrize(("bad", "tier"), [(np.nan, "train"), (np.inf, "validation"), (np.nan, "test")])
def test_values_that_are_not_finite_are_refused_where_they_are_used(tmp_path, part, bad, tier):
    values = arrays()[part]
    row = int(np.flatnonzero(tier == TIERS)[1])
    values[row].flat[1] = bad
    path = write(tmp_path / "r.h5", **{part: values})
    refused(
        path,
        {"images": "stimulus"}.get(part, part),
        f"1 of {(tier == TIERS).sum()} trials of the {tier} tier",
        f"rows {row})",
        tier=tier,
    )
    for other in {"train", "validation", "test"} - {tier}:
        if tier != "train":
            NeuroDataDataset(path, other)
    if part == "images":
        NeuroDataDataset(path, tier, mode="behavior-encoding")


def test_a_validation_tier_without_trials_or_responses_is_refused(tmp_path):
    refused(
        write(tmp_path / "a.h5", tiers=np.where(TIERS == "validation", "train", TIERS).astype("S")),
        "validation tier has too few trials",
        tier="validation",
    )
    zeros = np.where((TIERS == "validation")[:, None], 0, arrays()["responses"])
    refused(write(tmp_path / "b.h5", responses=zeros), "are zero", tier="validation")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reason", ["withheld", "no trials"])
def test_a_recording_without_test_responses_trains_and_says_that_it_has_no_test_score(tmp_path, mode, reason):
    changes = (
        {"responses": np.where((TIERS == "test")[:, None], 0, arrays()["responses"])}
        if reason == "withheld"
        else {"tiers": np.where(TIERS == "test", "train", TIERS).astype("S")}
    )
    path = write(tmp_path / "r.h5", **changes)
    with pytest.warns(UserWarning, match=reason):
        dataset = NeuroDataDataset(path, "test", mode=mode)
    assert len(dataset) == 0
    assert len(dataset.notes) == 1
    _, targets = dataset.tensors()
    assert targets.shape == (0, *dataset.output_shape)
    assert list(DataLoader(dataset)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert NeuroDataDataset(path, "train", mode=mode).notes == ()


def test_a_test_tier_with_some_responses_is_kept(tmp_path):
    responses = arrays()["responses"]
    responses[TIERS == "test", 1:] = 0
    assert len(NeuroDataDataset(write(tmp_path / "r.h5", responses=responses), "test")) == (TIERS == "test").sum()


def test_links_into_other_files_are_never_followed(tmp_path, path):
    hostile = tmp_path / "hostile.h5"
    with h5py.File(hostile, "w") as file:
        file["tiers"] = TIERS.astype("S")
        file["responses"] = h5py.ExternalLink(path, "/responses")
        file["elsewhere"] = h5py.ExternalLink(path, "/")
        file["images"] = h5py.SoftLink("/elsewhere/images")
    refused(hostile, "never followed")
    with h5py.File(hostile, "r+") as file:
        del file["responses"]
        file["responses"] = arrays()["responses"]
    refused(hostile, "'/elsewhere/images' is a link into the file", "never followed")


def test_values_kept_in_another_file_are_never_read(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(10_000))
    outside = write(tmp_path / "r.h5", images=None)
    with h5py.File(outside, "r+") as file:
        file.create_dataset("images", (TRIALS, 1, 4, 6), "u1", external=[(tmp_path / "secret", 0, 10_000)])
    refused(outside, "are in another file")


def test_links_within_the_file_are_followed_and_circles_are_refused(tmp_path):
    path = write(tmp_path / "r.h5", images=None, **{"raw/images": arrays()["images"]})
    with h5py.File(path, "r+") as file:
        file["images"] = h5py.SoftLink("/raw/images")
    assert len(NeuroDataDataset(path, "train")) == (TIERS == "train").sum()
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = h5py.SoftLink("/images")
    refused(path, "leads to itself")


def test_an_array_that_claims_more_than_the_file_can_hold(tmp_path):
    path = write(tmp_path / "r.h5", images=None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("images", (TRIALS, 1, 2**20, 2**20), "f4", chunks=(1, 1, 64, 64))
    refused(path, "'images' claims 1.3e+14 bytes")
