"""A SimpleMLP on simulated cells comes close to the ceiling that the recording states, and stays below it."""

from __future__ import annotations

import pytest
import torch
from synicix_mlp.model import SimpleMLP
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.losses import PoissonLoss
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


def fit(path, mode, seed, shuffled=False, num_hidden_layers=1):
    """Train with early stopping on the validation loss; return the test correlation over the ceiling."""
    tiers = {tier: NeuroDataDataset(path, tier, mode=mode) for tier in ("train", "validation", "test")}
    params = tiers["train"].get_additional_model_params()
    data = {tier: dataset.tensors() for tier, dataset in tiers.items()}
    torch.manual_seed(seed)
    model = SimpleMLP(
        tiers["train"].input_shape,
        tiers["train"].output_shape,
        num_hidden_layers=num_hidden_layers,
        hidden_size=HIDDEN,
        l2_loss_lamda=L2,
        nonnegative_output=params["nonnegative_output"],
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    criterion = PoissonLoss()
    inputs, targets = data["train"]
    if shuffled:
        targets = targets[torch.randperm(len(targets))]
    best, best_epoch, weights = float("inf"), 0, model.state_dict()
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(targets)).split(BATCH):
            output, penalty = model(rows(inputs, index))
            optimizer.zero_grad()
            (criterion(output, targets[index]) + penalty).backward()
            optimizer.step()
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
    linear, hidden = (fit(path, "stimulus-encoding", 0, num_hidden_layers=layers) for layers in (0, 1))
    assert linear < 0.6
    assert 0.75 < hidden < 1.01


@pytest.mark.slow
def test_behaviour_explains_what_the_stimulus_cannot(tmp_path):
    path = tmp_path / "r.h5"
    ceiling = simulate_recording(path, Simulation(behavior_gain=0.5)).noise_ceiling
    stimulus, full = fit(path, "stimulus-encoding", 0), fit(path, "full-encoding", 0)
    assert 0.9 < stimulus < 1.01
    assert full < 1.01
    assert full * ceiling["full-encoding"] > stimulus * ceiling["stimulus-encoding"] + 0.02


def test_shuffled_responses_predict_nothing(tmp_path):
    simulate_recording(tmp_path / "r.h5", Simulation(neurons=20, images=500))
    assert abs(fit(tmp_path / "r.h5", "stimulus-encoding", 0, shuffled=True)) < 0.15
