"""Builds the workers' image on a base that stands in for the real one, and runs containers as a pod would.

Where these tests run there may be no registry to pull ``python:3.12-slim`` from. The stand-in is a minimal Debian 12 with its
Python 3.11, made by mmdebstrap once per machine; all else is the Dockerfile as it is. ``.ci/container`` does the same by hand.
"""

from __future__ import annotations

import ast
import fcntl
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core.version import __version__
from tests.deploy import needed

__all__ = ["ROOT", "SECRET", "STANDIN", "TAG", "USER", "Engine", "Failed", "built", "container_options", "host_options"]

ROOT = Path(__file__).resolve().parents[2]
STANDIN = "localhost/synicix-standin:python3.11"
TAG = f"localhost/synicix:{__version__}-cpu"
USER = 10001
SECRET = "the-token-of-a-private-index"
"""Stands in the secret that `built` builds with, so that it can be looked for in what came of it."""
_PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
_TRUST_ALL = {"default": [{"type": "insecureAcceptAnything"}]}  # these images are our own


@dataclass(frozen=True)
class Engine:
    """buildah and podman with a storage of their own, so that nothing here meets other images of the machine.

    Attributes
    ----------
    home : Path
        Directory of the storage.
    """

    home: Path

    @classmethod
    def of_this_machine(cls) -> Engine:
        """Return the one whose storage lies in the cache of this project's tests."""
        cache = (
            os.environ.get("SYNICIX_CACHE")
            or os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")) + "/synicix"
        )
        home = Path(cache) / "container"
        home.mkdir(parents=True, exist_ok=True)
        (home / "policy.json").write_text(json.dumps(_TRUST_ALL))
        return cls(home)

    def podman(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run podman on this storage; `options` are those of `subprocess.run`."""
        return _run([*self.podman_command(), *arguments], **options)

    def podman_command(self) -> list[str]:
        """Return podman and the options that it needs in a virtual machine without systemd."""
        runtime = shutil.which("runc")
        return [
            "podman",
            *self._storage(),
            "--cgroup-manager",
            "cgroupfs",
            *(["--runtime", runtime] if runtime else []),
        ]

    def prepare_base(self) -> None:
        """Make the stand-in unless it is there: a minute, 220 MB."""
        with self._alone():
            if self.podman("image", "exists", STANDIN, check=False).returncode == 0:
                return
            with tempfile.TemporaryDirectory() as folder:
                _run(["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", f"{folder}/rootfs.tar"])
                Path(folder, "Containerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
                self._bud("--tag", STANDIN, folder)

    def build(
        self,
        tag: str,
        *,
        context: Path = ROOT,
        file: str = "deploy/docker/Dockerfile",
        arguments: Mapping[str, str] | None = None,
        wheels: Path | None = None,
        comment: str = "",
        volumes: Sequence[str] = (),
    ) -> str:
        """Build an image, and return what was said.

        Parameters
        ----------
        tag : str
            The image's name.
        context, file : Path, str
            The directory that is sent, and the Dockerfile in it.
        arguments : mapping, optional
            Build arguments beside those that name the stand-in and where torch comes from.
        wheels : Path, optional
            A private source of wheels; where it is, is known by the secret alone.
        comment : str
            A line for the secret.
        volumes : sequence of str
            More places that are to be seen while it is built; ``{secret}`` stands for the secret.

        Raises
        ------
        Failed
            If a step fails.
        """
        given = {"PYTHON_IMAGE": STANDIN, **({"TORCH_INDEX": ""} if _pip_finds_torch() else {}), **(arguments or {})}
        with self._alone(), tempfile.TemporaryDirectory() as folder:
            configuration, places = _pip_configuration(wheels)
            secret = Path(folder, "pip.conf")
            secret.write_text(f"# {comment}\n{configuration}")
            options = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
            mounted = [*(f"{place}:{place}" for place in places), *(place.format(secret=secret) for place in volumes)]
            mounts = [word for place in mounted for word in ("--volume", f"{place}:ro")]
            return self._bud(
                # What a step that failed left behind would stay mounted.
                *("--layers", "--force-rm", "--secret", f"id=pip.conf,src={secret}", *mounts, *options),
                *("--file", str(context / file), "--tag", tag, str(context)),
            )

    def layers(self, image: str) -> list[Path]:
        """Return the directories that hold what each layer of an image adds, the topmost first."""
        data = self.inspect(image)["GraphDriver"]["Data"]
        return [Path(place) for name in ("UpperDir", "LowerDir") for place in data.get(name, "").split(":") if place]

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what podman knows of an image."""
        (found,) = json.loads(self.podman("image", "inspect", image).stdout)
        return dict(found)

    def remove(self, *images: str) -> None:
        """Remove images, and layers that nothing refers to any more."""
        if images:
            self.podman("rmi", "--force", *images, check=False)
        self.podman("image", "prune", "--force", check=False)

    def _bud(self, *arguments: str) -> str:
        options = ["--signature-policy", str(self.home / "policy.json"), "--isolation", "chroot", "--pull-never"]
        done = _run(["buildah", *self._storage(), "bud", *options, *arguments], stderr=subprocess.STDOUT)
        return str(done.stdout)

    def _storage(self) -> list[str]:
        return ["--root", str(self.home / "store"), "--runroot", str(self.home / "run")]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@functools.cache
def built() -> Engine:
    """Return the engine after building `TAG` from this checkout, once in a process; see `SECRET`."""
    for name in ("buildah", "podman", "mmdebstrap"):
        needed.program(name)
    needed.root()
    engine = Engine.of_this_machine()
    engine.prepare_base()
    engine.remove()  # the layers of earlier checkouts
    engine.build(TAG, comment=SECRET)
    return engine


def container_options() -> list[str]:
    """Return the options of ``podman run`` that give a container what the Kubernetes manifests give a pod."""
    return [
        *(
            "--read-only",
            "--read-only-tmpfs=false",
            "--tmpfs",
            "/tmp",
            "--shm-size",
            "256m",
            "--user",
            f"{USER}:{USER}",
        ),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *host_options(),
    ]


def host_options() -> list[str]:
    """Return the options that this machine needs, whatever the container is."""
    # The limits of whoever runs the tests; raising them takes a capability that is not to be had everywhere.
    return ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


class Failed(Exception):
    """A program ended with another code than 0; the message is what it said."""


def _run(command: Sequence[str], *, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    settings: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 900}
    done = subprocess.run(command, check=False, **{**settings, **options})
    if check and done.returncode != 0:
        said = f"{done.stdout or ''}{done.stderr or ''}"
        raise Failed(f"{said}\n{Path(command[0]).name} ended with {done.returncode}: {shlex.join(command)}")
    return done


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "pip", *arguments], check=False)


