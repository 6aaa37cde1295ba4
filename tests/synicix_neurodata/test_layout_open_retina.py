"""open-retina's HDF5: what is read from folders and files written to the letter, and what is refused."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.open_retina import OPEN_RETINA
from synicix_neurodata.simulate import Simulation, simulate_recording
from synicix_neurodata.writers.open_retina import OpenRetinaWriter
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError

NEURONS, SIZE = 4, (2, 5, 3)
LENGTHS = {"noise_0": 40, "noise_1": 40, "noise_2": 40, "noise_3": 40, "movie": 40}


def stimulus(name: str, frames: int) -> np.ndarray:
    rng = np.random.default_rng([len(name), ord(name[-1])])
    return rng.normal(0, 1, (SIZE[0], frames, *SIZE[1:])).astype("f4")


def responses(name: str, frames: int, session: int = 1) -> np.ndarray:
    return np.random.default_rng([session, len(name), ord(name[-1])]).gamma(2.0, 1.0, (NEURONS, frames))


def write(
    folder: Path,
    lengths: dict[str, int] | None = None,
    sessions: tuple[str, ...] = ("session_1.h5",),
    inside: tuple[str, ...] = (),
    **changes: Any,
) -> Path:
    """Write a folder as open-retina reads it; `changes` are arrays of the session's file, None for one left out."""
    lengths = LENGTHS if lengths is None else lengths
    (folder / "stimuli").mkdir(parents=True, exist_ok=True)
    for name, frames in lengths.items():
        if name not in inside:
            np.save(folder / "stimuli" / f"{name}.npy", stimulus(name, frames))
    for number, session in enumerate(sessions, start=1):
        content = {f"responses_{name}": responses(name, frames, number) for name, frames in lengths.items()}
        content |= {f"stimulus_{name}": stimulus(name, lengths[name]) for name in inside}
        content["session_info/celltypes"] = np.arange(NEURONS)
        with h5py.File(folder / session, "w") as file:
            for name, values in {**content, **changes}.items():
                if values is not None:
                    file[name] = values
    return folder


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in [folder, *folder.rglob("*")]
    }


def quiet(path: Path, tier: str, **params: Any) -> NeuroDataDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NeuroDataDataset(path, tier, normalize=False, **params)


def whole(path: Path, part: str, trial: int, options: dict[str, Any] | None = None) -> np.ndarray:
    recording = describe_recording(path, options)
    with Access(recording) as access:
        return access.clip(part, trial, 0, int(recording.frames[trial]))


def test_each_stimulus_is_a_trial_with_its_responses(tmp_path):
    write(tmp_path)
    before = state(tmp_path)
    recording = describe_recording(tmp_path)
    assert recording.layout == "open-retina HDF5"
    assert recording.shapes == {"stimulus": SIZE, "responses": (NEURONS,)}
    assert recording.frames.tolist() == [40] * 5
    assert recording.tiers is None
    names = recording.columns["stimulus_name"].tolist()
    assert names == sorted(LENGTHS)
    np.testing.assert_array_equal(recording.neurons["celltypes"], np.arange(NEURONS))
    for trial, name in enumerate(names):
        np.testing.assert_array_equal(whole(tmp_path, "stimulus", trial), stimulus(name, 40))
        np.testing.assert_array_equal(whole(tmp_path, "responses", trial), responses(name, 40))
    with Access(recording) as access:
        np.testing.assert_array_equal(access.clip("stimulus", 1, 7, 19), stimulus("noise_0", 40)[:, 7:19])
        np.testing.assert_array_equal(access.clip("responses", 1, 7, 19), responses("noise_0", 40)[:, 7:19])
    quiet(tmp_path, "train").tensors()
    assert state(tmp_path) == before


def test_clips_come_from_the_right_frames(tmp_path):
    write(tmp_path)
    dataset = quiet(tmp_path, "train", clip_frames=15)
    (shown, answered), names = dataset.tensors(), dataset.column("stimulus_name")
    assert shown.shape[1:] == (SIZE[0], 15, *SIZE[1:])
    for index, (name, start) in enumerate(zip(names, dataset.column("start_frame"), strict=True)):
        frames = slice(start, start + 15)
        np.testing.assert_array_equal(shown[index], stimulus(name, 40)[:, frames])
        np.testing.assert_array_equal(answered[index], responses(name, 40)[:, frames].astype("f4"))


