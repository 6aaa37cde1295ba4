"""The soak's judge: each thing that must not be makes it say BAD, and say which."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.database import execute
from synicix_core.tables.queue import Problem
from tests import saved
from tests.faults import soak
from tests.faults.lab import Lab, reference
from tests.faults.soak import EPOCHS, KINDS, OFTEN, Report, Soak, plan
from tests.rows import insert_tasks

MD5 = "training_task_md5_hash"

PLANNED = Counter(dict.fromkeys(KINDS, OFTEN))
POISON = {"trainer_provider": "Misbehaving", "trainer_class_params": {"how": "raise", "seconds": 0.0}}


def finish(lab: Lab, task: str) -> None:
    """Give a task the result of a training that nothing happened to."""
    pipeline = lab.pipeline
    held = saved.claim(pipeline, task)
    right = reference(pipeline, task)
    model = f"{task}.{held.attempt}.pt"
    torch.save(dict(right.weights), pipeline.settings.model_save_dir / model)
    numbers = {name: json.loads(value) for name, value in right.histories.items()}
    pipeline.queue.commit(held, {**saved.RESULT, **numbers, "model_save_path": model})


def fail(lab: Lab, task: str, message: str = "poisoned") -> None:
    """End a task in an error."""
    lab.pipeline.queue.fail(saved.claim(lab.pipeline, task), Problem(message, cause="0badcafe"))


def judged(lab: Lab, tasks: dict[str, bool]) -> Report:
    """Return what the judge says of a soak whose faults all struck."""
    ran = Soak(lab, workers=0, tasks=len(tasks))
    ran._tasks = tasks
    ran.report.planned_faults, ran.report.faults = Counter(PLANNED), Counter(PLANNED)
    ran._judge()
    return ran.report


def twice(lab: Lab, task: str) -> None:
    """Have a second attempt finish a task that is finished."""
    (attempt,) = lab.attempts(task)
    lab.pipeline.TrainingAttempt().insert1({**attempt, "attempt": 2})


def failed_besides(lab: Lab, task: str) -> None:
    """Put a finished task back on the queue, in error."""
    job = {MD5: task, "status": "error", "priority": 5, "error_message": "late"}
    lab.pipeline.TrainingResult.jobs.insert1(job)


def vanished(lab: Lab, task: str) -> None:
    """Take a finished task's result away, as if its job had vanished unfinished."""
    (lab.pipeline.TrainingResult & {MD5: task}).delete(prompt=False)


def running(lab: Lab, task: str) -> None:
    """Have an attempt at a finished task that goes on."""
    (attempt,) = lab.attempts(task)
    lab.pipeline.TrainingAttempt().insert1({**attempt, "attempt": 2, "state": "running"})


def queued(lab: Lab, task: str) -> None:
    """Put a finished task back on the queue."""
    lab.pipeline.TrainingResult.jobs.insert1({MD5: task, "status": "pending", "priority": 5})


def model_of(lab: Lab, task: str) -> Path:
    """Return the file of a task's model."""
    folder: Path = lab.pipeline.settings.model_save_dir
    return folder / str((lab.pipeline.TrainingResult & {MD5: task}).fetch1("model_save_path"))


def one_bit(lab: Lab, task: str) -> None:
    """Change a single weight as little as can be."""
    file = model_of(lab, task)
    weights = torch.load(file, weights_only=True)
    first = next(value for value in weights.values() if value.is_floating_point()).view(-1)
    first[0] = torch.nextafter(first[0], torch.tensor(torch.inf))
    torch.save(weights, file)


def no_model(lab: Lab, task: str) -> None:
    """Lose a task's model; gc then takes its result away, too, to have it trained again."""
    model_of(lab, task).unlink()


def left_over(lab: Lab, task: str) -> None:
    """Leave a file that gc does not know."""
    saved.touch(lab.pipeline, f"core.{task}")


def other_score(lab: Lab, task: str) -> None:
    """Change what a result says of its training."""
    table = lab.pipeline.TrainingResult.full_table_name
    execute(lab.pipeline.connection, f"UPDATE {table} SET test_score = test_score + 1 WHERE {MD5} = %s", (task,))


DAMAGES: dict[Callable[[Lab, str], None], tuple[str, ...]] = {
    twice: ("duplicates",),
    failed_besides: ("duplicates",),
    vanished: ("lost",),
    running: ("stuck",),
    queued: ("stuck",),
    one_bit: ("different",),
    other_score: ("different",),
    no_model: ("different",),
    left_over: ("files",),
}


@pytest.mark.database
def test_every_kind_of_damage_is_found_where_it_was_done(lab: Lab) -> None:
    tasks = dict.fromkeys((lab.insert(mark=mark, epochs=EPOCHS)[0] for mark in range(len(DAMAGES) + 1)), False)
    (poisoned,) = insert_tasks(lab.pipeline, trainings=[POISON])
    for task in tasks:
        finish(lab, task)
    fail(lab, poisoned)
    report = judged(lab, tasks | {poisoned: True})
    assert report.good and report.verdict == "good", report.lines()
    assert (report.tasks, report.results, report.errors) == (len(tasks) + 1, len(tasks), 1)
    damaged = dict(zip(DAMAGES, tasks, strict=False))
    for damage, task in damaged.items():
        damage(lab, task)
    report = judged(lab, tasks | {poisoned: True})
    for name in ("duplicates", "lost", "stuck", "different"):
        found = sorted(item.partition(":")[0] for item in getattr(report, name))
        assert found == sorted(task for damage, task in damaged.items() if name in DAMAGES[damage]), name
        assert all(f"  {name}: {task}" in "\n".join(report.lines()) for task in found)
    assert len(report.files) == 1
    assert report.errors == 2  # what failed besides
    assert report.wrong == ["duplicates", "lost", "stuck", "files", "different", "errors"]


