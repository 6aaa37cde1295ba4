"""experanto's folders: what is read from experiments written to the letter, and what is refused."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from synicix_neurodata.access import Access
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.layouts.experanto import EXPERANTO
from synicix_neurodata.simulate import Simulation, simulate_recording
from synicix_neurodata.writers.experanto import ExperantoWriter
from torch.utils.data import DataLoader

from synicix_core.errors import DatasetError

IMAGES, VIDEOS, FRAMES = 12, 8, 6
TIERS = ["train", "train", "test", "validation"]


def dump(path: Path, said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(said))


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_screen(path: Path, kind: str = "image", shape: tuple[int, ...] = (4, 5), **about: Any) -> np.ndarray:
    """Write trials with a blank after each, images every 2 s, frames of videos every 0.1 s; return when each frame was on."""
    rng = np.random.default_rng(1)
    dump(path / "screen/meta.yml", {"modality": "screen", "frame_rate": 10.0, **about})
    times: list[float] = []
    for trial in range(IMAGES if kind == "image" else VIDEOS):
        frames = 1 if kind == "image" else FRAMES
        start = 2.0 * trial
        said = {"modality": kind, "first_frame_idx": len(times), "image_size": list(shape), "tier": TIERS[trial % 4]}
        said |= {"num_frames": frames} if kind == "video" else {}
        dump(path / f"screen/meta/{2 * trial:05d}.yml", said | {"presentation_time": 0.5, "trial_idx": trial})
        save(
            path / f"screen/data/{2 * trial:05d}.npy",
            rng.integers(0, 255, shape if kind == "image" else (frames, *shape)).astype("u1"),
        )
        times += [start + 0.1 * frame for frame in range(frames)]
        blank = {"modality": "blank", "first_frame_idx": len(times), "image_size": list(shape), "interleave_value": 128}
        dump(path / f"screen/meta/{2 * trial + 1:05d}.yml", blank)
        times.append(start + 0.1 * frames)
    save(path / "screen/timestamps.npy", np.array(times))
    return np.array(times)


def write_sequence(
    path: Path, columns: int, rate: float = 20.0, start: float = -1.0, rows: int = 600, mapped: bool = True, **said: Any
) -> np.ndarray:
    """Write signals that were sampled from `start` on; return them, (samples, columns)."""
    values = np.random.default_rng([columns, rows]).normal(3, 1, (rows, columns))
    stated = {"modality": "sequence", "sampling_rate": rate, "start_time": start, "end_time": start + (rows - 1) / rate}
    stated |= {"n_signals": columns, "n_timestamps": rows, "dtype": "float64", "is_mem_mapped": mapped}
    stated |= {"phase_shift_per_signal": False, **said}
    dump(path / "meta.yml", {key: value for key, value in stated.items() if value is not None})
    if mapped:
        values.tofile(path / "data.mem")
    else:
        save(path / "data.npy", values)
    return values


def write_spikes(path: Path, neurons: int = 3, mapped: bool = False, **said: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    spikes = [np.sort(rng.uniform(0, 30, 200 * neuron)) for neuron in range(neurons)]
    stated = {"modality": "spikes", "start_time": 0.0, "end_time": 30.0, "is_mem_mapped": mapped, "dtype": "float64"}
    stated |= {"spike_indices": np.cumsum([0, *map(len, spikes)]).tolist(), "n_signals": neurons, **said}
    dump(path / "meta.yml", stated)
    if mapped:
        np.concatenate(spikes).tofile(path / "spikes.mem")
    else:
        save(path / "spikes.npy", np.concatenate(spikes))
    return spikes


def experiment(path: Path, kind: str = "image", **about: Any) -> Path:
    write_screen(path, kind, **about)
    write_sequence(path / "responses", 3)
    write_sequence(path / "eye_tracker", 4, rows=599)
    write_sequence(path / "treadmill", 1, mapped=False)
    return path


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in [folder, *folder.rglob("*")]
    }


def read(path: Path, part: str, options: dict[str, Any] | None = None) -> np.ndarray:
    recording = describe_recording(path, options)
    with Access(recording) as access:
        if recording.frames is None:
            return access.trials(part, np.arange(recording.trials))
        return np.stack([access.clip(part, trial, 0, int(frames)) for trial, frames in enumerate(recording.frames)])


def quiet(path: Path, tier: str, **params: Any) -> NeuroDataDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NeuroDataDataset(path, tier, normalize=False, **params)


def window_means(values: np.ndarray, first: float, last: float, rate: float = 20.0, start: float = -1.0) -> np.ndarray:
    """Mean of the samples in [onset + first, onset + last), the images being on every 2 s, told from sample times."""
    times = np.round(start + np.arange(len(values)) / rate, 9)
    return np.stack(
        [
            values[(times >= round(on + first, 9)) & (times < round(on + last, 9))].mean(0)
            for on in 2.0 * np.arange(IMAGES)
        ]
    )


def test_images_with_the_mean_of_the_samples_after_each(tmp_path):
    experiment(tmp_path)
    before = state(tmp_path)
    recording = describe_recording(tmp_path)
    assert recording.layout == "experanto"
    assert recording.shapes == {"stimulus": (1, 4, 5), "responses": (3,), "behavior": (3,), "pupil_center": (2,)}
    assert recording.tiers.tolist() == TIERS * 3
    assert recording.columns["trial_idx"].tolist() == list(range(IMAGES))
    np.testing.assert_array_equal(recording.columns["onset"], 2.0 * np.arange(IMAGES))
    assert recording.stimulus_ids is None
    images = np.stack([np.load(tmp_path / f"screen/data/{2 * trial:05d}.npy") for trial in range(IMAGES)])
    np.testing.assert_array_equal(read(tmp_path, "stimulus"), images[:, None])
    responses = np.fromfile(tmp_path / "responses/data.mem").reshape(600, 3)
    eye = np.fromfile(tmp_path / "eye_tracker/data.mem").reshape(599, 4)
    treadmill = np.load(tmp_path / "treadmill/data.npy")
    np.testing.assert_allclose(read(tmp_path, "responses"), window_means(responses, 0.05, 0.55), rtol=1e-12)
    behavior = np.concatenate([window_means(eye[:, :2], 0.05, 0.55), window_means(treadmill, 0.05, 0.55)], axis=1)
    np.testing.assert_allclose(read(tmp_path, "behavior"), behavior, rtol=1e-12)
    np.testing.assert_allclose(read(tmp_path, "pupil_center"), window_means(eye[:, 2:], 0.05, 0.55), rtol=1e-12)
    options = {"delay": 0.25, "window": 0.1}
    np.testing.assert_allclose(read(tmp_path, "responses", options), window_means(responses, 0.25, 0.35), rtol=1e-12)
    for tier in ("train", "validation", "test"):
        quiet(tmp_path, tier, mode="full-encoding").tensors()
    assert state(tmp_path) == before


def test_movies_with_the_sample_at_each_frame(tmp_path):
    times = write_screen(tmp_path, "video")
    responses = write_sequence(tmp_path / "responses", 3, rate=8.0, rows=200)
    recording = describe_recording(tmp_path)
    assert recording.frames.tolist() == [FRAMES] * VIDEOS
    assert recording.frame_rate == 10
    videos = np.stack([np.load(tmp_path / f"screen/data/{2 * trial:05d}.npy") for trial in range(VIDEOS)])
    np.testing.assert_array_equal(read(tmp_path, "stimulus"), videos[:, None])
    answered = read(tmp_path, "responses")
    for trial in range(VIDEOS):
        for frame in range(FRAMES):
            on = times[trial * (FRAMES + 1) + frame]
            sample = max(number for number in range(200) if -1.0 + number / 8.0 <= on + 1e-9)
            np.testing.assert_array_equal(answered[trial, :, frame], responses[sample])
    with Access(recording) as access:
        np.testing.assert_array_equal(access.clip("responses", 3, 2, 5), answered[3, :, 2:5])
        np.testing.assert_array_equal(access.clip("stimulus", 3, 2, 5), videos[3][None, 2:5])


def test_a_sample_belongs_to_the_frame_that_was_shown_at_its_very_time(tmp_path):
    """Frame k at k / 30 and sample k at k / 30 are the same, whatever floating point makes of the division."""
    frames = 3000
    dump(tmp_path / "screen/meta.yml", {"modality": "screen", "frame_rate": 30.0})
    said = {"modality": "video", "first_frame_idx": 0, "num_frames": frames, "image_size": [2, 2], "tier": "train"}
    dump(tmp_path / "screen/meta/00000.yml", said)
    save(tmp_path / "screen/data/00000.npy", np.zeros((frames, 2, 2), "u1"))
    save(tmp_path / "screen/timestamps.npy", 100.1 + np.arange(frames) / 30)
    values = write_sequence(tmp_path / "responses", 2, rate=30.0, start=100.1, rows=frames)
    np.testing.assert_array_equal(read(tmp_path, "responses")[0], values.T)


@pytest.mark.parametrize("mapped", [False, True])
def test_spikes_are_counted(tmp_path, mapped):
    times = write_screen(tmp_path / "movie", "video")
    spikes = write_spikes(tmp_path / "movie/spikes", mapped=mapped)
    answered = read(tmp_path / "movie", "responses")
    for trial in range(VIDEOS):
        for frame in range(FRAMES):
            at = trial * (FRAMES + 1) + frame
            expected = [((train >= times[at]) & (train < times[at + 1])).sum() for train in spikes]
            assert answered[trial, :, frame].tolist() == expected
    write_screen(tmp_path / "images")
    write_spikes(tmp_path / "images/spikes", mapped=mapped)
    expected = [
        [((train >= on + 0.05) & (train < on + 0.55)).sum() for train in spikes] for on in 2.0 * np.arange(IMAGES)
    ]
    assert read(tmp_path / "images", "responses").tolist() == expected


def test_each_signal_may_have_a_phase_of_its_own(tmp_path):
    times = write_screen(tmp_path, "video")
    values = write_sequence(tmp_path / "responses", 4, phase_shift_per_signal=True)
    shifts = np.array([0.0, 0.01, 0.033, 0.049])
    save(tmp_path / "responses/meta/phase_shifts.npy", shifts)
    answered = read(tmp_path, "responses")
    for frame in range(FRAMES):
        for signal, shift in enumerate(shifts):
            sample = int(np.floor((times[frame] - shift + 1.0) * 20 + 1e-9))
            assert answered[0, signal, frame] == values[sample, signal]
    write_screen(tmp_path / "images")
    values = write_sequence(tmp_path / "images/responses", 4, phase_shift_per_signal=True)
    save(tmp_path / "images/responses/meta/phase_shifts.npy", shifts)
    expected = np.stack([window_means(values[:, [k]], 0.05 - s, 0.55 - s)[:, 0] for k, s in enumerate(shifts)], axis=1)
    np.testing.assert_allclose(read(tmp_path / "images", "responses"), expected, rtol=1e-12)


def test_trials_outside_of_the_recording_are_not_a_number(tmp_path):
    write_screen(tmp_path)
    write_sequence(tmp_path / "responses", 2, rows=200)  # ends at 8.95 s; the image at 8 s is on until then
    assert np.isnan(read(tmp_path, "responses")).all(axis=1).tolist() == [False] * 5 + [True] * 7
    with pytest.raises(DatasetError, match=r"not finite.*drop_missing = true"):
        quiet(tmp_path, "train")
    assert len(quiet(tmp_path, "train", drop_missing=True)) == 3
    write_screen(tmp_path / "movie", "video")
    write_sequence(tmp_path / "movie/responses", 2, start=4.25, rows=400)
    outside = np.isnan(read(tmp_path / "movie", "responses")).any(axis=1)
    assert outside[:3].tolist() == [[True] * 6, [True] * 6, [True] * 3 + [False] * 3]
    assert not outside[3:].any()


def test_colour_and_the_axis_of_one_frame(tmp_path):
    write_screen(tmp_path / "colour", shape=(4, 5, 3))
    image = np.load(tmp_path / "colour/screen/data/00002.npy")
    np.testing.assert_array_equal(read(tmp_path / "colour", "stimulus")[1], np.moveaxis(image, 2, 0))
    write_screen(tmp_path / "video", "video", shape=(4, 5, 3))
    video = np.load(tmp_path / "video/screen/data/00002.npy")
    np.testing.assert_array_equal(read(tmp_path / "video", "stimulus")[1], np.moveaxis(video, 3, 0))
    write_screen(tmp_path / "one", shape=(4, 5))
    for trial in range(IMAGES):
        file = tmp_path / f"one/screen/data/{2 * trial:05d}.npy"
        np.save(file, np.load(file)[None])
    assert read(tmp_path / "one", "stimulus").shape == (IMAGES, 1, 4, 5)


def mixed(path: Path) -> Path:
    """Twelve images, three of which become videos and one of which becomes invalid."""
    experiment(path)
    for trial in (1, 4, 7):
        file = path / f"screen/meta/{2 * trial:05d}.yml"
        dump(file, yaml.safe_load(file.read_text()) | {"modality": "video", "num_frames": 1})
        data = path / f"screen/data/{2 * trial:05d}.npy"
        np.save(data, np.load(data)[None])
    file = path / "screen/meta/00000.yml"
    dump(file, yaml.safe_load(file.read_text()) | {"valid_trial": False})
    return path


def test_of_images_and_videos_the_more_frequent_are_taken_or_those_asked_for(tmp_path):
    mixed(tmp_path)
    recording = describe_recording(tmp_path)
    assert recording.columns["trial_idx"].tolist() == [2, 3, 5, 6, 8, 9, 10, 11]
    assert "3 trials with a video are left out" in " ".join(recording.notes)
    assert "1 trials are left out, because valid_trial says so" in recording.notes
    recording = describe_recording(tmp_path, {"kind": "movie"})
    assert recording.columns["trial_idx"].tolist() == [1, 4, 7]
    assert recording.frames.tolist() == [1, 1, 1]
    with pytest.raises(DatasetError, match="delay and window are for images"):
        describe_recording(tmp_path, {"kind": "movie", "delay": 0.1})
    write_screen(tmp_path / "images")
    with pytest.raises(DatasetError, match=r"showed no video.*kind = \"images\""):
        describe_recording(tmp_path / "images", {"kind": "movie"})


def test_the_merged_file_is_read_where_it_is_whole_and_never_written(tmp_path):
    experiment(tmp_path)
    said = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((tmp_path / "screen/meta").glob("*.yml"))}
    merged = tmp_path / "screen/combined_meta.json"
    for key in list(said)[::2]:
        said[key]["tier"] = "test"
    merged.write_text(json.dumps(said))
    assert set(describe_recording(tmp_path).tiers) == {"test"}
    del said["00006"]
    merged.write_text(json.dumps(said))
    assert describe_recording(tmp_path).tiers.tolist() == TIERS * 3
    merged.write_text('{"00000": {"moda')
    assert describe_recording(tmp_path).tiers.tolist() == TIERS * 3
    for file in (tmp_path / "screen/meta").glob("*.yml"):
        file.unlink()
    with pytest.raises(DatasetError, match=r"'screen/combined_meta.json' is not JSON"):
        describe_recording(tmp_path)
    merged.unlink()
    with pytest.raises(DatasetError, match=r"neither 'screen/combined_meta.json' nor 'screen/meta'"):
        describe_recording(tmp_path)


def test_stimuli_by_name_share_their_file_and_their_identity(tmp_path):
    write_screen(tmp_path, use_stimuli_names=True)
    for trial in range(IMAGES):
        file = tmp_path / f"screen/meta/{2 * trial:05d}.yml"
        dump(file, yaml.safe_load(file.read_text()) | {"stimulus_name": f"im{trial % 5}"})
        (tmp_path / f"screen/data/{2 * trial:05d}.npy").rename(tmp_path / f"screen/data/im{trial % 5}.npy")
    recording = describe_recording(tmp_path)
    assert recording.stimulus_ids.tolist() == [f"im{trial % 5}" for trial in range(IMAGES)]
    np.testing.assert_array_equal(read(tmp_path, "stimulus")[6, 0], np.load(tmp_path / "screen/data/im1.npy"))


def test_a_name_cannot_leave_the_folder(tmp_path):
    experiment(tmp_path / "e", use_stimuli_names=True)
    save(tmp_path / "secret.npy", np.zeros((4, 5)))
    for trial in range(IMAGES):
        file = tmp_path / f"e/screen/meta/{2 * trial:05d}.yml"
        dump(file, yaml.safe_load(file.read_text()) | {"stimulus_name": "../../../secret"})
    with pytest.raises(DatasetError, match="12 of 12 trials have no file of pixels"):
        describe_recording(tmp_path / "e")


def without_tiers(path: Path) -> Path:
    experiment(path)
    for file in (path / "screen/meta").glob("*.yml"):
        said = yaml.safe_load(file.read_text())
        dump(file, {key: value for key, value in said.items() if key != "tier"})
    return path


def test_tiers_may_be_intervals_of_time(tmp_path):
    without_tiers(tmp_path)
    assert describe_recording(tmp_path).tiers is None
    intervals = {
        "train": [[0.0, 8.0], [20.0, 21.0]],
        "val": [[8.0, 13.9]],
        "test": [[14.0, 18.0]],
        "gaze": [[0.0, 99.0]],
    }
    labels = {label: f"{label}.npy" for label in intervals}
    said = {"modality": "time_interval", "labels": labels, "start_time": 0.0, "end_time": 99.0}
    dump(tmp_path / "split/meta.yml", said)
    for label, pairs in intervals.items():
        save(tmp_path / f"split/{label}.npy", np.array(pairs))
    expected = [*["train"] * 4, *["val"] * 3, *["test"] * 2, "none", "train", "none"]
    assert describe_recording(tmp_path).tiers.tolist() == expected
    dump(tmp_path / "again/meta.yml", said)
    for label, pairs in intervals.items():
        save(tmp_path / f"again/{label}.npy", np.array(pairs) + (1.0 if label == "val" else 0.0))
    with pytest.raises(DatasetError, match=r"several folders.*again, split.*tiers = \"again\""):
        describe_recording(tmp_path)
    assert describe_recording(tmp_path, {"tiers": "split"}).tiers.tolist() == expected
    with pytest.raises(DatasetError, match=r"trial at 14 s is in both 'test' and 'val' of 'again'"):
        describe_recording(tmp_path, {"tiers": "again"})
    dump(tmp_path / "split/meta.yml", said | {"labels": {"train": "../screen/timestamps.npy"}})
    with pytest.raises(DatasetError, match="missing"):
        describe_recording(tmp_path, {"tiers": "split"})
    with pytest.raises(
        DatasetError, match=r"'treadmill/meta.yml' states modality 'sequence', expected 'time_interval'"
    ):
        describe_recording(tmp_path, {"tiers": "treadmill"})


def test_columns_of_the_eye_tracker(tmp_path):
    experiment(tmp_path)
    eye = window_means(np.fromfile(tmp_path / "eye_tracker/data.mem").reshape(599, 4), 0.05, 0.55)
    assert "the last two of the 4 columns" in describe_recording(tmp_path).notes[0]
    options = {"pupil_columns": [1, 0]}
    assert describe_recording(tmp_path, options).notes == ()
    np.testing.assert_allclose(read(tmp_path, "pupil_center", options), eye[:, [1, 0]], rtol=1e-12)
    np.testing.assert_allclose(read(tmp_path, "behavior", options)[:, :2], eye[:, 2:], rtol=1e-12)
    assert describe_recording(tmp_path, {"pupil_columns": []}).shapes["behavior"] == (5,)
    with pytest.raises(DatasetError, match="eye_tracker has 4 columns, counted from 0"):
        describe_recording(tmp_path, {"pupil_columns": [3, 4]})
    assert describe_recording(tmp_path, {"behavior": ["treadmill"]}).shapes == {
        "stimulus": (1, 4, 5),
        "responses": (3,),
        "behavior": (1,),
    }
    assert set(describe_recording(tmp_path, {"behavior": []}).shapes) == {"stimulus", "responses"}
    for columns, behavior, pupil in ((1, (1,), None), (2, None, (2,)), (3, (1,), (2,)), (22, (22,), None)):
        write_sequence(tmp_path / f"eyes{columns}/eye_tracker", columns)
        write_screen(tmp_path / f"eyes{columns}")
        shapes = describe_recording(tmp_path / f"eyes{columns}").shapes
        assert (shapes.get("behavior"), shapes.get("pupil_center")) == (behavior, pupil)


def test_what_is_known_of_neurons(tmp_path):
    experiment(tmp_path)
    save(tmp_path / "responses/meta/unit_ids.npy", np.array([7, 8, 9]))
    save(tmp_path / "responses/meta/cell_motor_coordinates.npy", np.ones((3, 3)))
    save(tmp_path / "responses/meta/means.npy", np.ones((3,)))
    save(tmp_path / "responses/meta/area.npy", np.array([b"V1", b"LM", b"V1"]))
    (tmp_path / "responses/meta/.DS_Store").write_bytes(b"x")
    neurons = describe_recording(tmp_path).neurons
    assert sorted(neurons) == ["area", "cell_motor_coordinates", "unit_ids"]
    assert quiet(tmp_path, "train", areas=("LM",)).output_shape == (1,)
    experiment(tmp_path / "damaged")
    (tmp_path / "damaged/responses/meta").mkdir()
    (tmp_path / "damaged/responses/meta/unit_ids.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\x00")
    with pytest.raises(DatasetError, match=r"'responses/meta/unit_ids.npy' is cut off"):
        describe_recording(tmp_path / "damaged")


def test_responses_may_be_in_any_folder(tmp_path):
    experiment(tmp_path)
    write_spikes(tmp_path / "probe", neurons=5)
    assert describe_recording(tmp_path, {"responses": "probe"}).shapes["responses"] == (5,)
    with pytest.raises(DatasetError, match=r"'probes/meta.yml' is missing; the folder holds eye_tracker, probe"):
        describe_recording(tmp_path, {"responses": "probes"})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"n_signals": 1}, r"'responses/meta.yml' says n_signals is 1, and 'responses/data.mem' has 3 columns"),
        ({"n_timestamps": 601}, r"has 14400 bytes, and 601 samples of 3 signals in float64 are 14424; it is cut off"),
        ({"n_signals": 10**12, "n_timestamps": 10**12}, "cut off"),
        ({"n_signals": 0}, "states n_signals '0', expected a whole number of at least 1"),
        ({"n_signals": None}, "does not state n_signals"),
        ({"n_timestamps": "many"}, "states n_timestamps 'many'"),
        ({"dtype": "O"}, "states dtype 'O', which is no type of numbers"),
        ({"dtype": "nonsense"}, "states dtype 'nonsense'"),
        ({"sampling_rate": 1 / 20}, r"says sampling_rate is 0.05 Hz, but its 600 samples .* are 20"),
        ({"sampling_rate": 0}, "sampling_rate of 0"),
        ({"sampling_rate": float("nan")}, "states sampling_rate 'nan', expected a number"),
        ({"start_time": True}, "states start_time 'True'"),
        ({"end_time": -5.0}, "states that it ran from -1.0 to -5.0 s"),
        ({"modality": "time_interval"}, "states modality 'time_interval', expected 'sequence' or 'spikes'"),
        ({"phase_shift_per_signal": True}, "responses/meta/phase_shifts.npy"),
    ],
)
def test_signals_that_are_not_as_stated_are_one_clear_error(tmp_path, said, words):
    write_screen(tmp_path)
    write_sequence(tmp_path / "responses", 3, **said)
    with pytest.raises(DatasetError, match=words) as caught:
        describe_recording(tmp_path)
    assert caught.value.file == str(tmp_path)


def test_a_treadmill_with_a_column_too_many_can_be_left_out(tmp_path):
    experiment(tmp_path)
    write_sequence(tmp_path / "treadmill", 2, n_signals=1)
    with pytest.raises(
        DatasetError, match=r"n_signals is 1, and 'treadmill/data.mem' has 2 columns.*behavior in layout"
    ):
        describe_recording(tmp_path)
    assert describe_recording(tmp_path, {"behavior": ["eye_tracker"]}).shapes["behavior"] == (2,)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"spike_indices": [0, 0, 200, 601]}, r"has shape \(600,\).*spike_indices in 'spikes/meta.yml' ends at 601"),
        ({"spike_indices": [0, 300, 200, 600]}, "whole numbers that start at 0 and never fall"),
        ({"spike_indices": [0, 0, 300, 600]}, "not sorted within each neuron"),
        ({"spike_indices": "0"}, "must state spike_indices"),
        ({"spike_indices": [0, 10**30]}, "must state spike_indices"),
    ],
)
def test_spikes_that_are_not_as_stated_are_one_clear_error(tmp_path, said, words):
    write_screen(tmp_path)
    write_spikes(tmp_path / "spikes", **said)
    with pytest.raises(DatasetError, match=words):
        describe_recording(tmp_path)


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("code_was_run"),))


def spoil_meta(name: str, text: str):
    return lambda path: (path / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda path: (path / "screen/meta.yml").unlink(),
            r"'screen/meta.yml' is missing; the folder holds eye_tracker",
        ),
        (lambda path: (path / "screen/timestamps.npy").unlink(), "screen/timestamps.npy"),
        (lambda path: save(path / "screen/timestamps.npy", np.arange(9.0)), "and 'screen/timestamps.npy' has 9"),
        (lambda path: save(path / "screen/timestamps.npy", -np.arange(99.0)), "run backwards"),
        (lambda path: save(path / "screen/timestamps.npy", np.ones((9, 2))), r"shape \(9, 2\)"),
        (
            lambda path: (path / "screen/data/00006.npy").unlink(),
            r"1 of 12 trials have no file .*'screen/data/00006.npy'",
        ),
        (
            lambda path: (path / "screen/data/00006.npy").rename(path / "screen/data/00006.mp4"),
            "'screen/data/00006.mp4' is an encoded image or video",
        ),
        (lambda path: (path / "screen/data/00000.npy").write_bytes(b""), "'screen/data/00000.npy' is empty"),
        (lambda path: save(path / "screen/data/00000.npy", np.ones(9)), r"'screen/data/00000.npy' has shape \(9,\)"),
        (lambda path: save(path / "screen/data/00000.npy", np.full((4, 5), "x")), "<U1, expected"),
        (
            lambda path: np.save(
                path / "screen/data/00000.npy", np.array([Hostile()], dtype=object), allow_pickle=True
            ),
            "Python objects",
        ),
        (
            spoil_meta("screen/meta.yml", "!!python/object/apply:os.system ['touch code_was_run']"),
            "'screen/meta.yml' is not YAML with plain values",
        ),
        (spoil_meta("screen/meta.yml", "{modality: screen"), "is not YAML"),
        (spoil_meta("screen/meta.yml", ""), "'screen/meta.yml' is empty"),
        (spoil_meta("screen/meta.yml", "[1, 2]"), "holds a list, expected names with values"),
        (spoil_meta("screen/meta.yml", "modality: sequence"), "states modality 'sequence', not 'screen'"),
        (spoil_meta("screen/meta/00004.yml", "tier: train"), "'screen/meta/00004.yml' does not state the modality"),
        (spoil_meta("screen/meta/00004.yml", "modality: image"), "does not state first_frame_idx"),
        (spoil_meta("screen/meta/00004.yml", "{modality: image, first_frame_idx: -1}"), "first_frame_idx '-1'"),
        (spoil_meta("screen/meta/00004.yml", "{modality: image, first_frame_idx: .inf}"), "first_frame_idx 'inf'"),
        (
            spoil_meta("screen/meta/00004.yml", "{modality: image, first_frame_idx: 1, image_size: [9, 9]}"),
            r"differ in image_size: \[4, 5\], \[9, 9\]",
        ),
        (spoil_meta("treadmill/meta.yml", "modality: sequence"), "'treadmill/meta.yml' does not state start_time"),
        (lambda path: (path / "treadmill/data.npy").unlink(), "'treadmill/data.npy' cannot be read"),
        (lambda path: save(path / "treadmill/data.npy", np.ones((600, 2))), "'treadmill/data.npy' has 2 columns"),
        (lambda path: save(path / "treadmill/data.npy", np.ones(600)), r"has shape \(600,\)"),
        (lambda path: save(path / "treadmill/data.npy", np.ones((9, 1))), "n_timestamps is 600, and 'data.npy' has 9"),
        (lambda path: (path / "responses/data.mem").write_bytes(b""), "has 0 bytes.*cut off"),
        (spoil_meta("meta.json", '{"noise_ceiling": {"stimulus-encoding": 2}}'), "noise_ceiling in 'meta.json'"),
        (spoil_meta("meta.json", "[]"), "'meta.json' holds a list"),
    ],
)
def test_a_spoilt_experiment_is_one_clear_error_and_runs_nothing(tmp_path, monkeypatch, spoil, words):
    path = experiment(tmp_path / "e")
    monkeypatch.chdir(tmp_path)
    spoil(path)
    with pytest.raises(DatasetError, match=words) as caught:
        describe_recording(path)
    assert caught.value.file == str(path)
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-3]), "'screen/data/00008.npy' is cut off"),
        (lambda file: np.save(file, np.ones((5, 4))), r"'screen/data/00008.npy' has shape \(1, 5, 4\), and the first"),
    ],
)
def test_a_spoilt_image_later_on_is_found_when_it_is_read(tmp_path, spoil, words):
    experiment(tmp_path)
    spoil(tmp_path / "screen/data/00008.npy")
    with pytest.raises(DatasetError, match=words):
        quiet(tmp_path, "train").tensors()


def test_a_video_with_another_number_of_frames_is_found_when_it_is_read(tmp_path):
    experiment(tmp_path, "video")
    save(tmp_path / "screen/data/00008.npy", np.ones((FRAMES + 1, 4, 5)))
    with pytest.raises(DatasetError, match=r"'screen/data/00008.npy' has 7 frames, and num_frames is 6"):
        quiet(tmp_path, "train").tensors()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "video"}, "kind is 'video'.*one of images, movie"),
        ({"delay": -1}, "delay is -1"),
        ({"window": 0}, "window is 0"),
        ({"window": 0.01}, r"window of 0.01 s holds no sample of responses.*20 samples per second.*window = 0.05"),
        ({"responses": "../x"}, "responses is '../x'"),
        ({"behavior": "treadmill"}, "a list of names of folders"),
        ({"pupil_columns": [1]}, "a list of two columns"),
        ({"pupil_columns": [1, 1]}, "a list of two columns"),
        ({"rate": 30}, r"layout_params names 'rate'.*pupil_columns"),
    ],
)
def test_options_are_checked(tmp_path, options, words):
    with pytest.raises(DatasetError, match=words):
        describe_recording(experiment(tmp_path), options)


def test_stray_files_do_no_harm(tmp_path):
    experiment(tmp_path)
    for name in (".DS_Store", "._screen", "screen/.DS_Store", "screen/data/._00000.npy", "screen/meta/._00000.yml"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    save(tmp_path / "screen/meta/means.npy", np.zeros((4, 5)))
    (tmp_path / "screen/data/Thumbs.db").write_bytes(b"x")
    assert describe_recording(tmp_path).trials == IMAGES


def test_only_what_looks_like_it_is_recognised(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("modality: screen")
    dump(tmp_path / "other/screen/meta.yml", {"colour": "blue"})
    for name in ("empty", "file", "other"):
        assert not EXPERANTO.recognises(tmp_path / name), name
    assert EXPERANTO.recognises(experiment(tmp_path / "right"))
    # Without its screen it is still one, and says what is missing.
    write_sequence(tmp_path / "half/responses", 2)
    with pytest.raises(DatasetError, match=r"'screen/meta.yml' is missing; the folder holds responses"):
        describe_recording(tmp_path / "half")


def test_only_blanks_is_not_a_recording(tmp_path):
    experiment(tmp_path)
    for file in (tmp_path / "screen/meta").glob("*[02468].yml"):
        file.unlink()
    with pytest.raises(DatasetError, match="showed no image and no video; its 12 trials are blank"):
        describe_recording(tmp_path)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_spawned_workers_give_the_same_items(tmp_path, kind):
    experiment(tmp_path, kind)
    dataset = quiet(tmp_path, "train", mode="full-encoding", memory_limit_mb=0)
    inputs, targets = dataset.tensors()
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[2][0]["pupil_center"], inputs["pupil_center"][2])
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    for part in ("stimulus", "behavior", "pupil_center"):
        np.testing.assert_array_equal(np.concatenate([batch[0][part] for batch in batches]), inputs[part])
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), targets)


@pytest.mark.parametrize("frames", [0, 7])
def test_what_is_simulated_reads_back(tmp_path, monkeypatch, frames):
    given: dict[str, list[np.ndarray]] = {}
    write_trials = ExperantoWriter.write

    def write_and_keep(writer, first, parts):
        for part, values in parts.items():
            given.setdefault(part, []).extend(values)
        write_trials(writer, first, parts)

    monkeypatch.setattr(ExperantoWriter, "write", write_and_keep)
    simulation = Simulation(
        neurons=5,
        images=9,
        test_images=3,
        repeats=4,
        frames=frames,
        behavior_gain=0.4,
        image_shape=(8, 10),
        frame_rate=30,
    )
    layout = "experanto-movie" if frames else "experanto"
    written = simulate_recording(tmp_path / "r", simulation, layout=layout)
    recording = describe_recording(tmp_path / "r")
    assert recording.noise_ceiling == written.noise_ceiling
    assert len(recording.noise_ceiling) == 3
    assert recording.file_tiers() == simulation.tier_sizes
    assert recording.frame_rate == (30 if frames else None)
    assert set(recording.neurons) >= {"area", "layer"}
    for part in ("stimulus", "responses", "behavior", "pupil_center"):
        np.testing.assert_array_equal(read(tmp_path / "r", part).astype("f4"), np.stack(given[part]))
    ids, shown = np.unique(recording.stimulus_ids[recording.tiers == "test"], return_counts=True)
    assert shown.tolist() == [4, 4, 4]
    assert not set(ids) & set(recording.stimulus_ids[recording.tiers != "test"])
