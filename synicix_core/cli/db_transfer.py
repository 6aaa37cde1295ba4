"""`synicix-run db export` and `db import`: move a project's rows to another database."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.wording import count

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.tables.transfer_export import Exported
    from synicix_core.tables.transfer_files import FileFacts
    from synicix_core.tables.transfer_import import Imported

__all__ = ["export_", "import_"]

_TASKS = {
    "new": ("is new", "are new"),
    "ahead": ("went on in the export, and goes on from there", "went on in the export, and go on from there"),
    "same": ("is here already", "are here already"),
    "behind": (
        "is further here than in the export, or queued otherwise, and stays as it is",
        "are further here than in the export, or queued otherwise, and stay as they are",
    ),
    "conflict": ("contradicts what is here and was left as it is", "contradict what is here and were left as they are"),
}


@click.command("export", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--running",
    type=click.Choice(["refuse", "release"]),
    default="refuse",
    show_default=True,
    help="What to do about tasks that are being trained; release has them pending in the export.",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
@json_option
@pass_place
def export_(place: Place, file: Path, running: str, force: bool, as_json: bool) -> None:
    """Write all rows into FILE, to move them to another database.

    Configs, tasks, attempts, results and the queue, as they are at one moment. Models, checkpoints and histories stay
    where they are; it says where, and how large they are. Nothing changes in this database.
    """
    from synicix_core.errors import ConfigurationError

    if file.exists() and not force:
        raise ConfigurationError("the file exists already", where=str(file), hint="To replace it, add --force.")
    if not file.absolute().parent.is_dir():
        raise ConfigurationError("there is no such directory", where=str(file.absolute().parent))
    pipeline = place.pipeline()
    from synicix_core.tables.transfer_export import export_database

    with _Bars() as progress:
        done = export_database(
            pipeline.tables,
            file,
            pipeline.settings.model_save_dir,
            _database(pipeline),
            release_running=running == "release",
            progress=progress,
        )
    if as_json:
        print_json({"file": file.absolute(), "size": file.stat().st_size, **vars(done), "files": vars(done.files)})
        return
    _tell_export(pipeline, file, done)


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--keep-existing", is_flag=True, help="Leave tasks that contradict what is here as they are, and import the rest."
)
@click.option(
    "--files",
    type=click.Choice(["sample", "all", "none"]),
    default="sample",
    show_default=True,
    help="Of how many results to read the models and histories, to prove that they are within reach.",
)
@json_option
@pass_place
def import_(place: Place, file: Path, keep_existing: bool, files: str, as_json: bool) -> None:
    """Write the rows in FILE, made by db export, into this database.

    All of them or, if anything is wrong, none. Rows that are here already are skipped, so it may be done twice.
    """
    from synicix_core.tables.transfer_file import ExportFile

    export = ExportFile(file)
    pipeline = place.pipeline()
    from synicix_core.tables.transfer_conflicts import ImportConflicts
    from synicix_core.tables.transfer_import import import_database

    try:
        with _Bars() as progress:
            done = import_database(
                pipeline.tables,
                export,
                pipeline.settings.model_save_dir,
                pipeline.registry,
                keep_existing=keep_existing,
                files=files,
                progress=progress,
            )
    except ImportConflicts as error:
        if as_json:
            print_json({"imported": False, "conflicts": [vars(conflict) for conflict in error.conflicts]})
        raise
    absent = _absent(pipeline, done.dataset_files)
    if as_json:
        facts = vars(done) | {"conflicts": [vars(conflict) for conflict in done.conflicts]}
        facts |= {"missing_dataset_files": absent}
        print_json({"imported": True, "export_sha256": export.sha256, "schema": pipeline.schema_name, **facts})
        return
    _tell_import(pipeline, export.manifest, done, absent)


class _Bars:
    """Shows how far a long command is, one bar after the other, where somebody is looking."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.close()

    def start(self, label: str, total: int) -> None:
        """Begin a stage."""
        self._bars.close()
        if sys.stderr.isatty() and total:
            bar = click.progressbar(length=total, label=label, file=sys.stderr, update_min_steps=max(total // 200, 1))
            self._bar = self._bars.enter_context(bar)
        else:
            self._bar = None

    def advance(self, steps: int) -> None:
        """Note steps."""
        if self._bar is not None:
            self._bar.update(steps)


def _database(pipeline: Pipeline) -> str:
    """Return where the database is, for people; never as whom."""
    from synicix_core.database import configured_server

    server = configured_server(pipeline.settings.project_dir)
    if server is None:
        return f"PostgreSQL inside {pipeline.settings.project_dir}"
    return str(server).partition(" as user ")[0]


def _tell_export(pipeline: Pipeline, file: Path, done: Exported) -> None:
    rows = done.rows
    click.echo(
        f"Exported {count(rows['TrainingTask'], 'task')} with {count(rows['TrainingResult'], 'result')} and "
        f"{count(rows['TrainingAttempt'], 'attempt')} of schema {pipeline.schema_name} ({_database(pipeline)}) "
        f"to {file}, {_bytes(file.stat().st_size)}."
    )
    if done.released:
        click.echo(f"{count(done.released, 'task')} being trained here {_are(done.released)} pending in it.")
    click.echo("\nNot in the export; copy these, or leave them where the importing project sees them:")
    for line in _file_lines(done.files):
        click.echo(f"  {line}")
    if done.other_tables:
        click.echo(f"\nOther tables of the schema are not in it: {', '.join(done.other_tables)}")
    click.echo(
        "\nStop the workers here that wait for tasks, if there are any: they would train what is in the export. From the "
        "import on, use that database alone: workers of both would train the same tasks into the same files."
    )
    click.echo(f"There, run: synicix-run db import {file}")


def _file_lines(files: FileFacts) -> list[str]:
    missing = (
        f", of which {files.models_missing:,} {_are(files.models_missing)} missing" if files.models_missing else ""
    )
    return [
        f"{count(files.models, 'model')}, {_bytes(files.model_bytes)}{missing}: {files.model_save_dir}",
        f"{count(files.checkpoints, 'checkpoint')}, {_bytes(files.checkpoint_bytes)}: {files.model_save_dir}",
        f"the histories of {count(files.models, 'result')} ({count(files.histories, 'file')}), "
        f"{_bytes(files.history_bytes)}: {files.store}",
    ]


def _tell_import(pipeline: Pipeline, manifest: Mapping[str, Any], done: Imported, absent: list[str]) -> None:
    source = manifest.get("source") or {}
    click.echo(
        f"Imported into schema {pipeline.schema_name} ({_database(pipeline)}) what was exported from "
        f"{source.get('database')}, schema {source.get('schema')}, at {manifest.get('exported_at')} UTC:"
    )
    for kind, (one, many) in _TASKS.items():
        if number := done.tasks.get(kind, 0):
            click.echo(f"  {count(number, 'task')} {one if number == 1 else many}")
    if not sum(done.tasks.values()):
        click.echo("  no task")
    new = ", ".join(f"{number:,} in {name}" for name, number in done.new.items() if number)
    click.echo(f"New rows: {new or 'none'}.")
    if done.results_looked_at:
        click.echo(
            f"The models and histories of {count(done.results_looked_at, 'result')} were read and are those of the rows."
        )
    for conflict in done.conflicts[:20]:
        click.echo(f"{conflict.task[:8]}: {conflict.why}; left as it is here.", err=True)
    for note in done.notes[:20]:
        click.echo(f"Note: {note}", err=True)
    if done.unproved:
        click.echo(
            f"Note: not installed here, so the md5s of their configs were not computed again: {', '.join(done.unproved)}",
            err=True,
        )
    if absent:
        named = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        click.echo(f"Note: not in dataset_dir {pipeline.settings.dataset_dir}: {named}", err=True)


def _absent(pipeline: Pipeline, names: tuple[str, ...]) -> list[str]:
    """Return the dataset files that are not on this machine."""
    from synicix_core.errors import DatasetError
    from synicix_core.tables.dataset_files import resolve_dataset_file

    settings, absent = pipeline.settings, []
    for name in names:
        try:
            resolve_dataset_file(settings.dataset_dir, name, follow_symlinks=settings.follow_symlinks)
        except DatasetError:
            absent.append(name)
    return absent


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
