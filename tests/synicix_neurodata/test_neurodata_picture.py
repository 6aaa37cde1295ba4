"""The picture of `synicix-run neurodata inspect --png`: what is on it, and that it can be read."""

from __future__ import annotations

import itertools
import sys

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from matplotlib.text import Text
from synicix_neurodata.commands import neurodata
from synicix_neurodata.inspection import inspect_recording
from synicix_neurodata.picture import picture_of
from synicix_neurodata.picture_style import COLORS, TRACES
from synicix_neurodata.simulate import Simulation, simulate_recording

from synicix_core.errors import ConfigurationError

TRIALS = 60
TIERS = np.array([b"train", b"validation", b"test"])[np.arange(TRIALS) % 10 // 4]


def run(*arguments):
    return CliRunner().invoke(neurodata, ["inspect", *map(str, arguments)])


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name.replace("__", "/")] = values
    return path


def simulated(folder):
    simulation = Simulation(neurons=20, images=100, test_images=10, repeats=4, behavior_gain=0.3)
    return simulate_recording(folder / "static.h5", simulation).file


def movie(folder):
    simulation = Simulation(neurons=9, images=20, test_images=3, repeats=3, frames=20)
    return simulate_recording(folder / "movie", simulation, layout="movie-tree").file


def colour(folder):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRIALS, 3, 20, 12), dtype="u1")
    # Two columns that are all gaps, more columns than colours, and a neuron that is silent.
    behavior = np.where(np.arange(8) < 2, np.nan, rng.normal(size=(TRIALS, 8)))
    responses = rng.gamma(2, 1, (TRIALS, 3)) * [0, 1, 1]
    return write(
        folder / f"{'long' * 30}.h5", images=images, responses=responses, behavior=behavior, tiers=TIERS, trial_idx=[1]
    )


def bare(folder):
    rng = np.random.default_rng(0)
    return write(folder / "bare.h5", responses=rng.gamma(2, 1, (TRIALS, 3)), tiers=TIERS)


def blind(folder):
    rng = np.random.default_rng(0)
    return write(folder / "blind.h5", images=rng.uniform(0, 255, (TRIALS, 2, 9, 90)), tiers=TIERS)


def constant(folder):
    return write(folder / "c.h5", images=np.ones((TRIALS, 1, 8, 8)), responses=np.ones((TRIALS, 2)), tiers=TIERS)


RECORDINGS = (simulated, movie, colour, bare, blind, constant)


def drawn_texts(figure, monkeypatch):
    """Return every text with its box, in pixels, as it is really drawn."""
    figure.canvas.draw()
    boxes = []
    draw = Text.draw

    def spy(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))

    monkeypatch.setattr(Text, "draw", spy)
    figure.canvas.draw()
    monkeypatch.undo()
    return boxes


@pytest.mark.parametrize("make", RECORDINGS)
def test_no_two_texts_overlap_and_none_is_cut_off(tmp_path, monkeypatch, make):
    figure = picture_of(inspect_recording(make(tmp_path)))
    boxes = drawn_texts(figure, monkeypatch)
    assert len(boxes) > 8
    width, height = figure.canvas.get_width_height()
    for label, box in boxes:
        assert -1 <= box.x0 < box.x1 <= width + 1, label
        assert -1 <= box.y0 < box.y1 <= height + 1, label
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        shared_x = min(first.x1, second.x1) - max(first.x0, second.x0)
        shared_y = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(shared_x, shared_y) < 2, (one, other)


