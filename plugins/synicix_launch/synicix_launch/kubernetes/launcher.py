"""Launch workers as an Indexed Job on Kubernetes."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Sequence
from typing import Any

from synicix_core import Settings
from synicix_launch.contract import LaunchRequest, RenderedFile, Submission
from synicix_launch.devices import first_devices
from synicix_launch.errors import LaunchError
from synicix_launch.kubernetes import manifests
from synicix_launch.kubernetes.config_map import config_files, left_out
from synicix_launch.kubernetes.job import NAME_LABEL, edit_job, worker_container
from synicix_launch.kubernetes.names import missing_tag
from synicix_launch.kubernetes.options import KubernetesOptions
from synicix_launch.programs import Answer, run_program
from synicix_launch.templates import read_template

__all__ = ["Kubernetes"]

_BASE = "kubernetes/base"
_IN_EVERY_IMAGE = ("synicix-core", "synicix-mlp", "synicix-neurodata")
_HINT = "Install kubectl, or print the files here and apply them where it is."


class Kubernetes:
    """A Job and the ConfigMap that it mounts.

    Their names follow from their content, because neither the template of a Job nor what running pods have mounted may
    change: other content is another Job, and the same content can be told from a Job that runs.
    """

    options = KubernetesOptions

    def slots(self, options: KubernetesOptions, settings: Settings) -> int:
        """Return how many tasks a pod trains at once."""
        return len(first_devices(options.gpus, settings.worker.devices_per_task)) if options.gpus else 1

    def render(self, request: LaunchRequest) -> tuple[RenderedFile, ...]:
        """Return the ConfigMap and the Job."""
        options: KubernetesOptions = request.options
        text, where = read_template(f"{_BASE}/job.yaml", options.template)
        job = copy.deepcopy(manifests.load(text, where))
        image = worker_container(job, where)["image"]
        base = {name: read_template(f"{_BASE}/config/{name}")[0] for name in ("synicix.toml", "datajoint.json")}
        files = config_files(base, request)
        # What pods are told is what they get the time for.
        grace_seconds = float(tomllib.loads(files["synicix.toml"])["worker"]["grace_seconds"])
        edit_job(job, request, grace_seconds, where)
        if missing_tag(worker_container(job, where)["image"]):
            raise LaunchError(
                "The image has no tag",
                where=where,
                why=f"{image} is another one every day",
                hint="Give one with --image.",
            )
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": options.namespace, "labels": {NAME_LABEL: job["metadata"]["labels"][NAME_LABEL]}},
            "data": files,
            # Its name follows from its content, so nobody has a reason to change it under running pods.
            "immutable": True,
        }
        digest = manifests.content_digest(job, config)
        name = f"{options.name}-{digest}"
        _mount(job, name, where)
        return (
            RenderedFile("configmap.yaml", manifests.text(manifests.named(config, name, digest))),
            RenderedFile("job.yaml", manifests.text(manifests.named(job, f"{name}-1", digest))),
        )

    def warnings(self, request: LaunchRequest) -> list[str]:
        """Say which plugins the image may lack, and which settings pods do not get."""
        warnings = []
        if missing := _missing_plugins(request):
            warnings.append(
                f"The image is not said to hold {', '.join(missing)}, which pending tasks need. Build one that does (see "
                "docs/containers.md), and name them in --plugins; nothing is installed when a pod starts."
            )
        if secrets := left_out(request):
            warnings.append(f"These settings look like secrets, and pods do not get them: {', '.join(secrets)}.")
        return warnings

    def diff(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> str:
        """Return what ``kubectl diff`` says."""
        answer = _kubectl(request, "diff", "--filename=-", text=_stream(files), accepts=(0, 1))
        return answer.stdout

    def submit(self, request: LaunchRequest, files: Sequence[RenderedFile]) -> Submission:
        """Apply the ConfigMap and a Job under a name that is not taken."""
        if missing := _missing_plugins(request):
            raise LaunchError(
                "The workers could not train what is pending",
                why=f"the image is not said to hold {', '.join(missing)}",
                hint=f"If it does, say so: --plugins {','.join(missing)}",
            )
        namespace = request.options.namespace
        config, job = (manifests.load(file.text, file.name) for file in files)
        digest = job["metadata"]["labels"][manifests.LABEL]
        there = _jobs(request, digest)
        running = [name for name, is_running in there.items() if is_running]
        if running and not request.again:
            replicas = f'{{"spec":{{"parallelism":{request.workers},"completions":{request.workers}}}}}'
            raise LaunchError(
                f"The same is running already, as {running[-1]}",
                where=f"namespace {namespace}",
                why="a second Job would double its workers",
                hint=f"To change their number, run: kubectl patch job {running[-1]} --namespace {namespace} --patch "
                f"'{replicas}'. To have a second Job all the same, give --again.",
            )
        number = 1 + max((int(last) for name in there if (last := name.rpartition("-")[2]).isdecimal()), default=0)
        name = f"{config['metadata']['name']}-{number}"
        job = manifests.named(job, name, digest)
        documents = (files[0], RenderedFile(files[1].name, manifests.text(job)))
        answer = _kubectl(request, "apply", "--filename=-", text=_stream(documents))
        at = f"--namespace {namespace}"
        return Submission(
            job=name,
            said=answer.stdout,
            follow=(
                ("its pods", f"kubectl get pods {at} --selector job-name={name}"),
                ("their logs", f"kubectl logs {at} --selector job-name={name} --prefix --follow --max-log-requests=20"),
                ("why none starts", f"kubectl describe job {at} {name}"),
                ("the training", "synicix-run status"),
                ("to end it", f"kubectl delete job {at} {name}"),
            ),
        )


def _missing_plugins(request: LaunchRequest) -> list[str]:
    held = {*_IN_EVERY_IMAGE, *(name.lower().replace("_", "-") for name in request.options.plugins)}
    return [name for name in request.needs if name not in held]


def _mount(job: dict[str, Any], name: str, where: str) -> None:
    """Let the Job mount our ConfigMap in the place of the base's."""
    volumes = [each for each in job["spec"]["template"]["spec"].get("volumes", []) if "configMap" in each]
    if len(volumes) != 1:
        raise LaunchError(
            "The template is of no use", where=where, why="it must mount one ConfigMap, with the settings"
        )
    volumes[0]["configMap"]["name"] = name


def _jobs(request: LaunchRequest, digest: str) -> dict[str, bool]:
    """Return the Jobs of the same content, and whether each still runs, the latest last."""
    selector = f"--selector={manifests.LABEL}={digest}"
    listed = json.loads(_kubectl(request, "get", "jobs", selector, "--output=json").stdout)["items"]
    return {
        each["metadata"]["name"]: not any(
            condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
            for condition in each.get("status", {}).get("conditions") or []
        )
        for each in sorted(listed, key=lambda each: each["metadata"].get("creationTimestamp") or "")
    }


def _kubectl(
    request: LaunchRequest, verb: str, *arguments: str, text: str = "", accepts: Sequence[int] = (0,)
) -> Answer:
    options: KubernetesOptions = request.options
    context = (f"--context={options.context}",) if options.context else ()
    at = f"--namespace={options.namespace}"
    return run_program("kubectl", *context, verb, *arguments, at, text=text, accepts=accepts, hint=_HINT)


def _stream(files: Sequence[RenderedFile]) -> str:
    return "---\n".join(file.text for file in files)
