"""What workers owe one another, and what they owe people: claims taken back by the busy, files cleared away, tasks given back."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synicix_core import Pipeline
from synicix_core.cli.main import cli
from synicix_core.database import execute
from synicix_core.database.dialect import seconds_ago
from synicix_core.registry import Registry
from tests.faults.lab import EPOCHS, STEPS, Lab
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

SHORT_LEASE = {"SYNICIX_WORKER_LEASE_SECONDS": "3"}
SAVES_NONE = "its trainer saves no checkpoints, so it starts again from the beginning"
HAS_NONE = "it has no checkpoint, so it starts again from the beginning"

PLAIN_LAB = '''\
import torch
from synicix_core import TrainerProvider, hookimpl


@hookimpl
def synicix_trainers():
    yield TrainerProvider("Plain", target="plain_lab:Plain", summary="Has no context and saves no checkpoints")


class Plain:
    """Trains without a context; `deaf`, it takes its batches at the beginning and never comes to its loader again."""

    def __init__(
        self, train_dataloader, validation_dataloader, test_dataloader, device, model_class, model_class_params,
        optimizer_class, optimizer_class_params, criterion_class, criterion_class_params, model_save_path, max_epoch,
        deaf: bool = False,
    ):
        self.model = model_class(**model_class_params)
        self.optimizer = optimizer_class(self.model.parameters(), **optimizer_class_params)
        self.criterion = criterion_class(**criterion_class_params)
        self.batches = list(train_dataloader) if deaf else train_dataloader
        self.path = model_save_path
        self.max_epoch = max_epoch
        self.training_epoch_loss_history = []

    def train(self):
        self.model.train()
        for _ in range(self.max_epoch):
            total = 0.0
            for x, y in self.batches:
                output, penalty = self.model(x)
                loss = self.criterion(output, y) + penalty
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.item()
            self.training_epoch_loss_history.append(total)
        torch.save(self.model.state_dict(), self.path)

    def load_best_performing_model(self):
        self.model.load_state_dict(torch.load(self.path, weights_only=True))
'''


@pytest.fixture
def plain_lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab whose plugins include one with a trainer that knows nothing of contexts and checkpoints."""
    folder = project.parent / "plain"
    information = folder / "plain_lab-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "plain_lab.py").write_text(PLAIN_LAB)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-lab\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[synicix]\nplain = plain_lab\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    pipeline = Pipeline(registry=Registry.discover(), declare=True)
    made = Lab(pipeline, project.parent / "lab", step_seconds=0.1)  # who does not listen goes on for a second
    yield made
    made.close()
    pipeline.connection.close()
    sys.modules.pop("plain_lab", None)


def insert_plain(lab: Lab, epochs: int, *, deaf: bool) -> str:
    """Insert a task of that trainer; `epochs` tells it apart from the tasks of other tests."""
    (lab.pipeline.settings.dataset_dir / "line.txt").write_text("2.0")
    training = {"trainer_provider": "Plain", "trainer_class_params": {"deaf": deaf}, "epoch_limit": epochs}
    (task,) = insert_tasks(
        lab.pipeline,
        datasets=[{"dataset_class_params": {"n": 8 * STEPS}}],
        models=[{"model_provider": "Plodder"}],
        trainings=[{**training, "optimizer_provider": "Adam", "optimizer_class_params": {"lr": 0.05}}],
    )
    return task


def names(lab: Lab, task: str, ending: str) -> list[str]:
    """Return the names of a task's files that end so, without asking `gc` first."""
    return sorted(path.name for path in lab.pipeline.settings.model_save_dir.glob(f"{task}*{ending}"))


def queue(*arguments: str) -> None:
    """Type a command of `synicix-run queue`."""
    done = CliRunner().invoke(cli, ["queue", *arguments])
    assert done.exit_code == 0, done.output


