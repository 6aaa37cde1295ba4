"""`synicix-run db`: the PostgreSQL inside the project, and the way to and from the database whichever it is."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from synicix_core.cli.db_transfer import export_, import_
from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place

if TYPE_CHECKING:
    from synicix_core.database import ServerAddress
    from synicix_core.settings import Settings

__all__ = ["db"]


@click.group()
def db() -> None:
    """Start, stop, look at and move the database."""


@db.command("start", cls=Command)
@pass_place
def start_(place: Place) -> None:
    """Start the PostgreSQL inside the project; other commands do so by themselves."""
    settings, server = _find(place)
    _refuse_server(server, "start")
    from synicix_core.database.embedded import start, status

    was_running = status(settings.project_dir).running
    start(settings.project_dir)
    found = status(settings.project_dir)
    click.echo(f"PostgreSQL {found.version} {'was running already' if was_running else 'runs'}: {found.data_dir}")


@db.command("stop", cls=Command)
@pass_place
def stop_(place: Place) -> None:
    """Stop the PostgreSQL inside the project; running workers lose their connection."""
    settings, server = _find(place)
    _refuse_server(server, "stop")
    from synicix_core.database.embedded import stop

    stopped = stop(settings.project_dir)
    click.echo("PostgreSQL is stopped." if stopped else "PostgreSQL was not running.")


@db.command("status", cls=Command)
@json_option
@pass_place
def status_(place: Place, as_json: bool) -> None:
    """Say which database is used and whether it runs."""
    settings, server = _find(place)
    facts = _server_status(settings, server) if server else _embedded_status(settings)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if value is not None:
            shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            click.echo(f"{name.replace('_', ' '):<10}  {shown}")


@db.command("shell", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_place
def shell(place: Place, arguments: tuple[str, ...]) -> None:
    """Open psql (or mysql) on the database; ARGUMENTS are passed on, such as -c 'SELECT 1' to psql, -e to mysql."""
    from synicix_core.errors import ConfigurationError

    settings, server = _find(place)
    if server is None:
        from synicix_core.database.embedded import start, status

        host = start(settings.project_dir)
        found = status(settings.project_dir)
        program = str(found.programs / "psql") if found.programs else "psql"
        command = [program, "-h", host, "-U", "postgres", "-d", "postgres", *arguments]
        environment = {"PGOPTIONS": f"-c search_path={settings.schema_name},public -c timezone=UTC"}
    else:
        program = {"postgresql": "psql", "mysql": "mysql"}[server.backend]
        found_program = shutil.which(program)
        if found_program is None:
            raise ConfigurationError(
                f"The program {program} is not installed", why=f"the database is {server}", hint="Install it first."
            )
        command, environment = _server_shell(settings, server, found_program)
        command += arguments
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, **environment})


@db.command("url", cls=Command)
@json_option
@pass_place
def url(place: Place, as_json: bool) -> None:
    """Print where the database is, as a URL without the password."""
    settings, server = _find(place)
    if server is None:
        from synicix_core.database.embedded import start

        host = start(settings.project_dir)
        text = f"postgresql://postgres@/postgres?host={quote(host, safe='/')}"
    else:
        text = f"{server.backend}://{quote(server.user)}@{server.host}:{server.port}"
        text += f"/{_database_name(settings)}" if server.backend == "postgresql" else f"/{settings.schema_name}"
    if as_json:
        print_json({"url": text, "schema": settings.schema_name})
    else:
        click.echo(text)


db.add_command(export_)
db.add_command(import_)


def _find(place: Place) -> tuple[Settings, ServerAddress | None]:
    settings = place.settings()
    from synicix_core.database.quiet import quiet

    with quiet():
        from synicix_core.database import configured_server
    return settings, configured_server(settings.project_dir)


def _refuse_server(server: ServerAddress | None, what: str) -> None:
    from synicix_core.errors import ConfigurationError

    if server is not None:
        raise ConfigurationError(
            f"There is nothing to {what}",
            why=f"DataJoint is configured for a server, {server}, so the PostgreSQL inside the project is not used",
        )


def _embedded_status(settings: Settings) -> dict[str, Any]:
    from synicix_core.database.embedded import status

    found = status(settings.project_dir)
    return {
        "database": "embedded",
        "running": found.running,
        "version": f"PostgreSQL {found.version}" if found.version else None,
        "pid": found.pid,
        "schema": settings.schema_name,
        "data": str(found.data_dir),
        "log": str(found.log),
        "socket": found.host,
        "programs": str(found.programs) if found.programs else None,
    }


def _server_status(settings: Settings, server: ServerAddress) -> dict[str, Any]:
    from synicix_core.database import connect, execute

    connection = connect(settings)
    version = str(execute(connection, "SELECT version()").fetchone()[0])
    return {
        "database": str(server),
        "running": True,
        "version": version,
        "pid": None,
        "schema": settings.schema_name,
        "data": None,
        "log": None,
    }


def _server_shell(settings: Settings, server: ServerAddress, program: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables; the password goes through a variable, which no other user can read."""
    from synicix_core.database.server import datajoint_config

    secret = datajoint_config(settings.project_dir).database.password
    password = secret.get_secret_value() if secret else ""
    if server.backend == "postgresql":
        command = [program, "-h", server.host, "-p", str(server.port), "-U", server.user]
        options = f"-c search_path={settings.schema_name},public -c timezone=UTC"
        environment = {"PGPASSWORD": password, "PGDATABASE": _database_name(settings), "PGOPTIONS": options}
    else:
        command = [program, "-h", server.host, "-P", str(server.port), "-u", server.user]
        command += ["--init-command=SET time_zone='+00:00'", settings.schema_name]
        environment = {"MYSQL_PWD": password}
    return command, {name: value for name, value in environment.items() if value}


def _database_name(settings: Settings) -> str:
    from synicix_core.database.server import datajoint_config

    return datajoint_config(settings.project_dir).database.name or "postgres"
