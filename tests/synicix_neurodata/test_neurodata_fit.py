"""Models of simulated cells come close to the ceiling that the recording states, in the order they should, and stay below."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from synicix_mlp.model import SimpleMLP
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.losses import PoissonLoss
from synicix_neurodata.models.convolutional import ConvolutionalEncoder
from synicix_neurodata.models.linear_nonlinear import LinearNonlinear
from synicix_neurodata.simulate import Simulation, simulate_recording

HIDDEN, L2, LEARNING_RATE, BATCH, PATIENCE, EPOCHS = 128, 1e-3, 2e-3, 64, 8, 60


@pytest.fixture(autouse=True)
def _one_thread():
    # Batches this small are slower on more threads, much slower on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def correlation(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).mean(0) / (a.square().mean(0) * b.square().mean(0)).sqrt()).mean().item()


def rows(inputs, index):
    return {name: part[index] for name, part in inputs.items()} if isinstance(inputs, dict) else inputs[index]


def perceptron(*shapes, num_hidden_layers=1, **params):
    return SimpleMLP(*shapes, num_hidden_layers=num_hidden_layers, hidden_size=HIDDEN, l2_loss_lamda=L2, **params)


def linear(*shapes, **params):
    return perceptron(*shapes, num_hidden_layers=0, **params)


def fit(path, mode, seed, build=perceptron, shuffled=False, learning_rate=LEARNING_RATE, epochs=EPOCHS):
    """Train with early stopping on the validation loss; return the test correlation over the ceiling."""
    tiers = {tier: NeuroDataDataset(path, tier, mode=mode) for tier in ("train", "validation", "test")}
    params = tiers["train"].get_additional_model_params()
    data = {tier: dataset.tensors() for tier, dataset in tiers.items()}
    torch.manual_seed(seed)
    nonnegative = params["nonnegative_output"]
    model = build(tiers["train"].input_shape, tiers["train"].output_shape, nonnegative_output=nonnegative)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    criterion = PoissonLoss()
    inputs, targets = data["train"]
    if shuffled:
        targets = targets[torch.randperm(len(targets))]
    best, best_epoch, weights = float("inf"), 0, model.state_dict()
    for epoch in range(epochs):
        model.train()
        for index in torch.randperm(len(targets)).split(BATCH):
            output, penalty = model(rows(inputs, index))
            optimizer.zero_grad()
            (criterion(output, targets[index]) + penalty).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = criterion(model(data["validation"][0])[0], data["validation"][1]).item()
        if loss < best:
            best, best_epoch, weights = loss, epoch, {k: v.clone() for k, v in model.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    model.load_state_dict(weights)
    with torch.no_grad():
        score = correlation(model(data["test"][0])[0], data["test"][1])
    return score / params["noise_ceiling"]["correlation"]


def known(path):
    """Return the test correlation of the true rates, a noisy constant, and ridge regression, over the ceiling."""
    tiers = {tier: NeuroDataDataset(path, tier) for tier in ("train", "validation", "test")}
    data = {tier: tuple(part.double().flatten(1) for part in dataset.tensors()) for tier, dataset in tiers.items()}
    with h5py.File(path) as file:
        rates = torch.from_numpy(file["simulation/rates"][:][file["tiers"][:] == b"test"]).double()
    inputs, targets = data["train"]
    center, mean = inputs.mean(0), targets.mean(0)
    gram, moment = (inputs - center).T @ (inputs - center), (inputs - center).T @ (targets - mean)

    def predict(tier, alpha):
        return (data[tier][0] - center) @ torch.linalg.solve(gram + alpha * torch.eye(len(gram)), moment) + mean

    alpha = max(10.0 ** np.arange(0, 6), key=lambda a: correlation(predict("validation", a), data["validation"][1]))
    # A constant itself has no correlation; one that wavers as little as can be has that of chance.
    torch.manual_seed(0)
    constant = mean * (1 + 1e-6 * torch.randn(data["test"][1].shape, dtype=torch.float64))
    ceiling = tiers["train"].get_additional_model_params()["noise_ceiling"]["correlation"]
    return [correlation(p, data["test"][1]) / ceiling for p in (rates, constant, predict("test", alpha))]


@pytest.mark.slow
def test_ln_cells_are_predicted_to_ninety_percent_of_the_ceiling_by_every_seed(tmp_path):
    for seed in range(3):
        path = tmp_path / f"{seed}.h5"
        simulate_recording(path, Simulation(seed=seed))
        assert 0.92 < fit(path, "stimulus-encoding", seed) < 1.01


@pytest.mark.slow
def test_complex_cells_need_a_hidden_layer(tmp_path):
    path = tmp_path / "r.h5"
    simulate_recording(path, Simulation(complex_fraction=0.5))
    without, hidden = (fit(path, "stimulus-encoding", 0, build) for build in (linear, perceptron))
    assert without < 0.6
    assert 0.75 < hidden < 1.01


@pytest.mark.slow
def test_behaviour_explains_what_the_stimulus_cannot(tmp_path):
    path = tmp_path / "r.h5"
    ceiling = simulate_recording(path, Simulation(behavior_gain=0.5)).noise_ceiling
    stimulus, full = fit(path, "stimulus-encoding", 0), fit(path, "full-encoding", 0)
    assert 0.9 < stimulus < 1.01
    assert full < 1.01
    assert full * ceiling["full-encoding"] > stimulus * ceiling["stimulus-encoding"] + 0.02


@pytest.mark.slow
def test_a_linear_model_learns_the_gain_that_behaviour_sets(tmp_path):
    path = tmp_path / "r.h5"
    ceiling = simulate_recording(path, Simulation(behavior_gain=0.5)).noise_ceiling
    stimulus, full = (fit(path, mode, 0, LinearNonlinear) for mode in ("stimulus-encoding", "full-encoding"))
    assert 0.9 < stimulus < 1.01
    assert 0.92 < full < 1.01
    assert full * ceiling["full-encoding"] > stimulus * ceiling["stimulus-encoding"] + 0.1


FIELD = Simulation(neurons=100, images=4000, mean_rate=1)
"""The population of the field's synthetic check: 1000 trials of 100 test images."""


