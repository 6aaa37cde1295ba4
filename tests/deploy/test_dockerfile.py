"""The Dockerfile and its locks, as far as they can be read without building anything."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from synicix_core.version import __version__
from tests.deploy import needed
from tests.deploy.image import ROOT, STANDIN

DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
VARIANTS = ("cpu", "cu126", "cu130")
PACKAGES = (".", "plugins/synicix_mlp", "plugins/synicix_neurodata")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.plugins"])
def test_hadolint_finds_nothing(name: str) -> None:
    program = str(Path(sys.executable).with_name("hadolint"))
    found = subprocess.run([needed.program(program, "hadolint"), str(DOCKER / name)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_dockerfile_takes_the_real_base_and_builds_this_version() -> None:
    (base,) = set(re.findall(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE))
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE) == [__version__]
    assert re.findall(r"^FROM (\S+)(?: AS (\w+))?", DOCKERFILE, re.MULTILINE)[-1] == ("packages", "worker")
    assert STANDIN not in DOCKERFILE


@pytest.mark.parametrize(
    "instruction", ["USER 10001:10001", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["synicix-run"]', 'CMD ["populate"]']
)
def test_the_dockerfile_ends_as_the_manifests_expect(instruction: str) -> None:
    assert instruction in DOCKERFILE.rpartition("FROM ")[2].splitlines()


def test_a_change_of_the_code_installs_nothing_again_but_the_code() -> None:
    copied = [line for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    locks = [index for index, line in enumerate(copied) if "locks/" in line]
    code = [index for index, line in enumerate(copied) if "/source" in line or "/wheels" in line]
    assert locks and code and max(locks) < min(code)


@pytest.mark.parametrize("name", ["packages", *(f"torch-{variant}" for variant in VARIANTS)])
def test_a_lock_has_the_versions_of_constraints(name: str) -> None:
    constraints = _pins(ROOT / "constraints.txt")
    pins = _pins(DOCKER / "locks" / f"{name}.txt")
    assert len(pins) > 5
    # What only the images have, NVIDIA's libraries above all, is not among the constraints.
    both = pins.keys() & constraints.keys()
    assert len(both) > 5
    assert {key: pins[key].partition("+")[0] for key in both} == {key: constraints[key] for key in both}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_locks_hold_everything_that_is_required(variant: str) -> None:
    pins = _pins(DOCKER / "locks" / "packages.txt") | _pins(DOCKER / "locks" / f"torch-{variant}.txt")
    required = _closure([*_required(), Requirement("cryptography")])
    assert {"torch", "datajoint", "pynwb", "psycopg2-binary", "pymysql"} <= required
    assert not required - pins.keys() - {"synicix-core"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_torch_is_the_build_of_the_variant(variant: str) -> None:
    torch = _pins(DOCKER / "locks" / f"torch-{variant}.txt")["torch"]
    # PyPI's own build of this version is the one for CUDA 13.0.
    assert torch == _pins(ROOT / "constraints.txt")["torch"] + {"cpu": "+cpu", "cu126": "+cu126", "cu130": ""}[variant]
    names = (DOCKER / "locks" / f"torch-{variant}.txt").read_text()
    assert ("nvidia-cudnn-cu13==" in names) == (variant == "cu130")


@pytest.mark.parametrize("name", ["pip", "packages", "torch-cpu", "torch-cu130"])
def test_every_file_of_a_lock_has_its_hash(name: str) -> None:
    text = (DOCKER / "locks" / f"{name}.txt").read_text()
    entries = [entry for entry in re.split(r"(?m)^(?=\S)", text) if entry.strip() and not entry.startswith("#")]
    assert entries
    assert not [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]


@pytest.mark.parametrize(
    ("variant", "given", "asked"),
    [
        pytest.param("cpu", None, "https://download.pytorch.org/whl/cpu", id="cpu"),
        pytest.param("cu126", None, "https://download.pytorch.org/whl/cu126", id="cu126"),
        pytest.param("cu130", None, "", id="cu130, which PyPI has"),
        pytest.param("cpu", "", "", id="none"),
        pytest.param("cpu", "https://mirror.lab/cpu", "https://mirror.lab/cpu", id="a mirror"),
        pytest.param("cu130", "https://mirror.lab/cu130", "https://mirror.lab/cu130", id="a mirror for cu130"),
    ],
)
def test_beside_pypi_an_index_is_asked_only_for_builds_that_pypi_lacks(
    variant: str, given: str | None, asked: str, tmp_path: Path
) -> None:
    (step,) = re.findall(r'^RUN --mount=\S+ \\\n((?:.+\\\n)+.+/torch-\$\{VARIANT\}\.txt")$', DOCKERFILE, re.MULTILINE)
    for name in ("python", "python3"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$*"\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "VARIANT": variant}
    if given is not None:
        environment["TORCH_INDEX"] = given
    said = subprocess.run(["sh", "-ec", step], env=environment, capture_output=True, text=True, check=True).stdout
    index = f"--extra-index-url {asked} " if asked else ""
    assert said.splitlines()[-1] == f"-m pip install --quiet {index}-r /opt/synicix/locks/torch-{variant}.txt"


def test_a_lock_that_there_is_not_is_refused() -> None:
    refused = subprocess.run([str(DOCKER / "lock"), "cu118"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "there is no lock cu118" in refused.stderr


def test_only_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = {
        path for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]
    }
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {path if not path.startswith("deploy/docker/locks") else "deploy/docker/locks" for path in sources} == sent


def test_the_page_names_the_build_arguments_and_shows_the_image_that_starts_from_ours() -> None:
    page = (ROOT / "docs" / "containers.md").read_text()
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    table = page.split("| build argument |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", table)) == arguments
    assert set(re.findall(r"--build-arg (\w+)=", page)) <= arguments
    assert (DOCKER / "Dockerfile.plugins").read_text() in page
    assert all(f"`{variant}`" in page for variant in VARIANTS)


def _pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def _required() -> list[Requirement]:
    """Return what the packages in the image depend on, with the extra that packages.in names."""
    texts: list[str] = []
    for place in PACKAGES:
        project = tomllib.loads((ROOT / place / "pyproject.toml").read_text())["project"]
        extras = ("nwb",) if place.endswith("neurodata") else ()
        texts += project["dependencies"] + [
            text for extra in extras for text in project["optional-dependencies"][extra]
        ]
    assert "./plugins/synicix_neurodata[nwb]" in (DOCKER / "locks" / "packages.in").read_text()
    return [Requirement(text) for text in texts]


def _closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of these and of all that they bring, as the environment of the tests has them installed."""
    from importlib.metadata import requires

    names: set[str] = set()
    waiting = [(need, extra) for need in requirements for extra in ("", *need.extras)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        need, extra = waiting.pop()
        name = canonicalize_name(need.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        names.add(name)
        for text in requires(name) or []:
            further = Requirement(text)
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                waiting += [(further, wanted) for wanted in ("", *further.extras)]
    return names
