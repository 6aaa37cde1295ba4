"""`synicix-run neurodata inspect`: what it says about whole, unusual and damaged recordings."""

from __future__ import annotations

import json
import shutil
import tomllib
import tracemalloc

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from synicix_neurodata.access import Access
from synicix_neurodata.commands import neurodata
from synicix_neurodata.commands.inspect_command import inspect as command
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.identity import stimulus_ids
from synicix_neurodata.inspection import bytes_to_read, inspect_recording
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.receptive_fields import receptive_fields
from synicix_neurodata.reliability import measure_reliability
from synicix_neurodata.repeats import explainable_variance, find_repeats, mean_of_the_others, pearson
from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
from synicix_neurodata.usable import MODES
from synicix_neurodata.writers.choice import WRITTEN

from synicix_core.errors import DatasetError

SMALL = {"neurons": 6, "images": 30, "test_images": 4, "repeats": 3}


def run(*arguments):
    return CliRunner().invoke(neurodata, ["inspect", *map(str, arguments)])


def as_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_recording(
        tmp_path_factory.mktemp("simulated") / "static.h5", Simulation(**SMALL, behavior_gain=0.3)
    ).file


def changed(source, target, change):
    """Copy a recording and let `change` do something to the open copy."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def replace(file, name, values):
    del file[name]
    file[name] = values


def test_what_a_recording_holds(simulated):
    told = as_json(simulated)
    recording = describe_recording(simulated)
    with h5py.File(simulated) as file:
        images, responses = file["images"][()].astype("f8"), file["responses"][()].astype("f8")
    assert (told["layout"], told["trials"], told["movie"], told["frames"]) == ("static HDF5", 46, False, None)
    stimulus, answers = told["parts"][:2]
    assert (stimulus["name"], stimulus["shape"], stimulus["dtype"]) == ("stimulus", [1, 16, 24], "float32")
    assert stimulus["bytes"] == 46 * 16 * 24 * 4
    np.testing.assert_allclose(
        [stimulus[key] for key in ("mean", "std", "minimum", "maximum")],
        [images.mean(), images.std(ddof=1), images.min(), images.max()],
        rtol=1e-6,
    )
    np.testing.assert_allclose(answers["std"], responses.std(axis=0, ddof=1).mean(), rtol=1e-6)
    assert [part["missing_trials"] for part in told["parts"]] == [[]] * 4
    assert told["tiers"]["used"]["test"] == {"trials": 12, "showings": {"3": 4}}
    assert told["tiers"]["becomes"] == {"train": "train", "validation": "validation", "test": "test"}
    assert told["showings"] == {"1": 34, "3": 4}
    assert told["neurons"]["area"] == {"V1": 6}
    np.testing.assert_allclose(told["responses"]["mean"], responses.mean(), rtol=1e-6)
    assert told["noise_ceiling"] == recording.noise_ceiling
    assert {mode: use["usable"] for mode, use in told["modes"].items()} == dict.fromkeys(MODES, True)
    assert (told["notes"], told["problems"]) == ([], [])


def test_the_text_fits_100_columns_and_says_what_json_says(simulated):
    text = run(simulated).stdout
    # The first line is the path, however long it is.
    assert max(map(len, text.splitlines()[1:])) <= 100
    told = as_json(simulated)
    for value in (
        "static HDF5",
        "1 x 16 x 24",
        "34 stimuli once, 4 stimuli 3 times",
        f"oracle {told['reliability']['oracle']:.3f}",
        f"estimated from repeats: {told['reliability']['ceiling']:.3f}",
        f"stimulus-encoding {told['noise_ceiling']['stimulus-encoding']:.3f}",
    ):
        assert value in " ".join(text.split())


def test_many_tiers_fit_100_columns(simulated, tmp_path):
    words = np.array([f"final_test_of_the_{number}th_bonus_track" for number in range(9)])

    def rename(file):
        tiers = file["tiers"][()].astype("U60")
        tiers[tiers == "train"] = np.resize(["train", *words], (tiers == "train").sum())
        replace(file, "tiers", tiers.astype("S"))

    text = run(changed(simulated, tmp_path / "tiers.h5", rename)).stdout
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert all(word in "".join(text.split()) for word in words)


@pytest.mark.parametrize("layout", WRITTEN)
def test_every_layout_can_be_inspected(tmp_path, layout):
    movie = WRITTEN[layout].movie
    path = tmp_path / recording_name(1, layout)
    simulate_recording(path, Simulation(**SMALL, frames=9 if movie else 0), layout=layout)
    told = as_json(path)
    assert (told["trials"], told["movie"]) == (46, movie)
    assert told["tiers"]["used"]["train"]["trials"] == 30
    assert told["showings"] == {"1": 34, "3": 4}
    assert told["noise_ceiling"]["stimulus-encoding"] > 0
    assert told["modes"]["stimulus-encoding"]["usable"]
    assert told["reliability"]["of"] == "test"
    if movie:
        assert told["frames"] == {"least": 9, "most": 9, "total": 9 * 46}
        assert "46 movies of 9 frames, 414 in all" in run(path).stdout


def test_the_lines_for_an_experiment_file_make_the_dataset(simulated):
    lines = as_json(simulated)["modes"]["behavior-encoding"]["experiment"]
    (entry,) = tomllib.loads(lines)["dataset"]
    assert entry == {"files": "static.h5", "provider": "NeuroDataDataset", "params": {"mode": "behavior-encoding"}}
    text = run(simulated, "--mode", "behavior-encoding").stdout
    written = "\n".join(line.strip() for line in text.partition("to use it\n")[2].splitlines())
    assert tomllib.loads(written)["dataset"] == [entry]
    assert len(NeuroDataDataset(simulated, "train", **entry["params"])) == 30


def test_reliability_is_what_the_metrics_compute(simulated):
    recording = describe_recording(simulated)
    # Uneven repeats: three of one stimulus, two of another.
    rows = np.setdiff1d(np.flatnonzero(recording.tiers == "test"), np.flatnonzero(recording.tiers == "test")[:1])
    ids = stimulus_ids(recording)
    found = measure_reliability(recording, rows, ids)
    repeats = find_repeats(ids[rows])
    with Access(recording) as access:
        responses = access.trials("responses", rows[repeats.rows]).astype("f8")[:, None]
    np.testing.assert_allclose(found.explainable_variance, explainable_variance(responses, repeats), atol=1e-12)
    np.testing.assert_allclose(found.oracle, pearson(responses, mean_of_the_others(responses, repeats)), atol=1e-12)
    assert (found.stimuli, found.trials, found.repeats) == (len(repeats.counts), len(rows), (2, 3))


def test_reliability_of_movies_is_what_the_metrics_compute(tmp_path):
    path = simulate_recording(tmp_path / "movie.h5", Simulation(**SMALL, frames=7), layout="movie-hdf5").file
    recording = describe_recording(path)
    rows, ids = np.flatnonzero(recording.tiers == "test"), stimulus_ids(recording)
    found, repeats = measure_reliability(recording, rows, ids), find_repeats(ids[rows])
    with Access(recording) as access:
        responses = np.stack([access.clip("responses", row, 0, 7).T for row in rows[repeats.rows]]).astype("f8")
    np.testing.assert_allclose(found.explainable_variance, explainable_variance(responses, repeats), atol=1e-12)
    np.testing.assert_allclose(found.oracle, pearson(responses, mean_of_the_others(responses, repeats)), atol=1e-12)


def test_the_estimated_ceiling_is_near_the_true_one_and_poisson_counts_have_a_fano_factor_of_1(tmp_path):
    recording = simulate_recording(tmp_path / "r.h5", Simulation(neurons=40, images=20, test_images=80, repeats=10))
    found = inspect_recording(recording.file).reliability
    assert found.ceiling == pytest.approx(recording.noise_ceiling["stimulus-encoding"], abs=0.02)
    assert np.median(found.fano) == pytest.approx(1, abs=0.05)
    assert found.oracle.mean() < recording.noise_ceiling["stimulus-encoding"]


def test_gaps_are_counted_and_the_way_round_them_is_told(simulated, tmp_path):
    def gaps(file):
        values = file["responses"][()]
        values[[3, 17]] = np.nan
        replace(file, "responses", values)

    path = changed(simulated, tmp_path / "gaps.h5", gaps)
    told = as_json(path)
    assert told["parts"][1]["missing_trials"] == [3, 17]
    with h5py.File(path) as file:
        whole = np.delete(file["responses"][()], [3, 17], axis=0)
    np.testing.assert_allclose(told["parts"][1]["mean"], whole.mean(), rtol=1e-6)
    used = told["modes"]["stimulus-encoding"]
    assert used["params"] == {"drop_missing": True}
    with pytest.warns(UserWarning, match="2 of 30 trials"):
        NeuroDataDataset(path, "train", mode="stimulus-encoding", **used["params"])
    text = run(path).stdout
    assert "responses in 2 of 46 trials (3, 17)" in text
    assert "drop_missing = true" in text


def test_a_recording_that_cannot_be_trained_on_is_described_with_the_reason(simulated, tmp_path):
    path = changed(simulated, tmp_path / "r.h5", lambda file: replace(file, "tiers", np.full(46, b"train")))
    result = run(path)
    assert result.exit_code == 0
    assert "stimulus-encoding: no, the validation tier has too few trials" in result.stdout
    assert "to use it" not in result.stdout


def test_withheld_responses_leaks_and_unknown_tiers_are_told(simulated, tmp_path):
    def spoil(file):
        tiers, responses, ids = file["tiers"][()], file["responses"][()], file["item_info/frame_image_id"][()]
        responses[tiers == b"test"] = 0
        ids[np.flatnonzero(tiers == b"validation")[0]] = ids[np.flatnonzero(tiers == b"train")[0]]
        tiers[np.flatnonzero(tiers == b"train")[1]] = b"odd"
        for name, values in (("tiers", tiers), ("responses", responses), ("item_info/frame_image_id", ids)):
            replace(file, name, values)

    told = as_json(changed(simulated, tmp_path / "r.h5", spoil))
    notes = " ".join(told["notes"])
    assert "withheld" in notes
    assert "1 stimuli are in both the train and the validation tier" in notes
    assert "tier odd are not used" in notes
    assert told["tiers"]["becomes"] == {"odd": None, "test": None, "train": "train", "validation": "validation"}


def test_silent_neurons_are_counted(simulated, tmp_path):
    def silence(file):
        values = file["responses"][()]
        values[:, 1], values[:, 2], values[0, 3] = 0, 5, -1
        replace(file, "responses", values)

    told = as_json(changed(simulated, tmp_path / "r.h5", silence))["responses"]
    assert (told["silent"], told["constant"], told["negative"]) == (1, 1, 1)


def test_a_recording_without_tiers_is_split_and_says_so(simulated, tmp_path):
    path = changed(simulated, tmp_path / "r.h5", lambda file: file.pop("tiers"))
    told = as_json(path)
    assert told["tiers"]["of_file"] is None
    assert told["tiers"]["used"]["test"]["trials"] == 12
    assert "the file has no tiers" in told["notes"][0]


def test_movies_of_unequal_length_are_used_with_clips(tmp_path):
    frames = [12, 9, 15, 12, 12]
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        for trial, length in enumerate(frames):
            file[f"inputs/{trial}"] = rng.uniform(0, 255, (1, length, 4, 5)).astype("f4")
            file[f"responses/{trial}"] = rng.gamma(2, 1, (length, 3)).astype("f4")
        file["tiers"] = np.array([b"train", b"train", b"train", b"validation", b"test"])
    told = as_json(tmp_path / "movie.h5")
    used = told["modes"]["stimulus-encoding"]
    assert (used["usable"], used["params"]) == (True, {"clip_frames": 9})
    assert told["frames"] == {"least": 9, "most": 15, "total": 60}
    NeuroDataDataset(tmp_path / "movie.h5", "train", mode="stimulus-encoding", **used["params"])


def damage(path, name):
    """Overwrite the stored bytes of a compressed array."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    with path.open("rb+") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * chunk.size)


