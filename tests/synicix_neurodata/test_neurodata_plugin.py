"""The plugin as the registry and the command line see it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from synicix_neurodata.commands import neurodata
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.simulate import recording_name
from synicix_neurodata.writers.choice import WRITTEN

from synicix_core.errors import DatasetError
from synicix_core.parameters import as_arguments, check_params
from synicix_core.registry import Registry

TINY = ["--neurons", "4", "--images", "20", "--test-images", "3", "--repeats", "2"]


def simulate(*arguments):
    return CliRunner().invoke(neurodata, ["simulate", *map(str, arguments)])


def test_the_installed_plugin_provides_the_dataset_the_loss_and_the_command():
    registry = Registry.discover()
    assert registry.resolve("dataset", "NeuroDataDataset").qualified == "synicix-neurodata/NeuroDataDataset"
    assert registry.resolve("criterion", "PoissonLoss").load().__name__ == "PoissonLoss"
    assert "neurodata" in [command.name for _, command in registry.commands()]


def test_parameters_are_checked_before_a_file_is_opened():
    dataset = Registry.discover().resolve("dataset", "NeuroDataDataset")
    checked = check_params(dataset, {"mode": "full-encoding", "normalize": ["images"]})
    assert checked.mistakes == ()
    assert as_arguments(dataset, checked.values)["normalize"] == ("images",)
    wrong = check_params(dataset, {"mode": "encoding", "normalise": True})
    assert [path for path, _ in wrong.mistakes] == ["mode", "normalise"]


def test_hooks_load_nothing_heavy():
    code = (
        "import sys, synicix_neurodata.hooks as h; list(h.synicix_datasets()); list(h.synicix_criteria()); "
        "list(h.synicix_commands()); print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_simulate_writes_recordings_and_prints_one_table(tmp_path):
    result = simulate(tmp_path / "data", "--recordings", 2, *TINY)
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "data").iterdir())
    assert len(files) == 2
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["recording", "train"]
    for file, line in zip(files, lines[1:3], strict=True):
        assert line.split()[:5] == [str(file), "20", "3", "6", "4"]
        ceiling = NeuroDataDataset(file, "test").get_additional_model_params()["noise_ceiling"]["correlation"]
        assert line.split()[6] == f"{ceiling:.3f}"


def test_simulate_as_json_and_every_option_counts(tmp_path):
    options = ["--complex-fraction", 0.5, "--behavior-gain", 0.4, "--mean-rate", 5, "--seed", 3]
    result = simulate(tmp_path, *TINY, *options, "--json")
    (recording,) = json.loads(result.stdout)
    assert recording["tiers"] == {"train": 20, "validation": 3, "test": 6}
    assert set(recording["noise_ceiling"]) == {"stimulus-encoding", "full-encoding", "behavior-encoding"}
    assert (recording["neurons"], recording["seed"]) == (4, 3)
    for option in (["--complex-fraction", 0.5], ["--behavior-gain", 0.4], ["--mean-rate", 5], ["--seed", 3], []):
        other = json.loads(simulate(tmp_path / "-".join(["other", *map(str, option)]), *TINY, *option, "--json").stdout)
        assert other[0]["noise_ceiling"] != recording["noise_ceiling"]


def test_simulate_replaces_recordings_only_when_forced(tmp_path):
    assert simulate(tmp_path, *TINY).exit_code == 0
    before = [file.read_bytes() for file in tmp_path.iterdir()]
    refused = simulate(tmp_path, "--recordings", 2, "--seed", 1, *TINY)
    assert isinstance(refused.exception, DatasetError)
    assert "--force" in str(refused.exception)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == before
    assert simulate(tmp_path, "--seed", 1, *TINY, "--force").exit_code == 0
    assert [file.read_bytes() for file in tmp_path.iterdir()] != before


def test_simulate_refuses_numbers_that_make_no_sense(tmp_path):
    result = simulate(tmp_path, "--complex-fraction", 2)
    assert result.exit_code == 2
    assert "complex-fraction" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", WRITTEN)
def test_simulate_writes_every_layout(tmp_path, layout):
    options = [*TINY, "--layout", layout, "--image-size", "8x12", *(["--frames", 7] if WRITTEN[layout].movie else [])]
    result = simulate(tmp_path, *options, "--json")
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)
    path = tmp_path / recording_name(1, layout)
    recording = describe_recording(path)
    assert told["file"] == str(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert told["bytes"] == sum(file.stat().st_size for file in files) > 0
    # A layout without behaviour states no ceiling for modes that need it.
    assert recording.noise_ceiling.items() <= told["noise_ceiling"].items()
    assert "stimulus-encoding" in recording.noise_ceiling
    assert recording.shapes["stimulus"] == (1, 8, 12)
    assert (None if recording.frames is None else set(recording.frames.tolist())) == (
        {7} if WRITTEN[layout].movie else None
    )
    assert len(simulate(tmp_path, *options, "--force").stdout.splitlines()) == 3


def test_simulated_movies_are_fewer_and_60_frames_long_where_nothing_is_said(tmp_path):
    (told,) = json.loads(
        simulate(tmp_path, "--layout", "movie-hdf5", "--neurons", 2, "--image-size", "8x8", "--json").stdout
    )
    assert told["tiers"] == {"train": 150, "validation": 17, "test": 100}
    assert set(describe_recording(told["file"]).frames.tolist()) == {60}


def test_simulate_says_what_is_wrong_with_layout_frames_and_size(tmp_path):
    for options, words in (
        (["--layout", "matlab"], ("static-hdf5", "movie-hdf5")),
        (["--frames", 5], ("movies", "movie-hdf5")),
        (["--layout", "movie-hdf5", "--frames", 0], ("--frames",)),
        (["--image-size", "16"], ("16x24",)),
        (["--image-size", "4x24"], ("at least 8 pixels",)),
    ):
        result = simulate(tmp_path, *options)
        assert result.exit_code == 2, options
        assert all(word in result.output for word in words), result.output
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_layouts_that_can_be_written():
    text = "".join(simulate("--help").stdout.split())
    assert all(name in text for name in WRITTEN)


def test_progress_on_a_pipe_is_a_line_now_and_then(monkeypatch, capsys):
    from synicix_neurodata.commands import progress

    clock = iter([0.0, 1.0, 30.0, 31.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("Reading", 4) as read:
        for _ in range(4):
            read(1)
    # After one second it is too early, and at the end there is nothing left to wait for.
    assert capsys.readouterr().err.splitlines() == ["Reading: 50%, about 30 s left"]
