"""Models of simulated neurons against the ceiling: single-trial correlation on the test tier, and seconds per fit."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from report import table
from task_specs import task_spec

from synicix_core.training.spec import Unheard

__all__ = ["run"]

NEURONS, IMAGES, TEST_IMAGES, REPEATS, MEAN_RATE, IMAGE_SHAPE = 100, 4000, 100, 10, 1.0, (16, 24)
POPULATIONS = {"linear-nonlinear": 0.0, "half complex": 0.5}
BATCH, EPOCHS, PATIENCE = 64, 100, 6
ALPHAS = 10.0 ** np.arange(0, 6.5, 0.5)

FITS: tuple[tuple[str, str, dict[str, Any], float], ...] = (
    ("LinearNonlinear", "synicix-neurodata/LinearNonlinear", {}, 2e-3),
    ("SimpleMLP, 256 units", "synicix-mlp/SimpleMLP", {"hidden_size": 256, "l2_loss_lamda": 1e-3}, 2e-3),
    ("ConvolutionalEncoder", "synicix-neurodata/ConvolutionalEncoder", {}, 5e-3),
    ("  with gaussian readout", "synicix-neurodata/ConvolutionalEncoder", {"readout": "gaussian"}, 5e-3),
)
"""Name, provider, what differs from its defaults, and learning rate."""


@dataclass(frozen=True)
class Score:
    """What one predictor reached, in single-trial correlation on the test tier, and how long it took to fit."""

    predictor: str
    correlation: float
    seconds: float


def run() -> str:
    """Measure, and return what to print."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        for name, complex_fraction in POPULATIONS.items():
            path = Path(folder) / f"{complex_fraction}.h5"
            ceiling = _simulate(path, complex_fraction)
            rows.append([name, "ceiling, in closed form", f"{ceiling:.3f}", "1.000", ""])
            rows += [
                ["", score.predictor, f"{score.correlation:.3f}", f"{score.correlation / ceiling:.3f}", took]
                for score in [*_known(path), *(_trained(path, number) for number in range(len(FITS)))]
                for took in [f"{score.seconds:.1f}" if score.seconds else ""]
            ]
    header = ["cells", "predictor", "correlation", "of the ceiling", "s"]
    return table(header, rows) + (
        f"\n{NEURONS} neurons of mean count {MEAN_RATE:g}, images of {IMAGE_SHAPE[0]} x {IMAGE_SHAPE[1]}: {IMAGES} to train"
        f" on, {-(-IMAGES // 9)} to validate,\n{TEST_IMAGES} x {REPEATS} to test. NNTrainer: Adam, PoissonLoss, batch {BATCH},"
        f" stopped {PATIENCE} epochs after the best validation correlation.\nParameters are the models' defaults, but for"
        " SimpleMLP's l2_loss_lamda = 0.001. Ridge: its penalty is chosen on the validation tier."
    )


def _simulate(path: Path, complex_fraction: float) -> float:
    """Write a recording, and return the highest mean correlation that a model can reach on its test tier."""
    from synicix_neurodata.simulate import Simulation, simulate_recording

    simulation = Simulation(
        neurons=NEURONS,
        images=IMAGES,
        test_images=TEST_IMAGES,
        repeats=REPEATS,
        complex_fraction=complex_fraction,
        mean_rate=MEAN_RATE,
        image_shape=IMAGE_SHAPE,
    )
    return simulate_recording(path, simulation).noise_ceiling["stimulus-encoding"]


def _known(path: Path) -> list[Score]:
    """Score what needs no gradient descent: the truth, the mean response, ridge regression."""
    from synicix_neurodata.dataset import NeuroDataDataset

    data = {}
    for tier in ("train", "validation", "test"):
        inputs, targets = NeuroDataDataset(path, tier).tensors()
        assert isinstance(inputs, torch.Tensor)  # one input has no name
        data[tier] = inputs.flatten(1).numpy().astype(float), targets.numpy().astype(float)
    targets = data["test"][1]
    constant = np.broadcast_to(data["train"][1].mean(axis=0), targets.shape)
    with h5py.File(path) as file:
        rates = file["simulation/rates"][:][file["tiers"][:] == b"test"]
    started = time.monotonic()
    prediction = _ridge(data)
    seconds = time.monotonic() - started
    return [
        Score("true rates", _correlation(rates, targets), 0.0),
        Score("mean response", _correlation(constant, targets), 0.0),
        Score("ridge regression", _correlation(prediction, targets), seconds),
    ]


def _ridge(data: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Predict the test tier by the ridge regression that is best on the validation tier."""
    inputs, targets = data["train"]
    center, mean = inputs.mean(axis=0), targets.mean(axis=0)
    values, vectors = np.linalg.eigh((inputs - center).T @ (inputs - center))
    projected = vectors.T @ ((inputs - center).T @ (targets - mean))

    def predicted(tier: str, alpha: float) -> NDArray[np.float64]:
        weights = vectors @ (projected / (values + alpha)[:, None])
        return np.asarray((data[tier][0] - center) @ weights + mean)

    best = max(ALPHAS, key=lambda alpha: _correlation(predicted("validation", alpha), data["validation"][1]))
    return predicted("test", best)


def _trained(path: Path, number: int) -> Score:
    """Train the model of a fit as a worker does, and return its score."""
    from synicix_core.registry import get_registry
    from synicix_core.training.run import run_task

    name, provider, params, learning_rate = FITS[number]
    spec = task_spec(
        number,
        path,
        path.parent,
        dataset="NeuroDataDataset",
        model=(provider, params),
        trainer_params={"early_stopping_patience": PATIENCE},
        learning_rate=learning_rate,
        criterion="synicix-neurodata/PoissonLoss",
        metric="synicix-core/correlation",
        batch_size=BATCH,
        epochs=EPOCHS,
    )
    outcome = run_task(spec, get_registry(), Unheard())
    assert outcome.test_score is not None
    return Score(name, outcome.test_score, outcome.train_seconds)


def _correlation(outputs: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Return the mean over neurons of the correlation over trials, as the core's metric has it."""
    from synicix_core.training.metrics import Correlation

    return float(Correlation()(torch.tensor(outputs), torch.tensor(targets)).mean())