@pytest.mark.parametrize(("name", "part"), [("responses", "responses"), ("images", "stimulus")])
def test_a_damaged_part_is_named_the_others_are_described_and_the_exit_code_is_2(simulated, tmp_path, name, part):
    def compress(file):
        values = file[name][()]
        del file[name]
        file.create_dataset(name, data=values, chunks=values.shape, compression="gzip")

    path = changed(simulated, tmp_path / "damaged.h5", compress)
    damage(path, name)
    result = run(path)
    assert isinstance(result.exception, DatasetError)
    assert result.exception.exit_code == 2
    assert f"{part}: " in str(result.exception)
    assert "behavior" in result.stdout
    assert "cannot be read" in result.stdout
    told = json.loads(run(path, "--json").stdout)
    assert [bool(entry["problem"]) for entry in told["parts"]] == [entry["name"] == part for entry in told["parts"]]
    assert not told["modes"]["stimulus-encoding"]["usable"]


def test_what_is_no_recording_is_refused_in_one_message(simulated, tmp_path):
    (tmp_path / "notes.txt").write_text("no recording")
    (tmp_path / "empty.h5").write_bytes(b"")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(simulated.read_bytes()[:5000])
    for path in (tmp_path / "missing.h5", tmp_path / "notes.txt", tmp_path / "empty.h5", cut, tmp_path):
        result = run(path)
        assert isinstance(result.exception, DatasetError), path
        assert result.stdout == ""
        assert str(path) in str(result.exception)


