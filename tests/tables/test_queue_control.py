"""People pause, resume, cancel and put first; whoever holds a claim learns that it is gone."""

from __future__ import annotations

import threading
import time

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.errors import ClaimLost
from synicix_core.tables import queue_control
from synicix_core.tables.error_groups import CANCELLED_CAUSE, ErrorFilter, failed_tasks, group_failures
from synicix_core.tables.queue import Problem
from synicix_core.tables.queue_control import cancel, count_states_of, pause, resume, set_priority
from synicix_core.tables.queue_overview import count_queue, next_tasks
from tests.cli.conftest import RESULT
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

ROW = {**RESULT, "code_sha256": "0" * 64}


@pytest.fixture
def tasks(pipeline):
    return sorted(insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(5)]))


def claim(pipeline, worker="a" * 32):
    return pipeline.queue.claim(worker, "node1", 1, "cpu")


def job(pipeline, task):
    return (pipeline.TrainingResult.jobs & {"training_task_md5_hash": task}).fetch1()


def attempt(pipeline, held):
    return (pipeline.TrainingAttempt & {**held.key, "attempt": held.attempt}).fetch1()


def test_a_paused_task_is_not_claimed_until_it_is_resumed(pipeline, tasks):
    assert pause(pipeline.tables, tasks).changed == 5
    assert claim(pipeline) is None and job(pipeline, tasks[0])["status"] == "ignore"
    assert pipeline.queue.enqueue() == 0
    assert resume(pipeline.tables, tasks[:1]).changed == 1
    held = claim(pipeline)
    assert held.task == tasks[0] and claim(pipeline) is None


def test_pausing_twice_changes_nothing_the_second_time(pipeline, tasks):
    pause(pipeline.tables, tasks[:2])
    change = pause(pipeline.tables, tasks)
    assert (change.changed, change.running, change.left) == (3, 0, {"paused": 2})


def test_a_scheduled_task_is_due_at_once_when_it_is_resumed(pipeline, tasks):
    held = claim(pipeline)
    pipeline.queue.retry_later(held, Problem("it died", kind="died"), 3600.0)
    pause(pipeline.tables, [held.task])
    resume(pipeline.tables, [held.task])
    assert {task.task for task in next_tasks(pipeline.tables, 10) if not task.due_in_seconds} == {*tasks}


def test_pausing_a_running_task_takes_its_claim_away(pipeline, tasks):
    held = claim(pipeline)
    change = pause(pipeline.tables, tasks)
    assert (change.changed, change.running, change.left) == (5, 1, {})
    assert pipeline.queue.heartbeat(held) is False
    with pytest.raises(ClaimLost):
        pipeline.queue.commit(held, ROW)
    row = job(pipeline, held.task)
    assert (row["status"], row["host"], row["pid"], row["reserved_time"]) == ("ignore", "", 0, None)
    assert attempt(pipeline, held)["state"] == "released" and attempt(pipeline, held)["error"] is None
    resume(pipeline.tables, [held.task])
    assert claim(pipeline).attempt == 2
    assert pipeline.queue.tries(held.task).failures == 0


def test_cancelling_says_who_did_it(pipeline, tasks, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    held = claim(pipeline)
    waiting, paused = [task for task in tasks if task != held.task][:2]
    pause(pipeline.tables, [paused])
    change = cancel(pipeline.tables, [held.task, waiting, paused])
    assert (change.changed, change.running, change.left) == (3, 1, {})
    for task in (held.task, waiting, paused):
        assert (job(pipeline, task)["status"], job(pipeline, task)["error_message"]) == ("error", "cancelled by alice")
    ended = attempt(pipeline, held)
    assert (ended["state"], ended["error"], ended["error_kind"]) == ("failed", "cancelled by alice", "cancelled")
    with pytest.raises(ClaimLost, match="the task was cancelled"):
        pipeline.queue.release(held)
    (group,) = group_failures(pipeline.tables)
    assert (group.kind, group.cause, group.message, group.count) == (
        "cancelled",
        CANCELLED_CAUSE,
        "cancelled by alice",
        3,
    )
    assert pipeline.queue.retry([held.task, waiting]) == 2
    assert count_states_of(pipeline.tables, tasks) == {"pending": 4, "error": 1}


def test_a_user_without_a_name_goes_by_that_of_the_database(pipeline, tasks, monkeypatch):
    def nameless():
        raise OSError("no entry for this uid")

    monkeypatch.setattr("getpass.getuser", nameless)
    cancel(pipeline.tables, tasks[:1])
    assert job(pipeline, tasks[0])["error_message"] == f"cancelled by {pipeline.connection.conn_info['user']}"


def test_what_is_over_is_left_alone(pipeline, tasks):
    done, failed = claim(pipeline), claim(pipeline)
    pipeline.queue.commit(done, ROW)
    pipeline.queue.fail(failed, Problem("ValueError: no"))
    over = [done.task, failed.task]
    for act in (pause, cancel):
        change = act(pipeline.tables, over)
        assert (change.changed, change.left) == (0, {"finished": 1, "error": 1})
    assert resume(pipeline.tables, tasks).left == {"finished": 1, "error": 1, "pending": 3}
    assert job(pipeline, failed.task)["error_message"] == "ValueError: no"
    assert len(pipeline.TrainingResult()) == 1


def test_a_reservation_of_somebody_else_is_left_alone(pipeline, tasks):
    execute(pipeline.connection, f"UPDATE {pipeline.tables.jobs_name} SET status = 'reserved' WHERE 1 = %s", (1,))
    assert cancel(pipeline.tables, tasks).left == {"foreign": 5}
    assert pause(pipeline.tables, tasks).left == {"foreign": 5}
    assert job(pipeline, tasks[0])["status"] == "reserved"


def test_the_lowest_priority_is_claimed_first(pipeline, tasks):
    set_priority(pipeline.tables, [tasks[3]], -128)
    set_priority(pipeline.tables, [tasks[1]], 127)
    order = [held.task for held in iter(lambda: claim(pipeline), None)]
    assert order[0] == tasks[3] and order[-1] == tasks[1]
    assert set_priority(pipeline.tables, tasks, 7).changed == 5
    assert count_queue(pipeline.tables).priorities == {
        7: {"pending": 0, "scheduled": 0, "running": 5, "error": 0, "paused": 0}
    }


def test_what_is_not_queued_yet_is_counted(pipeline, tasks):
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[0]}).delete_quick()
    counts = count_queue(pipeline.tables)
    assert counts.not_queued == 1 and counts.priorities[5]["pending"] == 4


