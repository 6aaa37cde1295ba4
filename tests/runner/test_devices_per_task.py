"""`populate --devices-per-task 2`, on the CPU: a rank is killed, the worker is stopped, and the numbers stay the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from synicix_core.cli.device_sets import find_overlap
from synicix_core.errors import ConfigurationError
from synicix_core.settings import WorkerSettings, load_settings
from tests.faults.lab import STEPS, Lab, Worker, trained

MD5 = "training_task_md5_hash"


@pytest.fixture
def lab(pipeline: Any, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(pipeline, tmp_path / "lab")
    yield made
    made.close()


def start(lab: Lab) -> Worker:
    return lab.start("--device", "cpu", "--devices-per-task", "2")


def rank(worker: Worker) -> int:
    assert worker.executor is not None
    (found,) = [
        child.pid
        for child in psutil.Process(worker.executor).children()
        if "synicix_core.runner.rank" in child.cmdline()
    ]
    return int(found)


@pytest.mark.database
def test_whatever_happens_the_numbers_are_those_of_two_devices(lab: Lab) -> None:
    folder = lab.pipeline.settings.model_save_dir
    (whole,), (killed,) = lab.insert(mark=1), lab.insert(mark=2)
    worker = start(lab)
    lab.wait_for_state(killed, 1, "running")
    lab.wait_until((folder / f"{killed}.1.checkpoint").exists)
    os.kill(rank(worker), signal.SIGKILL)
    assert worker.end() == 0, worker.said
    assert worker.said.count("A task is trained by 2 processes on this CPU") == 1
    lab.check_states(killed, ["failed", "finished"])
    first = lab.attempts(killed)[0]
    assert (first["error_kind"], first["error_cause"]) == ("died", "SIGKILL")
    assert first["error"].startswith("rank 1 of 2 died: it was ended by SIGKILL")
    result = (lab.pipeline.TrainingResult & {MD5: whole}).fetch1()
    assert result["provenance"]["devices"] == 2
    # Each rank makes all steps, each with its part of the batch: these of the first task before anything happened.
    steps = (lab.folder / "steps").read_text().split()[: 2 * STEPS * result["epochs"]]
    assert sorted(map(steps.count, set(steps))) == [STEPS * result["epochs"]] * 2
    expected = trained(lab.pipeline, whole)
    result = (lab.pipeline.TrainingResult & {MD5: killed}).fetch1()
    assert result["provenance"]["resumed_from_epoch"] is not None  # 0: within its first epoch
    assert not trained(lab.pipeline, killed).differences(expected)

    (stopped,) = lab.insert(mark=3)
    worker = start(lab)
    lab.wait_for_steps(2 * 2 * STEPS)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 75, worker.said
    assert start(lab).end() == 0
    lab.check_states(stopped, ["released", "finished"])
    assert not trained(lab.pipeline, stopped).differences(expected)

    tasks = [whole, killed, stopped]
    lab.check_queue(tasks)
    lab.check_files(tasks)


def test_the_processes_are_named_by_their_devices() -> None:
    from synicix_core.runner.parallel_training import _who_trains

    assert _who_trains(["cuda:1", "cuda:2", "cuda:3"], 0).startswith(
        "A task is trained on cuda:1, cuda:2 and cuda:3 at"
    )
    assert "on this CPU, with 1 thread each;" in _who_trains(["cpu", "cpu"], 1)
    assert "on this CPU; each takes" in _who_trains(["cpu", "cpu"], 0)


def test_tasks_of_several_devices_are_never_fused() -> None:
    assert WorkerSettings().group_size is None
    for fuse in ("auto", "off", "4"):
        assert WorkerSettings(fuse=fuse, devices_per_task=2).group_size == 1


def test_less_than_one_device_is_a_mistake(tmp_path: Path) -> None:
    assert load_settings(tmp_path, required=False, worker_devices_per_task=2).worker.devices_per_task == 2
    with pytest.raises(ConfigurationError, match="devices_per_task: must be an integer from 1 on, not 0"):
        load_settings(tmp_path, required=False, worker_devices_per_task=0)


def test_workers_of_a_fleet_do_not_share_devices() -> None:
    assert find_overlap(["cuda:0", "cuda:1"], 1) is find_overlap(["cuda:0", "cuda:2"], 2) is None
    assert find_overlap(["cpu", "cpu", "auto"], 2) is None
    said = find_overlap(["cuda:0", "cuda:1"], 2)
    assert said is not None and "workers on cuda:0 and cuda:1 would share cuda:1" in said
    assert find_overlap(["cuda:1", "cuda:1"], 2) is not None
