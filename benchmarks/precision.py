"""A sweep like the demo's on a GPU, with precision "auto" against "fp32": training samples per second, and score."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from report import Spread, table
from task_specs import task_spec

from synicix_core.training.spec import Unheard

__all__ = ["run", "sweep"]

RECORDINGS, HIDDEN_SIZES, SEEDS, EPOCHS = 3, (64, 256, 512, 1024), (0, 1), 20


def run() -> str:
    """Measure, and return what to print."""
    import torch

    if not torch.cuda.is_available():
        return "no GPU here: not measured"
    name = torch.cuda.get_device_name(0)
    return f"{name}, torch {torch.__version__} for CUDA {torch.version.cuda}\n" + sweep("cuda:0", ("fp32", "auto"))


def sweep(
    device: str,
    precisions: tuple[str, str],
    *,
    recordings: int = RECORDINGS,
    hidden_sizes: tuple[int, ...] = HIDDEN_SIZES,
    seeds: tuple[int, ...] = SEEDS,
    epochs: int = EPOCHS,
) -> str:
    """Train every task in both precisions, one right after the other, the first first in every second task."""
    from synicix_core.registry import get_registry
    from synicix_core.training.run import run_task

    registry = get_registry()
    outcomes: dict[str, list[Any]] = {precision: [] for precision in precisions}
    rates: dict[str, list[float]] = {precision: [] for precision in precisions}
    with tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        warm_up, *specs = _specs(Path(folder), device, recordings, hidden_sizes, seeds, epochs)
        for number, (spec, examples) in enumerate([warm_up, warm_up, *specs]):
            for precision in precisions if number % 2 else reversed(precisions):
                trainer = dataclasses.replace(spec.trainer, params={**spec.trainer.params, "precision": precision})
                outcome = run_task(dataclasses.replace(spec, trainer=trainer), registry, Unheard())
                if number:  # the first training pays for the start of the GPU
                    outcomes[precision].append(outcome)
                    rates[precision].append(examples * outcome.epochs / outcome.train_seconds)
    base = precisions[0]
    rows = []
    for precision in precisions:
        rate = Spread(tuple(rates[precision]))
        scores = Spread(tuple(outcome.test_score for outcome in outcomes[precision]))
        difference = scores.minus(Spread(tuple(outcome.test_score for outcome in outcomes[base])))
        rows.append(
            [
                f"{precision} = {outcomes[precision][0].provenance['precision']}",
                rate.text(0),
                rate.over(Spread(tuple(rates[base]))).text(2),
                scores.text(4),
                difference.text(4),
            ]
        )
    header = ["precision", "training samples/s", f"ratio to {base}", "test correlation", f"minus {base}"]
    return table(header, rows) + (
        f"\n{len(rates[base])} tasks ({recordings} simulated recordings x SimpleMLP {hidden_sizes} x seeds {seeds}),"
        f" {epochs} epochs, batch 64; median (min..max) over the tasks, which are trained in pairs."
        "\nThe time is that of training with its validation passes."
    )


def _specs(
    folder: Path, device: str, recordings: int, hidden_sizes: tuple[int, ...], seeds: tuple[int, ...], epochs: int
) -> list[tuple[Any, int]]:
    from synicix_neurodata.dataset import NeuroDataDataset
    from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording

    made: list[tuple[Any, int]] = []
    for session in range(1, recordings + 1):
        path = folder / recording_name(session)
        simulate_recording(path, Simulation(), session=session)
        for hidden_size in hidden_sizes:
            for seed in seeds:
                spec = task_spec(
                    len(made),
                    path,
                    folder,
                    dataset="NeuroDataDataset",
                    model=(
                        "synicix-mlp/SimpleMLP",
                        {"num_hidden_layers": 2, "hidden_size": hidden_size, "l2_loss_lamda": 1e-4},
                    ),
                    trainer_params={"early_stopping_patience": None},
                    learning_rate=1e-3,
                    criterion="synicix-neurodata/PoissonLoss",
                    metric="synicix-core/correlation",
                    batch_size=64,
                    epochs=epochs,
                    seed=seed,
                    device=device,
                )
                made.append((spec, len(NeuroDataDataset(str(path), "train"))))
    return made
