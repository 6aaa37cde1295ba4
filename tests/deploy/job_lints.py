"""What a server refuses in a Job, or quietly never does, although the published schemas let it pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.deploy.manifests import Job, Manifest, jobs

__all__ = ["JOB_LINTS"]


def indexed_job_says_how_many(documents: Iterable[Manifest]) -> Iterator[str]:
    """An Indexed Job needs completions."""
    for job in jobs(documents):
        if _is_indexed(job) and "completions" not in job.spec:
            yield f"{job.where}: completionMode is Indexed, and there are no completions"


def indexes_belong_to_indexed_jobs(documents: Iterable[Manifest]) -> Iterator[str]:
    """Whatever speaks of indexes needs an Indexed Job."""
    for job in jobs(documents):
        for field in ("backoffLimitPerIndex", "successPolicy"):
            if field in job.spec and not _is_indexed(job):
                yield f"{job.where}: {field} needs completionMode Indexed"


def indexes_fail_by_their_own_limit(documents: Iterable[Manifest]) -> Iterator[str]:
    """To give up one index needs a limit for each of them."""
    for job in jobs(documents):
        if "FailIndex" in [rule["action"] for rule in _rules(job)] and "backoffLimitPerIndex" not in job.spec:
            yield f"{job.where}: the action FailIndex needs backoffLimitPerIndex"


def a_worker_too_many_ends_alone(documents: Iterable[Manifest]) -> Iterator[str]:
    """A worker that finds only tasks that it cannot train ends with 78; some of these must not stop those that train."""
    for job in jobs(documents):
        if "maxFailedIndexes" in job.spec:
            yield f"{job.where}: with maxFailedIndexes workers that are too many end those that train"


def all_indexes_work_at_once(documents: Iterable[Manifest]) -> Iterator[str]:
    """An index is a worker that drains the queue: one that starts when others are done finds nothing."""
    for job in jobs(documents):
        if _is_indexed(job) and job.spec.get("completions") != job.spec.get("parallelism", 1):
            yield f"{job.where}: completions and parallelism differ"


def job_never_restarts_containers(documents: Iterable[Manifest]) -> Iterator[str]:
    """A failure policy judges pods; a container that the node restarts is never judged."""
    for job in jobs(documents):
        if job.pod.get("restartPolicy") != "Never":
            yield f"{job.where}: restartPolicy is {job.pod.get('restartPolicy')}, not Never"


def failure_policy_waits_for_the_end(documents: Iterable[Manifest]) -> Iterator[str]:
    """A failure policy replaces pods that have ended, not those that are about to."""
    for job in jobs(documents):
        replacement = job.spec.get("podReplacementPolicy", "Failed")
        if _rules(job) and replacement != "Failed":
            yield f"{job.where}: podReplacementPolicy is {replacement}; with a podFailurePolicy only Failed is taken"


def conditions_have_a_status(documents: Iterable[Manifest]) -> Iterator[str]:
    """Older servers refuse a condition without it, and YAML makes a boolean of True without quotes."""
    for job in jobs(documents):
        for rule in _rules(job):
            for condition in rule.get("onPodConditions", []):
                if condition.get("status") != "True":
                    yield f'{job.where}: the condition {condition.get("type")} lacks status: "True"'


def exit_codes_can_be_compared(documents: Iterable[Manifest]) -> Iterator[str]:
    """Exit codes come in order, each once, 0 never among them, of a container that there is."""
    for job in jobs(documents):
        names = {container["name"] for container in job.pod["containers"]}
        for rule in _rules(job):
            codes = rule.get("onExitCodes")
            if codes is None:
                continue
            if codes["values"] != sorted(set(codes["values"])):
                yield f"{job.where}: the exit codes {codes['values']} are not in order, or not each once"
            if codes["operator"] == "In" and 0 in codes["values"]:
                yield f"{job.where}: 0 is no exit code of a failure"
            if codes.get("containerName", next(iter(names))) not in names:
                yield f"{job.where}: exit codes of {codes['containerName']}, which is no container of the pod"


def job_goes_away(documents: Iterable[Manifest]) -> Iterator[str]:
    """A Job that nobody removes stays for ever, with its pods; those of a CronJob are removed by their number."""
    for document in documents:
        if document["kind"] == "CronJob":
            continue
        for job in jobs([document]):
            if "ttlSecondsAfterFinished" not in job.spec:
                yield f"{job.where}: there is no ttlSecondsAfterFinished"


JOB_LINTS = (
    indexed_job_says_how_many,
    indexes_belong_to_indexed_jobs,
    indexes_fail_by_their_own_limit,
    a_worker_too_many_ends_alone,
    all_indexes_work_at_once,
    job_never_restarts_containers,
    failure_policy_waits_for_the_end,
    conditions_have_a_status,
    exit_codes_can_be_compared,
    job_goes_away,
)


def _is_indexed(job: Job) -> bool:
    return job.spec.get("completionMode") == "Indexed"


def _rules(job: Job) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = job.spec.get("podFailurePolicy", {}).get("rules", [])
    return rules
