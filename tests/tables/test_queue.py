"""Claims are exclusive, expire, and are proved again when a result is committed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.errors import ClaimLost
from synicix_core.tables.queue import Exclusions, Problem, Queue
from synicix_core.tables.recovery import recover
from synicix_core.tables.tries import Tries, count_tries
from tests import saved
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

RESULT = {**saved.RESULT, "model_save_path": "model.pt"}


@pytest.fixture
def queue(pipeline):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(4)])
    return pipeline.queue


def claim(queue, worker="a" * 32, **options):
    return queue.claim(worker, "host", 1, "cpu", **options)


def status(pipeline, task):
    return (pipeline.TrainingResult.jobs & {"training_task_md5_hash": task}).fetch1("status")


def test_a_claim_is_a_reserved_job_and_a_running_attempt(pipeline, queue):
    held = claim(queue)
    assert held.attempt == 1
    assert status(pipeline, held.task) == "reserved"
    row = (pipeline.TrainingAttempt & held.key).fetch1()
    assert (row["state"], row["worker"], row["host"]) == ("running", "a" * 32, "host")
    assert abs((datetime.now(UTC).replace(tzinfo=None) - row["started_at"]).total_seconds()) < 60


def test_workers_at_once_never_claim_the_same_task(pipeline, queue):
    insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(40)])
    taken: list[str] = []

    def work(worker):
        own = Pipeline()
        while (held := claim(Queue(own.tables), worker, order="random" if worker[0] > "3" else "original")) is not None:
            taken.append(held.task)
        own.connection.close()

    threads = [threading.Thread(target=work, args=(f"{number}" * 32,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40


def test_nothing_to_claim(pipeline):
    assert claim(pipeline.queue) is None
    assert pipeline.queue.waiting() == 0
    assert pipeline.queue.next_due() is None


def test_a_committed_result_ends_the_claim(pipeline, queue):
    held = claim(queue)
    queue.commit(held, RESULT)
    row = (pipeline.TrainingResult & held.key).fetch1()
    assert row["training_epoch_loss_history"] == [1.0, 0.5]
    assert abs((datetime.now(UTC).replace(tzinfo=None) - row["utc_insert_time"]).total_seconds()) < 60
    assert len(pipeline.TrainingResult.jobs & held.key) == 0
    assert (pipeline.TrainingAttempt & held.key).fetch1("state") == "finished"
    assert queue.enqueue() == 0


def test_a_worker_that_was_taken_for_lost_cannot_commit(pipeline, queue):
    late = claim(queue)
    execute(
        queue.connection, f"UPDATE {pipeline.TrainingAttempt.full_table_name} SET heartbeat_at = '2020-01-01 00:00:00'"
    )
    assert len(recover(queue, 300, 3)) == 1
    assert queue.heartbeat(late) is False
    successor = next(held for held in iter(lambda: claim(queue, "b" * 32), None) if held.task == late.task)
    assert successor.attempt == 2
    for act in (
        lambda: queue.commit(late, RESULT),
        lambda: queue.release(late),
        lambda: queue.fail(late, Problem("late")),
        lambda: queue.retry_later(late, Problem("late"), 1),
    ):
        with pytest.raises(ClaimLost):
            act()
    assert len(pipeline.TrainingResult & late.key) == 0
    queue.commit(successor, RESULT)
    assert (pipeline.TrainingResult & late.key).fetch1("by_attempt") == 2


def test_a_result_is_written_whole_or_not_at_all(pipeline, queue):
    held = claim(queue)
    with pytest.raises(Exception, match=r"splendid|status"):
        queue.commit(held, {**RESULT, "status": "splendid"})
    assert len(pipeline.TrainingResult()) == 0
    assert status(pipeline, held.task) == "reserved"
    queue.commit(held, RESULT)


def test_a_task_deleted_meanwhile_is_a_lost_claim(pipeline, queue):
    held = claim(queue)
    (pipeline.TrainingTask & held.key).delete(prompt=False)
    assert queue.heartbeat(held) is False
    with pytest.raises(ClaimLost, match="deleted"):
        queue.commit(held, RESULT)


def test_a_released_task_is_pending_at_once_with_its_checkpoint(pipeline, queue):
    held = claim(queue)
    queue.release(held, checkpoint="x.checkpoint")
    assert status(pipeline, held.task) == "pending"
    assert (pipeline.TrainingAttempt & held.key).fetch1("state", "checkpoint_path") == ("released", "x.checkpoint")
    assert queue.waiting() == 4


def test_a_task_may_be_tried_again_later(pipeline, queue):
    held = claim(queue)
    queue.retry_later(held, Problem("out of luck", "stack", "transient"), delay=100)
    alone = f"SELECT '{held.task}'"
    assert queue.waiting(alone) == 1
    assert 90 < queue.next_due(alone) <= 100
    assert queue.next_due() == 0
    assert held.task not in {other.task for other in iter(lambda: claim(queue), None)}


def test_an_error_stays_until_somebody_retries(pipeline, queue):
    held = claim(queue)
    queue.fail(held, Problem("bad \0 luck " + "x" * 5000, "the stack", "diverged", "0badcafe"))
    job = (pipeline.TrainingResult.jobs.errors & held.key).fetch1()
    assert job["error_message"].startswith("bad \\0 luck xxx")
    assert job["error_stack"] == "the stack"
    attempt = (pipeline.TrainingAttempt & held.key).fetch1()
    assert (attempt["state"], attempt["error_stack"]) == ("failed", "the stack")
    assert (attempt["error_kind"], attempt["error_cause"]) == ("diverged", "0badcafe")
    assert queue.enqueue() == 0
    assert queue.retry([held.task]) == 1
    assert status(pipeline, held.task) == "pending"
    assert queue.retry([held.task]) == 0


def test_a_retried_task_has_all_its_attempts_again(pipeline, queue):
    held = claim(queue)
    queue.fail(held, Problem("bad luck", kind="died"))
    assert queue.tries(held.task) == Tries(failures=1)
    queue.retry([held.task])
    assert queue.tries(held.task) == Tries()


def test_a_task_that_loses_its_workers_becomes_an_error(pipeline, queue):
    task = claim(queue).task
    for round_ in range(3):
        execute(
            queue.connection,
            f"UPDATE {pipeline.TrainingAttempt.full_table_name} SET heartbeat_at = '2020-01-01 00:00:00'",
        )
        assert len(recover(queue, 300, 3)) >= 1
        if round_ < 2:
            assert task in {held.task for held in iter(lambda: claim(queue), None)}
    assert status(pipeline, task) == "error"


def test_a_claim_whose_process_is_gone_is_taken_back_at_once(pipeline, queue):
    mine, theirs, elsewhere = (
        claim(queue, worker * 32, process=name)
        for worker, name in (("a", "boot:1/7/99"), ("b", "boot:1/8/99"), ("c", "boot:2/7/99"))
    )
    asked = []

    def is_gone(name):
        asked.append(name)
        return name == "boot:1/7/99"

    (found,) = recover(queue, 300, 3, namespace="boot:1", is_gone=is_gone)
    assert (found.task, found.attempt, found.final) == (mine.task, 1, False)
    assert sorted(asked) == ["boot:1/7/99", "boot:1/8/99"]
    assert not queue.heartbeat(mine)
    assert queue.why_lost(mine) == "this worker was taken for lost"
    assert queue.heartbeat(theirs)
    assert queue.heartbeat(elsewhere)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], Tries()),
        ([("lost", "lost", None), ("released", None, None), ("failed", "died", None)], Tries(2)),
        ([("lost", "lost", 3), ("lost", "lost", 3), ("lost", "lost", 5)], Tries(1)),
        ([("lost", "lost", 5), ("lost", "lost", None), ("lost", "lost", 5)], Tries(3)),
        ([("failed", "out_of_memory", None), ("failed", "transient", 2), ("running", None, 9)], Tries(0, 1)),
        ([("failed", "error", None), ("failed", None, None)], Tries()),
    ],
)
def test_what_counts_as_a_try(attempts, expected):
    assert count_tries(attempts) == expected


def test_a_fresh_heartbeat_keeps_the_claim(pipeline, queue):
    held = claim(queue)
    assert queue.heartbeat(held, {"epoch": 3, "train_loss": 0.5, "validation_loss": None})
    assert queue.heartbeat(held)
    assert len(recover(queue, 300, 3)) == 0
    row = (pipeline.TrainingAttempt & held.key).fetch1()
    assert (row["epoch"], row["train_loss"], row["validation_loss"]) == (3, 0.5, None)


def test_priority_comes_first(pipeline, queue):
    urgent = sorted(pipeline.TrainingResult.jobs.to_arrays("training_task_md5_hash"))[-1]
    pipeline.TrainingResult.jobs.update1({"training_task_md5_hash": urgent, "priority": 1})
    assert claim(queue, order="original").task == urgent


@pytest.mark.parametrize("order", ["original", "random"])
def test_a_restriction_and_exclusions_hold(pipeline, queue, order):
    chosen = pipeline.restriction(["seed < 2"])
    assert queue.waiting(chosen) == 2
    taken = {held.task for held in iter(lambda: claim(queue, restriction=chosen, order=order), None)}
    seeds = (
        pipeline.TrainingTask * pipeline.TrainingConfig & [{"training_task_md5_hash": task} for task in taken]
    ).to_arrays("seed")
    assert sorted(seeds) == [0, 1]
    nobody = Exclusions({("ModelConfig", "model_provider"): ["toy-lab/Line"]})
    assert claim(queue, exclusions=nobody, order=order) is None
    assert queue.waiting(exclusions=nobody) == 0
    one = Exclusions(training_configs=[(pipeline.TrainingConfig & "seed = 2").fetch1("training_config_md5_hash")])
    assert queue.waiting(exclusions=one) == 1


def test_the_attempt_number_only_grows(queue):
    first = claim(queue)
    queue.release(first)
    again = next(held for held in iter(lambda: claim(queue), None) if held.task == first.task)
    assert again.attempt == 2


def test_a_task_deleted_while_it_is_trained_and_added_again_can_be_claimed(pipeline, queue):
    held = claim(queue)
    row = (pipeline.TrainingTask & held.key).fetch1()
    task = row.pop("training_task_md5_hash")
    for enqueued_between in (True, False):
        (pipeline.TrainingTask & held.key).delete(prompt=False)
        if enqueued_between:
            assert queue.enqueue() == 0
            assert len(pipeline.TrainingResult.jobs & held.key) == 0
        pipeline.TrainingTask.insert_tuples([row])
        held = next(other for other in iter(lambda: claim(queue), None) if other.task == task)
        assert held.attempt == 1


def test_foreign_reservations_are_left_alone(pipeline, queue):
    """A job reserved by DataJoint itself has no attempt of ours; nobody takes it away."""
    key = pipeline.TrainingTask.keys()[0]
    assert pipeline.TrainingResult.jobs.reserve(key)
    assert len(recover(queue, 0.0, 3)) == 0
    queue.enqueue()
    assert status(pipeline, key["training_task_md5_hash"]) == "reserved"
    assert key["training_task_md5_hash"] not in {held.task for held in iter(lambda: claim(queue), None)}
