"""A fresh virtual environment that holds the libraries of this one, and no plugin until a test installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["CORE", "PLUGINS", "FreshEnvironment", "Workplace", "temporary_folder"]

CORE = Path(__file__).parents[2]
"""The checkout: the distribution synicix-core."""
PLUGINS = CORE / "tests" / "plugins"
"""Where the third-party distributions are."""

_LIMIT_SECONDS = 180
_PRIVATE = ("DJ_", "SYNICIX_", "PYTHON", "COV_", "COVERAGE_", "PYTEST_", "VIRTUAL_ENV")


@dataclass(frozen=True)
class FreshEnvironment:
    """A virtual environment.

    Libraries such as torch are symbolic links to those of the running environment: they need no download, and pip takes
    them for installed. Synicix itself, and every plugin of it, is left out.
    """

    root: Path

    @classmethod
    def create(cls, root: Path) -> FreshEnvironment:
        """Make one that holds no distribution of Synicix."""
        venv.create(root, with_pip=False, symlinks=True)
        environment = cls(root)
        libraries = root / "libraries"
        libraries.mkdir()
        for folder in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
            for entry in Path(folder).iterdir():
                if _is_library(entry) and not (libraries / entry.name).exists():
                    (libraries / entry.name).symlink_to(entry)
        [site] = root.glob("lib/python*/site-packages")
        (site / "libraries.pth").write_text(f"{libraries}\n")
        return environment

    def install(self, *sources: Path) -> None:
        """Let pip build distributions from copies of their folders, and install them."""
        copies = []
        for source in sources:
            copy = self.root / "sources" / source.name
            shutil.rmtree(copy, ignore_errors=True)
            ignored = shutil.ignore_patterns(
                ".*", "__pycache__", "*.egg-info", "build", "tests", "docs", "demo", "examples"
            )
            shutil.copytree(source, copy, ignore=ignored)
            copies.append(str(copy))
        self._pip("install", "--no-deps", "--no-build-isolation", *copies)

    def uninstall(self, *names: str) -> None:
        """Let pip remove distributions."""
        self._pip("uninstall", "--yes", *names)

    def run(self, *command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program in `folder`, one of this environment if it has it, with further environment variables."""
        program, *arguments = command
        found = self.root / "bin" / program
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
        return subprocess.run(
            [str(found) if found.exists() else program, *arguments],
            cwd=folder,
            env={**inherited, **self._surroundings(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )

    def _surroundings(self) -> dict[str, str]:
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        # The tasks are tiny: a second thread only takes the core from the next process.
        return {"PATH": path, "HOME": str(self.root), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}

    def _pip(self, action: str, *arguments: str) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--no-input")
        done = self.run("python", "-m", "pip", action, *options, *arguments, folder=self.root)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Workplace:
    """A project, and an environment whose programs work in it."""

    environment: FreshEnvironment
    project: Path
    schema: str = "synicix"

    def with_schema(self, name: str) -> Workplace:
        """Return the same place with tables of its own."""
        return replace(self, schema=name)

    def synicix(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``synicix-run`` in the project."""
        variables = {"SYNICIX_SCHEMA_NAME": self.schema, **variables}
        return self.environment.run("synicix-run", *arguments, folder=self.project, **variables)

    def python(self, script: str, **variables: str) -> Any:
        """Run a script in the project; return what it printed last, read as JSON."""
        variables = {"SYNICIX_SCHEMA_NAME": self.schema, **variables}
        done = self.environment.run("python", "-c", script, folder=self.project, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder outside of pytest's own, whose parent each new pytest run closes to other users.

    PostgreSQL, which does not run as root, is such a user if root runs the tests.
    """
    with tempfile.TemporaryDirectory(prefix="synicix-") as folder:
        yield Path(folder)


def _is_library(entry: Path) -> bool:
    if entry.name == "__pycache__" or entry.suffix == ".pth" or "synicix" in entry.name.lower():
        return False
    if entry.suffix in (".dist-info", ".egg-info"):
        entry_points = entry / "entry_points.txt"
        return not (entry_points.is_file() and "[synicix]" in entry_points.read_text())
    return True
