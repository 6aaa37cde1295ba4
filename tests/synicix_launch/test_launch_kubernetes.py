"""`launch kubernetes`: what is rendered is a valid Job without secrets, and it is submitted once."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from synicix_core.cli.main import cli
from synicix_core.settings import load_settings
from tests.deploy import lints
from tests.synicix_launch.conftest import add_settings, use_database

TOY = ("--plugins", "toy-lab")
LABEL = "synicix-launch"
BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"


@pytest.fixture
def render(lab, launch):
    """Render with these flags and return the ConfigMap and the Job."""

    def rendered(*arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
        config, job = yaml.safe_load_all(launch("kubernetes", *arguments).stdout)
        return config, job

    return rendered


def worker(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def terms(job: dict[str, Any]) -> set[frozenset[tuple[str, str, str]]]:
    """Return the alternatives of the required node affinity, each as (label, operator, value)s."""
    affinity = pod(job)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return {
        frozenset(
            (rule["key"].rpartition("/")[2], rule["operator"], *rule["values"]) for rule in term["matchExpressions"]
        )
        for term in affinity["nodeSelectorTerms"]
    }


VARIANTS: dict[str, list[str]] = {
    "as it is": [],
    "on the CPU": ["--gpus", "0", "--cpus", "8", "--memory", "8Gi"],
    "two GPUs": ["--gpus", "2", "--gpu-memory", "23028", "--compute-capability", "8.6"],
    "queued": ["--queue", "lab-queue", "--time-limit", "2d", "--grace", "60.5", "--name", "night", "--workers", "110"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_valid_and_passes_our_lints(render, variant):
    documents = list(render(*VARIANTS[variant]))
    for document in documents:
        for version in ("1.31", "1.34", "1.37"):
            kubernetes_validate.validate(document, version, strict=True)
    assert lints.lint(documents, beside=there_already()) == []


def there_already() -> list[dict[str, Any]]:
    """Return what is applied once, before anything is launched."""
    found = []
    for name in ("setup/namespace/namespace", "setup/claims", "base/serviceaccount", "base/networkpolicy"):
        found += list(yaml.safe_load_all((BASE.parent / f"{name}.yaml").read_text()))
    found.append(
        {
            "kind": "LocalQueue",
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "metadata": {"name": "lab-queue"},
            "spec": {"clusterQueue": "all"},
        }
    )
    for document in found:
        document["metadata"]["namespace"] = "synicix"
    return found


def test_there_is_a_worker_for_each_pending_task_up_to_the_most(render, lab):
    job = render()[1]["spec"]
    assert job["parallelism"] == job["completions"] == 3
    add_settings(lab, "[plugins.synicix-launch.kubernetes]\nmax_workers = 2\n")
    assert render()[1]["spec"]["completions"] == 2
    assert render("--workers", 5)[1]["spec"]["completions"] == 5


def test_the_job_mounts_the_config_map_and_its_selector_labels_are_those_of_the_base(render):
    config, job = render()
    (volume,) = [each for each in pod(job)["volumes"] if "configMap" in each]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert {"name": volume["name"], "mountPath": "/project", "readOnly": True} in worker(job)["volumeMounts"]
    policy = yaml.safe_load(base("networkpolicy.yaml"))
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    assert wanted <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_config_map_holds_the_projects_settings_and_the_containers_directories(lab, render, tmp_path):
    add_settings(lab, "max_attempts = 5\nfuse = 4\n")
    data = render()[0]["data"]
    inside = tmp_path / "pod"
    inside.mkdir()
    for name, text in data.items():
        (inside / name).write_text(text)
    here, there = load_settings(lab), load_settings(inside)
    assert there.schema_name == here.schema_name
    assert there.worker.max_attempts == 5 and there.worker.fuse == 4
    assert str(there.dataset_dir) == "/data/datasets" and str(there.model_save_dir) == "/data/results/models"
    datajoint = json.loads(data["datajoint.json"])
    assert datajoint["database"]["host"] == "db.example.org"
    assert datajoint["stores"]["external_training_result"] == {
        "protocol": "file",
        "location": "/data/results/histories",
    }


def test_the_settings_of_other_plugins_go_along_but_for_what_looks_like_a_secret(lab, launch):
    add_settings(
        lab,
        '[plugins.synicix-launch.kubernetes]\ncpus = 3\n[plugins.tracker]\nurl = "http://x"\napi_token = "hush"\n'
        '[plugins.tracker.server]\npassword = "hush"\nport = 1\n[[plugins.tracker.others]]\nsecret = "hush"\nname = "x"\n',
    )
    done = launch("kubernetes")
    assert "hush" not in done.output
    for path in ("plugins.tracker.api_token", "plugins.tracker.server.password", "plugins.tracker.others[0].secret"):
        assert path in done.stderr
    written = tomllib.loads(next(yaml.safe_load_all(done.stdout))["data"]["synicix.toml"])
    assert written["plugins"] == {"tracker": {"url": "http://x", "server": {"port": 1}, "others": [{"name": "x"}]}}


def test_the_port_of_the_database_can_be_another_one_for_pods(lab, launch):
    said = launch("kubernetes", "--database-host", "db:6000", "--json").stdout
    database = json.loads(yaml.safe_load(json.loads(said)["files"]["configmap.yaml"])["data"]["datajoint.json"])[
        "database"
    ]
    assert (database["host"], database["port"]) == ("db", 6000)


@pytest.mark.parametrize(("flags", "seconds"), [((), 120.0), (("--grace", "60.5"), 60.5)])
def test_a_pod_gets_half_a_minute_more_than_its_worker(render, flags, seconds):
    config, job = render(*flags)
    assert tomllib.loads(config["data"]["synicix.toml"])["worker"]["grace_seconds"] == seconds
    assert 30 <= pod(job)["terminationGracePeriodSeconds"] - seconds < 31


def test_the_projects_grace_is_that_of_its_pods(render, lab):
    add_settings(lab, "grace_seconds = 200\n")
    assert pod(render()[1])["terminationGracePeriodSeconds"] == 230


def test_resources_are_asked_for(render):
    job = render("--cpus", 8, "--memory", "32Gi", "--gpus", 1, "--time-limit", "2h")[1]
    limits = worker(job)["resources"]["limits"]
    assert (limits["cpu"], limits["memory"], limits["nvidia.com/gpu"]) == ("8", "32Gi", "1")
    assert job["spec"]["activeDeadlineSeconds"] == 7200


def test_without_gpus_nothing_asks_for_one(render):
    job = render("--gpus", 0)[1]
    assert "nvidia" not in yaml.safe_dump(job)
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in worker(job)["env"]
    assert worker(job)["image"].endswith("-cpu")
    assert worker(job)["args"] == ["populate", "--device", "cpu"]


@pytest.mark.parametrize(
    ("gpus", "each", "arguments"),
    [
        (1, 1, ["--device", "cuda"]),
        (4, 1, ["--devices", "cuda:0,cuda:1,cuda:2,cuda:3"]),
        (4, 2, ["--devices", "cuda:0,cuda:2"]),
        (2, 2, ["--device", "cuda"]),
    ],
)
def test_all_gpus_of_a_pod_are_used(render, monkeypatch, gpus, each, arguments):
    monkeypatch.setenv("SYNICIX_WORKER_DEVICES_PER_TASK", str(each))
    job = render("--gpus", gpus)[1]
    assert worker(job)["args"] == ["populate", *arguments]
    command = cli.get_command(None, "populate")  # type: ignore[arg-type]  # the core's own commands ask no context
    assert command is not None
    command.make_context("populate", worker(job)["args"][1:], resilient_parsing=False)


def test_gpus_that_do_not_divide_are_refused(lab, launch, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_DEVICES_PER_TASK", "2")
    assert "devices_per_task is 2" in launch("kubernetes", "--gpus", 3, code=2).stderr


def test_nodes_are_chosen_by_memory_and_compute_capability(render):
    assert terms(render("--gpu-memory", 23028, "--compute-capability", "8.6")[1]) == {
        frozenset({("gpu.memory", "Gt", "23027"), ("gpu.compute.major", "Gt", "8")}),
        frozenset({("gpu.memory", "Gt", "23027"), ("gpu.compute.major", "In", "8"), ("gpu.compute.minor", "Gt", "5")}),
    }
    # A capability that ends in 0 needs no look at the second number.
    assert terms(render("--gpu-memory", 1, "--compute-capability", "9.0")[1]) == {
        frozenset({("gpu.memory", "Gt", "0"), ("gpu.compute.major", "Gt", "8")})
    }


def test_what_is_not_asked_for_stays_as_the_base_has_it(render):
    before = terms(render()[1])
    assert terms(render("--gpu-memory", 99)[1]) == {
        frozenset({rule for rule in term if rule[0] != "gpu.memory"} | {("gpu.memory", "Gt", "98")}) for term in before
    }


def test_a_queue_of_kueue_is_named_and_may_begin_with_less(render):
    metadata = render("--queue", "lab-queue")[1]["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "lab-queue"
    assert metadata["annotations"] == {
        "kueue.x-k8s.io/job-min-parallelism": "1",
        "kueue.x-k8s.io/job-completions-equal-parallelism": "true",
    }
    assert "annotations" not in render("--queue", "lab-queue", "--workers", 1)[1]["metadata"], "one cannot be fewer"


def test_the_name_follows_from_the_content_but_not_from_the_number_of_workers(render):
    names = [render(*flags)[1]["metadata"]["name"] for flags in ((), ("--workers", 7), ("--cpus", 7), ())]
    assert names[0] == names[1] == names[3] != names[2]
    assert re.fullmatch(r"synicix-[0-9a-f]{8}-1", names[0])


def test_permissions_are_written_as_people_read_them(lab, launch):
    own = yaml.safe_load(base("job.yaml"))
    volumes = own["spec"]["template"]["spec"]["volumes"]
    (credentials,) = [each["secret"] for each in volumes if "secret" in each]
    credentials["items"] = [{"key": "database.password", "path": "database.password", "mode": 0o400}]
    (lab / "own.yaml").write_text(yaml.safe_dump(own))
    text = launch("kubernetes", "--template", "own.yaml").stdout
    assert sorted(re.findall(r"\b(defaultMode|mode): (\d+)\n", text)) == [("defaultMode", "0440"), ("mode", "0400")]
    job = list(yaml.safe_load_all(text))[1]
    (read,) = [each["secret"] for each in pod(job)["volumes"] if "secret" in each]
    assert read == credentials


def test_a_job_of_ones_own_is_the_template(render, launch, lab):
    own = yaml.safe_load(base("job.yaml"))
    own["spec"]["template"]["spec"]["nodeSelector"] = {"room": "basement"}
    (lab / "own.yaml").write_text(yaml.safe_dump(own))
    job = render("--template", "own.yaml", "--cpus", 2)[1]
    assert pod(job)["nodeSelector"] == {"room": "basement"} and worker(job)["resources"]["limits"]["cpu"] == "2"
    for text, words in (("a: [", "not valid YAML"), ("a: 1", "one Job"), (base("networkpolicy.yaml"), "one Job")):
        (lab / "own.yaml").write_text(text)
        assert words in launch("kubernetes", "--template", "own.yaml", code=2).stderr
    assert "No such file" in launch("kubernetes", "--template", "none.yaml", code=2).stderr
    own["spec"]["template"]["spec"]["containers"][0]["image"] = "lab:latest"
    (lab / "own.yaml").write_text(yaml.safe_dump(own))
    assert "--image" in launch("kubernetes", "--template", "own.yaml", code=2).stderr
    own["spec"]["template"]["spec"]["containers"][0]["image"] = "lab:1.2"
    (lab / "own.yaml").write_text(yaml.safe_dump(own))
    assert worker(render("--template", "own.yaml", "--gpus", 0)[1])["image"] == "lab:1.2", "not one of our variants"


def test_nothing_of_the_login_is_rendered_and_an_exposed_password_is_warned_of(lab, launch, monkeypatch):
    use_database(
        monkeypatch,
        embedded=False,
        host="db",
        port=1,
        name="lab",
        password_in_variable=True,
        password_in_config="x.json",
    )
    done = launch("kubernetes")
    for words in ("in the variable DJ_PASS: all programs", "in x.json: it goes wherever that file goes"):
        assert words in done.stderr
    assert done.stderr.count("Write it to .secrets/database.password beside datajoint.json") == 2
    datajoint = json.loads(next(yaml.safe_load_all(done.stdout))["data"]["datajoint.json"])
    assert datajoint["database"] == {"backend": "postgresql", "host": "db", "port": 1, "name": "lab"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "/var/run/postgresql", "127.8.8.8"])
def test_a_database_that_only_this_machine_reaches_is_refused(lab, launch, monkeypatch, host):
    use_database(monkeypatch, embedded=False, host=host, port=5432)
    assert "--database-host" in launch("kubernetes", code=2).stderr


def test_the_postgresql_inside_the_project_is_refused(lab, launch, monkeypatch):
    use_database(monkeypatch, embedded=True)
    said = launch("kubernetes", code=2).stderr
    assert "inside the project" in said and "synicix-run db export" in said and "synicix-run db import" in said


def test_an_object_store_is_the_same_for_pods_and_a_folder_is_that_of_the_claim(lab, launch, monkeypatch):
    objects = {"protocol": "s3", "endpoint": "s3.example.org", "bucket": "lab", "location": "histories"}
    folder = {"protocol": "file", "location": "/data/results/histories"}
    for store, wanted in ((objects, objects), ({"protocol": "file", "location": "/here"}, folder), ({}, folder)):
        use_database(monkeypatch, embedded=False, host="db", port=1, store=store)
        data = next(yaml.safe_load_all(launch("kubernetes").stdout))["data"]["datajoint.json"]
        assert json.loads(data)["stores"]["external_training_result"] == wanted


# Submitting.


def jobs(*names: str, ended: bool = False) -> str:
    conditions = [{"type": "Complete", "status": "True"}] if ended else [{"type": "Suspended", "status": "False"}]
    return json.dumps({"items": [{"metadata": {"name": name}, "status": {"conditions": conditions}} for name in names]})


@pytest.fixture
def kubectl(stand_in):
    return stand_in("kubectl").answers("get", stdout=jobs()).answers("apply", stdout="job.batch/it created\n")


def test_it_is_applied_and_one_is_told_how_to_follow_it(lab, launch, kubectl):
    done = launch("kubernetes", *TOY, "--submit", "--namespace", "lab", "--context", "there")
    get, apply = kubectl.calls
    assert get["arguments"][:3] == ["--context=there", "get", "jobs"] and "--namespace=lab" in get["arguments"]
    assert apply["arguments"] == ["--context=there", "apply", "--filename=-", "--namespace=lab"]
    config, job = yaml.safe_load_all(apply["stdin"])
    assert (config["kind"], job["kind"]) == ("ConfigMap", "Job")
    assert {each["metadata"]["namespace"] for each in (config, job)} == {"lab"}
    assert f"--selector={LABEL}={job['metadata']['labels'][LABEL]}" in get["arguments"]
    name = job["metadata"]["name"]
    assert "job.batch/it created" in done.stdout and f"Submitted: {name}" in done.stdout
    assert f"kubectl logs --namespace lab --selector job-name={name}" in done.stdout
    assert "synicix-run status" in done.stdout


def test_the_same_is_not_submitted_twice_while_it_runs(lab, launch, kubectl):
    name = yaml.safe_load(base_job(launch))["metadata"]["name"]
    kubectl.answers("get", stdout=jobs(name))
    said = launch("kubernetes", *TOY, "--submit", "--workers", 2, code=2).stderr
    assert f"The same is running already, as {name}" in said and "--again" in said
    command = shlex.split(re.search(r"run: (kubectl patch .*?'.*?')", said)[1])  # type: ignore[index]  # asserted by failing
    assert command[:4] == ["kubectl", "patch", "job", name]
    assert json.loads(command[-1]) == {"spec": {"parallelism": 2, "completions": 2}}
    assert [call["arguments"][0] for call in kubectl.calls] == ["get"], "nothing was applied"


@pytest.mark.parametrize(("ended", "flags"), [(True, []), (False, ["--again"])])
def test_a_new_job_gets_a_new_name_over_the_same_content(lab, launch, kubectl, ended, flags):
    stem = yaml.safe_load(base_job(launch))["metadata"]["name"].rpartition("-")[0]
    kubectl.answers("get", stdout=jobs(f"{stem}-2", f"{stem}-10", f"{stem}-odd", ended=ended))
    launch("kubernetes", *TOY, "--submit", *flags)
    config, job = yaml.safe_load_all(kubectl.calls[-1]["stdin"])
    assert job["metadata"]["name"] == f"{stem}-11" and config["metadata"]["name"] == stem


def test_what_kubectl_refuses_is_passed_on(lab, launch, kubectl):
    kubectl.answers("apply", code=1, stderr="Error from server (Forbidden): jobs.batch is forbidden\n")
    said = launch("kubernetes", *TOY, "--submit", code=1).stderr
    assert "kubectl failed with exit code 1" in said and "jobs.batch is forbidden" in said


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_applied(lab, launch, kubectl):
    (lab / "file").write_text("")
    said = launch("kubernetes", *TOY, "--submit", "--output", "file", code=2).stderr
    assert f"({lab / 'file'})" in said and "Nothing was submitted. Name another folder with --output." in said
    assert not kubectl.calls
    kubectl.answers("apply", code=1, stderr="Forbidden\n")
    launch("kubernetes", *TOY, "--submit", "--output", "made", code=1)
    assert list((lab / "made").iterdir()) == [], "what was refused is not there"
    kubectl.answers("apply")
    launch("kubernetes", *TOY, "--submit", "--output", "made")
    assert sorted(path.name for path in (lab / "made").iterdir()) == ["configmap.yaml", "job.yaml"]


def test_without_kubectl_one_is_told_so(lab, launch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for flag in ("--submit", "--diff"):
        assert "kubectl is not installed" in launch("kubernetes", *TOY, flag, code=2).stderr


def test_the_difference_is_what_kubectl_says(lab, launch, kubectl):
    kubectl.answers("diff", code=1, stdout="+  parallelism: 3\n")
    done = launch("kubernetes", "--diff")
    assert done.stdout == "+  parallelism: 3\n"
    assert [call["arguments"][:2] for call in kubectl.calls] == [["diff", "--filename=-"]]
    kubectl.answers("diff", code=0)
    assert "There is no difference" in launch("kubernetes", "--diff").stderr
    kubectl.answers("diff", code=2, stderr="no connection\n")
    assert "no connection" in launch("kubernetes", "--diff", code=1).stderr


def test_plugins_that_the_image_is_not_said_to_hold_are_named(lab, launch, kubectl):
    assert "not said to hold toy-lab" in launch("kubernetes").stderr
    assert "--plugins toy-lab" in launch("kubernetes", "--submit", code=2).stderr
    assert not kubectl.calls
    assert "not said to hold" not in launch("kubernetes", "--plugins", "Toy_Lab").stderr


def base_job(launch: Any) -> str:
    return json.loads(launch("kubernetes", "--json").stdout)["files"]["job.yaml"]


def base(name: str) -> str:
    return (BASE / name).read_text()


def test_nothing_is_installed_when_a_pod_starts(render):
    assert "pip" not in yaml.safe_dump(render("--plugins", "toy-lab")[1])
