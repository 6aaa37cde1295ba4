"""`synicix-run neurodata simulate`: recordings whose noise ceiling is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_neurodata.commands.progress import progress

if TYPE_CHECKING:
    from synicix_neurodata.simulate import SimulatedRecording

__all__ = ["simulate"]

_FRAMES = 60

_IMAGES, _MOVIES = (1500, 100), (150, 10)
"""Training and test images, or movies, where nothing is said."""


if TYPE_CHECKING:
    _TextType = click.ParamType[str]
else:
    # Older versions of click have no generic types.
    _TextType = click.ParamType


class _LayoutName(_TextType):
    """A name of a layout that can be written; the list is loaded only when it is needed."""

    name = "layout"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return click.Choice(_layouts()).convert(value, param, ctx)

    def get_metavar(
        self,
        param: click.Parameter,  # noqa: ARG002  # as click calls it
        ctx: click.Context | None = None,  # noqa: ARG002  # click before 8.2 passes none
    ) -> str:
        return f"[{'|'.join(_layouts())}]"


def _layouts() -> list[str]:
    from synicix_neurodata.writers.choice import WRITTEN

    return list(WRITTEN)


def _image_size(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if found is None:
        raise click.BadParameter(f"expected height and width such as 16x24, got {value!r}.", ctx, param)
    height, width = map(int, found.groups())
    if min(height, width) < 8:
        raise click.BadParameter(f"{value} is too small: a side has at least 8 pixels.", ctx, param)
    return height, width


@click.command(short_help="Write simulated recordings, whose noise ceiling is known.")
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--layout", type=_LayoutName(), default="static-hdf5", show_default=True, help="How each recording is written."
)
@click.option("--recordings", type=click.IntRange(1, 255), default=1, show_default=True, help="Recordings to write.")
@click.option(
    "--neurons", type=click.IntRange(1, 65535), default=60, show_default=True, help="Cells of each recording."
)
@click.option(
    "--images",
    type=click.IntRange(min=2),
    default=None,
    help="Training images, shown once; in a layout of movies, training movies.  [default: 1500, or 150 movies]",
)
@click.option(
    "--test-images",
    type=click.IntRange(min=2),
    default=None,
    help="Test images, or movies.  [default: 100, or 10 movies]",
)
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Showings of a test image.")
@click.option(
    "--frames", type=click.IntRange(min=1), default=None, help="Frames of a movie.  [default: 60; none for images]"
)
@click.option(
    "--image-size",
    metavar="HxW",
    default="16x24",
    show_default=True,
    callback=_image_size,
    help="Height and width in pixels.",
)
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
    help="Mean spike count of a cell in one trial, or frame.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same recordings.")
@click.option("--force", is_flag=True, help="Replace recordings that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(
    output: Path,
    layout: str,
    recordings: int,
    neurons: int,
    images: int | None,
    test_images: int | None,
    repeats: int,
    frames: int | None,
    image_size: tuple[int, int],
    complex_fraction: float,
    behavior_gain: float,
    mean_rate: float,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write simulated recordings of visual cortex into the folder OUTPUT.

    Cells see natural-like images or movies through Gabor filters and answer with Poisson counts, so the highest
    correlation that a model can reach is known; it is printed, and stored in each recording.
    """
    from synicix_core.errors import DatasetError
    from synicix_neurodata.simulate import Simulation, recording_name, simulate_recording
    from synicix_neurodata.writers.choice import WRITTEN

    movie = WRITTEN[layout].movie
    if frames is not None and not movie:
        movies = ", ".join(name for name, written in WRITTEN.items() if written.movie) or "none"
        raise click.UsageError(
            f"--frames is for movies, and {layout} is a layout of images. Layouts of movies: {movies}."
        )
    default_images, default_tests = _MOVIES if movie else _IMAGES
    simulation = Simulation(
        neurons=neurons,
        images=default_images if images is None else images,
        test_images=default_tests if test_images is None else test_images,
        repeats=repeats,
        complex_fraction=complex_fraction,
        behavior_gain=behavior_gain,
        mean_rate=mean_rate,
        image_shape=image_size,
        frames=(frames or _FRAMES) if movie else 0,
        seed=seed,
    )
    paths = [output / recording_name(session, layout) for session in range(1, recordings + 1)]
    existing = [path.name for path in paths if path.exists()]
    if existing and not force:
        raise DatasetError(
            "Nothing was written",
            file=str(output),
            why=f"{', '.join(existing)} exist{'s' if len(existing) == 1 else ''} already",
            hint="Name another folder, or add --force to replace them.",
        )
    with progress("Simulating", simulation.trials * recordings) as written_trials:
        written = [
            simulate_recording(
                path, simulation, session=session, layout=layout, overwrite=force, progress=written_trials
            )
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
        "bytes": _size(recording.file),
        "seed": seed,
    }


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


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
                f"{_size(recording.file) / 1e6:.1f}",
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