@pytest.mark.slow
def test_on_linear_cells_everybody_is_in_order_and_below_the_ceiling(tmp_path):
    path = tmp_path / "r.h5"
    ceiling = simulate_recording(path, FIELD).noise_ceiling["stimulus-encoding"]
    truth, constant, ridge = known(path)
    ln = fit(path, "stimulus-encoding", 0, LinearNonlinear)
    mlp = fit(path, "stimulus-encoding", 0)
    convolutional = fit(path, "stimulus-encoding", 0, ConvolutionalEncoder, learning_rate=5e-3, epochs=8)
    assert abs(truth - 1) * ceiling < 0.01
    assert abs(constant) * ceiling < 0.02
    assert ridge < ln
    assert min(ln, mlp, convolutional) >= 0.93
    assert max(ln, mlp, convolutional) * ceiling < ceiling + 0.01


@pytest.mark.slow
def test_on_complex_cells_a_shared_core_beats_a_hidden_layer_which_beats_a_filter(tmp_path):
    path = tmp_path / "r.h5"
    ceiling = simulate_recording(path, replace(FIELD, complex_fraction=0.5)).noise_ceiling["stimulus-encoding"]
    truth, constant, ridge = known(path)
    ln = fit(path, "stimulus-encoding", 0, LinearNonlinear)
    mlp = fit(path, "stimulus-encoding", 0)
    convolutional = fit(path, "stimulus-encoding", 0, ConvolutionalEncoder, learning_rate=5e-3, epochs=10)
    assert abs(truth - 1) * ceiling < 0.01
    assert abs(constant) * ceiling < 0.02
    assert ridge < ln
    assert mlp * ceiling >= ln * ceiling + 0.10
    assert convolutional > mlp + 0.02
    assert convolutional * ceiling < ceiling + 0.01


def test_shuffled_responses_predict_nothing(tmp_path):
    simulate_recording(tmp_path / "r.h5", Simulation(neurons=20, images=500))
    assert abs(fit(tmp_path / "r.h5", "stimulus-encoding", 0, shuffled=True)) < 0.15
