"""Containers that run the workers' image as a pod would, with everything a pod is given: project, credentials, directories."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.image import USER, Engine, container_options
from tests.faults.wire import Wire

__all__ = ["Container", "Deployment"]


@dataclass(frozen=True)
class Container:
    """One that was started."""

    engine: Engine
    name: str

    @property
    def said(self) -> str:
        """What it printed so far."""
        done = self.engine.podman("logs", self.name, check=False, stderr=subprocess.STDOUT)
        return str(done.stdout)

    def stop(self, seconds: int) -> None:
        """Send SIGTERM, and SIGKILL after so many seconds, as every scheduler does."""
        self.engine.podman("stop", "--time", str(seconds), self.name)

    def end(self, timeout: float = 120.0) -> int:
        """Wait until it ends, and return the exit code."""
        try:
            return int(self.engine.podman("wait", self.name, timeout=timeout).stdout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the container does not end; it said:\n{self.said}") from None


@dataclass
class Deployment:
    """What a pod of the Kubernetes manifests is given, in a folder.

    Attributes
    ----------
    engine : Engine
        Runs the containers.
    image : str
        Their image.
    folder : Path
        Holds it all.
    server : mapping
        The DJ_* variables of the database. Containers get to it through `wire`, because the embedded PostgreSQL listens on a
        socket that no other user may use.
    schema : str
        Of the tables.
    """

    engine: Engine
    image: str
    folder: Path
    server: Mapping[str, str]
    schema: str
    containers: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wire = Wire(self.server)
        for name in ("project", "secrets", "datasets", "results", "cache"):
            (self.folder / name).mkdir(parents=True)
        for name in ("results", "cache"):
            os.chown(self.folder / name, USER, USER)
        (self.folder / "project" / "synicix.toml").write_text(
            f'schema_name = "{self.schema}"\ndataset_dir = "/data/datasets"\ndataset_cache_dir = "/cache"\n'
            'model_save_dir = "/data/results/models"\n[worker]\ngrace_seconds = 60\ncheckpoint_epochs = 1\n'
        )
        reached = self.wire.variables
        address = {"host": reached["DJ_HOST"], "port": int(reached["DJ_PORT"])}
        database = {"backend": reached["DJ_BACKEND"], **address}
        store = {"protocol": "file", "location": "/data/results/histories"}
        self.write("project/datajoint.json", {"database": database, "stores": {"external_training_result": store}})
        self.give("database.user", self.server["DJ_USER"])
        self.give("database.password", self.server["DJ_PASS"] or "none")

    def write(self, place: str, document: object) -> None:
        """Write a document as JSON."""
        (self.folder / place).write_text(json.dumps(document))

    def give(self, name: str, secret: str) -> None:
        """Write a secret as Kubernetes does with ``defaultMode: 0440`` and an ``fsGroup``."""
        path = self.folder / "secrets" / name
        path.write_text(secret)
        os.chown(path, 0, USER)
        path.chmod(0o440)

    def start(self, *arguments: str, options: tuple[str, ...] = ()) -> Container:
        """Start a container with these arguments, ``populate`` and so on; `options` are more of ``podman run``."""
        volumes = {
            "project/synicix.toml": "/project/synicix.toml:ro",
            "project/datajoint.json": "/project/datajoint.json:ro",
            "secrets": "/run/secrets/datajoint:ro",
            "datasets": "/data/datasets:ro",
            "results": "/data/results:rw",
            "cache": "/cache:rw",
        }
        mounts = [
            word for source, target in volumes.items() for word in ("--volume", f"{self.folder / source}:{target}")
        ]
        return self.launch([*container_options(), *mounts, *options, self.image, *arguments])

    def launch(self, words: Sequence[str]) -> Container:
        """Start a container by what stands behind ``podman create``: options, image, arguments."""
        container = Container(self.engine, f"synicix-{uuid.uuid4().hex[:8]}")
        self.engine.podman("create", "--name", container.name, *words)
        self.containers.append(container)
        log = self.folder / "podman.log"
        # A file: a pipe of ours would stay open in what watches the container, and never come to its end.
        with log.open("w") as output:
            began = self.engine.podman("start", container.name, check=False, stdout=output, stderr=output)
        assert began.returncode == 0, log.read_text()
        return container

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a container to its end, and return the exit code and what it printed."""
        container = self.start(*arguments, options=options)
        return container.end(), container.said

    def close(self) -> None:
        """Remove the containers."""
        for container in self.containers:
            self.engine.podman("rm", "--force", "--time", "0", container.name, check=False)
        self.wire.close()
