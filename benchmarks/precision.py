"""A sweep like the demo's on a GPU, with precision "auto" against "fp32": training samples per second, and score."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from nobody import Nobody
from report import Spread, table

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
                outcome = run_task(dataclasses.replace(spec, trainer=trainer), registry, Nobody())
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
    from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording

    from synicix_core.registry import get_registry
    from synicix_core.training.inspect_dataset import inspect_dataset
    from synicix_core.training.spec import TIERS, Component, TaskSpec

    registered = get_registry().resolve("dataset", "NeuroDataDataset")
    made: list[tuple[Any, int]] = []
    for session in range(1, recordings + 1):
        path = folder / recording_name(session)
        simulate_recording(path, Simulation(), session=session)
        facts = inspect_dataset(registered, path, {})
        for hidden_size in hidden_sizes:
            for seed in seeds:
                model = {"num_hidden_layers": 2, "hidden_size": hidden_size, "l2_loss_lamda": 1e-4}
                spec = TaskSpec(
                    task=f"{len(made):032x}",
                    attempt=1,
                    dataset=Component("dataset", registered.qualified, {}),
                    dataset_path=str(path),
                    samplers=dict.fromkeys(TIERS),
                    input_shape=facts.input_shape,
                    output_shape=facts.output_shape,
                    additional_model_params=facts.additional_model_params,
                    model=Component("model", "synicix-mlp/SimpleMLP", model),
                    trainer=Component("trainer", "synicix-core/NNTrainer", {"early_stopping_patience": None}),
                    optimizer=Component("optimizer", "synicix-core/Adam", {"lr": 1e-3}),
                    criterion=Component("criterion", "synicix-neurodata/PoissonLoss", {}),
                    metrics=(Component("metric", "synicix-core/correlation", {}),),
                    batch_size=64,
                    epoch_limit=epochs,
                    seed=seed,
                    device=device,
                    num_workers=0,
                    model_save_path=str(folder / f"{len(made)}.pt"),
                    checkpoint_path=str(folder / f"{len(made)}.checkpoint"),
                    project_commit="",
                )
                made.append((spec, facts.tier_sizes["train"]))
    return made
