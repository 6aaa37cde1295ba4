"""`synicix-run add` and `check`: from an experiment file to rows, and whether what it asks for works."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.wording import count

if TYPE_CHECKING:
    from synicix_core.experiment import Plan
    from synicix_core.pipeline import Pipeline

__all__ = ["add", "check"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_dataset_dir = click.option(
    "--dataset-dir", type=click.Path(file_okay=False, path_type=Path), help="Where the dataset files lie."
)


@click.command(cls=Command)
@click.argument("file", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Say what would be added, and add nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before adding very many tasks.")
@_dataset_dir
@json_option
@pass_place
def add(place: Place, file: Path, dry_run: bool, yes: bool, dataset_dir: Path | None, as_json: bool) -> None:
    """Add the configs and tasks of an experiment file.

    What is there already is counted and left alone, so adding twice adds nothing.
    """
    from synicix_core.experiment import MAX_TASKS_UNASKED
    from synicix_core.experiment import add as add_plan

    pipeline, plan = _plan(place, file, dataset_dir)
    if plan.task_count > MAX_TASKS_UNASKED and not dry_run and not yes:
        _ask(plan.task_count)
    summary = add_plan(pipeline, plan, dry_run=dry_run)
    if as_json:
        print_json(summary.to_dict())
        return
    click.echo(str(summary))
    new = summary.tables["TrainingTask"].new
    if dry_run:
        click.echo(f"{count(new, 'task')} would be added; nothing was.")
    elif new:
        click.echo(f"{count(new, 'task')} added. To train, run: synicix-run populate")
    else:
        click.echo("No task is new.")


@click.command(cls=Command)
@click.argument("file", metavar="[FILE]", required=False, type=_FILE)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda:0, …; auto takes a GPU where there is one."
)
@_dataset_dir
@json_option
@pass_place
def check(place: Place, file: Path | None, device: str, dataset_dir: Path | None, as_json: bool) -> None:
    """Try one batch of each combination.

    Builds each distinct combination of datasets, models and trainings of an experiment FILE and runs one batch forward
    and backward. Without FILE the tasks that have no result yet are checked. Nothing is inserted, claimed or saved. Ends with 1 if
    something does not work.
    """
    from synicix_core.experiment.check import CheckResult
    from synicix_core.experiment.check import check as check_combinations

    what: Any
    if file is None:
        pipeline = place.pipeline(dataset_dir=dataset_dir)
        what = (pipeline.TrainingTask - pipeline.TrainingResult).proj()
    else:
        pipeline, what = _plan(place, file, dataset_dir)
    number = itertools.count(1)

    def say(result: CheckResult, total: int) -> None:
        label = click.style("ok  ", fg="green") if result.ok else click.style("FAIL", fg="red")
        names = f"{result.dataset} | {result.model} | {result.training}"
        click.echo(f"{label} {next(number)}/{total} {names} ({count(result.tasks, 'task')}, {result.seconds:.1f} s)")
        if not result.ok:
            click.echo(f"     {result.reason}")
        for note in result.notes:
            click.echo(f"     note: {note}")

    results = check_combinations(pipeline, what, device=device, observe=None if as_json else say)
    failed = sum(not result.ok for result in results)
    if as_json:
        print_json({"checked": len(results), "failed": failed, "combinations": [vars(result) for result in results]})
    elif results:
        click.echo(f"{count(len(results), 'combination')} checked, {failed} failed.")
    else:
        click.echo("There is nothing to check.")
    if failed:
        click.get_current_context().exit(1)


def _plan(place: Place, file: Path, dataset_dir: Path | None) -> tuple[Pipeline, Plan]:
    from synicix_core.experiment import expand, read_experiment

    experiment = read_experiment(file)
    settings = place.settings(dataset_dir=dataset_dir)
    # What the file alone can show is found before a database is needed.
    plan = expand(experiment, settings.dataset_dir, follow_symlinks=settings.follow_symlinks)
    return place.pipeline(dataset_dir=dataset_dir), plan


def _ask(tasks: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{tasks:,} tasks would be added. If that is meant, add --yes.")
    if not click.confirm(f"{tasks:,} tasks would be added. Add them?", err=True):
        click.echo("Nothing was added.", err=True)
        click.get_current_context().exit(1)
