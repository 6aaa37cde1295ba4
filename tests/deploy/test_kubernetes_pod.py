"""The pods of a build do their work: as their user, on their volumes, with a root that cannot be written."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synicix_core import Pipeline
from tests.conftest import TOY_LAB
from tests.deploy.manifests import ROOT, Manifest, Pod, overlay, pods
from tests.deploy.pod import Node
from tests.faults.wire import Wire

pytestmark = pytest.mark.database

EXPERIMENT = """
[[dataset]]
files = "line.txt"
provider = "Points"
[[model]]
provider = "Plodder"
[[training]]
criterion = "MSELoss"
epoch_limit = {epochs}
batch_size = 8
"""


THEIR_GROUP = """
patches:
  - target: {kind: Job|Deployment}
    patch: |-
      - {op: replace, path: /spec/template/spec/securityContext/runAsGroup, value: 2001}
"""


class Cluster:
    """What `kubectl apply` made, and a node for its pods.

    Parameters
    ----------
    folder : Path
        Where the node's disks are.
    documents : list of dict
        What was applied.
    secrets : dict
        ``{name: {key: text}}``.
    """

    def __init__(self, folder: Path, documents: list[Manifest], secrets: dict[str, dict[str, str]]) -> None:
        self.documents = documents
        plugin = {"PYTHONPATH": TOY_LAB, "TOY_LAB_STEP_SECONDS": "0.05", "TOY_LAB_STEPS": "/data/results/steps"}
        self.node = Node(folder / "node", secrets, plugin, [TOY_LAB])
        self.secrets = secrets
        datasets = self.node.claim("synicix-datasets")
        (datasets / "line.txt").write_text("2.0")
        (datasets / "line.txt").chmod(0o644)

    def pod(self, where: str, documents: list[Manifest] | None = None) -> Pod:
        [found] = [pod for pod in pods(documents or self.documents) if pod.where == where]
        return found

    def run(self, where: str, *command: str, text: str = "", code: int = 0) -> str:
        """Run a pod, or a command in a second one like it, to its end."""
        found, output = self.node.run(self.pod(where), self.documents, command, text)
        assert found == code, output
        return output


@pytest.fixture
def database(server: dict[str, str], project: Path) -> Iterator[dict[str, str]]:
    """The variables of the server. Pods reach it by TCP; the PostgreSQL of these tests has a socket for its own user."""
    wire = Wire(server)
    # PostgreSQL trusts everybody here, and still DataJoint asks for a password.
    yield {**wire.variables, "DJ_PASS": wire.variables["DJ_PASS"] or "trusted"}
    wire.close()


@pytest.fixture
def cluster(database: dict[str, str], tmp_path_factory) -> Cluster:
    """A few lines on top of ours: workers, the tables' Job, a console and what KEDA's overlay runs."""
    folder = tmp_path_factory.mktemp("cluster")
    credentials = {"database.user": database["DJ_USER"], "database.password": database["DJ_PASS"]}
    documents = overlay(
        folder / "site",
        ["overlays/cpu-smoke"],
        components=["init", "console", "keda"],
        config={
            "datajoint.json": lambda text: datajoint_json(text, database, host=database["DJ_HOST"]),
            "synicix.toml": own_schema,
        },
    )
    return Cluster(folder, documents, {"datajoint-credentials": credentials, "datajoint-owner": credentials})


@pytest.fixture
def old_cluster(database: dict[str, str], tmp_path_factory) -> Cluster:
    """The old cluster with its one Secret, and a disk of the lab's own group; port and kind of database are these tests'."""
    folder, config = tmp_path_factory.mktemp("old-cluster"), ROOT / "overlays" / "old-cluster" / "config"
    documents = overlay(
        folder / "site",
        ["overlays/old-cluster"],
        config={
            "datajoint.json": lambda _: datajoint_json((config / "datajoint.json").read_text(), database),
            "synicix.toml": lambda _: own_schema((config / "synicix.toml").read_text()),
        },
        more=THEIR_GROUP,
    )
    secret = {name: database[name] for name in ("DJ_HOST", "DJ_USER", "DJ_PASS")}
    made = Cluster(folder, documents, {"datajoint-credentials": secret})
    disk = made.node.claim("synicix-results")
    for path in (disk, disk / "synicix_dev", disk / "synicix_dev" / "datasets", disk / "external"):
        path.mkdir(exist_ok=True)
        os.chown(path, 0, 2001)
        path.chmod(0o2775)
    return made


def datajoint_json(text: str, variables: dict[str, str], **fields: str) -> str:
    """Return the configuration with another server; its host only where it is given."""
    server: dict[str, Any] = {"backend": variables["DJ_BACKEND"], "port": int(variables["DJ_PORT"]), **fields}
    if server["backend"] == "postgresql":
        server["name"] = "postgres"
    return json.dumps(json.loads(text) | {"database": server})


def own_schema(text: str) -> str:
    return text.replace('"synicix"', f'"{os.environ["SYNICIX_SCHEMA_NAME"]}"')


def test_from_tables_to_a_result(cluster, project):
    assert "Made the tables" in cluster.run("Job/synicix-init")
    output = cluster.run(
        "Deployment/synicix-console", "synicix-run", "add", "/dev/stdin", text=EXPERIMENT.format(epochs=60)
    )
    assert "1 task added" in output

    # A GPU that is not there is a broken configuration: the index is given up, and the task is as it was.
    gpu = overlay(project / "gpu", ["base"], config={})
    worker = cluster.pod("Job/synicix")
    worker.spec["containers"][0]["args"] = cluster.pod("Job/synicix", gpu).containers[0]["args"]
    assert "--device" in worker.containers[0]["args"]
    code, output = cluster.node.run(worker, cluster.documents)
    assert code == 78 and "there is no device 'cuda' here" in output
    worker.spec["containers"][0]["args"] = ["populate", "--device", "cpu"]

    # The node stops the pod in the middle of the training.
    process = cluster.node.start(worker, cluster.documents)
    pipeline = Pipeline()
    steps = cluster.node.claim("synicix-results") / "steps"
    wait_for(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 10, process)
    os.kill(first_process(process.pid), signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert pipeline.counts()["pending"] == 1
    [row] = pipeline.TrainingAttempt().to_dicts()
    assert row["state"] == "released" and row["host"] == "synicix-0" and row["checkpoint_path"]

    assert "0 tasks queued" in cluster.run("CronJob/synicix-refresh")
    assert "1 task trained" in cluster.run("Job/synicix")
    attempt, path, provenance = pipeline.TrainingResult().fetch1("by_attempt", "model_save_path", "provenance")
    assert attempt == 2, provenance
    saved = steps.parent
    assert len(steps.read_text().splitlines()) == 120  # no step was lost, and none repeated
    assert (saved / "models" / path).stat().st_uid == 10001
    assert {path.name for path in saved.iterdir()} == {"models", "histories", "steps"}
    pipeline.connection.close()


def test_the_old_cluster_from_tables_to_a_result(old_cluster):
    """With nothing but its one Secret and its one disk: tables, a task, and a result at the old paths."""
    assert "Made the tables" in old_cluster.run("Job/synicix-init")
    console = "Deployment/synicix-console"
    assert "1 task added" in old_cluster.run(
        console, "synicix-run", "add", "/dev/stdin", text=EXPERIMENT.format(epochs=1)
    )
    worker = old_cluster.pod("Job/synicix")
    container = worker.containers[0]
    container["args"] = [{"cuda": "cpu"}.get(word, word) for word in container["args"]]
    container["env"].append({"name": "TOY_LAB_STEPS", "value": "/tmp/steps"})
    code, output = old_cluster.node.run(worker, old_cluster.documents)
    assert code == 0 and "1 task trained" in output, output
    disk = old_cluster.node.claim("synicix-results")
    assert {path.stat().st_gid for path in (disk / "synicix_dev" / "model_storage").iterdir()} == {2001}
    assert [*(disk / "external" / "training_result").iterdir()]
    refused = ["python", "-c", "open('/mnt/scratch07/synicix_dev/datasets/x', 'w')"]
    assert "Read-only file system" in old_cluster.run(console, *refused, code=1)


def test_what_a_pod_may_not_do(cluster):
    script = """