def test_quick_reads_no_values(simulated):
    inspection = inspect_recording(simulated, quick=True)
    assert [part.values for part in inspection.parts] == [None] * 4
    assert inspection.reliability is None
    told = as_json(simulated, "--quick")
    assert told["tiers"]["used"]["test"]["trials"] == 12
    assert told["parts"][0]["dtype"] == "float32"
    assert told["reliability"] is None
    read: list[int] = []
    inspect_recording(simulated, quick=True, progress=read.append)
    assert sum(read) < bytes_to_read(describe_recording(simulated)) / 20
    text = run(simulated, "--quick").stdout
    assert "--quick read no values" in text
    assert "stimulus-encoding: has the parts for it" in text


def test_quick_without_tiers_and_identities_does_not_invent_a_split(simulated, tmp_path):
    def strip(file):
        for name in ("tiers", "condition_hashes", "item_info"):
            del file[name]

    path = changed(simulated, tmp_path / "r.h5", strip)
    told = as_json(path, "--quick")
    assert told["tiers"]["used"] is None
    assert "without --quick" in told["notes"][0]
    assert as_json(path)["tiers"]["used"]["test"]["trials"] == 12


def test_progress_adds_up_to_about_what_was_announced(simulated):
    path = simulated.with_name("again.h5")
    shutil.copy(simulated, path)
    read: list[int] = []
    inspect_recording(path, progress=read.append)
    assert 1 <= sum(read) / bytes_to_read(describe_recording(path)) < 1.2


