"""What the manifests say and what Synicix reads in them is the same."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import click
import pytest
from datajoint import settings as datajoint_settings

from synicix_core.cli.main import cli
from synicix_core.database.server import configured_server, datajoint_config
from synicix_core.settings import Settings, load_settings
from tests.deploy.manifests import BUILDS, build, pods, quantity
from tests.deploy.volumes import SECRET, environment, fill

PAGE = tomllib.loads((Path(__file__).parent / "old_cluster.toml").read_text())
OLD_SECRET = {"DJ_HOST": "db.lab.example.org", "DJ_USER": "ann", "DJ_PASS": "correct horse"}
HOSTS = {
    "overlays/old-cluster": "db.lab.example.org",
    "overlays/postgresql-in-cluster": "synicix-database",
    "overlays/mysql-in-cluster": "synicix-database",
}
CASES = [
    pytest.param(folder, pod, id=f"{folder} {pod.where}")
    for folder in BUILDS if folder not in ("setup", "setup/namespace", "setup/trial", "overlays/old-cluster/setup")
    for pod in pods(build(folder)) if pod.labels["app.kubernetes.io/name"] == "synicix"
]  # fmt: skip


class Inside:
    """This process, reading what it would read in a container of a pod."""

    def __init__(self, folder: str, pod, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.documents, self.pod, [self.container] = build(folder), pod, pod.containers
        name = next(volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume)
        secrets = {name: OLD_SECRET if folder == "overlays/old-cluster" else SECRET}
        fill(disk, pod, self.documents, secrets)
        self.mounts = {mount["mountPath"]: mount for mount in self.container["volumeMounts"]}
        self.volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        for variable, value in environment(self.container, secrets).items():
            monkeypatch.setenv(variable, value)
        self.project = disk / "project"
        monkeypatch.chdir(self.project)
        monkeypatch.setattr(datajoint_settings, "SYSTEM_SECRETS_DIR", disk / "credentials")
        monkeypatch.setattr(datajoint_settings, "config", datajoint_settings._create_config())

    @property
    def settings(self) -> Settings:
        return load_settings()

    def mount_of(self, path: Path) -> dict:
        """Return the mount that a path lies in: the deepest one."""
        return self.mounts[max((place for place in self.mounts if path.is_relative_to(place)), key=len)]


@pytest.fixture
def inside(request, tmp_path, monkeypatch):
    return lambda folder, pod: Inside(folder, pod, tmp_path, monkeypatch)


@pytest.mark.parametrize(("folder", "pod"), CASES)
def test_user_host_and_store_are_read(inside, folder, pod):
    there = inside(folder, pod)
    server = configured_server(there.settings.project_dir)
    assert server is not None and server.user == "ann" and server.has_password
    assert server.host == HOSTS.get(folder, "db.example.org")
    config = datajoint_config(there.settings.project_dir)
    assert config.database.password.get_secret_value() == "correct horse"
    if server.backend == "postgresql":
        assert (server.port, config.database.name) == (5432, "synicix")
    else:
        # DataJoint warns about a name that MySQL does not take.
        assert (server.port, config.database.name) == (3306, None)
    assert config.get_store_spec("external_training_result")["protocol"] == "file"


@pytest.mark.parametrize(("folder", "pod"), CASES)
def test_the_network_policy_lets_the_database_pass(inside, folder, pod):
    there = inside(folder, pod)
    server = configured_server(there.settings.project_dir)
    [policy] = [
        each["spec"]
        for each in there.documents
        if each["kind"] == "NetworkPolicy" and each["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
    ]
    open_ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    # 5353 is where OpenShift's name service listens; it is in no namespace and at no address that all clusters share.
    assert open_ports == {53, 5353, server.port}
    assert not any("to" in rule for rule in policy["egress"])
    assert policy["ingress"] == []


@pytest.mark.parametrize(("folder", "pod"), CASES)
def test_what_is_written_can_be_written_and_what_is_read_cannot(inside, folder, pod):
    there = inside(folder, pod)
    if pod.where == "CronJob/synicix-refresh":
        assert {*there.mounts} == {"/project", "/run/secrets/datajoint", "/tmp"}
        return
    settings = there.settings
    store = datajoint_config(settings.project_dir).get_store_spec("external_training_result")["location"]
    for path in (settings.model_save_dir, settings.dataset_cache_dir, Path(store), Path("/tmp")):
        assert not there.mount_of(path).get("readOnly"), path
    in_trial = folder.endswith("-in-cluster") and pod.where == "Deployment/synicix-console"
    assert bool(there.mount_of(settings.dataset_dir).get("readOnly")) is not in_trial
    assert there.mount_of(settings.dataset_cache_dir)["name"] == "cache"
    for path in ("/project/synicix.toml", "/project/datajoint.json", "/run/secrets/datajoint/database.user"):
        assert there.mount_of(Path(path))["readOnly"]
    # What is shared lies on a claim, what is not goes with the pod.
    for path in (settings.model_save_dir, Path(store), settings.dataset_dir):
        assert "persistentVolumeClaim" in there.volumes[there.mount_of(path)["name"]], path


@pytest.mark.parametrize(
    ("folder", "pod"), [case for case in CASES if case.values[1].labels["app.kubernetes.io/component"] == "worker"]
)
def test_the_node_waits_thirty_seconds_longer_than_the_worker(inside, folder, pod):
    grace = inside(folder, pod).settings.worker.grace_seconds
    assert pod.spec["terminationGracePeriodSeconds"] == grace + 30


@pytest.mark.parametrize(
    ("folder", "pod"),
    [case for case in CASES if case.values[1].labels["app.kubernetes.io/component"] in ("worker", "console")],
)
def test_the_cache_stays_below_the_size_at_which_the_pod_is_evicted(inside, folder, pod):
    there = inside(folder, pod)
    size = quantity(there.volumes["cache"]["emptyDir"]["sizeLimit"])
    assert 0 < there.settings.max_cache_bytes <= 0.9 * size


@pytest.mark.parametrize(("folder", "pod"), CASES)
def test_the_command_line_can_be_parsed(folder, pod):
    [container] = pod.containers
    if pod.where == "Deployment/synicix-console":
        assert container["command"] == ["sleep", "infinity"]
        return
    assert "command" not in container  # that of the image: synicix-run
    words = list(container["args"])
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(cli), words.pop(0))
    context = command.make_context(command.name, words)
    if command.name == "populate":
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert context.params["device"] == ("cuda" if gpu else "cpu")


def test_a_slip_in_the_configuration_is_found(inside, tmp_path, monkeypatch):
    """The tests above would notice: the same reading, of a pod whose Secret has other keys."""
    [pod] = pods(build("base"))
    renamed = replace(pod, spec={**pod.spec, "volumes": [dict(volume) for volume in pod.spec["volumes"]]})
    for volume in renamed.spec["volumes"]:
        if volume["name"] == "credentials":
            volume["secret"] = {**volume["secret"], "items": [{"key": "database.user", "path": "user"}]}
    there = inside("base", renamed)
    with pytest.raises(Exception, match="without a user"):
        configured_server(there.settings.project_dir)


def test_the_old_cluster_is_that_of_the_old_documentation(inside):
    job, script = PAGE["job"], PAGE["script"]
    everybody = list(pods(build("overlays/old-cluster")))
    assert len(everybody) == 3
    [pod] = [each for each in everybody if each.where == "Job/synicix"]
    there = inside("overlays/old-cluster", pod)
    spec = pod.owner["spec"]
    assert spec["parallelism"] == spec["completions"] == job["parallelism"]
    assert pod.spec["restartPolicy"] == job["restart_policy"]
    assert pod.spec["tolerations"] == [job["toleration"]]
    affinity = pod.spec["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [job["required"]]}
    [preferred] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    weight = {"weight": preferred["weight"]}
    assert weight | preferred["preference"]["matchExpressions"][0] == job["preferred"]
    assert there.container["resources"]["limits"]["nvidia.com/gpu"] == job["gpus"]
    assert there.container["image"].endswith("-cu126")

    # Its Secret, key by key; nothing else of it, and no other Secret.
    secret = there.volumes["credentials"]["secret"]
    assert secret["secretName"] == job["secret"]["name"]
    assert secret["items"] == [
        {"key": "DJ_USER", "path": "database.user"},
        {"key": "DJ_PASS", "path": "database.password"},
    ]
    [host] = [variable for variable in there.container["env"] if variable["name"] == "DJ_HOST"]
    assert host["valueFrom"]["secretKeyRef"] == {"name": job["secret"]["name"], "key": "DJ_HOST"}
    used = {item["key"] for item in secret["items"]} | {host["valueFrom"]["secretKeyRef"]["key"]}
    assert used == {*job["secret"]["keys"]}
    for each in everybody:
        assert re.findall(r"\w+-(?:credentials|owner)", str(each.spec)) == [job["secret"]["name"]] * 2

    # Its disk, at its place, from the server instead of the node: the share, which the nodes had below their /mnt.
    disk = PAGE["disk"]
    assert job["host_path"] == job["mount_path"] and Path(disk["mounted"]).parent == Path(job["host_path"])
    exported = Path("/", disk["share"].rpartition("\\")[2])
    volumes = {
        each["spec"]["claimRef"]["name"]: each["spec"]
        for each in build("overlays/old-cluster/setup")
        if each["kind"] == "PersistentVolume"
    }
    for each in everybody:
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in each.spec["volumes"]
            if "persistentVolumeClaim" in volume
        }
        [container] = each.containers
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"] if mount["name"] in claims}
        assert {*mounts} == {disk["mounted"], script["dataset_dir"].rstrip("/")}
        for path, mount in mounts.items():
            nfs = volumes[claims[mount["name"]]]["nfs"]
            # The server has there what the nodes had at this path, and a part of a mount is asked of nobody as root.
            assert Path(nfs["path"]) == exported / Path(path).relative_to(disk["mounted"])
            assert "subPath" not in mount
            assert bool(nfs.get("readOnly")) is bool(mount.get("readOnly")) is (path != disk["mounted"])

    # Its directories and its order.
    settings = there.settings
    assert settings.dataset_dir == Path(script["dataset_dir"])
    assert settings.model_save_dir == Path(script["model_save_dir"])
    assert settings.num_workers == script["num_workers"]
    assert datajoint_config(settings.project_dir).stores["external_training_result"]["location"] == script["store"]
    assert there.container["args"][-2:] == ["--order", script["order"]]
    assert os.environ["DJ_HOST"] == configured_server(settings.project_dir).host
