"""A real Slurm: arrays of workers fill a queue, are preempted, limited in time and requeued, and nothing is trained twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest

from tests.deploy.slurm_cluster import SCRIPTS, Cluster
from tests.deploy.slurm_cluster import cluster as _cluster  # noqa: F401 -- pytest finds the fixture in this module
from tests.faults.lab import STEPS, TIMES, Lab

pytestmark = [pytest.mark.database, pytest.mark.slow]

EPOCHS = 25


@pytest.fixture
def lab(pipeline, tmp_path):
    return Lab(pipeline, tmp_path / "lab", step_seconds=0.05)


def submit(
    cluster: Cluster, lab: Lab, *arguments: str, script: str = "worker", options: Sequence[str] = (), **variables: str
) -> str:
    """Submit workers without a GPU, which this machine does not have."""
    array = () if any(option.startswith("--array") for option in options) else ("--array=0",)
    return cluster.submit(
        SCRIPTS / f"{script}.sbatch",
        *arguments,
        options=("--gres=none", "--cpus-per-task=2", "--mem=0", *array, *options),
        **TIMES,
        TOY_LAB_STEPS=str(lab.folder / "steps"),
        TOY_LAB_STEP_SECONDS=str(lab.step_seconds),
        **variables,
    )


def requeued(cluster: Cluster, job: str) -> list[int]:
    """Return how often each element was requeued, the least often first."""
    return sorted(element.restarts for element in cluster.elements(job))


def ended_well(cluster: Cluster, job: str, *, restarts: int) -> None:
    (element,) = cluster.wait(job)
    assert (element.state, element.exit_code, element.restarts) == ("COMPLETED", 0, restarts), cluster.log(job)


def test_an_array_is_preempted_and_limited_in_time_and_every_task_has_one_result(cluster, lab):
    lab.step_seconds = 0.17
    tasks = lab.insert(*range(4), epochs=EPOCHS)
    # The shortest limit that Slurm has; it gives the notice up to half a minute early.
    job = submit(cluster, lab, options=["--array=0-1", "--time=1", "--signal=TERM@10"])
    lab.wait_until(lambda: len(lab.pipeline.TrainingAttempt & "state = 'running'") == 2)
    lab.wait_for_steps(4 * STEPS)

    urgent = cluster.occupy()
    cluster.wait_until(lambda: requeued(cluster, job) >= [1, 1], job=job)
    assert cluster.wait(urgent)[0].state == "COMPLETED"
    lab.wait_until(lambda: len(lab.pipeline.TrainingAttempt & "state = 'running'") == 2)

    cluster.wait_until(lambda: requeued(cluster, job) >= [2, 2], job=job)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    ended = cluster.wait(job)
    assert [(each.state, each.exit_code) for each in ended] == [("COMPLETED", 0)] * 2, cluster.log(job)
    assert sum(each.restarts for each in ended) >= 4

    lab.check(tasks)
    states = [state for task in tasks for state in lab.states(task)]
    assert set(states) == {"released", "finished"} and states.count("finished") == len(tasks)
    assert states.count("released") >= 3  # twice two workers were stopped, one of them perhaps between two tasks
    results = lab.pipeline.TrainingResult.to_dicts()
    assert lab.steps() == STEPS * sum(result["epochs"] for result in results), "a step was made twice"


def test_a_server_and_credentials_are_read_from_files_of_the_project(cluster, lab, server, project, monkeypatch):
    (task,) = lab.insert(epochs=2)
    where = {"host": server["DJ_HOST"], "backend": server["DJ_BACKEND"]}
    if "DJ_PORT" in server:
        where["port"] = int(server["DJ_PORT"])
    (project / "datajoint.json").write_text(json.dumps({"database": where}))
    (project / ".secrets").mkdir(exist_ok=True)
    for name, variable in (("user", "DJ_USER"), ("password", "DJ_PASS")):
        (project / ".secrets" / f"database.{name}").write_text(server[variable])
    for variable in (*server, "DJ_IGNORE_CONFIG_FILE"):
        monkeypatch.delenv(variable)
    ended_well(cluster, submit(cluster, lab), restarts=0)
    lab.check([task])


def test_a_fleet_that_is_preempted_without_a_notice_goes_on_when_it_is_requeued(cluster, lab):
    tasks = lab.insert(0, 1, epochs=EPOCHS)
    job = submit(cluster, lab, script="node", options=["--partition=abrupt"], SYNICIX_WORKERS_PER_DEVICE="2")
    lab.wait_until(lambda: [lab.states(task) for task in tasks].count(["running"]) == 2)
    lab.wait_for_steps(2 * STEPS)
    cluster.occupy()
    ended_well(cluster, job, restarts=1)
    assert [lab.states(task) for task in tasks] == [["released", "finished"]] * 2
    lab.check(tasks)


def test_a_cancelled_job_gives_its_task_back_and_stays_cancelled(cluster, lab):
    (task,) = lab.insert(epochs=10**4)
    job = submit(cluster, lab)
    lab.wait_for_steps(2 * STEPS)
    cluster.run("scancel", job)
    (element,) = cluster.wait(job)
    lab.wait_for_state(task, 1, "released")
    time.sleep(2)  # a requeued job would be pending by now
    (element,) = cluster.elements(job)
    assert (element.state, element.restarts) == ("CANCELLED", 0)
    assert lab.states(task) == ["released"]


def test_a_broken_configuration_is_not_tried_again_by_anybody(cluster, lab):
    lab.insert()
    job = submit(cluster, lab, "--no-such-option", options=["--array=0-3", "--cpus-per-task=8"])
    first, *others = cluster.wait(job)
    assert (first.state, first.exit_code, first.restarts) == ("FAILED", 78, 0)
    assert {each.state for each in others} == {"CANCELLED"}
    said = cluster.log(job)
    assert "No such option" in said and "the elements of the array that wait, requeued ones too, are cancelled" in said


@pytest.mark.parametrize("script", ["worker", "node"])
def test_a_gpu_that_does_not_work_is_neither_replaced_by_the_cpu_nor_laid_on_the_other_nodes(cluster, lab, script):
    (task,) = lab.insert(epochs=2)
    # The node's GPUs are pretended ones, so torch can use none.
    job = submit(cluster, lab, script=script, options=["--array=0-1", "--gres=gpu:2"])
    ended = cluster.wait(job)
    said = cluster.log(job)
    assert [(each.state, each.exit_code, each.restarts) for each in ended] == [("FAILED", 78, 0)] * 2, said
    assert "there is no device 'cuda" in said and said.count("nor can torch use the job's GPUs") == 2
    assert lab.states(task) == []