def test_layout_params_are_parsed_and_reach_the_layout(simulated, tmp_path):
    assert "it has no options" in str(run(simulated, "--layout-param", "window=0.5").exception)
    retina = tmp_path / "retina"
    simulate_recording(retina, Simulation(**SMALL, frames=9), layout="open-retina")
    told = as_json(retina, "--layout-param", "frame_rate=25", "--mode", "stimulus-encoding")
    assert told["frame_rate"] == 25
    assert 'layout_params = { "frame_rate" = 25 }' in told["modes"]["stimulus-encoding"]["experiment"]
    for wrong, word in ((["window"], "KEY=VALUE"), (["=1"], "KEY=VALUE"), (["a=1", "a=2"], "twice")):
        result = run(simulated, *[text for value in wrong for text in ("--layout-param", value)])
        assert result.exit_code == 2
        assert word in result.output


def test_the_modes_of_the_command_are_those_of_the_dataset():
    (option,) = [option for option in command.params if option.name == "modes"]
    assert tuple(option.type.choices) == tuple(MODES)


def test_a_large_recording_is_read_in_blocks(tmp_path):
    trials = 6000
    with h5py.File(tmp_path / "large.h5", "w") as file:
        images = file.create_dataset("images", (trials, 1, 64, 128), "f4")
        rng = np.random.default_rng(0)
        for start in range(0, trials, 500):
            images[start : start + 500] = rng.uniform(0, 255, (500, 1, 64, 128))
        file["responses"] = rng.gamma(2, 1, (trials, 20)).astype("f4")
        file["tiers"] = np.array([b"train", b"validation", b"test"])[np.arange(trials) % 10 // 4]
        size = images.nbytes
    tracemalloc.start()
    try:
        inspection = inspect_recording(tmp_path / "large.h5")
        peak = tracemalloc.get_traced_memory()[1]
        assert inspection.part("stimulus").bytes == size
        assert peak < size / 2
        tracemalloc.reset_peak()
        fields = receptive_fields(inspection.recording, inspection.tiers.rows["train"], np.arange(8))
        assert fields.filters.shape == (8, 32, 64)
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


def test_receptive_fields_are_those_of_the_simulated_cells(tmp_path):
    path = simulate_recording(tmp_path / "r.h5", Simulation(neurons=12, images=1500, test_images=2, repeats=2)).file
    recording = describe_recording(path)
    fields = receptive_fields(recording, np.flatnonzero(recording.tiers == "train"), np.arange(12))
    with h5py.File(path) as file:
        truth = file["simulation/filters"][0]
    likeness = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(fields.filters, truth, strict=True)]
    assert np.mean(likeness) > 0.65
    assert min(likeness) > 0.4
    assert fields.lags is None