def result(lab: Lab, task: str) -> dict[str, Any]:
    """Return the result of a task."""
    row: dict[str, Any] = (lab.pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1()
    return row


def test_a_busy_worker_takes_back_what_a_lost_one_held(lab: Lab) -> None:
    """It would be long until it is between two tasks, and nobody else may be there."""
    lab.step_seconds = 0.1
    (long,) = lab.insert(0)
    worker = lab.start("--wait", "--max-tasks", "2", **SHORT_LEASE)
    lab.wait_for_steps(1)
    (other,) = lab.insert(1, epochs=2)
    claim = lab.pipeline.queue.claim("0" * 32, "elsewhere", 1, "cpu")  # of a process that nobody here can look at
    assert claim is not None and claim.task == other
    execute(
        lab.pipeline.connection,
        f"UPDATE {lab.pipeline.TrainingAttempt.full_table_name} "
        f"SET heartbeat_at = {seconds_ago(lab.pipeline.connection.adapter)} WHERE training_task_md5_hash = %s",
        (60, other),
    )
    lab.wait_for_state(other, 1, "lost")
    assert lab.states(long) == ["running"] and lab.steps() < EPOCHS * STEPS
    assert f"{other[:8]} is pending again: its worker on elsewhere was lost (no heartbeat for 3 s)" in worker.said
    assert worker.end() == 0
    lab.check_states(long, ["finished"])
    lab.check_states(other, ["lost", "finished"])
    lab.check([long, other])


def test_a_zombie_s_finished_model_is_removed_by_the_zombie_itself(lab: Lab) -> None:
    """Its executor went on, ended the training and wrote a model, while its supervisor was frozen."""
    (task,) = lab.insert()
    zombie = lab.start("--wait", **SHORT_LEASE)
    lab.wait_for_steps(STEPS)
    zombie.signal(signal.SIGSTOP)
    lab.wait_until(lambda: names(lab, task, ".pt") == [f"{task}.1.pt"])
    assert names(lab, task, ".checkpoint") == [f"{task}.1.checkpoint"]
    assert lab.start("--wait", "--max-tasks", "1", **SHORT_LEASE).end() == 0
    assert names(lab, task, ".pt") == [f"{task}.1.pt", f"{task}.2.pt"]
    zombie.signal(signal.SIGCONT)
    lab.wait_until(lambda: "taken for lost" in zombie.said)
    assert names(lab, task, ".pt") == [f"{task}.2.pt"]
    assert names(lab, task, ".checkpoint") == []
    lab.check_states(task, ["lost", "finished"])
    lab.check([task])


def test_checkpoints_are_gone_when_a_task_that_was_killed_is_finished(lab: Lab) -> None:
    (task,) = lab.insert()
    victim = lab.start()
    lab.wait_until(lambda: bool(names(lab, task, ".1.checkpoint")))
    victim.kill()
    assert lab.start().end() == 0
    lab.check_states(task, ["lost", "finished"])
    assert result(lab, task)["provenance"]["resumed_from_epoch"] is not None
    assert names(lab, task, ".checkpoint") == []
    assert names(lab, task, ".pt") == [f"{task}.2.pt"]
    lab.check([task])


@pytest.mark.parametrize("deaf", [False, True], ids=["listening", "deaf"])
def test_a_stopped_trainer_without_checkpoints_starts_again_and_the_worker_says_so(plain_lab: Lab, deaf: bool) -> None:
    lab, epochs = plain_lab, 6
    task = insert_plain(lab, epochs, deaf=deaf)
    worker = lab.start("--grace", "3")
    lab.wait_for_steps(2 * STEPS)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 75
    before = lab.steps()
    assert before < epochs * STEPS
    # Who does not listen does not come to say what it can do either.
    assert [worker.said.count(SAVES_NONE), worker.said.count(HAS_NONE)] == ([0, 1] if deaf else [1, 0])
    again = lab.start()
    assert again.end() == 0
    assert "starts again from the beginning" not in again.said and "starts from the beginning" in again.said
    lab.check_states(task, ["released", "finished"])
    assert lab.steps() - before == result(lab, task)["epochs"] * STEPS == epochs * STEPS
    assert result(lab, task)["provenance"]["resumed_from_epoch"] is None
    lab.check_files([task])
    lab.check_queue([task])


def test_a_trainer_that_tried_to_save_and_does_not_listen_is_not_said_to_save_nothing(lab: Lab) -> None:
    (task,) = lab.insert()
    with lab.fault("full-checkpoint"):
        worker = lab.start("--grace", "3")
        lab.wait_until(lambda: "No space left" in worker.said)
        lab.ask_for("hang")
        lab.wait_until(lambda: not (lab.folder / "disasters" / "hang").exists())
        worker.signal(signal.SIGTERM)
        assert worker.end() == 75
    assert worker.said.count(f"released: it is pending again; {HAS_NONE}\n") == 1
    assert "saves no checkpoints" not in worker.said
    lab.check_states(task, ["released"])


def test_a_killed_trainer_without_checkpoints_starts_again(plain_lab: Lab) -> None:
    lab, epochs = plain_lab, 7
    task = insert_plain(lab, epochs, deaf=False)
    victim = lab.start()
    lab.wait_for_steps(2 * STEPS)
    executor = victim.executor
    victim.kill()
    lab.wait_until(lambda: not Path(f"/proc/{executor}").exists())
    before = lab.steps()
    again = lab.start()
    assert again.end() == 0
    assert again.said.count("(attempt 2) starts from the beginning") == 1
    lab.check_states(task, ["lost", "finished"])
    assert lab.steps() - before == result(lab, task)["epochs"] * STEPS == epochs * STEPS
    lab.check([task])


def test_a_paused_task_leaves_its_worker_to_the_next_one_and_goes_on_when_it_is_resumed(lab: Lab) -> None:
    lab.step_seconds = 0.12
    (paused,) = lab.insert(0)
    worker = lab.start("--wait", "--max-tasks", "2")
    lab.wait_until(lambda: bool(names(lab, paused, ".1.checkpoint")))
    (other,) = lab.insert(1, epochs=2)
    queue("pause", paused)
    lab.wait_until(lambda: f"{paused[:8]}: stopped: the task was paused\n" in worker.said)
    assert lab.steps() < EPOCHS * STEPS  # at the next heartbeat, not at the end
    lab.wait_until(lambda: lab.results([other]) == 1)
    lab.check_states(paused, ["released"])
    assert lab.results([paused]) == 0
    queue("resume", paused)
    assert worker.end() == 0
    lab.check_states(paused, ["released", "finished"])
    lab.check_states(other, ["finished"])
    assert {attempt["worker"] for attempt in lab.attempts(paused)} == {lab.attempts(other)[0]["worker"]}
    assert result(lab, paused)["provenance"]["resumed_from_epoch"] is not None
    needed = STEPS * sum(result(lab, task)["epochs"] for task in (paused, other))
    assert lab.steps() - needed <= STEPS
    lab.check([paused, other])


def test_a_cancelled_task_is_an_error_of_its_own_kind_and_its_worker_goes_on_with_the_next(lab: Lab) -> None:
    lab.step_seconds = 0.12
    (cancelled,) = lab.insert(0)
    worker = lab.start("--wait", "--max-tasks", "1")
    lab.wait_until(lambda: bool(names(lab, cancelled, ".1.checkpoint")))
    (other,) = lab.insert(1, epochs=2)
    queue("cancel", cancelled, "--yes")
    lab.wait_until(lambda: f"{cancelled[:8]}: stopped: the task was cancelled\n" in worker.said)
    assert lab.steps() < EPOCHS * STEPS
    assert worker.end() == 0
    lab.check_states(cancelled, ["failed"])
    lab.check_states(other, ["finished"])
    (attempt,) = lab.attempts(cancelled)
    assert attempt["error_kind"] == "cancelled"
    assert attempt["worker"] == lab.attempts(other)[0]["worker"]
    job = (lab.pipeline.TrainingResult.jobs & {"training_task_md5_hash": cancelled}).fetch1()
    assert (job["status"], job["error_message"]) == ("error", attempt["error"])
    lab.check([other])
    lab.check_queue([cancelled])
    assert names(lab, cancelled, "") == [f"{cancelled}.1.checkpoint"]  # from which a retry goes on


def test_second_signals_never_end_a_task_that_gets_further_each_time(lab: Lab) -> None:
    """They leave the claim, as a kill does, and so count as lost workers; but only in a row without progress."""
    lab.step_seconds = 0.08
    (task,) = lab.insert()
    for _ in range(2):
        _signal_twice_after_an_epoch_more(lab, task)
    assert lab.start("--max-attempts", "2").end() == 0
    lab.check_states(task, ["lost", "lost", "finished"])
    lab.check([task])


def _signal_twice_after_an_epoch_more(lab: Lab, task: str) -> None:
    before = _furthest(lab, task)
    worker = lab.start("--grace", "600", "--max-attempts", "2")
    lab.wait_until(lambda: _furthest(lab, task) > before)
    lab.ask_for("hang")
    lab.wait_until(lambda: not (lab.folder / "disasters" / "hang").exists())
    worker.signal(signal.SIGTERM)
    time.sleep(1.2)
    worker.signal(signal.SIGTERM)
    assert worker.end(10) == 143


def _furthest(lab: Lab, task: str) -> int:
    return max((attempt["epoch"] or 0 for attempt in lab.attempts(task)), default=0)
