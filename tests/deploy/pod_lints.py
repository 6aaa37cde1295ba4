"""What a pod must not ask for, must ask for, and what a scheduler accepts and then never matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tests.deploy.manifests import Manifest, Pod, pods, quantity

__all__ = ["POD_LINTS"]

RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
RESTRICTED_VOLUMES |= {"secret"}
"""The kinds of volume that the Pod Security Standard "restricted" lets pass."""
NOT_SECRET = {"DJ_HOST"}
"""Variables that may come from a Secret: the name of a host is none, but the old pipeline keeps it in one."""


def comparisons_are_of_one_integer(documents: Iterable[Manifest]) -> Iterator[str]:
    """Gt and Lt take one plain integer: 8Gi is accepted and then matches no node."""
    for pod in pods(documents):
        for expression in _expressions(pod):
            if expression["operator"] in ("Gt", "Lt"):
                values = expression.get("values", [])
                if len(values) != 1 or not re.fullmatch(r"-?[0-9]+", str(values[0])):
                    yield f"{pod.where}: {expression['key']} {expression['operator']} {values}: one plain integer is taken"


def labels_are_compared_with_text(documents: Iterable[Manifest]) -> Iterator[str]:
    """Values of labels are text: YAML makes booleans and numbers of true and 7 without quotes."""
    for pod in pods(documents):
        for expression in _expressions(pod):
            if not all(isinstance(value, str) for value in expression.get("values", [])):
                yield f"{pod.where}: the values of {expression['key']} are not all text"


def devices_are_requested_as_limited(documents: Iterable[Manifest]) -> Iterator[str]:
    """GPUs cannot be shared, so request and limit are the same."""
    for pod, container in _containers(documents):
        resources = container.get("resources", {})
        limits, requests = resources.get("limits", {}), resources.get("requests", {})
        for name in {*limits, *requests}:
            if "/" in name and requests.get(name, limits.get(name)) != limits.get(name):
                yield f"{pod.where}: {container['name']} requests another number of {name} than its limit"


def gpus_are_seen_by_those_that_ask(documents: Iterable[Manifest]) -> Iterator[str]:
    """An image may ask the NVIDIA runtime for all GPUs; only a device plugin may overrule that, and only it should."""
    for pod, container in _containers(documents):
        if container["image"].rpartition("/")[2].partition(":")[0] != "synicix":
            continue
        where = f"{pod.where}: {container['name']}"
        visible = [each.get("value") for each in container.get("env", []) if each["name"] == "NVIDIA_VISIBLE_DEVICES"]
        if any(name.endswith("/gpu") for name in container.get("resources", {}).get("limits", {})):
            if visible:
                yield f"{where} takes NVIDIA_VISIBLE_DEVICES out of the hands of the device plugin"
        elif visible != ["void"]:
            yield f"{where} asks for no GPU and may see all of its node (NVIDIA_VISIBLE_DEVICES is not void)"


def resources_are_limited(documents: Iterable[Manifest]) -> Iterator[str]:
    """What has no limit takes the node down with it."""
    for pod, container in _containers(documents):
        limits = container.get("resources", {}).get("limits", {})
        for name in ("cpu", "memory", "ephemeral-storage"):
            if name not in limits:
                yield f"{pod.where}: {container['name']} has no limit of {name}"


def volumes_fit_into_the_limits(documents: Iterable[Manifest]) -> Iterator[str]:
    """Volumes in memory count as memory of the pod, the others as its storage; without a size they have no end."""
    for pod in pods(documents):
        sizes = {"memory": 0.0, "ephemeral-storage": 0.0}
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume:
                if "sizeLimit" not in volume["emptyDir"]:
                    yield f"{pod.where}: the volume {volume['name']} has no sizeLimit"
                    continue
                kind = "memory" if volume["emptyDir"].get("medium") == "Memory" else "ephemeral-storage"
                sizes[kind] += quantity(volume["emptyDir"]["sizeLimit"])
        for kind, size in sizes.items():
            limits = [container.get("resources", {}).get("limits", {}).get(kind) for container in pod.containers]
            if None not in limits and size > sum(map(quantity, limits)):
                yield f"{pod.where}: its volumes may take more {kind} than its containers"


def nothing_of_the_host(documents: Iterable[Manifest]) -> Iterator[str]:
    """A pod has its own network, processes and disk."""
    for pod in pods(documents):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.where}: {field}"
        for volume in pod.spec.get("volumes", []):
            for kind in volume.keys() - {"name"} - RESTRICTED_VOLUMES:
                yield f"{pod.where}: a volume of the kind {kind} is refused by the standard restricted"
        for container in pod.containers:
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{pod.where}: {container['name']} takes a port of the host"


def nobody_is_root(documents: Iterable[Manifest]) -> Iterator[str]:
    """By number: Kubernetes cannot tell whether a name is root's."""
    for pod in pods(documents):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield f"{pod.where}: runAsNonRoot is not true"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.where}: there is no seccompProfile"
        for level in (context, *(container.get("securityContext", {}) for container in pod.containers)):
            if (level is context or "runAsUser" in level) and level.get("runAsUser", 0) == 0:
                yield f"{pod.where}: runAsUser is no number above 0"
            if level.get("runAsNonRoot") is False:
                yield f"{pod.where}: a container may be root"