def test_receptive_fields_of_movies_tell_the_lag(tmp_path):
    simulation = Simulation(neurons=8, images=60, test_images=2, repeats=2, frames=40)
    path = simulate_recording(tmp_path / "m.h5", simulation, layout="movie-hdf5").file
    recording = describe_recording(path)
    fields = receptive_fields(recording, np.flatnonzero(recording.tiers == "train"), np.arange(8))
    # The filter of the simulated cells in time has its peak two frames back.
    assert set(fields.lags.tolist()) == {2}
    best = fields.clearest(3)
    assert (len(best.neurons), best.filters.shape, best.trials) == (3, (3, 16, 24), 60)


def test_withheld_zeros_count_for_nothing(simulated, tmp_path):
    def withhold(file):
        file["responses"][:] = file["responses"][:] * (file["tiers"][:] != b"test")[:, None]

    path = changed(simulated, tmp_path / "withheld.h5", withhold)
    inspection = inspect_recording(path)
    assert inspection.reliability is None
    with h5py.File(path) as file:
        answered = file["responses"][file["tiers"][:] != b"test"]
    np.testing.assert_allclose(inspection.part("responses").values.mean, answered.mean(0), rtol=1e-5)
    text = run(path).stdout
    assert "fewer than two stimuli with responses are repeated" in " ".join(text.split())
    assert "estimated from repeats" not in text


def test_a_picture_into_a_folder_that_does_not_exist_is_refused_before_anything_is_read(simulated, tmp_path):
    result = run(simulated, "--png", tmp_path / "nowhere" / "a.png")
    assert result.exit_code == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in result.output
    assert "layout" not in result.stdout
    assert not (tmp_path / "nowhere").exists()
