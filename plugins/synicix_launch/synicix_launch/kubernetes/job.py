"""The Job: the one of deploy/kubernetes/base, or a lab's own, with the options put in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from synicix_launch.contract import LaunchRequest
from synicix_launch.devices import first_devices
from synicix_launch.errors import LaunchError
from synicix_launch.kubernetes.options import KubernetesOptions
from synicix_launch.values import seconds_of

__all__ = ["MARGIN_SECONDS", "NAME_LABEL", "edit_job", "worker_container"]

MARGIN_SECONDS = 30
"""What a pod gets to stop in beyond the worker's grace period."""

NAME_LABEL = "app.kubernetes.io/name"

_GPU = "nvidia.com/gpu"
_GPU_MEMORY, _MAJOR, _MINOR = "nvidia.com/gpu.memory", "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
_SEEN = "NVIDIA_VISIBLE_DEVICES"
_KUEUE = "kueue.x-k8s.io"


def edit_job(job: dict[str, Any], request: LaunchRequest, grace_seconds: float, where: str) -> None:
    """Put the request into a Job, in place.

    Parameters
    ----------
    job : dict
        The template.
    request : LaunchRequest
        With `KubernetesOptions`.
    grace_seconds : float
        What the workers take to stop.
    where : str
        The template's file, for messages.

    Raises
    ------
    LaunchError
        If the template is no Indexed Job with a container named ``worker``.
    """
    options: KubernetesOptions = request.options
    container = worker_container(job, where)
    pod = job["spec"]["template"]["spec"]
    metadata = job.setdefault("metadata", {})
    metadata["namespace"] = options.namespace
    # Kustomize puts it onto everything, and the network policy applies to what has it.
    for labelled in (metadata, job["spec"]["template"].setdefault("metadata", {})):
        labelled.setdefault("labels", {}).setdefault(NAME_LABEL, "synicix")
    job["spec"]["parallelism"] = job["spec"]["completions"] = request.workers
    if "maxFailedIndexes" in job["spec"]:
        job["spec"]["maxFailedIndexes"] = min(job["spec"]["maxFailedIndexes"], request.workers)
    if options.queue is not None:
        _queue(job, options.queue, request.workers)
    if options.time_limit is not None:
        job["spec"]["activeDeadlineSeconds"] = seconds_of(options.time_limit)
    pod["terminationGracePeriodSeconds"] = math.ceil(grace_seconds) + MARGIN_SECONDS
    if options.image is not None:
        container["image"] = options.image
    elif options.gpus == 0:
        container["image"] = re.sub(r"-cu\d+$", "-cpu", container["image"])
    _set_resources(container, options)
    if options.gpus is not None:
        _set_devices(container, options.gpus, request.settings.worker.devices_per_task)
    if options.gpus == 0:
        _leave_gpu_nodes(pod)
        # Where the runtime is NVIDIA's, a container that asks for no GPU would see all of its node.
        environment = [each for each in container.get("env", []) if each["name"] != _SEEN]
        container["env"] = [*environment, {"name": _SEEN, "value": "void"}]
    else:
        _choose_nodes(pod, options)


def _queue(job: dict[str, Any], queue: str, workers: int) -> None:
    """Let Kueue admit the Job, with as many workers as its quota allows: any number of them is useful."""
    metadata = job["metadata"]
    metadata["labels"][f"{_KUEUE}/queue-name"] = queue
    # Kueue may lower completions to one, and a server refuses a number of indexes above them.
    job["spec"].pop("maxFailedIndexes", None)
    if workers > 1:
        annotations = metadata.setdefault("annotations", {})
        annotations[f"{_KUEUE}/job-min-parallelism"] = "1"
        annotations[f"{_KUEUE}/job-completions-equal-parallelism"] = "true"


def worker_container(job: Any, where: str) -> dict[str, Any]:
    """Return the container named ``worker`` of an Indexed Job.

    Raises
    ------
    LaunchError
        If it is no such Job.
    """
    try:
        assert job["kind"] == "Job" and job["spec"]["completionMode"] == "Indexed"
        containers = job["spec"]["template"]["spec"]["containers"]
        found: dict[str, Any] = next(each for each in containers if each["name"] == "worker")
        assert isinstance(found["image"], str)
    except (KeyError, TypeError, AssertionError, StopIteration):
        raise LaunchError(
            "The template is of no use",
            where=where,
            why='it must be one Job with completionMode: Indexed and a container named "worker" that has an image',
        ) from None
    return found


