"""Builds synicix-launch with the files of deploy/ that its launchers start from; everything else is in pyproject.toml.

They stand at the root of the repository, where operators look for them, and an installed package has to have them, too. What
is installed with ``--editable`` reads them where they stand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
PATTERNS = ("slurm/*.sbatch", "kubernetes/base/*.yaml", "kubernetes/base/config/*")


def carry(package: Path) -> None:
    """Copy the files into the package that is being built."""
    # A source distribution has them inside.
    own = HERE / "synicix_launch" / "deploy"
    deploy = own if own.is_dir() else HERE.parents[1] / "deploy"
    files = [path for pattern in PATTERNS for path in sorted(deploy.glob(pattern))]
    if not files:
        raise FileNotFoundError(
            f"The files to start from are not in {deploy}. Build synicix-launch inside its checkout."
        )
    for path in files:
        target = package / "deploy" / path.relative_to(deploy)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


class BuildWithDeploy(build_py):
    """Puts them into the wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            carry(Path(self.build_lib, "synicix_launch"))


class SourcesWithDeploy(sdist):
    """Puts them into the source distribution."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        carry(Path(base_dir, "synicix_launch"))


setup(cmdclass={"build_py": BuildWithDeploy, "sdist": SourcesWithDeploy})