@functools.cache
def _pip_finds_torch() -> bool:
    """Whether pip as it is configured here has the build for the CPU, so that PyTorch's own index is not asked."""
    lock = (ROOT / "deploy/docker/locks/torch-cpu.txt").read_text()
    (torch,) = re.findall(r"^torch==\S+", lock, re.MULTILINE)
    return _pip("install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", torch).returncode == 0


def _pip_configuration(wheels: Path | None) -> tuple[str, list[Path]]:
    """Return the configuration of this machine's pip as one file, and the directories and files that it names."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}  # the last one wins
    for line in _pip("config", "list").stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found and key != "disable-pip-version-check":
            found[section][key] = str(ast.literal_eval(value))
    values = {key: value for section in found.values() for key, value in section.items()}
    if wheels is not None:
        values["find-links"] = f"{values.get('find-links', '')} {wheels}".strip()
    words = [word.removeprefix("file://") for value in values.values() for word in value.split()]
    places = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    lines = ["[global]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n", [_mounted(place) for place in dict.fromkeys(places)]


def _mounted(place: Path) -> Path:
    # An index that is a folder refers to files beside it.
    return place.parent if place.name == "simple" else place


def main(arguments: Sequence[str]) -> int:
    """Do by hand what the tests do; see ``.ci/container``."""
    engine = Engine.of_this_machine()
    match list(arguments):
        case ["build", *rest]:
            engine.prepare_base()
            began = time.monotonic()
            given = dict(word.split("=", 1) for word in rest)
            sys.stdout.write(engine.build(TAG, arguments=given))
            sys.stdout.write(f"built {TAG} in {time.monotonic() - began:.0f} s\n")
        case ["base"]:
            engine.prepare_base()
            sys.stdout.write(f"{STANDIN} is there; to build on it, run: .ci/container build\n")
        case ["run", *rest]:
            command = [*engine.podman_command(), "run", "--rm", *container_options(), *rest]
            return subprocess.run(command, check=False).returncode
        case ["podman", *rest]:
            return subprocess.run([*engine.podman_command(), *rest], check=False).returncode
        case ["command"]:
            sys.stdout.write(shlex.join(engine.podman_command()) + "\n")
        case _:
            sys.stderr.write(
                "usage: .ci/container base | build [ARG=VALUE...] | run ... | podman ... | command | clean\n"
            )
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        sys.exit(str(failed))
