"""`synicix-run neurodata`: commands around neural recordings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from synicix_neurodata.simulate import SimulatedRecording

__all__ = ["neurodata"]


@click.group()
def neurodata() -> None:
    """Make neural recordings to train on."""


@neurodata.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--recordings", type=click.IntRange(1, 255), default=1, show_default=True, help="Recordings to write.")
@click.option(
    "--neurons", type=click.IntRange(1, 65535), default=60, show_default=True, help="Cells of each recording."
)
@click.option(
    "--images", type=click.IntRange(min=2), default=1500, show_default=True, help="Training images, shown once."
)
@click.option("--test-images", type=click.IntRange(min=2), default=100, show_default=True, help="Test images.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Showings of a test image.")
@click.option(
    "--complex-fraction",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of complex (energy) cells.",
)
@click.option(
    "--behavior-gain",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How strongly running multiplies the rates.",
)
@click.option(
    "--mean-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Mean spike count of a cell in one trial.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same recordings.")
@click.option("--force", is_flag=True, help="Replace recordings that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(
    output: Path,
    recordings: int,
    neurons: int,
    images: int,
    test_images: int,
    repeats: int,
    complex_fraction: float,
    behavior_gain: float,
    mean_rate: float,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write simulated recordings of visual cortex into the folder OUTPUT.

    Cells see natural-like images through Gabor filters and answer with Poisson counts, so the highest correlation that
    a model can reach is known; it is printed, and stored in each file.
    """
    from synicix_core.errors import DatasetError
    from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording

    simulation = Simulation(
        neurons=neurons,
        images=images,
        test_images=test_images,
        repeats=repeats,
        complex_fraction=complex_fraction,
        behavior_gain=behavior_gain,
        mean_rate=mean_rate,
        seed=seed,
    )
    paths = [output / recording_name(session) for session in range(1, recordings + 1)]
    existing = [path.name for path in paths if path.exists()]
    if existing and not force:
        raise DatasetError(
            "Nothing was written",
            file=str(output),
            why=f"{', '.join(existing)} exist{'s' if len(existing) == 1 else ''} already",
            hint="Name another folder, or add --force to replace them.",
        )
    total = simulation.trials * recordings
    with click.progressbar(length=total, label="Simulating", file=sys.stderr) as bar:
        written = [
            simulate_recording(path, simulation, session=session, overwrite=force, progress=bar.update)
            for session, path in enumerate(paths, 1)
        ]
    if as_json:
        click.echo(json.dumps([_as_dict(recording, neurons, seed) for recording in written], indent=2))
    else:
        click.echo(_table(written, neurons))
        click.echo("ceiling: highest mean single-trial correlation on the test tier for a model that sees the images.")


def _as_dict(recording: SimulatedRecording, neurons: int, seed: int) -> dict[str, object]:
    return {
        "file": str(recording.file),
        "neurons": neurons,
        "tiers": recording.tier_sizes,
        "mean_count": recording.mean_count,
        "noise_ceiling": recording.noise_ceiling,
        "bytes": recording.file.stat().st_size,
        "seed": seed,
    }


def _table(written: list[SimulatedRecording], neurons: int) -> str:
    rows = [["recording", "train", "validation", "test", "neurons", "mean count", "ceiling", "MB"]]
    for recording in written:
        sizes = [str(size) for size in recording.tier_sizes.values()]
        ceiling = recording.noise_ceiling.get("stimulus-encoding")
        rows.append(
            [
                str(recording.file),
                *sizes,
                str(neurons),
                f"{recording.mean_count:.2f}",
                "-" if ceiling is None else f"{ceiling:.3f}",
                f"{recording.file.stat().st_size / 1e6:.1f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(lines)
