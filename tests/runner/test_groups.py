"""Tasks that are alike are trained together, and each ends as it would by itself.

Groups are trained here by `tests/group_kit`, in turn: what is tested is the worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synicix_core.runner.display import Silent
from synicix_core.runner.endings import Endings
from synicix_core.runner.group_messages import pack, unpack
from synicix_core.runner.options import WorkerOptions, WorkerSummary
from synicix_core.settings import load_settings
from synicix_core.tables.queue import Queue
from synicix_core.tables.queue_ends import GroupEnds
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
KIT = str(Path(__file__).parents[1] / "group_kit")


class Told(Silent):
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[str, str]] = []
        self.whys: dict[str, str] = {}
        self.groups: list[tuple[list[str], int]] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    def task_started(self, task: str, configs: Any, attempt: int, pending: int) -> None:
        assert configs["epoch_limit"] >= 2 and pending >= 1
        self.shown.append(("started", task))

    def group_started(self, group: Any, pending: int) -> None:
        self.groups.append((list(group), pending))
        for task, configs in group.items():
            assert configs["epoch_limit"] >= 2
            self.shown.append(("started", task))

    def group_ended(self, tasks: Any, how: str, text: str) -> None:
        for task in tasks:
            self.task_ended(task, how, text)

    def epoch_finished(self, task: str, fields: Any) -> None:
        assert fields["epoch_limit"] >= fields["epoch"] and "task" not in fields
        self.shown.append(("epoch", task))

    def task_finished(self, task: str, result: Any, seconds: float) -> None:
        self.shown.append(("finished", task))

    def task_ended(self, task: str, how: str, why: str) -> None:
        self.shown.append((how, task))
        self.whys[task] = why

    def of(self, task: str) -> list[str]:
        return [how for how, other in self.shown if other == task]


class Lab:
    """A pipeline whose workers train groups by the kit, and what the kit saw of them."""

    def __init__(self, pipeline: Any, log: Path) -> None:
        self.pipeline = pipeline
        self.log = log
        self.told = Told()

    def populate(self, fuse: str = "auto", **options: Any) -> WorkerSummary:
        self.told = Told()
        whole = self.pipeline.settings
        self.pipeline.settings = replace(whole, worker=replace(whole.worker, fuse=fuse, retry_seconds=0.1))
        try:
            summary: WorkerSummary = self.pipeline.run_worker(WorkerOptions(device="cpu", **options), self.told)
        finally:
            self.pipeline.settings = whole
        return summary

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def plans(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "plan" in line]

    @property
    def groups(self) -> list[list[str]]:
        return [line["group"] for line in self.lines if "group" in line]

    def attempts(self, task: str) -> list[tuple[str, str | None]]:
        rows = (self.pipeline.TrainingAttempt & {MD5: task}).to_dicts(order_by="attempt")
        return [(row["state"], row["error_kind"]) for row in rows]

    def digests(self) -> dict[str, tuple[str, list[float]]]:
        rows = self.pipeline.TrainingResult().to_dicts()
        return {row[MD5]: (row["model_sha256"], list(row["training_epoch_loss_history"])) for row in rows}


@pytest.fixture
def lab(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([KIT, os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("GROUP_KIT_LOG", str(tmp_path / "groups.jsonl"))
    return Lab(pipeline, tmp_path / "groups.jsonl")


def seeds(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"seed": seed, "epoch_limit": 3, **changes} for seed in range(number)]


def test_a_sweep_is_trained_in_groups_and_ends_as_one_by_one(lab: Lab) -> None:
    penalties = [{"model_class_params": {"penalty": penalty}} for penalty in (0.25, 0.5, 1)]
    rates = [{**one, "optimizer_class_params": {"lr": 0.1 / (one["seed"] + 1)}} for one in seeds(3)]
    tasks = insert_tasks(lab.pipeline, models=penalties, trainings=rates)
    assert lab.populate().success_count == 9
    # One was left over, and trained by itself.
    assert [len(group) for group in lab.groups] == [4, 4], lab.groups
    assert len(lab.plans) == 1 and lab.plans[0]["limit"] is None
    assert [len(group) for group, _ in lab.told.groups] == [4, 4]
    assert [pending for _, pending in lab.told.groups] == [5, 1], "what is left besides the group"
    # Once: it was measured once.
    gained = [text for text in lab.told.said if "trained as one" in text]
    assert gained == [
        f"{lab.groups[0][0][:8]} and 3 others are trained as one: with 4 a step takes 0.20 ms for each, alone 0.50 ms."
    ]
    for task in tasks:
        assert lab.told.of(task) == ["started", "epoch", "epoch", "epoch", "finished"]
        assert lab.attempts(task) == [("finished", None)]
    together = lab.digests()
    assert not list(lab.pipeline.settings.model_save_dir.glob("*.checkpoint"))
    assert len(lab.pipeline.TrainingResult.jobs) == 0

    lab.pipeline.TrainingResult().delete(prompt=False)
    lab.pipeline.queue.enqueue()
    assert lab.populate("off").success_count == 9
    assert len(lab.groups) == 2 and len(lab.plans) == 1
    assert lab.digests() == together and len(together) == 9


@pytest.mark.parametrize(("tasks", "groups"), [(2, []), (3, []), (4, [4]), (7, [4])])
def test_so_few_that_nothing_is_gained_are_trained_one_by_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tasks: int, groups: list[int]
) -> None:
    monkeypatch.setenv("GROUP_KIT_LEAST", "4")
    insert_tasks(lab.pipeline, trainings=seeds(tasks))
    assert lab.populate().success_count == tasks
    assert [len(group) for group in lab.groups] == groups
    assert len(lab.plans) == (tasks > 2)  # two are not even tried


def test_a_named_size_is_used_whatever_was_measured(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(8))
    assert lab.populate("7").success_count == 8
    assert [len(group) for group in lab.groups] == [7]
    assert [line["limit"] for line in lab.plans] == [7]
    assert lab.lines[1]["size"] == 7


@pytest.mark.parametrize(
    ("fuse", "environment", "said"),
    [
        ("3", {}, ""),
        ("9", {}, "{}: only 3 other pending tasks are like it, although --fuse 9 was asked for."),
        (
            "4",
            {"GROUP_KIT_ROOM": "2"},
            "Tasks like {} are trained 2 at a time, although --fuse 4 was asked for: no more fit.",
        ),
        (
            "4",
            {"GROUP_KIT_PLAN": "decline"},
            "Tasks like {} are trained one by one, although --fuse 4 was asked for: the model branches on its data.",
        ),
    ],
)
def test_a_size_that_cannot_be_met_is_said_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fuse: str, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    insert_tasks(lab.pipeline, trainings=seeds(4))
    assert lab.populate(fuse).success_count == 4
    first = lab.plans[0]["plan"][:8]
    news = [text for text in lab.told.said if text.endswith("trained as one.")]
    assert len(news) == (environment.get("GROUP_KIT_PLAN") is None) and all(text.startswith(first) for text in news)
    assert [text for text in lab.told.said if "--fuse" in text] == ([said.format(first)] if said else [])


def test_a_size_that_nothing_can_meet_is_said_once(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=[{"batch_size": size} for size in (2, 4, 8)])
    assert lab.populate("4").success_count == 3
    (said,) = [text for text in lab.told.said if "--fuse" in text]
    assert said[8:] == ": no other pending task is like it, although --fuse 4 was asked for."


def test_a_task_without_siblings_is_not_looked_at(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=[{"batch_size": size} for size in (2, 4, 8)])
    assert lab.populate().success_count == 3
    assert lab.lines == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("decline", "the model branches on its data"),
        ("raise", "RuntimeError: the model cannot be looked at"),
        ("die", "the executor died when it was tried out: it was ended by SIGKILL"),
    ],
)
def test_what_does_not_go_together_is_trained_one_by_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    monkeypatch.setenv("GROUP_KIT_PLAN", how)
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    summary = lab.populate()
    assert (summary.success_count, summary.error_list) == (4, [])
    assert len(lab.plans) == 1 and lab.groups == []
    (said,) = [text for text in lab.told.said if "one by one" in text]
    assert said.startswith(f"Tasks like {lab.plans[0]['plan'][:8]} are trained one by one: {reason}")
    ends = sorted(lab.attempts(task) for task in tasks)
    assert [end[-1] for end in ends] == [("finished", None)] * 4
    assert [len(end) for end in sorted(ends, key=len)] == ([1, 1, 1, 2] if how == "die" else [1] * 4)
    assert {state for end in ends for state, _ in end} <= {"finished", "released"}


def test_models_that_do_not_go_together_are_kept_apart(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUP_KIT_APART", "1")
    monkeypatch.setenv("GROUP_KIT_SIZE", "20")
    models = [{"model_class_params": {"penalty": penalty}} for penalty in (0.125, 0.25, 0.5)]
    insert_tasks(lab.pipeline, models=models, trainings=seeds(4))
    summary = lab.populate()
    assert (summary.success_count, summary.error_list) == (12, [])
    assert sorted(len(group) for group in lab.groups) == [4, 4, 12]
    joined = (lab.pipeline.TrainingAttempt * lab.pipeline.TrainingTask * lab.pipeline.ModelConfig).to_dicts()
    for group in lab.groups[1:]:
        assert len({row["model_class_params"]["penalty"] for row in joined if row[MD5] in group}) == 1
    released = [row for row in joined if row["state"] == "released"]
    assert len(released) == 8
    assert {(row["error"], row["error_kind"]) for row in released} == {(None, None)}
    assert "its penalty is a number on the module" in lab.told.whys[released[0][MD5]]


def test_a_member_that_fails_harms_no_other(lab: Lab) -> None:
    rates = [0.1, 0.01, 1e30]
    trainings = [
        {"epoch_limit": 3, "optimizer_class_params": {"lr": rate}, "trainer_class_params": {"nan_policy": "raise"}}
        for rate in rates
    ]
    insert_tasks(lab.pipeline, trainings=trainings)
    summary = lab.populate()
    assert [len(group) for group in lab.groups] == [3]
    assert summary.success_count == 2
    ((key, message),) = summary.error_list
    assert "not finite" in message or "diverged" in message, message
    assert lab.attempts(key[MD5]) == [("failed", "diverged")]
    row = (lab.pipeline.TrainingTask * lab.pipeline.TrainingConfig & key).fetch1()
    assert float(row["optimizer_class_params"]["lr"]) == 1e30


def test_a_group_that_does_not_fit_into_memory_is_no_failure(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUP_KIT_FITS", "2")
    tasks = insert_tasks(lab.pipeline, trainings=seeds(7))
    summary = lab.populate()
    assert (summary.success_count, summary.error_list) == (7, [])
    # The four that were in the first group are trained by themselves.
    assert [len(group) for group in lab.groups] == [4, 2], lab.groups
    for task in tasks:
        alone = task in lab.groups[0]
        assert lab.attempts(task) == ([("released", "group")] if alone else []) + [("finished", None)]
        rows = (lab.pipeline.TrainingResult & {MD5: task}).to_dicts()
        assert [row["provenance"]["micro_batches"] for row in rows] == [1]
    assert any("2 at a time from now on" in text and "out of memory" in text for text in lab.told.said)


@pytest.mark.parametrize("fuse", ["auto", "3"])
def test_no_more_tasks_are_claimed_than_may_be_done(lab: Lab, fuse: str) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(9))
    assert lab.populate(fuse, max_tasks=6).success_count == 6
    assert sum(map(len, lab.groups)) >= 5
    assert len(lab.pipeline.TrainingAttempt()) == 6
    assert len(lab.pipeline.TrainingResult.jobs.pending) == 3


def test_a_fleet_does_as_many_tasks_as_asked_for_in_groups(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(12))
    command = [sys.executable, "-m", "synicix_core.cli", "populate", "--device", "cpu", "--workers", "2"]
    ended = subprocess.run(
        [*command, "--max-tasks", "9", "--fuse", "3"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert len(lab.pipeline.TrainingResult()) == len(lab.pipeline.TrainingAttempt()) == 9
    assert lab.groups and max(map(len, lab.groups)) == 3


def test_a_condition_holds_for_siblings_too(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(8))
    assert lab.populate(restriction=lab.pipeline.restriction(["seed < 4"])).success_count == 4
    assert [len(group) for group in lab.groups] == [4]
    assert len(lab.pipeline.TrainingAttempt()) == 4


def test_results_that_come_together_are_committed_together(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    commit = GroupEnds.commit

    def counted(self: GroupEnds, results: Any) -> Any:
        sizes.append(len(results))
        return commit(self, results)

    monkeypatch.setattr(GroupEnds, "commit", counted)
    monkeypatch.setattr(Queue, "commit", lambda *_: pytest.fail("committed by itself"))
    monkeypatch.setenv("GROUP_KIT_SIZE", "5")
    insert_tasks(lab.pipeline, trainings=seeds(10))
    assert lab.populate().success_count == 10
    assert sizes == [5, 5]


def test_a_result_that_cannot_be_written_leaves_the_others_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    row_of = Endings.row_of

    def splendid(claim: Any, result: Any) -> dict[str, Any]:
        row = row_of(claim, result)
        return {**row, "status": "splendid"} if claim.task == tasks[1] else row

    monkeypatch.setattr(Endings, "row_of", staticmethod(splendid))
    summary = lab.populate()
    assert (summary.success_count, [key[MD5] for key, _ in summary.error_list]) == (3, [tasks[1]])
    assert [len(group) for group in lab.groups] == [4]
    assert lab.attempts(tasks[1]) == [("failed", "error")]
    assert not (lab.pipeline.settings.model_save_dir / f"{tasks[1]}.1.pt").exists()


def test_news_that_nobody_takes_end_that_member_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))

    def full(self: Told, task: str, fields: object) -> None:
        if task == tasks[2]:
            raise RuntimeError("the screen is full")

    monkeypatch.setattr(Told, "epoch_finished", full)
    summary = lab.populate()
    assert (summary.success_count, [key[MD5] for key, _ in summary.error_list]) == (3, [tasks[2]])
    assert "the screen is full" in summary.error_list[0][1]
    assert not list(lab.pipeline.settings.model_save_dir.glob(f"{tasks[2]}*.pt"))


def test_what_goes_wrong_with_a_whole_group_gives_it_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))

    def broken(self: Told, group: object, pending: int) -> None:
        raise RuntimeError("the screen is broken")

    monkeypatch.setattr(Told, "group_started", broken)
    summary = lab.populate()
    assert (summary.success_count, summary.error_list) == (4, [])
    for task in tasks:
        assert lab.attempts(task) == [("released", "group"), ("finished", None)]


def test_populate_in_a_notebook_takes_fuse(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(6))
    assert lab.pipeline.TrainingResult.populate(max_calls=3, fuse="off", device="cpu")["success_count"] == 3
    assert lab.lines == []
    assert lab.pipeline.TrainingResult.populate(fuse=3, device="cpu")["success_count"] == 3
    assert [len(group) for group in lab.groups] == [3]
    assert lab.pipeline.settings.worker.fuse == "auto"


@pytest.mark.parametrize("fuse", ["1", "0", "-2", "on", "2.5"])
def test_fuse_is_auto_off_or_a_number_from_two_on(lab: Lab, fuse: str) -> None:
    command = [sys.executable, "-m", "synicix_core.cli", "populate", "--fuse", fuse]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert '"auto", "off" or an integer from 2 on' in ended.stderr
    assert "--fuse" in ended.stderr and "worker_fuse" not in ended.stderr


def test_fuse_is_a_setting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(project).worker.group_size is None
    (project / "synicix.toml").write_text("[worker]\nfuse = 16\n")
    assert load_settings(project).worker.group_size == 16
    monkeypatch.setenv("SYNICIX_WORKER_FUSE", "off")
    assert load_settings(project).worker.group_size == 1
    assert load_settings(project, worker_fuse="8").worker.group_size == 8


def test_specifications_arrive_as_they_were_sent(lab: Lab) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(2), models=[{}, {"model_class_params": {"penalty": 0.5}}])
    areas = np.arange(5)
    first, *others = [replace(lab.pipeline.spec(task), additional_model_params={"areas": areas}) for task in tasks]
    specs = [first, *others, replace(others[0], additional_model_params={"areas": areas[:2]}, resume_from=("x",))]
    packed = json.loads(json.dumps(pack(specs)))
    assert all(len(json.dumps(one)) < len(json.dumps(packed[0])) for one in packed[1:])
    assert "additional_model_params" not in packed[1]
    for sent, arrived in zip(specs, unpack(packed), strict=True):
        theirs = arrived.additional_model_params["areas"]
        assert theirs.tolist() == sent.additional_model_params["areas"].tolist()
        assert replace(arrived, additional_model_params={}) == replace(sent, additional_model_params={})
