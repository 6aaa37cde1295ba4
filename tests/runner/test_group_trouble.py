"""Trouble of the worker itself with a group: nobody takes its news, the store refuses results, something raises."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from typing import Any

import pytest

from synicix_core.runner import supervisor
from synicix_core.runner.dataset_cache import DatasetCache
from synicix_core.runner.display import Silent
from synicix_core.runner.group_run import GroupRun
from synicix_core.runner.observers import Observers
from synicix_core.runner.patience import Patience
from synicix_core.tables.queue_groups import GroupQueue
from synicix_core.tables.result_rows import ResultRows
from tests.rows import insert_tasks
from tests.runner import test_groups
from tests.runner.test_groups import MD5, Lab, Told, seeds

pytestmark = pytest.mark.database

lab = test_groups.lab


def broken_pipe(*_: object) -> None:
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_display_that_takes_nothing_any_more_harms_no_task(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    for name in [name for name in vars(Silent) if not name.startswith("_")]:
        monkeypatch.setattr(Told, name, broken_pipe)
    summary = lab.populate("4")
    assert (summary.success_count, summary.error_list) == (4, [])
    assert [len(group) for group in lab.groups] == [4]
    for task in tasks:
        assert lab.attempts(task) == [("finished", None)]


def test_nothing_that_goes_wrong_after_a_commit_costs_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(3))

    def broken(self: Told, task: str, result: object, seconds: float) -> None:
        raise RuntimeError("the screen is broken")

    monkeypatch.setattr(Told, "task_finished", broken)
    summary = lab.populate("3")
    assert (summary.success_count, summary.error_list) == (3, [])
    assert lab.told.whys == {}
    for task in tasks:
        assert lab.attempts(task) == [("finished", None)]
        assert (lab.pipeline.settings.model_save_dir / f"{task}.1.pt").exists()


def test_a_group_one_of_which_cannot_be_specified_is_given_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    make_spec = supervisor.make_spec
    asked: list[str] = []

    def picky(row: Any, *args: Any, **options: Any) -> Any:
        if row[MD5] not in asked:
            asked.append(row[MD5])
        if asked.index(row[MD5]) == 1:  # not the task that was claimed first
            raise RuntimeError("nobody understands this row")
        return make_spec(row, *args, **options)

    monkeypatch.setattr(supervisor, "make_spec", picky)
    summary = lab.populate("4")
    assert (summary.success_count, [key[MD5] for key, _ in summary.error_list]) == (3, [asked[1]])
    assert lab.groups == []
    assert {lab.told.whys[task].partition(" (")[0] for task in tasks if task != asked[1]} == {"4 tasks"}
    for task in tasks:
        last = ("failed", "error") if task == asked[1] else ("finished", None)
        assert lab.attempts(task) == [("released", "group"), last]


def test_claims_are_kept_alive_while_observers_take_their_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(8))
    whole = lab.pipeline.settings
    lab.pipeline.settings = replace(whole, worker=replace(whole.worker, heartbeat_seconds=0.05))
    beats: list[tuple[int, int, set[str]]] = []
    counts = {"started": 0, "finished": 0}
    heartbeat = GroupQueue.heartbeat

    def slow_start(self: Observers, hook: str, event: object) -> None:
        if hook == "synicix_task_started":
            counts["started"] += 1
            time.sleep(0.1)

    def slow_finish(self: Told, *_: object) -> None:
        counts["finished"] += 1
        time.sleep(0.1)

    def noted(self: GroupQueue, claims: Any, progress: Any) -> Any:
        beats.append((counts["started"], counts["finished"], {claim.task for claim in claims}))
        return heartbeat(self, claims, progress)

    monkeypatch.setattr(Observers, "notify", slow_start)
    monkeypatch.setattr(Told, "task_finished", slow_finish)
    monkeypatch.setattr(GroupQueue, "heartbeat", noted)
    assert lab.populate("4").success_count == 8
    first, second = map(set, lab.groups)
    assert first | second == set(tasks)
    for number in (1, 2, 3):
        assert any(started == number and claims == first for started, _, claims in beats)
    # The results of the first group are told of while the second one waits to be announced, or after it has begun.
    told = {finished for _, finished, claims in beats if second <= claims}
    assert {1, 2, 3} <= told


def test_a_store_that_refuses_results_is_waited_for_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    pauses: list[float] = []
    insert, sleep = ResultRows.insert, Patience.sleep

    def refused(self: ResultRows, rows: Any) -> None:
        if not any(state == "failed" for task in tasks for state, _ in lab.attempts(task)) and not lab.told.whys:
            raise OSError(errno.ENOSPC, "No space left on device")
        insert(self, rows)

    def noted(self: Patience, seconds: float) -> None:
        if seconds in (0.1, 0.5, 2.0, 5.0):
            pauses.append(seconds)
        else:
            sleep(self, seconds)

    monkeypatch.setattr(ResultRows, "insert", refused)
    monkeypatch.setattr(Patience, "sleep", noted)
    summary = lab.populate("4")
    assert pauses == [0.1, 0.5, 2.0, 5.0]
    assert (summary.success_count, summary.error_list) == (4, [])
    for task in tasks:
        assert lab.attempts(task) == [("failed", "transient"), ("finished", None)]
        assert "the result cannot be stored" in lab.told.whys[task]


def test_results_of_a_group_that_is_given_up_are_committed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=[{"seed": 0, "epoch_limit": 2}, *seeds(3, epoch_limit=500)[1:]])
    beat, trained = GroupRun.beat, set[str]()

    def broken(self: GroupRun, others: Any = ()) -> None:
        if self.trained and not trained:
            trained.update(one.claim.task for one in self.trained)
            raise RuntimeError("the heart is broken")
        beat(self, others)

    monkeypatch.setattr(GroupRun, "beat", broken)
    assert lab.populate("3").success_count == 3
    assert trained
    for task in tasks:
        once = [("finished", None)]
        assert lab.attempts(task) == (once if task in trained else [("released", "group"), *once])


@pytest.mark.parametrize("slow", [False, True])
def test_a_dataset_that_takes_long_is_told_of_before_the_group(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    tasks = insert_tasks(lab.pipeline, trainings=seeds(4))
    fetch, notify = DatasetCache.fetch, Observers.notify
    observed: list[str] = []

    def slowly(self: DatasetCache, name: str, sha256: str, tick: Any) -> Any:
        tick()
        return fetch(self, name, sha256, tick)

    def noted(self: Observers, hook: str, event: Any) -> None:
        if hook == "synicix_task_started":
            observed.append(event.task)
        notify(self, hook, event)

    monkeypatch.setattr(supervisor, "_QUIET_SECONDS", 0.0 if slow else 1000.0)
    monkeypatch.setattr(DatasetCache, "fetch", slowly)
    monkeypatch.setattr(Observers, "notify", noted)
    assert lab.populate("4").success_count == 4
    (group,) = lab.groups
    assert len(lab.told.of(group[0])) == 5 + slow and lab.told.shown[: 1 + slow] == [("started", group[0])] * (1 + slow)
    assert sorted(observed) == sorted(tasks)


def test_a_size_without_effect_is_said(lab: Lab) -> None:
    insert_tasks(lab.pipeline, trainings=seeds(2))
    whole = lab.pipeline.settings
    lab.pipeline.settings = replace(whole, worker=replace(whole.worker, devices_per_task=2))
    assert lab.populate("4").success_count == 2
    assert lab.told.said.count("--fuse 4 has no effect: a task of 2 devices is trained by itself.") == 1
