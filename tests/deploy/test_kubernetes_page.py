"""docs/kubernetes.md says what is there, and what can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from synicix_core.cli.main import cli
from tests.deploy.lints import lint
from tests.deploy.manifests import BUILDS, ROOT, Manifest, build, build_at, by_name, overlay, pods, quantity, worker
from tests.deploy.test_kubernetes_jobs import COUNTED, DONE, ENDINGS, GIVEN_UP, REPLACED
from tests.docs.markdown_page import blocks

CHECKOUT = ROOT.parents[1]
PAGE = (CHECKOUT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
SHELL = [
    line
    for block in BLOCKS if block.language == "sh"
    for line in block.text.replace("\\\n", " ").splitlines()
]  # fmt: skip


def test_every_folder_is_on_the_page_and_no_other():
    table = PAGE.partition("| folder of")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z/-]+)`", row.split("|")[1])}
    folders = {
        name for name in BUILDS if not name.endswith("/setup") and name not in ("setup/namespace", "setup/trial")
    }
    assert named == folders | {"components", "sql"}
    [components] = [row for row in table.splitlines() if row.startswith("| `components`")]
    there = {path.name for path in (ROOT / "components").iterdir()}
    assert {*re.findall(r"`([a-z-]+)`", components)} == there | {"components"}


def test_each_exit_code_is_explained():
    section = PAGE.partition("## What becomes of a worker")[2].partition("\n## ")[0]
    assert "maxFailedIndexes" not in section.partition("A replacement comes")[0]
    words = {DONE: "is done", REPLACED: "replaced, not counted", GIVEN_UP: "given up", COUNTED: "backoffLimitPerIndex"}
    rows = [row.split("|")[1:4] for row in section.splitlines() if re.match(r"\| \d", row)]
    told = {int(code): text for codes, _, text in rows for code in re.findall(r"\d+", codes)}
    assert {*told} == {*ENDINGS}
    for code, end in ENDINGS.items():
        assert words[end] in told[code], code


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder that commands are typed in, with the checkout and the files that the page has people write."""
    folder: Path = tmp_path_factory.mktemp("place")
    (folder / "synicix").symlink_to(CHECKOUT)
    for block in BLOCKS:
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    return folder


def images(documents: list[Manifest]) -> set[str]:
    return {container["image"] for pod in pods(documents) for container in pod.containers}


def test_every_folder_that_is_written_is_applied(place):
    written = {str(Path(block.file).parent) for block in BLOCKS if block.file.endswith("kustomization.yaml")}
    typed = " ".join(SHELL)
    assert written == {"my-lab", "my-lab/setup", "my-lab-keda", "my-old-lab", "my-old-lab/setup"}
    assert all(f"kubectl apply -k {folder} " in f"{typed} " for folder in written)


def test_the_first_deployment_can_be_built(place):
    documents, setup = build_at(place / "my-lab"), build_at(place / "my-lab" / "setup")
    assert lint(documents, setup) == []
    claims = [each["spec"] for each in setup if each["kind"] == "PersistentVolumeClaim"]
    assert [claim["storageClassName"] for claim in claims] == ["shared-disk"] * 2
    assert images(documents) == {"images.my-lab.org/synicix:0.1.0-cu130"}
    assert worker(documents).spec["completions"] == 20
    assert worker(documents).pod["containers"][0]["resources"]["limits"]["memory"] == "32Gi"
    [project] = [each for each in documents if each["kind"] == "ConfigMap"]
    assert "db.my-lab.org" in project["data"]["datajoint.json"]
    [console] = [pod for pod in pods(documents) if pod.where == "Deployment/synicix-console"]
    [datasets] = [each for each in console.containers[0]["volumeMounts"] if each["name"] == "datasets"]
    assert datasets["mountPath"] == "/data/datasets" and not datasets.get("readOnly")


def test_the_secrets_that_are_made_are_those_that_pods_mount(place):
    """Before the first pod that mounts it, and of no namespace but the pods'."""
    for folder, namespace in (("my-lab", "synicix"), ("my-lab-keda", "synicix")):
        documents = build_at(place / folder)
        wanted = {
            volume["secret"]["secretName"]
            for pod in pods(documents)
            for volume in pod.spec["volumes"]
            if "secret" in volume
        }
        wanted |= {
            reference["name"]
            for each in documents if each["kind"] == "TriggerAuthentication"
            for reference in each["spec"]["secretTargetRef"]
        }  # fmt: skip
        made = {
            match[1] for line in SHELL if (match := re.search(rf"-n {namespace} create secret generic (\S+)", line))
        }
        assert wanted <= made
    typed = "\n".join(SHELL)
    assert typed.index("create secret generic datajoint-owner") < typed.index("component!=worker")


def test_no_password_is_an_argument_or_a_file():
    typed = "\n".join(SHELL)
    for line in typed.splitlines():
        if "create secret" in line:
            assert "password=/dev/stdin" in line, line
    assert "read -rs" in typed and not re.search(r"read -r?p? |password *>|--password", typed)
    # What goes through `apply` is kept in an annotation of the object.
    assert not re.search(r"secret[^\n]*\| *kubectl apply", typed)


