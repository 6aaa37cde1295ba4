"""What becomes of a worker by its exit code, and on which nodes it runs."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from synicix_core.runner.options import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISCONFIGURED
from tests.deploy.manifests import BUILDS, Job, build, jobs, name_of, pods, quantity, worker

REPLACED, COUNTED, GIVEN_UP, DONE = "replaced", "replaced and counted", "given up", "done"
ENDINGS = {
    EXIT_DONE: DONE,
    EXIT_FAILED: COUNTED,
    EXIT_INTERRUPTED: REPLACED,
    EXIT_MISCONFIGURED: GIVEN_UP,
    128 + signal.SIGINT: REPLACED,
    128 + signal.SIGTERM: REPLACED,
    128 + signal.SIGKILL: COUNTED,
    128 + signal.SIGSEGV: COUNTED,
}
"""What the table of exit codes in README.md asks of a scheduler."""
WITH_WORKERS = [
    folder for folder in BUILDS if folder == "base" or (folder.count("/") == 1 and folder.startswith("overlays"))
]

GPUS: dict[str, dict[str, Any]] = {
    # MiB, as the device plugin's feature discovery reports them
    "GTX 1080 Ti": {"memory": 11264, "major": 6, "minor": 1},
    "V100": {"memory": 32768, "major": 7, "minor": 0},
    "GTX 1650": {"memory": 4096, "major": 7, "minor": 5},
    "RTX 2080": {"memory": 7982, "major": 7, "minor": 5},
    "T4": {"memory": 15360, "major": 7, "minor": 5},
    "A100": {"memory": 40536, "major": 8, "minor": 0},
    "H100 slice": {"memory": 9984, "major": 9, "minor": 0},
    "H100": {"memory": 81559, "major": 9, "minor": 0},
    "B200": {"memory": 183359, "major": 10, "minor": 0},
}


def ending(job: Job, exit_code: int, *, disrupted: bool = False) -> str:
    """What the job controller does: the first rule that matches holds, and without one the pod counts."""
    if exit_code == 0:
        return DONE
    for rule in job.spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        conditions = rule.get("onPodConditions", [])
        if (codes is not None and (exit_code in codes["values"]) is (codes["operator"] == "In")) or (
            disrupted and {"type": "DisruptionTarget", "status": "True"} in conditions
        ):
            return {"Ignore": REPLACED, "Count": COUNTED, "FailIndex": GIVEN_UP, "FailJob": GIVEN_UP}[rule["action"]]
    return COUNTED


@pytest.mark.parametrize("folder", WITH_WORKERS)
def test_each_exit_code_has_its_ending(folder):
    job = worker(build(folder))
    assert {code: ending(job, code) for code in ENDINGS} == ENDINGS


@pytest.mark.parametrize("folder", WITH_WORKERS)
def test_an_evicted_worker_never_counts(folder):
    job = worker(build(folder))
    assert {ending(job, code, disrupted=True) for code in ENDINGS if code not in (EXIT_DONE, EXIT_MISCONFIGURED)} == {
        REPLACED
    }


@pytest.mark.parametrize("folder", WITH_WORKERS)
def test_a_broken_node_ends_its_own_worker_alone(folder):
    """With FailJob one node without its disk, or one worker that came late and finds nothing it can train, would end all."""
    job = worker(build(folder))
    actions = {rule["action"] for rule in job.spec["podFailurePolicy"]["rules"]}
    if job.where.startswith("ScaledJob/"):
        assert job.spec["completions"] == job.spec["parallelism"] == 1 and "FailJob" in actions
    else:
        assert actions == {"FailIndex", "Ignore"}


def test_crashes_of_days_do_not_end_the_job():
    spec = worker(build("base")).spec
    assert "backoffLimit" not in spec
    assert spec["backoffLimitPerIndex"] >= 10


def test_where_nothing_can_be_trained_keda_does_not_start_workers_all_the_time():
    """It knows no back-off, so the pause between two counts is the only one."""
    for database in ("postgresql", "mysql"):
        [scaled] = [each["spec"] for each in build(f"overlays/keda-{database}") if each["kind"] == "ScaledJob"]
        assert scaled["pollingInterval"] >= 300
        # All that failed since the count before can be looked at.
        assert scaled["failedJobsHistoryLimit"] >= 2 * scaled["maxReplicaCount"]


def test_a_worker_fits_on_a_common_gpu_node():
    """One of 4 cores and 16 GB, less what Kubernetes and its agents keep for themselves there."""
    [container] = worker(build("base")).pod["containers"]
    room = {"cpu": 3.4, "memory": 13 * 2**30, "ephemeral-storage": 40 * 2**30}
    limits = container["resources"]["limits"]
    assert "requests" not in container["resources"]
    assert all(quantity(limits[name]) <= most for name, most in room.items())


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_a_trial_fits_on_a_machine_of_two_cores(database):
    documents = build(f"overlays/{database}-in-cluster")
    sums = {"cpu": 0.0, "memory": 0.0, "ephemeral-storage": 0.0}
    for pod in pods(documents):
        for container in pod.containers:
            for name in sums:
                sums[name] += quantity(container["resources"]["requests"][name])
    # kind and minikube take 0.75 to 0.95 of the cores themselves.
    assert sums["cpu"] <= 0.5 and sums["memory"] <= 1.5 * 2**30 and sums["ephemeral-storage"] <= 2 * 2**30


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_a_trial_is_apart_from_work(database):
    trial = build(f"overlays/{database}-in-cluster")
    [namespace] = [name_of(each) for each in trial if each["kind"] == "Namespace"]
    assert [namespace] == [name_of(each) for each in build("setup/trial")] == ["Namespace/synicix-trial"]
    spaces = {each["metadata"].get("namespace") for each in trial if each["kind"] != "Namespace"}
    assert spaces == {"synicix-trial"}
    assert "synicix-trial" not in {each["metadata"].get("namespace") for each in [*build("base"), *build("setup")]}


def test_the_console_stays_off_gpu_nodes_and_holds_none():
    for folder in ("overlays/old-cluster", "overlays/postgresql-in-cluster"):
        [console] = [pod for pod in pods(build(folder)) if pod.where == "Deployment/synicix-console"]
        template = console.owner["spec"]["template"]
        assert template["metadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
        affinity = console.spec["affinity"]["nodeAffinity"]
        [preferred] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        [expression] = preferred["preference"]["matchExpressions"]
        assert expression == {"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"}


def test_the_number_of_workers_is_that_of_its_overlay():
    numbers = {folder: worker(build(folder)).spec["completions"] for folder in WITH_WORKERS}
    assert numbers["overlays/old-cluster"] == 110
    assert numbers["overlays/cpu-smoke"] == 1
    assert numbers["base"] == 8


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_in_a_trial_workers_wait_for_tasks(database):
    found = {job.where: job.spec.get("suspend", False) for job in jobs(build(f"overlays/{database}-in-cluster"))}
    assert found == {"Job/synicix": True, "Job/synicix-init": False}


def test_the_base_takes_cards_of_8_gb_from_turing_on():
    assert nodes("base") == {"RTX 2080", "T4", "A100", "H100 slice", "H100", "B200"}


def test_the_large_ones_are_of_40_gb_from_ampere_on():
    assert nodes("overlays/gpu-large") == {"A100", "H100", "B200"}


def test_without_a_gpu_any_node_will_do():
    pod = worker(build("overlays/cpu-smoke")).pod
    assert "affinity" not in pod and "tolerations" not in pod
    assert not any("/" in name for name in pod["containers"][0]["resources"]["limits"])


def nodes(folder: str) -> set[str]:
    """Return the cards on whose nodes the workers of a build may run."""
    affinity = worker(build(folder)).pod["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    found = set()
    for name, card in {**GPUS, "none": {}}.items():
        labels = {
            f"nvidia.com/gpu.{'memory' if key == 'memory' else f'compute.{key}'}": str(value)
            for key, value in card.items()
        }
        if any(all(_matches(labels, each) for each in term["matchExpressions"]) for term in terms):
            found.add(name)
    return found


def _matches(labels: dict[str, str], expression: dict[str, Any]) -> bool:
    value = labels.get(expression["key"])
    if value is None:
        return False
    if expression["operator"] == "Gt":
        return int(value) > int(expression["values"][0])
    assert expression["operator"] == "In"
    return value in expression["values"]