@pytest.mark.parametrize("name", ["duplicates", "lost", "stuck", "files", "different"])
def test_one_damage_alone_is_bad_and_named(name: str) -> None:
    report = faulty(PLANNED, PLANNED)
    assert report.good
    getattr(report, name).append("0123abcd")
    assert not report.good and report.verdict == f"BAD ({name})"
    assert report.lines()[-1] == f"  {name}: 0123abcd"


@pytest.mark.database
def test_errors_must_be_those_that_were_planned(lab: Lab) -> None:
    (task,) = lab.insert(epochs=EPOCHS)
    (poisoned,) = insert_tasks(lab.pipeline, trainings=[POISON])
    finish(lab, task)
    report = judged(lab, {task: False, poisoned: True})
    assert report.wrong == ["stuck", "errors"] and report.stuck == [poisoned]
    fail(lab, poisoned, message="")
    report = judged(lab, {task: False, poisoned: True})
    assert report.wrong == ["lost"] and report.lost == [poisoned]  # nobody knows why
    (unplanned,) = lab.insert(1, epochs=EPOCHS)
    fail(lab, unplanned)
    execute(lab.pipeline.connection, f"UPDATE {lab.pipeline.tables.jobs_name} SET error_message = 'poisoned'")
    report = judged(lab, {task: False, poisoned: True, unplanned: False})
    assert report.wrong == ["errors"]
    assert "errors: 2 (1 planned)" in "\n".join(report.lines())


def faulty(planned: dict[str, int], struck: dict[str, int]) -> Report:
    """Return the report of a soak in which nothing went wrong."""
    return Report(planned_faults=Counter(planned), faults=Counter(struck))


@pytest.mark.parametrize(
    ("planned", "struck", "wrong"),
    [
        ({}, {}, ["too few faults"]),
        ({"frozen": 4}, {}, ["too few faults"]),
        ({"frozen": 4}, {"frozen": 1}, ["too few faults"]),
        ({"frozen": 4}, {"frozen": 2}, []),
        # What struck in the place of others does not count.
        ({"frozen": 4, "connections cut": 1}, {"connections cut": 5}, ["too few faults"]),
        ({"frozen": OFTEN - 1, "connections cut": 9}, {"connections cut": 13}, []),
        ({"frozen": OFTEN, "connections cut": 9}, {"connections cut": 14}, ["never frozen"]),
        ({"frozen": OFTEN, "connections cut": 9}, {"connections cut": 13, "frozen": 1}, []),
    ],
)
def test_a_soak_without_enough_faults_proves_nothing(
    planned: dict[str, int], struck: dict[str, int], wrong: list[str]
) -> None:
    report = faulty(planned, struck)
    assert report.wrong == wrong and report.good is not bool(wrong)
    (line,) = (line for line in report.lines() if line.startswith("faults injected: "))
    assert line.startswith(f"faults injected: {sum(struck.values())} (")
    assert line.endswith(f", as planned {report.struck} of {sum(planned.values())}")


def test_the_plan_of_a_soak_is_what_its_faults_are_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak that finds nobody to strike, and whose database has no connections to cut, is no good one."""
    for name in ("_insert", "_drain", "_judge", "_ready", "_keep_going"):
        monkeypatch.setattr(Soak, name, lambda *_: [])
    for kind in KINDS:
        monkeypatch.setitem(soak._STRIKES, kind, lambda *_: False)
    monkeypatch.setattr(Soak, "_cut", lambda *_: False)
    faults = [soak.Fault(0, fault.kind, fault.draw) for fault in plan(1, 100)]
    nobody: Any = None
    report = Soak(nobody, workers=0, tasks=0).run(faults)
    assert report.planned_faults.total() == 100 and not report.good
    assert "too few faults" in report.wrong
    monkeypatch.setattr(Soak, "_cut", lambda *_: True)
    report = Soak(nobody, workers=0, tasks=0).run(faults)
    assert report.faults == {"connections cut": 100} and "too few faults" in report.wrong


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_the_program_says_so_and_ends_with_it(
    good: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = faulty(PLANNED, PLANNED)
    if not good:
        report.duplicates.append("0123abcd")
    monkeypatch.setattr(soak, "soak", lambda *_: (report, 7.0))
    monkeypatch.setattr(sys, "argv", ["soak", "--seed", "3"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert soak.main() == code
    said = capsys.readouterr().out
    assert ("seed 3: good after 7 s" if good else "seed 3: BAD (duplicates) after 7 s") in said
    assert good or "  duplicates: 0123abcd" in said
    assert bool(list(tmp_path.iterdir())) is not good  # what could tell why is kept
