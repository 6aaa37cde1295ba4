"""Everything in deploy/kubernetes is built, and taken by the schemas of three versions of Kubernetes."""

from __future__ import annotations

import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from tests.deploy.lints import lint
from tests.deploy.manifests import BUILDS, ROOT, build, by_name, jobs, name_of, overlay, pods, worker

VERSIONS = ("1.31", "1.34", "1.37")
CUSTOM = {"ScaledJob", "TriggerAuthentication", "LocalQueue"}
"""Kinds that the schemas do not know; `tests.deploy.custom_lints` does."""
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/kustomization.yaml"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", BUILDS)
def test_schemas_take_every_object(folder, version):
    for document in build(folder):
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_are_strict(version):
    documents = build("base")
    by_name(documents, "Job/synicix")["spec"]["maxFailedIndices"] = 1
    with pytest.raises(Exception, match="maxFailedIndices"):
        kubernetes_validate.validate(by_name(documents, "Job/synicix"), version, strict=True)


def test_every_overlay_is_a_build_of_its_own():
    overlays = {f"overlays/{path.name}" for path in (ROOT / "overlays").iterdir()}
    assert overlays <= {*BUILDS} and {"base", "setup"} <= {*BUILDS}
    wanted = ("gpu-large", "kueue", "keda-postgresql", "keda-mysql", "old-cluster", "cpu-smoke")
    assert overlays == {f"overlays/{name}" for name in (*wanted, "postgresql-in-cluster", "mysql-in-cluster")}


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name not in ("trial", "keda")])
def test_a_component_can_be_added_to_the_base(tmp_path, component):
    before = ["console"] if component == "datasets-writable" else []
    documents = overlay(tmp_path, ["base"], components=[*before, component])
    assert lint(documents, build("setup")) == []
    assert documents != build("base")


@pytest.mark.parametrize(
    "components",
    [
        ["gpu-large", "kueue"],
        ["kueue", "gpu-large", "init", "console", "object-store"],
        ["gpu-large", "keda-postgresql"],
        ["cpu", "keda-postgresql"],
        ["keda-postgresql", "cpu"],
        ["mysql", "keda-mysql", "cpu"],
        ["cpu", "kueue"],
    ],
    ids=" ".join,
)
def test_components_can_be_combined(tmp_path, components):
    documents = overlay(tmp_path, ["base"], components=components)
    assert lint(documents, build("setup")) == []
    job = worker(documents)
    [container] = job.pod["containers"]
    assert job.where == ("ScaledJob/synicix" if "keda" in " ".join(components) else "Job/synicix")
    if "gpu-large" in components:
        assert container["resources"]["limits"]["memory"] == "64Gi"
    if "kueue" in components:
        [queued] = [each for each in documents if name_of(each) == job.where]
        assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "synicix"
    if "cpu" in components:
        assert container["image"] == "synicix:0.1.0-cpu" and container["args"] == ["populate", "--device", "cpu"]
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
        assert not {"affinity", "tolerations"} & job.pod.keys()


def test_gpu_large_after_keda_is_refused_instead_of_lost(tmp_path):
    with pytest.raises(AssertionError, match=r"Job.*synicix"):
        overlay(tmp_path, ["base"], components=["keda-postgresql", "gpu-large"])


def test_names_of_ones_own_reach_what_keda_reads(tmp_path):
    secrets = "[{name: datajoint-credentials, literals: [x=x]}, {name: synicix-scaler, literals: [password=x]}]"
    documents = overlay(
        tmp_path,
        ["base"],
        components=["keda-postgresql"],
        more=f"{{namePrefix: lab-, secretGenerator: {secrets}}}",
    )
    [credentials, scaler] = [each["metadata"]["name"] for each in documents if each["kind"] == "Secret"]
    assert credentials.startswith("lab-datajoint-credentials-") and scaler.startswith("lab-synicix-scaler-")
    scaled = by_name(documents, "ScaledJob/lab-synicix")["spec"]
    [used] = [each["secret"] for each in scaled["jobTargetRef"]["template"]["spec"]["volumes"] if "secret" in each]
    assert used["secretName"] == credentials
    assert scaled["triggers"][0]["authenticationRef"] == {"name": "lab-synicix"}
    [reference] = by_name(documents, "TriggerAuthentication/lab-synicix")["spec"]["secretTargetRef"]
    assert reference["name"] == scaler


def test_a_cluster_of_ones_own_is_a_few_lines(tmp_path):
    documents = overlay(
        tmp_path,
        ["base"],
        components=["init", "keda"],
        config={"datajoint.json": lambda _: "{}"},
        more='{namespace: vision-lab, images: [{name: synicix, newName: vision-lab/synicix, newTag: "7"}]}',
    )
    assert {document["metadata"]["namespace"] for document in documents} == {"vision-lab"}
    images = {container["image"] for pod in pods(documents) for container in pod.containers}
    assert images == {"vision-lab/synicix:7"}
    [project] = [document for document in documents if document["kind"] == "ConfigMap"]
    assert project["data"]["datajoint.json"] == "{}" and "dataset_dir" in project["data"]["synicix.toml"]
    named = [
        volume["configMap"]["name"]
        for pod in pods(documents)
        for volume in pod.spec["volumes"]
        if "configMap" in volume
    ]
    assert len(named) == 4 and {*named} == {project["metadata"]["name"]}


def test_another_configuration_has_another_name():
    """So it never changes under a Job that runs, and a Job whose configuration changed is refused instead of half changed."""
    names = {
        name_of(document)
        for folder in ("base", "overlays/keda-mysql", "overlays/old-cluster")
        for document in build(folder)
    }
    assert len([name for name in names if name.startswith("ConfigMap/")]) == 3


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_scaled_workers_are_those_of_the_base(tmp_path, database):
    of_base, scaled = worker(build("base")), worker(build(f"overlays/keda-{database}"))
    assert scaled.where == "ScaledJob/synicix"
    if database == "postgresql":
        assert scaled.spec["template"] == of_base.spec["template"]
    assert [job.where for job in jobs(build(f"overlays/keda-{database}"))] == [
        "CronJob/synicix-refresh",
        "ScaledJob/synicix",
    ]


def test_files_are_plain_yaml():
    """No duplicate keys, no tabs, no lines that run off: what yamllint asks."""
    config = ROOT.parents[1] / ".yamllint.yaml"
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", str(config), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_files_are_ones_that_a_build_uses(tmp_path):
    """A file that no kustomization.yaml names is dead, unless people run it by hand."""
    named = set()
    for path in ROOT.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        parts = [*document.get("resources", []), *document.get("configurations", [])]
        parts += [patch["path"] for patch in document.get("patches", []) if "path" in patch]
        parts += [file for each in document.get("configMapGenerator", []) for file in each["files"]]
        named |= {(path.parent / part).resolve() for part in parts} | {path}
    files = {path for path in ROOT.rglob("*") if path.is_file() and "sql" not in path.parts}
    assert files <= named, files - named