def test_the_overlay_of_keda_can_be_built(place):
    documents = build_at(place / "my-lab-keda")
    assert lint(documents, build("setup")) == []
    scaled = by_name(documents, "ScaledJob/synicix")["spec"]
    assert scaled["triggers"][0]["metadata"]["host"] == "db.my-lab.org" and scaled["maxReplicaCount"] == 20
    assert images(documents) == {"images.my-lab.org/synicix:0.1.0-cu130"}
    assert scaled["jobTargetRef"]["template"] == by_name(build_at(place / "my-lab"), "Job/synicix")["spec"]["template"]
    minutes = re.search(r"comes up to (\w+) minutes", PAGE)
    assert minutes is not None and (minutes[1], scaled["pollingInterval"]) == ("five", 300)
    assert f"the last {scaled['failedJobsHistoryLimit']} are kept" in PAGE


def test_the_overlay_of_the_old_cluster_can_be_built(place):
    setup = build_at(place / "my-old-lab" / "setup")
    documents = build_at(place / "my-old-lab")
    assert lint(documents, setup) == []
    servers = {each["spec"]["nfs"]["server"] for each in setup if each["kind"] == "PersistentVolume"}
    assert servers == {"nfs.my-lab.org"}
    assert images(documents) == {"images.my-lab.org/synicix:0.1.0-cu126"}
    assert {pod.spec["securityContext"]["runAsGroup"] for pod in pods(documents)} == {2001}


def test_other_ports_are_opened_by_the_patches(tmp_path):
    [patches] = [
        block.text for block in BLOCKS if block.section.startswith("Storage") and block.text.startswith("patches")
    ]
    documents = overlay(tmp_path, ["base"], components=["object-store"], more=patches)
    ports = {
        each["metadata"]["name"]: [port["port"] for rule in each["spec"]["egress"] for port in rule["ports"]]
        for each in documents
        if each["kind"] == "NetworkPolicy"
    }
    assert ports == {"synicix": [53, 53, 5353, 5353, 6432], "synicix-object-store": [9000]}


def test_the_quota_of_the_page_has_room_for_the_workers():
    [text] = [block.text for block in BLOCKS if block.section.startswith("Kueue")]
    flavor, queue = yaml.safe_load_all(text)
    [local] = [each for each in build("overlays/kueue") if each["kind"] == "LocalQueue"]
    assert queue["metadata"]["name"] == local["spec"]["clusterQueue"]
    assert {flavor["apiVersion"], queue["apiVersion"]} == {local["apiVersion"]}
    [group] = queue["spec"]["resourceGroups"]
    [offered] = group["flavors"]
    assert offered["name"] == flavor["metadata"]["name"]
    quota = {each["name"]: quantity(each["nominalQuota"]) for each in offered["resources"]}
    job = worker(build("overlays/kueue"))
    [container] = job.pod["containers"]
    limits = container["resources"]["limits"]
    # In the order of coveredResources, which Kueue insists on.
    assert [*quota] == group["coveredResources"] and {*quota} == {*limits}
    assert all(quota[name] >= job.spec["parallelism"] * quantity(each) for name, each in limits.items())


def test_what_is_typed_names_files_that_are_there():
    named = {word for line in SHELL for word in re.findall(r"deploy/kubernetes[\w./-]*", line)}
    assert len(named) >= 3
    # From the folder beside the checkout, whose name is synicix.
    assert len(re.findall(r"(?<!synicix/)deploy/(?:kubernetes|docker)", "\n".join(SHELL))) == 0
    for path in named:
        assert (CHECKOUT / path).exists(), path
        if not Path(path).suffix:
            assert (CHECKOUT / path / "kustomization.yaml").is_file(), path


@pytest.mark.parametrize("line", [line for line in SHELL if " -- synicix-run " in line])
def test_what_is_typed_in_the_console_can_be_parsed(line):
    words = shlex.split(line.partition(" -- synicix-run ")[2].partition(" < ")[0].partition(" #")[0])
    command: click.Command | None = cli
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(cli), words.pop(0))
    assert command is not None
    command.make_context(command.name, words)


def test_names_in_commands_are_those_of_the_manifests():
    names = {
        f"{each['kind'].lower()}/{each['metadata']['name']}" for each in build("overlays/postgresql-in-cluster")
    } | {"deploy/synicix-console"}
    used = {word for line in SHELL for word in re.findall(r"\b(?:job|deploy)/synicix[\w-]*", line)}
    assert used == {"job/synicix-init", "deploy/synicix-console"} and used <= names
    spaces = [
        (block.section.partition("\n")[0], space) for block in BLOCKS for space in re.findall(r" -n (\S+)", block.text)
    ]
    assert {space for section, space in spaces if section == "A trial"} == {"synicix-trial"}
    assert {space for section, space in spaces if section != "A trial"} == {"synicix", "OLD"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)?(?:#([\w-]+))?\)", PAGE):
        page, anchor = target
        if page.startswith("http"):
            continue
        text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8") if page else PAGE
        if anchor:
            headings = {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
                for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            }
            assert anchor in headings, anchor