def _set_resources(container: dict[str, Any], options: KubernetesOptions) -> None:
    resources = container.setdefault("resources", {})
    limits, requests = resources.setdefault("limits", {}), resources.get("requests", {})
    for name, value in (("cpu", options.cpus), ("memory", options.memory), (_GPU, options.gpus)):
        if value == 0:
            limits.pop(name, None)
            requests.pop(name, None)
        elif value is not None:
            # Quoted, as the API writes quantities. Where a template requests less than the limit, it asks for all of it now.
            limits[name] = str(value)
            if name in requests:
                requests[name] = str(value)


def _set_devices(container: dict[str, Any], gpus: int, devices_per_task: int) -> None:
    """Have `populate` use all GPUs of the pod: one worker on each, or on as many as a task takes."""
    given = list(container.get("args", ["populate"]))
    kept = []
    while given:
        argument = given.pop(0)
        if argument in ("--device", "--devices"):
            del given[:1]
        elif not argument.startswith(("--device=", "--devices=")):
            kept.append(argument)
    first = first_devices(gpus, devices_per_task)
    # cuda, not auto: on a node whose driver is broken a worker shall not train on the CPU.
    one = ["--device", "cuda" if gpus else "cpu"]
    container["args"] = [*kept, *(["--devices", ",".join(first)] if len(first) > 1 else one)]


def _leave_gpu_nodes(pod: dict[str, Any]) -> None:
    """Remove what asks for nodes with GPUs, or allows a pod onto them."""
    pod["tolerations"] = [each for each in pod.get("tolerations", []) if each.get("key") != _GPU]
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    terms = _distinct([_without(term, lambda key: key.startswith("nvidia.com/")) for term in required])
    preferred = [
        each
        for each in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
        if not any(rule["key"].startswith("nvidia.com/") for rule in each["preference"].get("matchExpressions", []))
    ]
    kept: dict[str, Any] = {}
    # An empty term matches no node at all, so it must go.
    if terms := [term for term in terms if term]:
        kept["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if preferred:
        kept["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    _set_node_affinity(pod, kept)
    if not pod["tolerations"]:
        del pod["tolerations"]


def _choose_nodes(pod: dict[str, Any], options: KubernetesOptions) -> None:
    """Require the GPU's memory and compute capability; expressions on the same labels are replaced, others stay."""
    replaced: list[str] = []
    ours: list[list[dict[str, Any]]] = [[]]
    if options.gpu_memory is not None:
        replaced.append(_GPU_MEMORY)
        # There is no "at least" for labels; Gt is strict and takes one integer.
        ours = [[*rules, _rule(_GPU_MEMORY, "Gt", options.gpu_memory - 1)] for rules in ours]
    if options.compute_capability is not None:
        replaced += [_MAJOR, _MINOR]
        major, minor = (int(part) for part in options.compute_capability.split("."))
        alternatives = [[_rule(_MAJOR, "Gt", major if minor else major - 1)]]
        if minor:
            alternatives.append([_rule(_MAJOR, "In", major), _rule(_MINOR, "Gt", minor - 1)])
        ours = [[*rules, *more] for rules in ours for more in alternatives]
    if not replaced:
        return
    affinity = dict(pod.get("affinity", {}).get("nodeAffinity", {}))
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", []) or [{}]
    # Terms are alternatives, the expressions of one term all hold.
    kept = _distinct([_without(term, lambda key: key in replaced) for term in required])
    terms = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), *rules]} for term in kept for rules in ours
    ]
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    _set_node_affinity(pod, affinity)


def _rule(key: str, operator: str, value: int) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": [str(value)]}


def _without(term: dict[str, Any], drop: Callable[[str], bool]) -> dict[str, Any]:
    rules = [rule for rule in term.get("matchExpressions", []) if not drop(rule["key"])]
    rest = {key: value for key, value in term.items() if key != "matchExpressions"}
    return {**rest, "matchExpressions": rules} if rules else rest


def _distinct(terms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for term in terms:
        if term not in kept:
            kept.append(term)
    return kept


def _set_node_affinity(pod: dict[str, Any], affinity: dict[str, Any]) -> None:
    whole = {key: value for key, value in pod.get("affinity", {}).items() if key != "nodeAffinity"}
    if affinity:
        whole["nodeAffinity"] = affinity
    if whole:
        pod["affinity"] = whole
    else:
        pod.pop("affinity", None)
