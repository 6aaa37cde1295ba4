"""The hook that other plugins implement to bring launchers of their own."""

from __future__ import annotations

from collections.abc import Iterable

from synicix_core import hookspec
from synicix_launch.provider import LauncherProvider


@hookspec
def synicix_launchers() -> Iterable[LauncherProvider]:
    """Yield the launchers that this plugin provides.

    Example::

        @hookimpl(optionalhook=True)
        def synicix_launchers():
            from synicix_launch import LauncherProvider
            yield LauncherProvider("lsf", target="my_lab.lsf:Lsf", summary="An array job on the institute's LSF")
    """
    return ()