def test_a_session_is_chosen_by_its_name(tmp_path):
    write(tmp_path, sessions=("one.h5", "two.hdf5"))
    with pytest.raises(DatasetError, match=r"several sessions.*one, two.*session = \"one\""):
        describe_recording(tmp_path)
    for number, name in ((1, "one"), (2, "two"), (2, "two.hdf5")):
        np.testing.assert_array_equal(
            whole(tmp_path, "responses", 0, {"session": name}), responses("movie", 40, session=number)
        )
    with pytest.raises(DatasetError, match=r"session names 'three'.*one\.h5, two\.hdf5"):
        describe_recording(tmp_path, {"session": "three"})


def test_a_file_without_responses_is_no_session(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "notes.h5", "w") as file:
        file["x"] = 1
    assert describe_recording(tmp_path).trials == 5


def test_stimuli_inside_the_session_come_first_and_make_a_file_of_its_own(tmp_path):
    write(tmp_path, inside=("movie",))
    np.save(tmp_path / "stimuli" / "movie.npy", np.zeros((2, 40, 5, 3)))
    np.testing.assert_array_equal(whole(tmp_path, "stimulus", 0), stimulus("movie", 40))
    alone = write(tmp_path / "alone", inside=tuple(LENGTHS)) / "session_1.h5"
    np.testing.assert_array_equal(whole(alone, "stimulus", 2), stimulus("noise_1", 40))
    with pytest.raises(DatasetError, match=r"no stimulus beside the session.*Give the folder"):
        describe_recording(tmp_path / "session_1.h5")


def test_tests_are_named_and_every_nth_of_the_rest_is_validation(tmp_path):
    write(tmp_path)
    tiers = describe_recording(tmp_path, {"test_stimuli": ["noise_1"]}).tiers
    assert tiers.tolist() == ["train", "train", "test", "train", "validation"]
    tiers = describe_recording(tmp_path, {"test_stimuli": ["noise_1"], "validation_every": 2}).tiers
    assert tiers.tolist() == ["train", "validation", "test", "train", "validation"]
    tiers = describe_recording(tmp_path, {"test_stimuli": ["noise_1"], "validation_stimuli": ["movie"]}).tiers
    assert tiers.tolist() == ["validation", "train", "test", "train", "train"]
    with pytest.raises(DatasetError, match=r"test_stimuli names 'noise_9'.*noise_3"):
        describe_recording(tmp_path, {"test_stimuli": ["noise_9"]})
    with pytest.raises(DatasetError, match="both name 'movie'"):
        describe_recording(tmp_path, {"test_stimuli": ["movie"], "validation_stimuli": ["movie"]})


def test_words_in_names_tell_the_tier_and_options_overrule_them(tmp_path):
    write(tmp_path, {"natural_test": 30, "val-clip": 30, "contest": 30, "Train 1": 30})
    recording = describe_recording(tmp_path)
    told = dict(zip(recording.columns["stimulus_name"], recording.tiers, strict=True))
    assert told == {"natural_test": "test", "val-clip": "validation", "contest": "train", "Train 1": "train"}
    recording = describe_recording(tmp_path, {"test_stimuli": ["contest"]})
    told = dict(zip(recording.columns["stimulus_name"], recording.tiers, strict=True))
    assert told == {"natural_test": "train", "val-clip": "validation", "contest": "test", "Train 1": "train"}
    assert describe_recording(tmp_path, {"test_stimuli": [], "validation_stimuli": []}).tiers is None


def test_a_long_stimulus_is_cut_into_trials_that_are_split(tmp_path):
    write(tmp_path, {"movie": 103, "shown_test": 20})
    options = {"trial_frames": 10}
    recording = describe_recording(tmp_path, options)
    assert recording.frames.tolist() == [10] * 12
    assert recording.columns["first_frame"].tolist() == [*range(0, 100, 10), 0, 10]
    assert recording.stimulus_ids.tolist() == [*(f"movie@{k}" for k in range(10)), "shown_test@0", "shown_test@1"]
    assert recording.tiers.tolist() == [*["train"] * 9, "validation", "test", "test"]
    assert "3 frames at the end of 1 stimuli are left out" in recording.notes[0]
    np.testing.assert_array_equal(whole(tmp_path, "stimulus", 4, options), stimulus("movie", 103)[:, 40:50])
    np.testing.assert_array_equal(whole(tmp_path, "responses", 11, options), responses("shown_test", 20)[:, 10:20])


