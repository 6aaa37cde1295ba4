"""A test that needs a program is skipped without it, but never where it has to run."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path

import pytest

from tests.deploy import needed

CHECKOUT = Path(__file__).parents[2]


def test_the_first_program_that_is_there_is_taken():
    assert Path(needed.program("no-such-program", "sh")).name == "sh"


def test_without_a_program_the_test_is_skipped(monkeypatch):
    monkeypatch.delenv(needed.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not on PATH"):
        needed.program("no-such-program")


def test_where_it_has_to_run_it_fails(monkeypatch):
    monkeypatch.setenv(needed.REQUIRED, "1")
    with pytest.raises(
        pytest.fail.Exception, match="no-such-program or none is not on PATH, and SYNICIX_TEST_DEPLOY=1"
    ):
        needed.program("no-such-program", "none")


def test_the_variable_reaches_the_tests(monkeypatch):
    """The tests' environment is cleared of SYNICIX_* variables, but for those that are meant for them."""
    monkeypatch.setenv(needed.REQUIRED, "1")
    monkeypatch.setenv("SYNICIX_SCHEMA_NAME", "mine")
    foreign = runpy.run_path(str(CHECKOUT / "tests" / "conftest.py"))["_FOREIGN"]
    assert "SYNICIX_SCHEMA_NAME" in foreign
    assert needed.REQUIRED not in foreign


def test_continuous_integration_finds_a_kustomize():
    needed.program("kustomize", "kubectl")
    done = subprocess.run([CHECKOUT / ".ci" / "kustomize"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name in ("kustomize", "kubectl")
    done = subprocess.run([CHECKOUT / ".ci" / "kustomize", "start"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "usage:" in done.stderr
