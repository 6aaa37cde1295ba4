"""`synicix-run load`: make sure that a trained model loads, and say how."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = ["load"]


@click.command(cls=Command)
@click.argument("task")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Copy the state_dict to this file."
)
@click.option("--force", is_flag=True, help="Replace the file that -o names.")
@json_option
@pass_place
def load(place: Place, task: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Load a trained model, and say how.

    Rebuilds the model of TASK, makes sure that its file is the one that was saved, and shows what it is.
    """
    pipeline = place.pipeline()
    md5 = pipeline.task(task)
    # Rebuilds the model and compares the file's sha256 with the row's.
    model = pipeline.load_model(md5)
    path, sha256 = _saved(pipeline, md5)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if output is not None:
        _copy(path, output, force)
    if as_json:
        print_json(
            {
                "task": md5,
                "model": pipeline.spec(md5).model.provider,
                "architecture": str(model),
                "parameters": parameters,
                "file": path,
                "sha256": sha256,
                "copied_to": output,
            }
        )
        return
    click.echo(f"{model}\n")
    click.echo(f"parameters  {parameters:,}")
    click.echo(f"file        {path}")
    click.echo(f"sha256      {sha256}")
    if output is not None:
        click.echo(f"copied to   {output}")
    click.echo(
        f"""
In Python:
  from synicix_core import Pipeline
  model = Pipeline().load_model("{md5[:8]}")"""
    )


def _saved(pipeline: Pipeline, task: str) -> tuple[Path, str]:
    row = (pipeline.TrainingResult & {"training_task_md5_hash": task}).proj("model_save_path", "model_sha256").fetch1()
    return pipeline.settings.model_save_dir / row["model_save_path"], str(row["model_sha256"])


def _copy(source: Path, output: Path, force: bool) -> None:
    from synicix_core.errors import ConfigurationError

    if output.exists() and not force:
        raise ConfigurationError("the file exists already", where=str(output), hint="To replace it, add --force.")
    try:
        shutil.copyfile(source, output)
    except OSError as error:
        raise ConfigurationError(
            "the model cannot be copied", where=str(output), why=error.strerror or str(error)
        ) from error