def test_too_few_stimuli_are_cut_so_that_they_can_be_split(tmp_path):
    write(tmp_path, {"movie": 205})
    recording = describe_recording(tmp_path)
    assert recording.frames.tolist() == [20] * 10
    assert "too few stimuli" in recording.notes[0]
    assert "trials of 20 frames" in recording.notes[0]
    trials = [set(quiet(tmp_path, tier).column("first_frame")) for tier in ("train", "validation", "test")]
    assert [len(rows) for rows in trials] == [8, 1, 1]
    assert set.union(*trials) == set(range(0, 200, 20))
    # A stimulus that is named as the test stays whole.
    write(tmp_path / "two", {"movie": 205, "other": 33})
    recording = describe_recording(tmp_path / "two", {"test_stimuli": ["other"]})
    assert recording.frames.tolist() == [20] * 10 + [33]
    assert recording.tiers.tolist() == [*["train"] * 9, "validation", "test"]


def test_repeats_of_one_stimulus_are_known_by_their_names_and_length(tmp_path):
    write(tmp_path, {"a_repeat1": 20, "a_repeat2": 20, "b_repeat1": 20, "b_repeat2": 25, "c": 20})
    assert describe_recording(tmp_path).stimulus_ids.tolist() == ["a", "a", "b_repeat1", "b_repeat2", "c"]


def test_stray_files_and_stimuli_of_other_sessions_do_no_harm(tmp_path):
    write(tmp_path)
    for name in (".DS_Store", "._session_1.h5", "Thumbs.db", "stimuli/.DS_Store", "stimuli/._movie.npy", "readme.txt"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    np.save(tmp_path / "stimuli" / "never_shown.npy", np.zeros((9, 9)))
    assert describe_recording(tmp_path).trials == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"responses_movie": responses("movie", 39)}, r"'responses_movie' has 39 frames and its stimulus has 40"),
        ({"responses_movie": responses("movie", 40).T}, r"has 4 frames and its stimulus has 40.*transposed"),
        ({"responses_movie": np.ones((3, 40))}, r"differ in their number of neurons.*movie \(3, 40\)"),
        ({"responses_movie": np.ones(40)}, r"has shape \(40,\), expected \(neurons, frames\)"),
        ({"responses_movie": np.full((4, 40), b"x")}, "values, not numbers"),
        ({"responses_movie/x": np.ones(4), "responses_movie": None}, "is a group, not an array"),
        ({"responses_movie": h5py.ExternalLink("other.h5", "x")}, "link into the file 'other.h5'"),
        ({"stimulus_movie": np.ones((2, 40, 5))}, r"'stimulus_movie' has shape \(2, 40, 5\), expected \(channels"),
        ({"stimulus_movie": np.ones((1, 40, 5, 3))}, r"stimuli differ in size.*\(1, 5, 3\): movie.*stimuli ="),
        ({"session_info/frame_rate": -1.0}, "frame_rate' is -1"),
        ({"session_info/noise_ceiling_stimulus-encoding": 7.0}, "stimulus-encoding' is 7.0, expected a correlation"),
        ({"responses_extra": np.ones((4, 40))}, r"The stimulus 'extra' is missing.*stimuli/ holds movie"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(tmp_path, changes, words):
    write(tmp_path, **changes)
    with pytest.raises(DatasetError, match=words) as caught:
        describe_recording(tmp_path)
    assert caught.value.file.startswith(str(tmp_path))


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("code_was_run"),))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(b""), "'stimuli/movie.npy' is empty"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "cut off"),
        (lambda file: file.write_bytes(b"PK\x03\x04 nothing"), "not a NumPy file"),
        (lambda file: np.save(file, np.ones((2, 40, 15))), r"shape \(2, 40, 15\).*expected numbers as \(channels"),
        (lambda file: np.save(file, np.full((2, 40, 5, 3), "x")), r"<U1, expected numbers"),
        (lambda file: np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True), "Python objects"),
        (lambda file: file.unlink(), "'movie' is missing"),
    ],
)
def test_a_spoilt_stimulus_is_one_clear_error_and_runs_nothing(tmp_path, monkeypatch, spoil, words):
    write(tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "r" / "stimuli" / "movie.npy")
    with pytest.raises(DatasetError, match=words):
        describe_recording(tmp_path / "r")
    assert not (tmp_path / "code_was_run").exists()
    assert describe_recording(tmp_path / "r", {"stimuli": ["noise_0", "noise_1", "noise_2"]}).trials == 3


