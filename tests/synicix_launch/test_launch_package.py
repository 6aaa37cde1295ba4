"""The distribution carries the files of deploy/ that its launchers start from, and they are those of the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from synicix_launch.errors import LaunchError
from synicix_launch.templates import read_template

ROOT = Path(__file__).parents[2]
TEMPLATES = (
    "kubernetes/base/job.yaml",
    "kubernetes/base/config/synicix.toml",
    "kubernetes/base/config/datajoint.json",
    "slurm/worker.sbatch",
    "slurm/node.sbatch",
)


@pytest.mark.slow
def test_a_wheel_holds_them(tmp_path):
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "plugins" / "synicix_launch", tmp_path / "plugins" / "x", ignore=skipped)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    _check_wheel(tmp_path / "plugins" / "x", tmp_path)

    make = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path / "plugins" / "x", check=True, timeout=120)
    alone = tmp_path / "alone"
    (sources,) = (tmp_path / "plugins" / "x" / "dist").glob("*.tar.gz")
    shutil.unpack_archive(sources, alone)
    (alone_sources,) = alone.iterdir()
    _check_wheel(alone_sources, alone)


def test_elsewhere_none_is_built_without_them(tmp_path):
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "plugins" / "synicix_launch", tmp_path / "plugins" / "x", ignore=skipped)
    with pytest.raises(subprocess.CalledProcessError) as error:
        _build(tmp_path / "plugins" / "x", tmp_path)
    assert "Build synicix-launch inside its checkout" in error.value.stderr


def _build(sources, wheels):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [*pip, "--wheel-dir", str(wheels), str(sources)]
    subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)


def _check_wheel(sources, wheels):
    _build(sources, wheels)
    (wheel,) = wheels.glob("synicix_launch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in TEMPLATES:
            assert archive.read(f"synicix_launch/deploy/{name}").decode() == (ROOT / "deploy" / name).read_text()
        assert "synicix_launch/py.typed" in archive.namelist()


@pytest.mark.parametrize("name", TEMPLATES)
def test_they_are_those_of_the_repository(name):
    assert read_template(name) == ((ROOT / "deploy" / name).read_text(), f"deploy/{name}")


def test_a_folder_is_no_template(tmp_path):
    with pytest.raises(LaunchError, match="Is a directory"):
        read_template(TEMPLATES[0], tmp_path)
