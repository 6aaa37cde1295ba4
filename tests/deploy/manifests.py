"""Build what `deploy/kubernetes` describes, and find jobs, pods and containers in it."""

from __future__ import annotations

import copy
import functools
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy import needed

__all__ = [
    "BUILDS",
    "ROOT",
    "SETUPS",
    "Job",
    "Manifest",
    "Pod",
    "build",
    "build_at",
    "by_name",
    "jobs",
    "name_of",
    "overlay",
    "pods",
    "quantity",
    "worker",
]

Manifest = dict[str, Any]
ROOT = Path(__file__).parents[2] / "deploy" / "kubernetes"


def _builds() -> Iterator[str]:
    for path in sorted(ROOT.rglob("kustomization.yaml")):
        if yaml.safe_load(path.read_text())["kind"] == "Kustomization":
            yield str(path.parent.relative_to(ROOT))


BUILDS = tuple(_builds())
"""Every folder that can be built by itself: components cannot."""
SETUPS = {
    "overlays/old-cluster": "overlays/old-cluster/setup",
    "overlays/old-cluster/setup": "overlays/old-cluster/setup",
    "overlays/mysql-in-cluster": "setup/trial",
    "overlays/postgresql-in-cluster": "setup/trial",
    "setup/trial": "setup/trial",
}
"""What is applied before a build, where it is not `setup`."""


@dataclass(frozen=True)
class Job:
    """The specification of a Job, be it one by itself, of a CronJob or of KEDA's ScaledJob.

    Attributes
    ----------
    where : str
        Kind and name of the object.
    spec : dict
        As in batch/v1.
    """

    where: str
    spec: dict[str, Any]

    @property
    def pod(self) -> dict[str, Any]:
        """The specification of its pods."""
        pod: dict[str, Any] = self.spec["template"]["spec"]
        return pod


@dataclass(frozen=True)
class Pod:
    """The template of pods.

    Attributes
    ----------
    where : str
        Kind and name of the object that makes them.
    labels : dict
        Of the pods.
    spec : dict
        As in v1.
    owner : dict
        The object itself.
    """

    where: str
    labels: dict[str, str]
    spec: dict[str, Any]
    owner: Manifest

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def build(folder: str) -> list[Manifest]:
    """Build a folder below `deploy/kubernetes`, once; what is returned may be changed."""
    return build_at(ROOT / folder)


def build_at(folder: Path) -> list[Manifest]:
    """Build a folder that lies anywhere, once; what is returned may be changed."""
    return copy.deepcopy(list(_build(folder)))


def overlay(
    folder: Path,
    resources: Iterable[str],
    *,
    components: Iterable[str] = (),
    config: Mapping[str, Callable[[str], str]] | None = None,
    more: str = "",
) -> list[Manifest]:
    """Build what somebody has in a folder of their own, on top of ours.

    Parameters
    ----------
    folder : Path
        Where; it is made.
    resources, components
        Folders below `deploy/kubernetes`, and below its `components`.
    config : mapping, optional
        Files of the project, by name, and what makes theirs of ours.
    more : str
        Further lines of the kustomization.yaml.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Kustomize takes no absolute paths.
    (folder / "ours").symlink_to(ROOT)
    theirs = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "synicix"}
    lists: dict[str, Any] = {"resources": [f"ours/{each}" for each in resources]}
    lists["components"] = [f"ours/components/{each}" for each in components]
    if config:
        for name, change in config.items():
            (folder / name).write_text(change((ROOT / "base" / "config" / name).read_text()))
        generator = {"name": "synicix-project", "behavior": "merge", "files": [*config], "options": {"immutable": True}}
        lists["configMapGenerator"] = [generator]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**theirs, **lists, **(yaml.safe_load(more) or {})}))
    return build_at(folder)


@functools.cache
def _build(folder: Path) -> tuple[Manifest, ...]:
    program = needed.program("kustomize", "kubectl")
    command = [program, "build" if Path(program).name == "kustomize" else "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    return tuple(yaml.safe_load_all(done.stdout))


def name_of(document: Manifest) -> str:
    """Return kind and name of an object."""
    return f"{document['kind']}/{document['metadata']['name']}"


def by_name(documents: Iterable[Manifest], name: str) -> Manifest:
    """Return the object of this kind and name, ``Job/synicix``."""
    [found] = [document for document in documents if name_of(document) == name]
    return found


def worker(documents: Iterable[Manifest]) -> Job:
    """Return the one job whose pods are workers."""
    [found] = [
        job
        for job in jobs(documents)
        if job.spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
    ]
    return found


def jobs(documents: Iterable[Manifest]) -> Iterator[Job]:
    """Yield the jobs among these objects."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Job":
            yield Job(name_of(document), spec)
        elif document["kind"] == "CronJob":
            yield Job(name_of(document), spec["jobTemplate"]["spec"])
        elif document["kind"] == "ScaledJob":
            yield Job(name_of(document), spec["jobTargetRef"])


def pods(documents: Iterable[Manifest]) -> Iterator[Pod]:
    """Yield the templates of pods among these objects."""
    for document in documents:
        if document["kind"] in ("Job", "CronJob", "ScaledJob"):
            [job] = jobs([document])
            template = job.spec["template"]
        elif document["kind"] in ("Deployment", "StatefulSet"):
            template = document["spec"]["template"]
        else:
            continue
        labels = template.get("metadata", {}).get("labels", {})
        yield Pod(name_of(document), labels, template["spec"], document)


def quantity(text: str | int) -> float:
    """Return the number that Kubernetes reads in ``500m``, ``16Gi`` or ``4``."""
    match = re.fullmatch(r"([0-9.]+)(m|[kMGTP]|[KMGTP]i)?", str(text))
    assert match is not None, f"{text!r} is not a quantity"
    scale = {"m": 1e-3, "k": 1e3, "": 1.0}
    scale |= {letter: 1000.0**power for power, letter in enumerate("MGTP", start=2)}
    scale |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)}
    return float(match[1]) * scale[match[2] or ""]
