"""The command that lab-kit adds to synicix-run."""

from __future__ import annotations

import click

__all__ = ["hello"]


@click.command("lab-kit-hello")
@click.option("--name", default="laboratory", help="Whom to greet.")
def hello(name: str) -> None:
    """Greet somebody."""
    click.echo(f"Hello, {name}.")
