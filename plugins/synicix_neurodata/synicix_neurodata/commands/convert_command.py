"""`synicix-run neurodata convert`: a recording of any layout as one HDF5 file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from synicix_neurodata.commands.layout_params import layout_params_option
from synicix_neurodata.commands.progress import progress

__all__ = ["convert"]


@click.command(short_help="Write a recording of any layout as one HDF5 file.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@layout_params_option
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def convert(source: Path, output: Path, layout_params: dict[str, Any], force: bool, as_json: bool) -> None:
    """Write the recording SOURCE, of any layout, as one HDF5 file OUTPUT.

    Recordings of images become static HDF5, recordings of movies movie HDF5. If OUTPUT is a folder, the file gets the
    name of SOURCE in it. Tiers, columns, neurons and types of numbers stay as they are.
    """
    from synicix_neurodata.convert import convert_recording, converted_path
    from synicix_neurodata.inspection_text import bytes_text
    from synicix_neurodata.layouts import describe_recording

    recording = describe_recording(source, layout_params)
    target = converted_path(source, output)
    with progress("Converting", recording.trials) as written:
        result = convert_recording(source, target, layout_params, overwrite=force, progress=written)
    if as_json:
        click.echo(json.dumps(result.as_data(), indent=2))
        return
    click.echo(
        f"{result.file}: {result.trials:,} trials, {bytes_text(result.bytes)}, {result.layout} (was {result.source_layout})"
    )
    for note in result.notes:
        click.echo(f"note: {note}")
