"""KEDA's and Kueue's objects, of which Kubernetes publishes no schema: the fields that we use, as the projects describe them.

KEDA 2.18: ScaledJob and TriggerAuthentication of keda.sh/v1alpha1, and the metadata of the scalers postgresql and mysql.
Kueue 0.15: LocalQueue of kueue.x-k8s.io/v1beta2, and what its webhook asks of a Job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.deploy.manifests import Manifest, name_of

__all__ = ["CUSTOM_LINTS"]

_SCALED_JOB: dict[str, type | tuple[str, ...]] = {
    "jobTargetRef": dict,
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "pollingInterval": int,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "envSourceContainerName": str,
    "rollout": dict,
    "scalingStrategy": dict,
    "triggers": list,
}
_METADATA = {
    "postgresql": (
        {"host", "port", "userName", "dbName", "sslmode", "query", "targetQueryValue"},
        {"activationTargetQueryValue"},
    ),
    "mysql": ({"host", "port", "username", "dbName", "query", "queryValue"}, {"activationQueryValue"}),
}
"""What each scaler needs, and what it takes besides."""
_KINDS = {
    "ScaledJob": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
    "LocalQueue": "kueue.x-k8s.io/v1beta2",
}
_QUEUE = "kueue.x-k8s.io/queue-name"
_LEAST = "kueue.x-k8s.io/job-min-parallelism"
_EQUAL = "kueue.x-k8s.io/job-completions-equal-parallelism"


def custom_kinds_are_known(documents: Iterable[Manifest]) -> Iterator[str]:
    """An object of a group that is not Kubernetes' own is one of those that are looked at here."""
    for document in documents:
        version = document["apiVersion"]
        group = version.rpartition("/")[0]
        own = group in ("", "apps", "batch") or group.endswith(".k8s.io")
        if not own and _KINDS.get(document["kind"]) != version:
            yield f"{name_of(document)}: nobody checks {version}"


def scaled_jobs_have_known_fields(documents: Iterable[Manifest]) -> Iterator[str]:
    """A misspelt field is dropped by the server without a word."""
    for document in _of_kind(documents, "ScaledJob"):
        where, spec = name_of(document), document["spec"]
        yield from _fields(where, spec, _SCALED_JOB, required=("jobTargetRef", "triggers"))
        yield from _fields(
            f"{where}: rollout", spec.get("rollout", {}), {"strategy": ("default", "gradual"), "propagationPolicy": str}
        )
        strategy = spec.get("scalingStrategy", {})
        yield from _fields(
            f"{where}: scalingStrategy", strategy, {"strategy": ("default", "custom", "accurate", "eager")}
        )
        if "template" not in spec.get("jobTargetRef", {}):
            yield f"{where}: jobTargetRef has no template"


def scaling_does_not_starve(documents: Iterable[Manifest]) -> Iterator[str]:
    """The query leaves out what is being trained, so running Jobs are not to be subtracted; nor deleted by an edit."""
    for document in _of_kind(documents, "ScaledJob"):
        spec = document["spec"]
        if spec.get("scalingStrategy", {}).get("strategy") != "accurate":
            yield f"{name_of(document)}: scalingStrategy is not accurate"
        if spec.get("rollout", {}).get("strategy") != "gradual":
            yield f"{name_of(document)}: a change would delete the Jobs that run (rollout)"


def triggers_have_their_metadata(documents: Iterable[Manifest]) -> Iterator[str]:
    """All values are text, the needed ones are there, and the password comes from elsewhere."""
    documents = list(documents)
    for document in _of_kind(documents, "ScaledJob"):
        for trigger in document["spec"].get("triggers", []):
            where = f"{name_of(document)}: the trigger {trigger.get('type')}"
            if trigger.get("type") not in _METADATA:
                yield f"{where} is not known"
                continue
            needed, taken = _METADATA[trigger["type"]]
            metadata = trigger.get("metadata", {})
            for name in sorted(needed - metadata.keys()):
                yield f"{where} lacks {name}"
            for name in sorted(metadata.keys() - needed - taken):
                yield f"{where} does not know {name}"
            for name, value in metadata.items():
                if not isinstance(value, str):
                    yield f"{where}: {name} is not text"
            reference = trigger.get("authenticationRef", {}).get("name")
            if f"TriggerAuthentication/{reference}" not in map(name_of, documents):
                yield f"{where} has no TriggerAuthentication"


def authentications_name_a_secret(documents: Iterable[Manifest]) -> Iterator[str]:
    """They name the Secret and its key."""
    for document in _of_kind(documents, "TriggerAuthentication"):
        where = name_of(document)
        yield from _fields(where, document["spec"], {"secretTargetRef": list}, required=("secretTargetRef",))
        for reference in document["spec"].get("secretTargetRef", []):
            fields: dict[str, type | tuple[str, ...]] = {"parameter": str, "name": str, "key": str}
            yield from _fields(where, reference, fields, required=tuple(fields))


def queues_lead_somewhere(documents: Iterable[Manifest]) -> Iterator[str]:
    """A Job names a LocalQueue that is there, and that one a ClusterQueue."""
    documents = list(documents)
    for document in _of_kind(documents, "LocalQueue"):
        fields: dict[str, type | tuple[str, ...]] = {
            "clusterQueue": str,
            "stopPolicy": ("None", "Hold", "HoldAndDrain"),
        }
        yield from _fields(name_of(document), document["spec"], fields, required=("clusterQueue",))
    for document in _of_kind(documents, "Job"):
        queue = document["metadata"].get("labels", {}).get(_QUEUE)
        if queue is not None and f"LocalQueue/{queue}" not in map(name_of, documents):
            yield f"{name_of(document)}: there is no queue {queue}"


def kueue_can_start_with_fewer(documents: Iterable[Manifest]) -> Iterator[str]:
    """What Kueue's webhook asks of a Job that may start with fewer pods than it would like."""
    for document in _of_kind(documents, "Job"):
        where, spec = name_of(document), document["spec"]
        annotations = document["metadata"].get("annotations", {})
        least = annotations.get(_LEAST)
        if least is None:
            continue
        if not (isinstance(least, str) and least.isdigit() and 0 < int(least) < spec.get("parallelism", 1)):
            yield f"{where}: {_LEAST} has to be a number from 1 to below parallelism, as text"
        if annotations.get(_EQUAL) != "true":
            yield f'{where}: {_EQUAL} is not "true", so the indexes that do not start would start later and find nothing'
        if _QUEUE not in document["metadata"].get("labels", {}):
            yield f"{where}: no queue is named"


CUSTOM_LINTS = (
    custom_kinds_are_known,
    scaled_jobs_have_known_fields,
    scaling_does_not_starve,
    triggers_have_their_metadata,
    authentications_name_a_secret,
    queues_lead_somewhere,
    kueue_can_start_with_fewer,
)


def _of_kind(documents: Iterable[Manifest], kind: str) -> Iterator[Manifest]:
    return (document for document in documents if document["kind"] == kind)


def _fields(
    where: str, given: dict[str, Any], known: dict[str, type | tuple[str, ...]], required: tuple[str, ...] = ()
) -> Iterator[str]:
    for name in required:
        if name not in given:
            yield f"{where} lacks {name}"
    for name, value in given.items():
        wanted = known.get(name)
        if wanted is None:
            yield f"{where} does not know {name}"
        elif isinstance(wanted, tuple):
            if value not in wanted:
                yield f"{where}: {name} is {value!r}, not one of {', '.join(wanted)}"
        elif not isinstance(value, wanted) or isinstance(value, bool):
            yield f"{where}: {name} is not of the type {wanted.__name__}"
