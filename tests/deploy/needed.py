"""What a test needs that a laptop may lack: there it is skipped, and where it has to run, as in CI, it fails."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["REQUIRED", "lacking", "program", "root"]

REQUIRED = "SYNICIX_TEST_DEPLOY"
"""The variable that is ``1`` where every test of the deployment has to run."""


def program(*names: str) -> str:
    """Return the path of the first of these programs that is installed.

    Parameters
    ----------
    *names : str
        Programs that do the same, the preferred one first.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    return lacking(f"{' or '.join(names)} is not on PATH")


def root() -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        lacking("it has to be run as root")


def lacking(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail where `REQUIRED` says that it has to run."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 says that this test has to run", pytrace=False)
    pytest.skip(reason)