def test_the_next_tasks_are_in_the_order_of_claims(pipeline, tasks):
    held = claim(pipeline)
    pipeline.queue.retry_later(held, Problem("it died", kind="died"), 3600.0)
    urgent = next(task for task in tasks if task != held.task)
    set_priority(pipeline.tables, [urgent], 1)
    set_priority(pipeline.tables, [held.task], -5)
    found = next_tasks(pipeline.tables, 10)
    assert len(found) == 5 and found[0].task == urgent and found[-1].task == held.task
    assert 3500 < found[-1].due_in_seconds <= 3600 and found[0].dataset == "line.txt"
    assert [task.task for task in next_tasks(pipeline.tables, 2)] == [task.task for task in found[:2]]


def test_a_task_claimed_in_between_is_paused_all_the_same(pipeline, tasks, monkeypatch):
    other = Pipeline()
    look, held = queue_control._running_among, []

    def look_and_be_late(tables, chosen):
        running = look(tables, chosen)
        if not held:
            held.append(claim(other))
        return running

    monkeypatch.setattr(queue_control, "_running_among", look_and_be_late)
    change = pause(pipeline.tables, tasks)
    assert (change.changed, change.running, change.left) == (5, 1, {})
    assert count_states_of(pipeline.tables, tasks) == {"paused": 5}
    assert pipeline.queue.heartbeat(held[0]) is False
    other.connection.close()


def test_steering_while_workers_are_at_work_leaves_no_task_in_two_states(pipeline):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(60)])
    problems: list[BaseException] = []
    stop = threading.Event()

    def work(worker):
        own = Pipeline()
        try:
            while not stop.is_set():
                held = claim(own, worker)
                if held is None:
                    time.sleep(0.01)
                    continue
                try:
                    own.queue.heartbeat(held)
                    own.queue.release(held)
                except ClaimLost:
                    pass
        except BaseException as error:
            problems.append(error)
        own.connection.close()

    threads = [threading.Thread(target=work, args=(f"{number}" * 32,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        pause(pipeline.tables, tasks)
        resume(pipeline.tables, tasks)
        cancel(pipeline.tables, tasks[:20])
        pipeline.queue.retry(tasks[:20])
        set_priority(pipeline.tables, tasks, 3)
    pause(pipeline.tables, tasks)
    # A claim that was released between the rounds is pending again; nobody claims what is paused.
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not problems
    sql = (
        f"SELECT COUNT(*) FROM {pipeline.tables.jobs_name} j WHERE (j.status = 'reserved') <> "
        f"EXISTS (SELECT 1 FROM {pipeline.TrainingAttempt.full_table_name} a "
        f"WHERE a.training_task_md5_hash = j.training_task_md5_hash AND a.state = 'running')"
    )
    assert execute(pipeline.connection, sql).fetchone()[0] == 0
    assert count_states_of(pipeline.tables, tasks) == {"paused": 60}


def test_errors_go_by_the_kind_and_cause_of_the_last_attempt(pipeline, tasks):
    first = claim(pipeline)
    pipeline.queue.retry_later(first, Problem("gone", kind="transient", cause="11111111"), 0.0)
    again = next(held for held in iter(lambda: claim(pipeline), None) if held.task == first.task)
    pipeline.queue.fail(again, Problem("ValueError: 1\nmore", "stack", "error", "22222222"))
    execute(
        pipeline.connection,
        f"UPDATE {pipeline.tables.jobs_name} SET status = 'error', error_message = %s WHERE training_task_md5_hash = %s",
        ("by DataJoint itself\nat line 3", next(task for task in tasks if task != first.task)),
    )
    execute(
        pipeline.connection,
        f"DELETE FROM {pipeline.TrainingAttempt.full_table_name} WHERE training_task_md5_hash <> %s",
        (first.task,),
    )
    found = {group.message: group for group in group_failures(pipeline.tables)}
    assert (found["ValueError: 1"].kind, found["ValueError: 1"].cause) == ("error", "22222222")
    assert found["ValueError: 1"].hosts == ("node1",) and 0 <= found["ValueError: 1"].seconds_ago < 60
    bare = found["by DataJoint itself"]
    assert (bare.kind, bare.host_count, bare.last_at) == ("error", 0, None) and len(bare.cause) == 8
    assert failed_tasks(pipeline.tables, ErrorFilter(cause="22222222")) == [first.task]
    assert failed_tasks(pipeline.tables, ErrorFilter(cause=bare.cause)) == list(bare.tasks)
    assert failed_tasks(pipeline.tables, ErrorFilter(kind="transient")) == []


def test_the_job_of_a_deleted_task_is_no_error(pipeline, tasks):
    cancel(pipeline.tables, tasks)
    (pipeline.TrainingTask & {"training_task_md5_hash": tasks[0]}).delete(prompt=False)
    assert sum(group.count for group in group_failures(pipeline.tables)) == 4
