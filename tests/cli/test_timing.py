"""`show TASK --timing`, and `populate --profile`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import RESULT, as_program, finish
from tests.rows import insert_tasks

pytestmark = pytest.mark.database

TIMING = {
    "seconds": {"other": 1.0, "forward": 6.0, "data": 2.0, "database": 0.5, "evaluation": 0.5},
    "steps": 40,
    "samples": 640,
    "steps_per_second": 5.0,
    "samples_per_second": 80.0,
    "profiled": False,
}


def finished(pipeline, **provenance) -> str:
    (task,) = insert_tasks(pipeline)
    finish(pipeline, {task: 0.5}, provenance={**RESULT["provenance"], **provenance})
    return task


def test_the_parts_stand_in_their_order_with_their_shares(pipeline, run):
    lines = run("show", finished(pipeline, timing=TIMING), "--timing").stdout.splitlines()
    cells = [line.split() for line in lines]
    rows = {row[0]: row[1:] for row in cells if row}
    assert [row[0] for row in cells if row and row[0] in TIMING["seconds"]] == [
        "data", "forward", "evaluation", "database", "other",
    ]  # fmt: skip
    assert rows["forward"][:2] == ["6.000", "60.0%"] and rows["whole"] == ["10.000", "100.0%"]
    assert (len(rows["forward"][2]), len(rows["data"][2])) == (32, 11), "bars are as long as the parts"
    assert lines[-1] == "80 samples per second, 5 steps per second while it learnt (40 steps, 640 samples)."


def test_json_has_the_same(pipeline, run_json):
    task = finished(pipeline, timing=TIMING)
    assert run_json("show", task, "--timing") == {
        "task": task, "state": "finished", "timing": TIMING, "whole_seconds": 10.0, "group": None,
    }  # fmt: skip


def test_a_task_of_a_group_shows_its_share(pipeline, run, run_json):
    task = finished(pipeline, timing={**TIMING, "profiled": True}, fused={"tasks": 16, "exact": True})
    text = run("show", task, "--timing").stdout
    assert "trained as one of a group, of 16 tasks at first: these are its shares" in text
    assert "A profile was taken of some of its steps, which made them slower." in text
    assert "fused" not in text
    assert run_json("show", task, "--timing")["group"] == 16


def test_what_a_name_does_not_say_is_explained_where_it_stands(pipeline, run):
    seconds = {"forward": 1.0, "training": 2.0, "compiling": 12.0, "other": 1.0}
    text = run("show", finished(pipeline, timing={**TIMING, "seconds": seconds}), "--timing").stdout
    names = [line.split()[0] for line in text.splitlines() if line and line.split()[0] in seconds]
    assert names == ["forward", "training", "compiling", "other"]
    assert "\ntraining: learning that is not divided into forward and backward" in text
    assert "\ncompiling: making the code, or the recording, of a step" in text


def test_the_usual_parts_are_not_explained(pipeline, run):
    text = run("show", finished(pipeline, timing=TIMING), "--timing").stdout
    assert "training:" not in text and "compiling:" not in text


def test_the_provenance_of_a_group_says_that_it_was_trained_as_one(pipeline, run):
    text = run("show", finished(pipeline, fused={"tasks": 16, "exact": True, "mode": "forward"})).stdout
    assert "\n  trained as one\n" in text and "\n    tasks 16\n" in text and "fused" not in text.split("provenance")[1]


def test_a_result_without_timing_says_so(pipeline, run, run_json):
    task = finished(pipeline)
    assert "its result says nothing about time: an older version made it" in run("show", task, "--timing").stdout
    assert run_json("show", task, "--timing")["timing"] is None


def test_a_task_without_result_says_so(pipeline, run):
    (task,) = insert_tasks(pipeline)
    assert "pending; where its time goes is known once it has a result." in run("show", task, "--timing").stdout


def test_show_refers_to_it(pipeline, run):
    text = run("show", finished(pipeline, timing=TIMING)).stdout
    assert "timing  shown by --timing" in text and "samples_per_second" not in text


def test_a_worker_tells_the_time_of_its_tasks_and_profiles_the_first(pipeline, project, run_json):
    tasks = insert_tasks(pipeline, trainings=[{"seed": 1, "epoch_limit": 20}, {"seed": 2, "epoch_limit": 20}])
    ended = as_program("populate", "--device", "cpu", "--fuse", "off", "--profile", str(project / "profiles"))
    assert ended.returncode == 0, ended.stderr
    (trace,) = (project / "profiles").iterdir()
    task, attempt, *rest = trace.name.split(".")
    assert task in tasks and (attempt, rest) == ("1", ["trace", "json"])
    assert {"forward", "evaluation"} <= {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert f"is in {trace}; open it at https://ui.perfetto.dev." in ended.stderr
    told = [run_json("show", each, "--timing")["timing"] for each in tasks]
    assert sorted(each["profiled"] for each in told) == [False, True]
    assert sorted("profiler" in each["seconds"] for each in told) == [False, True]
    for each in told:
        assert {"data", "forward", "backward", "optimizer", "evaluation", "checkpoint", "database"} <= set(
            each["seconds"]
        )
        assert 0 < each["seconds"]["database"] < 60


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--workers", "2", "--profile", "one.json"],
            "--profile one.json is one file for 2 workers: name a directory.",
        ),
        (["--profile", "synicix.toml"], "--profile synicix.toml is a file that is there: name one that ends in .json"),
        (["--profile", "folder.json"], "--profile folder.json is a directory"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_before_anything_is_claimed(pipeline, project, run, arguments, text):
    (project / "folder.json").mkdir()
    insert_tasks(pipeline)
    assert text in run("populate", *arguments, code=78).stderr
    assert not pipeline.TrainingAttempt()
