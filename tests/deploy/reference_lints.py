"""Objects that name each other: what is named has to be there, and no secret among what is kept in files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tests.deploy.manifests import Manifest, Pod, name_of, pods

__all__ = ["REFERENCE_LINTS"]

CLUSTER_WIDE = {"Namespace", "PersistentVolume"}


def volumes_are_mounted(documents: Iterable[Manifest]) -> Iterator[str]:
    """What is mounted is declared, what is declared is mounted, and one path has one volume."""
    for pod in pods(documents):
        declared = [volume["name"] for volume in pod.spec.get("volumes", [])]
        declared += [claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])]
        mounted = [mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])]
        for name in sorted(set(mounted) - set(declared)):
            yield f"{pod.where}: {name} is mounted and no volume"
        for name in sorted(set(declared) - set(mounted)):
            yield f"{pod.where}: the volume {name} is mounted nowhere"
        for container in pod.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            for path in sorted({path for path in paths if paths.count(path) > 1}):
                yield f"{pod.where}: two volumes are mounted at {path}"


def claims_that_are_read_stay_unwritten(documents: Iterable[Manifest]) -> Iterator[str]:
    """A claim that is read-only is so in the volume and in the mount: one of the two alone is an oversight."""
    for pod in pods(documents):
        for volume in pod.spec.get("volumes", []):
            read_only = volume.get("persistentVolumeClaim", {}).get("readOnly", False)
            for container in pod.containers:
                for mount in container.get("volumeMounts", []):
                    if mount["name"] == volume["name"] and read_only and not mount.get("readOnly"):
                        yield f"{pod.where}: the claim of {volume['name']} is read-only, its mount is not"


def what_is_named_is_there(documents: Iterable[Manifest]) -> Iterator[str]:
    """A pod that names what is not there waits for ever."""
    documents = list(documents)
    there = {name_of(document) for document in documents}
    for pod in pods(documents):
        for name in _named(pod):
            if name not in there:
                yield f"{pod.where}: there is no {name}"


def selectors_find_their_pods(documents: Iterable[Manifest]) -> Iterator[str]:
    """A service or a policy that selects no pod does nothing, and says nothing."""
    documents = list(documents)
    all_labels = [pod.labels for pod in pods(documents)]
    for document in documents:
        spec = document.get("spec", {})
        selector = {"Service": spec.get("selector"), "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels")}
        wanted = selector.get(document["kind"])
        if wanted and not any(wanted.items() <= labels.items() for labels in all_labels):
            yield f"{name_of(document)}: it selects no pod"


def every_pod_has_a_policy(documents: Iterable[Manifest]) -> Iterator[str]:
    """Without a policy for both directions a pod may talk to anybody."""
    documents = list(documents)
    policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
    for pod in pods(documents):
        for direction in ("Ingress", "Egress"):
            if not any(
                direction in policy["policyTypes"]
                and policy["podSelector"].get("matchLabels", {}).items() <= pod.labels.items()
                for policy in policies
            ):
                yield f"{pod.where}: no NetworkPolicy says anything about its {direction}"


def all_in_one_namespace(documents: Iterable[Manifest]) -> Iterator[str]:
    """What has no namespace lands wherever the reader's kubectl points to."""
    documents = list(documents)
    namespaces = {
        document["metadata"].get("namespace") for document in documents if document["kind"] not in CLUSTER_WIDE
    }
    if len(namespaces) > 1 or None in namespaces:
        yield f"the objects lie in the namespaces {sorted(map(str, namespaces))}"


def namespace_is_restricted(documents: Iterable[Manifest]) -> Iterator[str]:
    """The standard is enforced by the server, not by what we remember."""
    for document in documents:
        if document["kind"] == "Namespace":
            labels = document["metadata"].get("labels", {})
            if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
                yield f"{name_of(document)}: the Pod Security Standard restricted is not enforced"


def names_are_host_names(documents: Iterable[Manifest]) -> Iterator[str]:
    """The pods of an Indexed Job are called NAME-INDEX, and so are their hosts: 63 letters at most."""
    for document in documents:
        name = document["metadata"]["name"]
        index = len(str(document.get("spec", {}).get("completions", 0))) + 1 if document["kind"] == "Job" else 0
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) or len(name) + index > 63:
            yield f"{name_of(document)}: the name cannot be that of a host"


def configurations_never_change(documents: Iterable[Manifest]) -> Iterator[str]:
    """What running pods have mounted stays as it is; an overlay that merges files has to say so once more."""
    for document in documents:
        if document["kind"] == "ConfigMap" and document.get("immutable") is not True:
            yield f"{name_of(document)}: it is not immutable"


def claims_get_a_volume(documents: Iterable[Manifest]) -> Iterator[str]:
    """Many classes make no volume that is read-only, and what they did make nobody could fill; it is one made by hand."""
    for document in documents:
        spec = document.get("spec", {})
        read_only = document["kind"] == "PersistentVolumeClaim" and spec["accessModes"] == ["ReadOnlyMany"]
        if read_only and "volumeName" not in spec:
            yield f"{name_of(document)}: it is ReadOnlyMany, and names no volume"


def volumes_wait_for_their_claim(documents: Iterable[Manifest]) -> Iterator[str]:
    """A volume made by hand and its claim name each other, in the claim's namespace, and agree on how they are mounted."""
    documents = list(documents)
    claims = {
        (each["metadata"].get("namespace"), each["metadata"]["name"]): each["spec"]
        for each in documents
        if each["kind"] == "PersistentVolumeClaim"
    }
    for document in documents:
        if document["kind"] != "PersistentVolume":
            continue
        reference = document["spec"].get("claimRef", {})
        claim = claims.get((reference.get("namespace"), reference.get("name")), {})
        if claim.get("volumeName") != document["metadata"]["name"]:
            yield f"{name_of(document)}: its claim is not there, or names another volume"
        elif claim["accessModes"] != document["spec"]["accessModes"]:
            yield f"{name_of(document)}: its claim wants another access"


def no_secret_is_written_down(documents: Iterable[Manifest]) -> Iterator[str]:
    """Secrets are made by hand; in files that are kept there are only their names."""
    for document in documents:
        if document["kind"] == "Secret":
            yield f"{name_of(document)}: a Secret is written down"
        if document["kind"] == "ConfigMap":
            for key, text in document.get("data", {}).items():
                if re.search(r"(?i)\"?(database\.)?(pass(word)?|secret_key|access_key|user)\"?\s*[:=]", text):
                    yield f"{name_of(document)}: {key} holds credentials"


REFERENCE_LINTS = (
    volumes_are_mounted,
    claims_that_are_read_stay_unwritten,
    what_is_named_is_there,
    selectors_find_their_pods,
    every_pod_has_a_policy,
    all_in_one_namespace,
    namespace_is_restricted,
    names_are_host_names,
    configurations_never_change,
    claims_get_a_volume,
    volumes_wait_for_their_claim,
    no_secret_is_written_down,
)


def _named(pod: Pod) -> Iterator[str]:
    if "serviceAccountName" in pod.spec:
        yield f"ServiceAccount/{pod.spec['serviceAccountName']}"
    for volume in pod.spec.get("volumes", []):
        if "configMap" in volume:
            yield f"ConfigMap/{volume['configMap']['name']}"
        if "persistentVolumeClaim" in volume:
            yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
    if pod.owner["kind"] == "StatefulSet":
        yield f"Service/{pod.owner['spec']['serviceName']}"