def containers_have_no_power(documents: Iterable[Manifest]) -> Iterator[str]:
    """They gain no rights, have no capabilities and cannot change what they were started from."""
    for pod, container in _containers(documents):
        context = container.get("securityContext", {})
        where = f"{pod.where}: {container['name']}"
        if context.get("privileged"):
            yield f"{where} is privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{where} may gain rights (allowPrivilegeEscalation)"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{where} keeps capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where} can write on its root (readOnlyRootFilesystem)"


def nobody_talks_to_kubernetes(documents: Iterable[Manifest]) -> Iterator[str]:
    """No pod has a token, nor variables that describe the services beside it."""
    for pod in pods(documents):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.where}: automountServiceAccountToken is not false"
        if pod.spec.get("serviceAccountName", "default") == "default":
            yield f"{pod.where}: it runs as the namespace's default service account"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.where}: enableServiceLinks is not false"


def secrets_stay_in_files(documents: Iterable[Manifest]) -> Iterator[str]:
    """Variables and arguments are shown to whoever may look at a pod or a process."""
    for pod, container in _containers(documents):
        where = f"{pod.where}: {container['name']}"
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}) and variable["name"] not in NOT_SECRET:
                yield f"{where} has the secret {variable['name']} in a variable"
            # The path of a file that holds it is what is wanted.
            is_secret = re.search(r"(?i)(PASS|TOKEN|SECRET|CREDENTIAL)\w*(?<!_FILE)$", variable["name"])
            if variable.get("value") and is_secret:
                yield f"{where} has {variable['name']} in a variable"
        if any("secretRef" in source for source in container.get("envFrom", [])):
            yield f"{where} has all of a Secret in variables"
        texts = [*container.get("command", []), *container.get("args", [])]
        texts += [str(variable.get("value", "")) for variable in container.get("env", [])]
        for text in texts:
            if re.search(r"://[^/\s:@]+:[^@\s]+@|--password[= ]|\$\(\w*(PASS|TOKEN|SECRET)\w*\)", text):
                yield f"{where} has a secret in an argument or variable"


def secret_files_are_for_their_reader(documents: Iterable[Manifest]) -> Iterator[str]:
    """Root owns the files, so the group must be the pod's, and others have nothing to read there."""
    for pod in pods(documents):
        for volume in pod.spec.get("volumes", []):
            if "secret" in volume:
                if volume["secret"].get("defaultMode") != 0o440:
                    yield f"{pod.where}: the files of {volume['name']} are not of mode 0440"
                if not pod.spec.get("securityContext", {}).get("fsGroup"):
                    yield f"{pod.where}: without an fsGroup its user cannot read {volume['name']}"


def images_have_a_version(documents: Iterable[Manifest]) -> Iterator[str]:
    """What `latest` is changes under a running Job."""
    for pod, container in _containers(documents):
        image = container["image"]
        name, _, tag = image.rpartition("/")[2].partition(":")
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"{pod.where}: the image {name} has no version"


POD_LINTS = (
    comparisons_are_of_one_integer,
    labels_are_compared_with_text,
    devices_are_requested_as_limited,
    gpus_are_seen_by_those_that_ask,
    resources_are_limited,
    volumes_fit_into_the_limits,
    nothing_of_the_host,
    nobody_is_root,
    containers_have_no_power,
    nobody_talks_to_kubernetes,
    secrets_stay_in_files,
    secret_files_are_for_their_reader,
    images_have_a_version,
)


def _containers(documents: Iterable[Manifest]) -> Iterator[tuple[Pod, dict[str, Any]]]:
    for pod in pods(documents):
        for container in pod.containers:
            yield pod, container


def _expressions(pod: Pod) -> Iterator[dict[str, Any]]:
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity", {})
    terms = [*affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])]
    terms += [each["preference"] for each in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    for term in terms:
        yield from term.get("matchExpressions", [])
