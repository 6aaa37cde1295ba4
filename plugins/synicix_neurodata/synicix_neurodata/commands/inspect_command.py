"""`synicix-run neurodata inspect`: what is in a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_neurodata.commands.layout_params import layout_params_option
from synicix_neurodata.commands.progress import progress

if TYPE_CHECKING:
    from synicix_neurodata.inspection import Inspection

__all__ = ["inspect"]

_MODES = ("stimulus-encoding", "full-encoding", "behavior-encoding", "decoding")


@click.command(short_help="Tell what is in a recording.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--mode", "modes", type=click.Choice(_MODES), multiple=True, help="Try this mode only. May be repeated.")
@layout_params_option
@click.option("--quick", is_flag=True, help="Read shapes, tiers and neurons only, no values.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw stimuli, tuning and responses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(
    file: Path, modes: tuple[Any, ...], layout_params: dict[str, Any], quick: bool, png: Path | None, as_json: bool
) -> None:
    """Tell what is in the recording FILE, a file or a folder of any layout.

    Layout, shapes, tiers, neurons, repeats, missing values, how reliable the responses are, and which modes of
    NeuroDataDataset it can be used with. The recording is read in blocks, whatever its size, and never written to.
    """
    _check_picture(png, quick, file)
    from synicix_neurodata.inspection import bytes_to_read, inspect_recording
    from synicix_neurodata.inspection_data import as_data
    from synicix_neurodata.inspection_text import as_text
    from synicix_neurodata.layouts import describe_recording

    length = 1 if quick else bytes_to_read(describe_recording(file, layout_params))
    with progress("Reading", length) as read:
        inspection = inspect_recording(file, layout_params, modes=modes, quick=quick, progress=read)
    click.echo(json.dumps(as_data(inspection), indent=2) if as_json else as_text(inspection))
    if inspection.problems:
        raise _damaged(inspection)
    if png is not None:
        from synicix_neurodata.picture import draw

        draw(inspection, png)
        click.echo(f"Drew {png}", err=True)


def _check_picture(png: Path | None, quick: bool, recording: Path) -> None:
    """Refuse what would only turn out after the recording has been read."""
    if png is None:
        return
    if quick:
        raise click.UsageError("--quick reads no values, so there is nothing to draw: leave out --quick or --png.")
    if png.suffix.lower() != ".png":
        raise click.UsageError(f"--png names {png}, which does not end in .png.")
    if recording.resolve() in png.resolve().parents:
        raise click.UsageError(f"--png names {png}, which is in the folder of the recording; nothing is written there.")
    if not png.parent.is_dir():
        raise click.UsageError(f"--png names {png}, and there is no folder {png.parent}.")
    from synicix_neurodata.picture import check_matplotlib

    check_matplotlib()


def _damaged(inspection: Inspection) -> Exception:
    from synicix_core.errors import DatasetError

    return DatasetError(
        "A part of the recording cannot be read",
        file=inspection.recording.path,
        why="; ".join(inspection.problems),
        hint="Copy it again from where it came from.",
    )
