"""What this plugin provides: the command, the hook for launchers, and two launchers."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from synicix_core import hookimpl
from synicix_launch.provider import LauncherProvider

if TYPE_CHECKING:
    import click


@hookimpl
def synicix_hookspecs() -> Iterator[ModuleType]:
    """Declare the hook with which plugins bring launchers."""
    from synicix_launch import hookspecs

    yield hookspecs


@hookimpl
def synicix_commands() -> Iterator[click.Command]:
    """Provide `synicix-run launch`."""
    from synicix_launch.command import make_group

    yield make_group()


@hookimpl
def synicix_launchers() -> Iterator[LauncherProvider]:
    """Provide the launchers for Kubernetes and Slurm."""
    yield LauncherProvider(
        "kubernetes",
        target="synicix_launch.kubernetes.launcher:Kubernetes",
        summary="An Indexed Job and its ConfigMap.",
    )
    yield LauncherProvider("slurm", target="synicix_launch.slurm.launcher:Slurm", summary="An array job.")
