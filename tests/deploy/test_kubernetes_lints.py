"""Each of our lints finds what it is there for, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.deploy import lints
from tests.deploy.manifests import BUILDS, SETUPS, Manifest, build, by_name

JOB = "Job/synicix"


@dataclass(frozen=True)
class Mutation:
    """A change that a lint has to find.

    Attributes
    ----------
    lint : str
        The lint, and the only one.
    change : callable
        Changes the object of that name.
    name, folder : str
        Which object, of which build.
    """

    lint: str
    change: Callable[[Any], Any]
    name: str = JOB
    folder: str = "base"


def pod(document: Manifest) -> dict[str, Any]:
    return document["spec"]["template"]["spec"]


def container(document: Manifest) -> dict[str, Any]:
    return pod(document)["containers"][0]


def security(document: Manifest) -> dict[str, Any]:
    return container(document)["securityContext"]


def expressions(document: Manifest) -> list[dict[str, Any]]:
    required = pod(document)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return required["nodeSelectorTerms"][0]["matchExpressions"]


def rules(document: Manifest) -> list[dict[str, Any]]:
    return document["spec"]["podFailurePolicy"]["rules"]


def volume(document: Manifest, name: str) -> dict[str, Any]:
    [found] = [each for each in pod(document)["volumes"] if each["name"] == name]
    return found


def mount(document: Manifest, name: str) -> dict[str, Any]:
    [found] = [each for each in container(document)["volumeMounts"] if each["name"] == name]
    return found


def variable(**fields: Any) -> Callable[[Manifest], None]:
    return lambda document: container(document)["env"].append(fields)


def trigger(document: Manifest) -> dict[str, Any]:
    return document["spec"]["triggers"][0]


def not_indexed(document: Manifest) -> None:
    document["spec"]["completionMode"] = "NonIndexed"
    del document["spec"]["backoffLimitPerIndex"]
    rules(document)[0]["action"] = "FailJob"
    document["spec"]["successPolicy"] = {"rules": [{"succeededCount": 1}]}


def a_secret(document: Manifest) -> None:
    document.update(kind="Secret", apiVersion="v1")
    document["metadata"]["namespace"] = "synicix"


def preferring(*values: object) -> Callable[[Manifest], None]:
    preference = {"matchExpressions": [{"key": "tensor_cores", "operator": "In", "values": values}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": preference}]}
    return lambda document: pod(document)["affinity"]["nodeAffinity"].update(preferred)


def instead_of_tmp(**source: Any) -> Callable[[Manifest], None]:
    return lambda document: [volume(document, "tmp").pop("emptyDir"), volume(document, "tmp").update(source)]


def without_completions(document: Manifest) -> None:
    del document["spec"]["completions"]
    document["spec"].update(parallelism=None)


def annotations(document: Manifest) -> dict[str, str]:
    return document["metadata"]["annotations"]


def read_only(document: Manifest) -> None:
    document["spec"]["accessModes"] = ["ReadOnlyMany"]


def labels(document: Manifest) -> dict[str, str]:
    return document["metadata"]["labels"]


SECRET = {"secretKeyRef": {"name": "datajoint-credentials", "key": "database.password"}}
KEDA = {"name": "ScaledJob/synicix", "folder": "overlays/keda-postgresql"}
KUEUE = {"folder": "overlays/kueue"}
GIT = "https://$(USER):$(GITHUB_PASSWORD)@example.org"
ENFORCE = "pod-security.kubernetes.io/enforce"
QUEUE = "kueue.x-k8s.io/queue-name"
EQUAL = "kueue.x-k8s.io/job-completions-equal-parallelism"
OF_KEDA = ("TriggerAuthentication/synicix", "overlays/keda-mysql")
OF_KUEUE = ("LocalQueue/synicix", "overlays/kueue")
OF_TRIAL = "overlays/postgresql-in-cluster"
OF_STATEFUL = ("StatefulSet/synicix-database", OF_TRIAL)
OF_VOLUME = ("PersistentVolume/synicix-scratch07", "overlays/old-cluster/setup")
OF_DATABASE = ("Service/synicix-database", "overlays/mysql-in-cluster")

MUTATIONS = (
    Mutation("indexed_job_says_how_many", without_completions),
    Mutation("indexes_belong_to_indexed_jobs", not_indexed),
    Mutation("indexes_belong_to_indexed_jobs", lambda d: d["spec"].pop("completionMode")),
    Mutation("indexes_fail_by_their_own_limit", lambda d: d["spec"].pop("backoffLimitPerIndex")),
    Mutation("a_worker_too_many_ends_alone", lambda d: d["spec"].update(maxFailedIndexes=4)),
    Mutation("all_indexes_work_at_once", lambda d: d["spec"].update(parallelism=4)),
    Mutation("job_never_restarts_containers", lambda d: pod(d).update(restartPolicy="OnFailure")),
    Mutation("job_never_restarts_containers", lambda d: pod(d).update(restartPolicy="Always")),
    Mutation("failure_policy_waits_for_the_end", lambda d: d["spec"].update(podReplacementPolicy="TerminatingOrFailed")),
    Mutation("conditions_have_a_status", lambda d: rules(d)[1]["onPodConditions"][0].pop("status")),
    Mutation("conditions_have_a_status", lambda d: rules(d)[1]["onPodConditions"][0].update(status=True)),
    Mutation("exit_codes_can_be_compared", lambda d: rules(d)[2]["onExitCodes"].update(values=[143, 75])),
    Mutation("exit_codes_can_be_compared", lambda d: rules(d)[2]["onExitCodes"].update(values=[75, 75])),
    Mutation("exit_codes_can_be_compared", lambda d: rules(d)[2]["onExitCodes"].update(values=[0, 75])),
    Mutation("exit_codes_can_be_compared", lambda d: rules(d)[0]["onExitCodes"].update(containerName="trainer")),
    Mutation("job_goes_away", lambda d: d["spec"].pop("ttlSecondsAfterFinished")),
    Mutation("comparisons_are_of_one_integer", lambda d: expressions(d)[0].update(values=["8Gi"])),
    Mutation("comparisons_are_of_one_integer", lambda d: expressions(d)[0].update(values=["7500", "16000"])),
    Mutation("comparisons_are_of_one_integer", lambda d: expressions(d)[0].pop("values")),
    Mutation("labels_are_compared_with_text", preferring(True)),
    Mutation("devices_are_requested_as_limited", lambda d: container(d)["resources"].update(requests={"nvidia.com/gpu": 2})),
    Mutation("devices_are_requested_as_limited", lambda d: container(d)["resources"].update(requests={"amd.com/gpu": 1})),
    Mutation("gpus_are_seen_by_those_that_ask", variable(name="NVIDIA_VISIBLE_DEVICES", value="void")),
    Mutation("gpus_are_seen_by_those_that_ask", lambda d: container(d)["resources"]["limits"].pop("nvidia.com/gpu")),
    Mutation("gpus_are_seen_by_those_that_ask", lambda d: container(d)["env"].clear(), "Job/synicix-init", OF_TRIAL),
    Mutation("resources_are_limited", lambda d: container(d)["resources"]["limits"].pop("memory")),
    Mutation("resources_are_limited", lambda d: container(d).pop("resources"), *OF_STATEFUL),
    Mutation("volumes_fit_into_the_limits", lambda d: volume(d, "cache")["emptyDir"].update(sizeLimit="60Gi")),
    Mutation("volumes_fit_into_the_limits", lambda d: volume(d, "shm")["emptyDir"].update(sizeLimit="32Gi")),
    Mutation("volumes_fit_into_the_limits", lambda d: volume(d, "tmp")["emptyDir"].pop("sizeLimit")),
    Mutation("nothing_of_the_host", lambda d: pod(d).update(hostNetwork=True)),
    Mutation("nothing_of_the_host", instead_of_tmp(hostPath={"path": "/mnt"})),
    Mutation("nothing_of_the_host", instead_of_tmp(nfs={"server": "nfs", "path": "/"})),
    Mutation("nothing_of_the_host", lambda d: container(d).update(ports=[{"containerPort": 1, "hostPort": 1}])),
    Mutation("nobody_is_root", lambda d: pod(d)["securityContext"].update(runAsUser=0)),
    Mutation("nobody_is_root", lambda d: security(d).update(runAsUser=0)),
    Mutation("nobody_is_root", lambda d: security(d).update(runAsNonRoot=False)),
    Mutation("nobody_is_root", lambda d: pod(d)["securityContext"].pop("runAsNonRoot")),
    Mutation("nobody_is_root", lambda d: pod(d)["securityContext"].pop("seccompProfile")),
    Mutation("containers_have_no_power", lambda d: security(d).update(readOnlyRootFilesystem=False)),
    Mutation("containers_have_no_power", lambda d: security(d).update(privileged=True)),
    Mutation("containers_have_no_power", lambda d: security(d).pop("allowPrivilegeEscalation")),
    Mutation("containers_have_no_power", lambda d: security(d)["capabilities"].update(add=["SYS_ADMIN"])),
    Mutation("nobody_talks_to_kubernetes", lambda d: pod(d).pop("automountServiceAccountToken")),
    Mutation("nobody_talks_to_kubernetes", lambda d: pod(d).pop("enableServiceLinks")),
    Mutation("secrets_stay_in_files", variable(name="DJ_PASS", valueFrom=SECRET)),
    Mutation("secrets_stay_in_files", variable(name="DJ_PASS", value="hunter2")),
    Mutation("secrets_stay_in_files", variable(name="URL", value="mysql://ann:hunter2@db.example.org")),
    Mutation("secrets_stay_in_files", lambda d: container(d).update(envFrom=[{"secretRef": {"name": "github-credentials"}}])),
    Mutation("secrets_stay_in_files", lambda d: container(d).update(args=[GIT])),
    Mutation("secret_files_are_for_their_reader", lambda d: volume(d, "credentials")["secret"].update(defaultMode=0o644)),
    Mutation("secret_files_are_for_their_reader", lambda d: pod(d)["securityContext"].pop("fsGroup")),
    Mutation("images_have_a_version", lambda d: container(d).update(image="synicix/pytorch-fp16-base:latest")),
    Mutation("images_have_a_version", lambda d: container(d).update(image="registry.example.org:5000/synicix")),
    Mutation("volumes_are_mounted", lambda d: mount(d, "shm").update(name="shared")),
    Mutation("volumes_are_mounted", lambda d: container(d)["volumeMounts"].remove(mount(d, "shm"))),
    Mutation("volumes_are_mounted", lambda d: mount(d, "shm").update(mountPath="/tmp")),
    Mutation("claims_that_are_read_stay_unwritten", lambda d: mount(d, "datasets").pop("readOnly")),
    Mutation("what_is_named_is_there", lambda d: volume(d, "project")["configMap"].update(name="synicix")),
    Mutation("what_is_named_is_there", lambda d: volume(d, "results")["persistentVolumeClaim"].update(claimName="models")),
    Mutation("what_is_named_is_there", lambda d: pod(d).update(serviceAccountName="worker")),
    Mutation("nobody_talks_to_kubernetes", lambda d: pod(d).pop("serviceAccountName")),
    Mutation("selectors_find_their_pods", lambda d: d["spec"]["selector"].update({"app.kubernetes.io/name": "x"}), *OF_DATABASE),
    Mutation("every_pod_has_a_policy", lambda d: d["spec"].update(policyTypes=["Ingress"]), "NetworkPolicy/synicix"),
    Mutation("all_in_one_namespace", lambda d: d["metadata"].pop("namespace")),
    Mutation("namespace_is_restricted", lambda d: labels(d).update({ENFORCE: "baseline"}), "Namespace/synicix", "setup"),
    Mutation("names_are_host_names", lambda d: d["metadata"].update(name="s" * 62)),
    Mutation("names_are_host_names", lambda d: d["metadata"].update(name="Synicix_1")),
    Mutation("configurations_never_change", lambda d: d.pop("immutable"), "ConfigMap"),
    Mutation("claims_get_a_volume", read_only, "PersistentVolumeClaim/synicix-datasets", "setup"),
    Mutation("volumes_wait_for_their_claim", lambda d: d["spec"].pop("claimRef"), *OF_VOLUME),
    Mutation("volumes_wait_for_their_claim", lambda d: d["spec"]["claimRef"].update(namespace="lab"), *OF_VOLUME),
    Mutation("volumes_wait_for_their_claim", lambda d: d["spec"].update(accessModes=["ReadOnlyMany"]), *OF_VOLUME),
    Mutation("no_secret_is_written_down", lambda d: d["data"].update(x='{"database.password": "hunter2"}'), "ConfigMap"),
    Mutation("no_secret_is_written_down", a_secret, *OF_VOLUME),
    Mutation("custom_kinds_are_known", lambda d: d.update(apiVersion="keda.sh/v2"), **KEDA),
    Mutation("scaled_jobs_have_known_fields", lambda d: d["spec"].update(maxReplicas=8), **KEDA),
    Mutation("scaled_jobs_have_known_fields", lambda d: d["spec"].update(maxReplicaCount="8"), **KEDA),
    Mutation("scaled_jobs_have_known_fields", lambda d: d["spec"]["scalingStrategy"].update(strategies="eager"), **KEDA),
    Mutation("scaling_does_not_starve", lambda d: d["spec"].pop("scalingStrategy"), **KEDA),
    Mutation("scaling_does_not_starve", lambda d: d["spec"]["rollout"].update(strategy="default"), **KEDA),
    Mutation("triggers_have_their_metadata", lambda d: trigger(d)["metadata"].pop("sslmode"), **KEDA),
    Mutation("triggers_have_their_metadata", lambda d: trigger(d)["metadata"].update(port=5432), **KEDA),
    Mutation("triggers_have_their_metadata", lambda d: trigger(d)["metadata"].update(username="x"), **KEDA),
    Mutation("triggers_have_their_metadata", lambda d: trigger(d).pop("authenticationRef"), **KEDA),
    Mutation("triggers_have_their_metadata", lambda d: trigger(d).update(type="redis"), **KEDA),
    Mutation("authentications_name_a_secret", lambda d: d["spec"]["secretTargetRef"][0].pop("key"), *OF_KEDA),
    Mutation("queues_lead_somewhere", lambda d: labels(d).update({QUEUE: "gpu"}), **KUEUE),
    Mutation("queues_lead_somewhere", lambda d: d["spec"].update(clusterqueue=d["spec"].pop("clusterQueue")), *OF_KUEUE),
    Mutation("kueue_can_start_with_fewer", lambda d: d["spec"].update(parallelism=1, completions=1), **KUEUE),
    Mutation("kueue_can_start_with_fewer", lambda d: annotations(d).pop(EQUAL), **KUEUE),
    Mutation("kueue_can_start_with_fewer", lambda d: labels(d).pop(QUEUE), **KUEUE),
)  # fmt: skip


@pytest.mark.parametrize("folder", BUILDS)
def test_nothing_is_wrong_with(folder):
    assert lints.lint(build(folder), build(SETUPS.get(folder, "setup"))) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.lint)
def test_a_change_is_found_by_its_lint(mutation):
    documents = build(mutation.folder)
    if mutation.name == "ConfigMap":
        [changed] = [document for document in documents if document["kind"] == "ConfigMap"]
    else:
        changed = by_name(documents, mutation.name)
    mutation.change(changed)
    found = lints.lint(documents, build(SETUPS.get(mutation.folder, "setup")))
    assert found and {problem.partition(":")[0] for problem in found} == {mutation.lint}, found


def test_every_lint_has_a_change_that_it_finds():
    assert {mutation.lint for mutation in MUTATIONS} == {each.__name__ for each in lints.LINTS}


def test_a_lint_is_named_once_and_says_why():
    names = [each.__name__ for each in lints.LINTS]
    assert len(names) == len({*names})
    assert all(each.__doc__ for each in lints.LINTS)
