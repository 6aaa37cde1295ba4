"""`synicix-run init`: make a project and its tables."""

from __future__ import annotations

from pathlib import Path

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place

__all__ = ["init"]


@click.command(cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path))
@json_option
@pass_place
def init(place: Place, directory: Path | None, as_json: bool) -> None:
    """Make a project and its tables.

    The project is DIR, by default the working directory. With nothing configured the database is a PostgreSQL inside
    the project; a server that DataJoint is configured for is used where there is one. Doing it again changes nothing.
    """
    from synicix_core.database.quiet import quiet
    from synicix_core.settings import PROJECT_FILE, create_project, find_project

    given = directory or place.directory
    above = find_project()
    if given is None and above is not None and above != Path.cwd():
        raise click.UsageError(
            f"The project {above} lies above this directory already. To make another one in here, run: synicix-run init ."
        )
    target = given or Path()
    new_project = not (target / PROJECT_FILE).is_file()
    create_project(target)
    place.directory = target
    settings = place.settings()

    with quiet():
        from synicix_core.database import configured_server, connect
        from synicix_core.tables.schema import declare

    server = configured_server(settings.project_dir)
    new_tables = declare(connect(settings), settings.schema_name)
    if as_json:
        print_json(
            {
                "project": settings.project_dir,
                "project_created": new_project,
                "database": str(server) if server else "embedded",
                "schema": settings.schema_name,
                "schema_created": new_tables,
                "dataset_dir": settings.dataset_dir,
                "model_save_dir": settings.model_save_dir,
            }
        )
        return
    project = settings.project_dir
    click.echo(f"Made the project {project}" if new_project else f"The project {project} exists already")
    where = str(server) if server else "the PostgreSQL inside the project"
    verb = "Made the tables" if new_tables else "The tables are there already"
    click.echo(f"{verb}: schema {settings.schema_name} on {where}")
    click.echo(
        f"""
What to do next:
  put dataset files into {settings.dataset_dir}
  synicix-run plugins list            shows the datasets and models that are installed
  synicix-run add experiment.toml     adds configs and tasks
  synicix-run populate                trains them
Or, to go on with the tasks and results of another database:
  synicix-run db import FILE          takes what db export wrote there"""
    )