def shown(figure):
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_it_shows_what_the_inspection_found(tmp_path):
    inspection = inspect_recording(simulated(tmp_path))
    figure = picture_of(inspection)
    words = shown(figure)
    for expected in (
        "static.h5",
        "16 x 24 pixels",
        "20 neurons",
        "100 images, decorrelated",
        f"mean oracle {inspection.reliability.oracle.mean():.3f}",
        f"ceiling, estimated {inspection.reliability.ceiling:.3f}",
        f"ceiling, stated {inspection.recording.noise_ceiling['stimulus-encoding']:.3f}",
        "10 shown 4 times",
        "behavior\ncolumn 2",
        "pupil_center\ncolumn 1",
    ):
        assert expected in words
    images = [
        axes.images[0].get_array() for axes in figure.findobj(lambda artist: bool(getattr(artist, "images", None)))
    ]
    assert len(images) == 16
    with h5py.File(inspection.recording.path) as file:
        first = int(np.flatnonzero(file["tiers"][()] == b"train")[0])
        np.testing.assert_array_equal(images[0], file["images"][first, 0])


def test_movies_show_frames_and_how_far_back_neurons_look(tmp_path):
    words = shown(picture_of(inspect_recording(movie(tmp_path))))
    assert "8 frames of the movie in trial" in words
    assert "0.63 s" in words
    assert "ms before" in words
    assert "20 frames at 30 per second" in words


def test_what_is_missing_is_said(tmp_path):
    words = shown(picture_of(inspect_recording(bare(tmp_path))))
    for expected in ("has no stimulus", "no stimulus is repeated", "no behaviour and no pupil"):
        assert expected in words
    assert "no responses" in shown(picture_of(inspect_recording(blind(tmp_path))))
    assert "No response changes" in shown(picture_of(inspect_recording(constant(tmp_path))))
    assert "1 silent" in shown(picture_of(inspect_recording(colour(tmp_path))))


def test_the_colours_differ_in_lightness_or_hue_for_everyone():
    assert len(set(COLORS.values())) == len(COLORS)
    assert set(TRACES) >= {"#0072B2", "#D55E00", "#009E73"}


def test_the_command_writes_a_png_in_place_of_an_old_one(tmp_path):
    recording, target = simulated(tmp_path), tmp_path / "pictures" / "out.png"
    target.parent.mkdir()
    result = run(recording, "--png", target)
    assert result.exit_code == 0, result.output
    assert "reliability" in result.stdout
    picture = imread(target)
    assert picture.shape[1] == 1440
    # White paper with something on it, in colour.
    assert 0.02 < (picture[..., :3].min(axis=-1) < 0.9).mean() < 0.6
    assert np.ptp(picture[..., :3], axis=-1).max() > 0.5
    target.write_bytes(b"old")
    run(recording, "--png", target)
    assert imread(target).shape == picture.shape
    assert [path.name for path in target.parent.iterdir()] == ["out.png"]


def test_mistakes_are_found_before_the_recording_is_read(tmp_path, monkeypatch):
    recording = simulated(tmp_path)
    before = recording.read_bytes()
    for arguments, word in ((["--png", recording], ".png"), (["--png", tmp_path / "x.png", "--quick"], "--quick")):
        result = run(recording, *arguments)
        assert result.exit_code == 2
        assert word in result.output
    assert recording.read_bytes() == before
    tree = movie(tmp_path)
    assert run(tree, "--png", tree / "data" / "x.png").exit_code == 2
    assert not (tree / "data" / "x.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(recording, "--png", tmp_path / "x.png")
    assert isinstance(result.exception, ConfigurationError)
    assert "pip install 'synicix-neurodata[plots]'" in str(result.exception)
    assert result.stdout == ""
    assert run(recording).exit_code == 0


def test_columns_that_have_no_colour_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    responses, behavior = rng.gamma(2, 1, (TRIALS, 3)), rng.normal(size=(TRIALS, 20))
    many = write(tmp_path / "many.h5", responses=responses, behavior=behavior, tiers=TIERS)
    few = write(tmp_path / "few.h5", responses=responses, behavior=behavior[:, :3], tiers=TIERS)
    told = {
        path: [text.get_text() for text in picture_of(inspect_recording(path)).findobj(Text)] for path in (many, few)
    }
    assert f"Behaviour: the first {len(TRACES)} of 20 columns" in told[many]
    assert "Behaviour" in told[few]