def test_an_array_that_claims_more_than_its_file_can_hold_is_refused(tmp_path):
    write(tmp_path, responses_movie=None)
    with h5py.File(tmp_path / "session_1.h5", "a") as file:
        file.create_dataset("responses_movie", (10**9, 40), "f8", chunks=(1000, 40))
    with pytest.raises(DatasetError, match="claims"):
        describe_recording(tmp_path)


def test_a_session_that_is_cut_off_says_so(tmp_path):
    session = write(tmp_path) / "session_1.h5"
    session.write_bytes(session.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="cut off"):
        describe_recording(tmp_path)
    session.write_bytes(b"text")
    with pytest.raises(DatasetError, match="not an HDF5 file"):
        describe_recording(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trial_frames": 0}, r"trial_frames is 0 .*: it is a number of frames, 1 or more"),
        ({"trial_frames": True}, "trial_frames is True"),
        ({"frame_rate": "30"}, "frame_rate is '30'"),
        ({"test_stimuli": "movie"}, r"test_stimuli is 'movie' .*: it is a list of names"),
        ({"stimuli": []}, "one or more"),
        ({"validation_every": 1}, "2 or more"),
        ({"tests": []}, r"layout_params names 'tests'.*test_stimuli"),
    ],
)
def test_options_are_checked(tmp_path, options, words):
    with pytest.raises(DatasetError, match=words):
        describe_recording(write(tmp_path), options)


def test_only_what_looks_like_it_is_recognised(tmp_path):
    for name in ("empty", "only_stimuli/stimuli", "other"):
        (tmp_path / name).mkdir(parents=True)
    np.save(tmp_path / "only_stimuli" / "stimuli" / "a.npy", stimulus("a", 9))
    with h5py.File(tmp_path / "other" / "static.h5", "w") as file:
        file["responses"] = np.ones((3, 4))
    (tmp_path / "text").write_text("hello")
    for name in ("empty", "only_stimuli", "other", "other/static.h5", "text"):
        assert not OPEN_RETINA.recognises(tmp_path / name), name
    assert OPEN_RETINA.recognises(write(tmp_path / "right"))
    assert OPEN_RETINA.recognises(tmp_path / "right" / "session_1.h5")


def test_spawned_workers_give_the_same_items(tmp_path):
    write(tmp_path)
    dataset = quiet(tmp_path, "train", clip_frames=10, memory_limit_mb=0)
    inputs, targets = dataset.tensors()
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[3][0], inputs[3])
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), inputs)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), targets)


def test_more_stimuli_than_a_process_may_have_files_open(tmp_path):
    import resource

    write(tmp_path, {f"s{number:03d}": 3 for number in range(200)})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    recording = describe_recording(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, before[1]))
    try:
        with Access(recording) as access:
            for trial in range(200):
                access.clip("stimulus", trial, 0, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_simulated_reads_back(tmp_path, monkeypatch):
    given: dict[str, dict[str, np.ndarray]] = {}
    write_trial = OpenRetinaWriter.write

    def write_and_keep(writer, first, parts):
        given[writer._names[first]] = {part: values[0] for part, values in parts.items()}
        write_trial(writer, first, parts)

    monkeypatch.setattr(OpenRetinaWriter, "write", write_and_keep)
    simulation = Simulation(
        neurons=6, images=9, test_images=3, repeats=4, frames=12, behavior_gain=0.4, image_shape=(8, 10), frame_rate=20
    )
    written = simulate_recording(tmp_path / "r", simulation, layout="open-retina")
    recording = describe_recording(tmp_path / "r")
    assert recording.file_tiers() == simulation.tier_sizes
    assert recording.frame_rate == 20
    assert set(recording.neurons) >= {"area", "layer"}
    for trial, name in enumerate(recording.columns["stimulus_name"]):
        for part in ("stimulus", "responses"):
            np.testing.assert_array_equal(whole(tmp_path / "r", part, trial), given[name][part])
    test = recording.tiers == "test"
    ids, shown = np.unique(recording.stimulus_ids[test], return_counts=True)
    assert shown.tolist() == [4, 4, 4]
    assert not set(ids) & set(recording.stimulus_ids[~test])
    for same in ids:
        repeats = [
            whole(tmp_path / "r", "stimulus", int(row)) for row in np.flatnonzero(recording.stimulus_ids == same)
        ]
        for repeat in repeats[1:]:
            np.testing.assert_array_equal(repeats[0], repeat)
    ceiling = written.noise_ceiling["stimulus-encoding"]
    assert recording.noise_ceiling == {"stimulus-encoding": ceiling}
