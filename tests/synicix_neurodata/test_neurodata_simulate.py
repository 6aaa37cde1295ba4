"""Simulated recordings: the layout, determinism, and above all that the ceiling they state is true."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from synicix_neurodata.ceiling import single_trial_ceiling
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.population import behavior, draw_population, natural_images
from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
from synicix_neurodata.writers.choice import WRITTEN

from synicix_core.errors import DatasetError, ParamsError

SMALL = Simulation(neurons=20, images=90, test_images=40, repeats=10)


def correlation(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).mean(0) / np.sqrt((a**2).mean(0) * (b**2).mean(0))


def test_for_poisson_cells_the_ceiling_is_that_of_the_signal_and_the_noise():
    rates = np.array([[1.0, 3.0, 2.0], [2.0, 5.0, 2.0], [6.0, 1.0, 2.0]])
    signal, noise = rates.var(0), rates.mean(0)
    np.testing.assert_allclose(single_trial_ceiling(rates), np.sqrt(signal / (signal + noise)))
    assert single_trial_ceiling(rates)[2] == 0
    np.testing.assert_allclose(single_trial_ceiling(rates, 7 * rates + 3), single_trial_ceiling(rates))
    np.testing.assert_allclose(single_trial_ceiling(rates, -rates), -single_trial_ceiling(rates))


@pytest.mark.parametrize(
    "settings",
    [{}, {"mean_rate": 0.5}, {"complex_fraction": 0.5}, {"behavior_gain": 0.4}, {"behavior_gain": 0.3, "seed": 5}],
)
def test_the_stated_ceiling_is_what_the_truth_reaches(tmp_path, settings):
    path = tmp_path / "r.h5"
    written = simulate_recording(path, Simulation(neurons=60, images=10, test_images=200, repeats=20, **settings))
    with h5py.File(path) as file:
        test = file["tiers"].asstr()[:] == "test"
        rates, counts = file["simulation/rates"][test].astype("f8"), file["responses"][test]
        arousal, slope = file["simulation/arousal"][test], file["simulation/arousal_slope"][:]
        gain = np.exp(arousal[:, None] * slope - slope**2 / 2)
        per_cell = file["simulation/noise_ceiling/full-encoding"][:]
    reached = {"full-encoding": rates, "stimulus-encoding": rates / gain}
    if settings.get("behavior_gain"):
        reached["behavior-encoding"] = gain
    assert set(written.noise_ceiling) == set(reached)
    for mode, prediction in reached.items():
        assert correlation(prediction, counts).mean() == pytest.approx(written.noise_ceiling[mode], abs=0.01)
        assert NeuroDataDataset(path, "test", mode=mode).get_additional_model_params()["noise_ceiling"] == {
            "single_trial_correlation": written.noise_ceiling[mode],
            "correlation": written.noise_ceiling[mode],
        }
    np.testing.assert_allclose(correlation(rates, counts), per_cell, atol=0.06)


def test_a_model_that_sees_less_has_a_lower_ceiling(tmp_path):
    ceiling = simulate_recording(tmp_path / "r.h5", Simulation(images=10, behavior_gain=0.4)).noise_ceiling
    assert 0.1 < ceiling["behavior-encoding"] < ceiling["stimulus-encoding"] < ceiling["full-encoding"] - 0.01


def test_tiers_are_split_by_image_and_only_test_images_are_repeated(tmp_path):
    written = simulate_recording(tmp_path / "r.h5", SMALL)
    assert written.tier_sizes == SMALL.tier_sizes == {"train": 90, "validation": 10, "test": 400}
    shown = {}
    for tier, size in written.tier_sizes.items():
        dataset = NeuroDataDataset(tmp_path / "r.h5", tier)
        assert len(dataset) == size
        ids, images = dataset.column("frame_image_id"), dataset.tensors()[0].numpy()
        shown[tier] = ids
        for image in set(ids):
            assert (images[ids == image] == images[ids == image][0]).all()
        assert len(np.unique(images.reshape(size, -1), axis=0)) == len(set(ids))
    assert len(set(shown["train"])) == 90
    assert len(set(shown["test"])) == 40
    assert set(np.unique(shown["test"], return_counts=True)[1]) == {10}
    assert not set(shown["train"]) & set(shown["test"]) | set(shown["validation"]) & set(shown["test"])


def test_the_layout_is_complete_and_its_statistics_are_those_of_the_training_tier(tmp_path):
    simulate_recording(tmp_path / "r.h5", SMALL)
    with h5py.File(tmp_path / "r.h5") as file:
        trials = SMALL.trials
        assert file["images"].shape == (trials, 1, 16, 24)
        assert file["images"].dtype == np.float32
        assert 0 <= file["images"][:].min() < file["images"][:].max() <= 255
        assert (file["responses"].shape, file["behavior"].shape) == ((trials, 20), (trials, 3))
        assert file["pupil_center"].shape == (trials, 2)
        assert {file[name].shape for name in ("tiers", "types", "trial_idx", "condition_hashes")} == {(trials,)}
        assert {values.shape for values in file["item_info"].values()} == {(trials,)}
        assert set(file["neurons"]) == {"unit_ids", "animal_ids", "sessions", "scan_idx", "layer", "area"}
        assert {values.shape for values in file["neurons"].values()} == {(20,)}
        train = file["tiers"][:] == b"train"
        for part in ("images", "responses", "behavior", "pupil_center"):
            values = file[part][:][train].astype("f8")
            axis = None if part == "images" else 0
            for stimulus in ("all", "stimulus.Frame"):
                found = file[f"statistics/{part}/{stimulus}"]
                for name, expected in (
                    ("mean", values.mean(axis)),
                    ("std", values.std(axis, ddof=1)),
                    ("min", values.min(axis)),
                    ("max", values.max(axis)),
                    ("median", np.median(values, axis)),
                ):
                    np.testing.assert_allclose(found[name][()], expected, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_or_session_does_not(tmp_path):
    contents = {}
    for name, seed, session in (("a", 1, 1), ("again", 1, 1), ("seed", 2, 1), ("session", 1, 2)):
        simulate_recording(tmp_path / name, Simulation(neurons=3, images=9, test_images=2, seed=seed), session=session)
        contents[name] = (tmp_path / name).read_bytes()
    assert contents["a"] == contents["again"]
    assert len(set(contents.values())) == 3


def test_cells_have_the_mean_rate_that_was_asked_for_and_filters_of_unit_drive():
    population = draw_population(
        np.random.default_rng(0), 400, (16, 24), complex_fraction=0.25, behavior_gain=0.4, mean_rate=3.0
    )
    images = natural_images([np.random.default_rng(seed) for seed in range(2000)], (16, 24))
    assert population.complex_cells.sum() == 100
    drive = np.einsum("thw,nhw->tn", (images[:, 0] - 127.5) / 40, population.filters[0])
    np.testing.assert_allclose(drive.std(0), 1, atol=0.12)
    rates = population.stimulus_rates(images)
    assert (rates > 0).all()
    assert rates.mean() == pytest.approx(3.0, rel=0.1)
    assert rates[:, population.complex_cells].mean() == pytest.approx(3.0, rel=0.15)
    arousal = np.random.default_rng(1).standard_normal(200_000)
    np.testing.assert_allclose(population.gain(arousal).mean(0), 1, atol=0.02)


def test_simple_cells_tell_the_sign_of_the_contrast_and_complex_cells_do_not():
    population = draw_population(
        np.random.default_rng(0), 40, (16, 24), complex_fraction=0.5, behavior_gain=0, mean_rate=1
    )
    images = natural_images([np.random.default_rng(seed) for seed in range(300)], (16, 24))
    agreement = correlation(population.stimulus_rates(images), population.stimulus_rates(255 - images))
    assert (agreement[population.complex_cells] > 0.999).all()
    assert (agreement[~population.complex_cells] < 0).all()


def test_images_have_the_amplitude_spectrum_of_natural_scenes():
    images = natural_images([np.random.default_rng(seed) for seed in range(400)], (32, 32))[:, 0] - 127.5
    power = (np.abs(np.fft.fft(images * np.hanning(32), axis=2)) ** 2).mean((0, 1))
    # Across rows, summing over the other axis leaves power ~ 1/f of the two-dimensional 1/f**2.
    slope = np.polyfit(np.log(np.arange(2, 12)), np.log(power[2:12]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.3)
    assert images.std() == pytest.approx(40, rel=0.1)


def test_running_and_pupil_tell_the_arousal():
    arousal, recorded = behavior(np.random.default_rng(0), 5000)
    dilation, change, speed = recorded["behavior"].T
    assert arousal.std() == pytest.approx(1, abs=0.2)
    assert np.corrcoef(np.log(speed), arousal)[0, 1] == pytest.approx(1)
    assert 0.5 < np.corrcoef(dilation, arousal)[0, 1] < 0.95
    np.testing.assert_allclose(np.diff(dilation), change[1:])
    assert (speed > 0).all()


def test_an_existing_recording_is_kept_unless_asked_otherwise(tmp_path):
    path = tmp_path / "r.h5"
    path.write_text("precious")
    with pytest.raises(DatasetError, match="exists already"):
        simulate_recording(path, SMALL)
    assert path.read_text() == "precious"
    simulate_recording(path, SMALL, overwrite=True)
    assert len(NeuroDataDataset(path, "train")) == 90


def test_an_interrupted_simulation_leaves_nothing_behind(tmp_path):
    def interrupt(trials):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_recording(tmp_path / "new" / "r.h5", SMALL, progress=interrupt)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="not written"):
        simulate_recording(tmp_path / "file" / "r.h5", SMALL)


def test_settings_that_make_no_sense_are_told_together():
    with pytest.raises(ParamsError) as caught:
        Simulation(
            neurons=0,
            images=1,
            test_images=1,
            repeats=0,
            complex_fraction=1.5,
            behavior_gain=-1,
            mean_rate=0,
            image_shape=(4, 24),
            frames=-1,
            frame_rate=0,
            seed=-1,
        )
    assert [path for path, _ in caught.value.mistakes] == list(Simulation.__dataclass_fields__)
    for name, value in (("mean_rate", 1e300), ("behavior_gain", 1000), ("mean_rate", float("nan"))):
        with pytest.raises(ParamsError, match=name):
            Simulation(**{name: value})
    with pytest.raises(ParamsError, match="session"):
        simulate_recording("x.h5", SMALL, session=256)


def test_names_tell_sessions_apart():
    assert recording_name(1) != recording_name(2)
    assert recording_name(3).endswith(".h5")


def test_recordings_of_all_layouts_can_lie_in_one_folder():
    names = [recording_name(1, layout) for layout in WRITTEN]
    assert len(set(names)) == len(names)