import os
for path in ("/project/x", "/run/secrets/datajoint/x", "/data/datasets/x", "/etc/x", "/x", "/usr/x"):
    try:
        open(path, "w")
    except OSError as error:
        print(path, error.strerror)
for path in ("/tmp/x", "/cache/x", "/data/results/x", "/dev/shm/x"):
    open(path, "w").close()
print(os.getpid(), os.getuid(), os.getgid(), os.uname().nodename)
print(open("/proc/self/status").read())
print(oct(os.stat("/run/secrets/datajoint/database.password").st_mode), os.environ["OMP_NUM_THREADS"], os.getcwd())
"""
    output = cluster.run("Job/synicix", "python", "-c", script)
    assert len(re.findall("Read-only file system", output)) == 6, output
    assert "1 10001 10001 synicix-0" in output
    assert re.search(r"CapEff:\s+0{16}\n", output) and re.search(r"CapBnd:\s+0{16}\n", output)
    assert re.search(r"NoNewPrivs:\s+1\n", output)
    assert "0o100440 1 /project" in output
    password = cluster.secrets["datajoint-credentials"]["database.password"]
    assert password not in cluster.run("Job/synicix", "env")


def test_broken_credentials_give_the_index_up(cluster, server):
    if server["DJ_BACKEND"] == "postgresql":
        cluster.secrets["datajoint-credentials"]["database.user"] = "nobody-of-that-name"
    else:
        cluster.secrets["datajoint-credentials"]["database.password"] = "wrong"
    output = cluster.run("Job/synicix", code=78)
    assert "refuses" in output or "refused" in output, output


def wait_for(condition, process, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def first_process(unshare: int) -> int:
    """Return the process that is number 1 in the namespace that `unshare` made, as this machine counts."""
    [child] = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    return int(child)
