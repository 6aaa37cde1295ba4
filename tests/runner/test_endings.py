"""What the supervisor makes of trouble that is not the training's: answers that get lost, and news that nobody takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from synicix_core.errors import ClaimLost, DatabaseUnavailable
from synicix_core.runner.channel import Channel
from synicix_core.runner.display import Silent
from synicix_core.runner.endings import Endings
from synicix_core.runner.options import WorkerOptions, WorkerSummary
from synicix_core.tables.queue import Problem
from synicix_core.tables.recovery import recover
from synicix_core.training.task_specs import model_path
from tests import saved
from tests.rows import insert_tasks

pytestmark = pytest.mark.database


class Unanswered:
    """A database that does what it is asked, and then does not answer the first time."""

    def __call__(self, action: Any) -> Any:
        try:
            action()
            raise DatabaseUnavailable("the connection was lost")
        except DatabaseUnavailable:
            return action()


class NoObservers:
    def notify(self, hook: str, event: object) -> None:
        """Tell nobody."""


class Told(Silent):
    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def task_ended(self, task: str, how: str, why: str) -> None:
        self.ends.append((how, why))


def endings(pipeline: Any, patience: Any = None, returned: Any = None) -> tuple[Endings, WorkerSummary, Told]:
    summary, told = WorkerSummary(), Told()
    made = Endings(
        pipeline.queue,
        pipeline.settings,
        patience or Unanswered(),
        NoObservers(),
        told,
        summary,
        returned,  # type: ignore[arg-type]  # as much of them as is used
    )
    return made, summary, told


def test_a_release_that_was_written_without_an_answer_is_a_release(pipeline: Any) -> None:
    (task,) = insert_tasks(pipeline)
    held = saved.claim(pipeline, task)
    made, _, told = endings(pipeline)
    made.release(held, epochs=3)
    assert told.ends == [("released", "it is pending again")]
    attempt = (pipeline.TrainingAttempt & held.key).fetch1()
    assert (attempt["state"], attempt["epoch"]) == ("released", 3)


@pytest.mark.parametrize(("kind", "errors"), [("error", 1), ("transient", 0)])
def test_an_error_that_was_written_without_an_answer_is_an_error(pipeline: Any, kind: str, errors: int) -> None:
    (task,) = insert_tasks(pipeline)
    held = saved.claim(pipeline, task)
    made, summary, told = endings(pipeline)
    made.fail(held, Problem("bad", kind=kind, cause="1"))
    assert [how for how, _ in told.ends] == ["failed"]
    assert len(summary.error_list) == errors == len(pipeline.TrainingResult.jobs.errors)


def test_an_attempt_that_is_made_again_is_returned_as_one_that_failed(pipeline: Any) -> None:
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    transient, released, bad = (saved.claim(pipeline, task) for task in tasks)
    returned: list[dict[str, bool]] = []
    made, _, _ = endings(pipeline, patience=lambda action: action(), returned=lambda **how: returned.append(how))
    made.fail(transient, Problem("full", kind="transient"))
    assert returned == [{"failed": True}]
    made.release(released)
    assert returned == [{"failed": True}, {}]
    made.fail(bad, Problem("bad"))
    assert len(returned) == 2


def test_the_model_of_a_result_outlives_whatever_is_said_of_its_claim(pipeline: Any) -> None:
    (task,) = insert_tasks(pipeline)
    held = saved.claim(pipeline, task)
    path = pipeline.settings.model_save_dir / model_path(task, held.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a model")
    pipeline.queue.commit(held, {**saved.RESULT, "model_save_path": path.name})
    made, _, told = endings(pipeline)
    made.lose(held, ClaimLost("this worker no longer holds its claim"))
    assert path.exists() and told.ends == []


def test_a_claim_that_was_lost_is_lost_at_the_first_answer(pipeline: Any) -> None:
    (task,) = insert_tasks(pipeline)
    held = saved.claim(pipeline, task)
    pipeline.queue.release(held)
    made, _, told = endings(pipeline, patience=lambda action: action())
    with pytest.raises(ClaimLost):
        made.release(held)
    assert told.ends == []


def test_news_that_nobody_takes_is_not_taken_for_those_of_the_next_task(pipeline: Any) -> None:
    class FullScreen(Silent):
        raised = False

        def epoch_finished(self, task: str, fields: object) -> None:
            if not FullScreen.raised:
                FullScreen.raised = True
                raise RuntimeError("the screen is full")

    tasks = insert_tasks(pipeline, trainings=[{"seed": seed, "epoch_limit": 3 + seed} for seed in range(3)])
    summary = pipeline.run_worker(WorkerOptions(device="cpu"), FullScreen())
    assert (summary.success_count, len(summary.error_list)) == (2, 1)
    assert "the screen is full" in summary.error_list[0][1]
    joined = (pipeline.TrainingResult * pipeline.TrainingTask * pipeline.TrainingConfig).to_dicts()
    assert [row["epochs"] for row in joined] == [row["epoch_limit"] for row in joined]
    for row in joined:
        assert (pipeline.settings.model_save_dir / row["model_save_path"]).exists()
    assert len(tasks) == 3


def test_a_lost_task_whose_job_somebody_deleted_stops_no_worker(pipeline: Any) -> None:
    (task,) = insert_tasks(pipeline)
    held = saved.claim(pipeline, task)
    (pipeline.TrainingResult.jobs & held.key).delete_quick()
    pipeline.connection.query(f"UPDATE {pipeline.TrainingAttempt.full_table_name} SET heartbeat_at = '2020-01-01'")
    (found,) = recover(pipeline.queue, 1.0, 1)
    assert found.final and (pipeline.TrainingAttempt & held.key).fetch1("state") == "lost"
    assert pipeline.run_worker(WorkerOptions(device="cpu")).success_count == 1


def test_a_closed_channel_writes_to_nobody(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    channel = Channel(os.dup(reads), writes)
    channel.close()
    # The number is somebody else's now.
    with (tmp_path / "file").open("wb") as file:
        assert file.fileno() == writes or file.fileno() == channel.reads
        with pytest.raises(BrokenPipeError):
            channel.send({"type": "stop"})
    assert (tmp_path / "file").read_bytes() == b""
    os.close(reads)
