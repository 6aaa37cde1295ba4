"""`synicix-run neurodata`: commands around neural recordings."""

from __future__ import annotations

import click

from synicix_neurodata.commands.convert_command import convert
from synicix_neurodata.commands.inspect_command import inspect
from synicix_neurodata.commands.simulate_command import simulate

__all__ = ["neurodata"]


@click.group()
def neurodata() -> None:
    """Look into neural recordings, convert them, or simulate some."""


neurodata.add_command(inspect)
neurodata.add_command(simulate)
neurodata.add_command(convert)
