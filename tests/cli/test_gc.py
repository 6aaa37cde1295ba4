"""`gc`: what it lists, what it asks, what it removes, and how it ends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rows import insert_tasks
from tests.saved import claim, finish, histories, names, touch

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
STRANGER = "f" * 32


@pytest.fixture
def tasks(pipeline):
    """Six tasks: five with results, of which one has lost its model and one has a needless checkpoint; one was tried."""
    made = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)])
    for index, task in enumerate(made[:5]):
        finish(pipeline, task, [float(index)])
    (pipeline.settings.model_save_dir / f"{made[0]}.1.pt").unlink()
    pipeline.queue.release(claim(pipeline, made[5]))
    touch(pipeline, f"{made[1]}.1.checkpoint", f"{made[5]}.1.pt", f"{STRANGER}.1.pt", "README.md")
    return made


def on_terminal(answer: str) -> tuple[int, str]:
    """Run ``gc`` as somebody at a terminal who types `answer`; return the exit code and what it printed."""
    own, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "synicix_core.cli", "gc"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.write(own, f"{answer}\n".encode())
    printed, _ = child.communicate(timeout=120)
    os.close(own)
    os.close(theirs)
    return child.returncode, printed.decode()


def test_a_tidy_project_says_so(pipeline, run, run_json):
    assert "Every file belongs to a row" in run("gc").stdout
    assert "Every file belongs to a row" in run("gc", "--yes").stdout
    found = run_json("gc", "--yes")
    assert found["leftovers"] == [] and found["removed"] is None and found["refused"] is None


def test_without_a_terminal_it_lists_and_removes_nothing(pipeline, tasks, run):
    before = names(pipeline), histories(pipeline)
    result = run("gc")
    known, _, strange = result.stdout.partition("This schema knows nothing of these:")
    assert f"{tasks[1]}.1.checkpoint" in known and "the task has a result" in known
    assert f"{tasks[5]}.1.pt" in known and "not the model of a result" in known
    assert tasks[0] in known and f"its model {tasks[0]}.1.pt is gone" in known
    assert "1 checkpoint, 1 model, 1 history, 1 result without its files:" in known
    assert f"{STRANGER}.1.pt" in strange and "removed only with --unknown" in strange and "README" not in result.stdout
    assert "synicix-run gc --yes" in result.stderr
    assert (names(pipeline), histories(pipeline)) == before and len(pipeline.TrainingResult()) == 5


def test_json_lists_and_removes_nothing_unless_asked(pipeline, tasks, run_json):
    before = names(pipeline)
    found = run_json("gc")
    kinds = [(item["kind"], item["unknown"]) for item in found["leftovers"]]
    strange = ("model", True)
    assert kinds == [("checkpoint", False), ("model", False), strange, ("history", False), ("result", False)]
    assert found["count"] == 4 and found["removed"] is None and found["notes"] == []
    assert found["size"] == sum(item["size"] for item in found["leftovers"] if not item["unknown"]) > 0
    assert names(pipeline) == before
    removed = run_json("gc", "--yes")["removed"]
    assert removed == {"files": 3, "size": found["size"], "results": 1, "queued": 1, "kept": 0, "errors": []}
    assert run_json("gc")["count"] == 0


def test_yes_removes_and_says_how_much(pipeline, tasks, run):
    text = run("gc", "--yes").stdout
    assert "Removed 3 files, " in text and "Deleted 1 result whose files are gone; 1 task queued again." in text
    models = {f"{task}.1.pt" for task in tasks[1:5]}
    assert names(pipeline) == models | {f"{STRANGER}.1.pt", "README.md"}
    assert set(pipeline.TrainingResult.to_arrays(MD5)) == set(tasks[1:5])
    run("gc", "--yes", "--unknown")
    assert names(pipeline) == models | {"README.md"}


def test_on_a_terminal_it_asks(pipeline, tasks):
    before = names(pipeline)
    code, printed = on_terminal("n")
    assert code == 0 and "Remove 3 files and 1 result, whose tasks are then trained again?" in printed
    assert "Nothing was removed." in printed and names(pipeline) == before
    code, printed = on_terminal("y")
    assert code == 0 and "Removed 3 files" in printed and len(names(pipeline)) == 6


def test_many_files_are_cut_short(pipeline, tasks, run):
    touch(pipeline, *(f".{tasks[1]}.1.checkpoint.{number:016x}.tmp" for number in range(25)))
    text = run("gc").stdout
    assert text.count(".tmp") == 20 and "... and 5 more" in text and "25 unfinished files" in text


def test_a_disk_that_is_not_mounted_is_the_users_mistake(pipeline, tasks, run, run_json):
    for task in tasks[1:3]:
        (pipeline.settings.model_save_dir / f"{task}.1.pt").unlink()
    before = names(pipeline)
    error = run("gc", "--yes", code=2).stderr
    assert "the models of 3 of 5 results are not where they should be" in error and "Nothing was removed." in error
    assert "the models of 3 of 5" in run_json("gc", "--yes", code=2)["refused"]
    assert names(pipeline) == before and len(pipeline.TrainingResult()) == 5


def test_what_could_not_be_removed_is_a_failure(pipeline, tasks, run, run_json, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("gc", "--yes", code=1)
    assert f"{tasks[1]}.1.checkpoint could not be removed: Permission denied" in result.stderr
    assert "Removed 0 files" in result.stdout
    (first, *_) = run_json("gc", "--yes", code=1)["removed"]["errors"]
    assert first["why"] == "Permission denied"


def test_a_directory_that_cannot_be_read_is_said(pipeline, run):
    directory = pipeline.settings.model_save_dir
    directory.rmdir()
    directory.write_text("a file")
    assert "model_save_dir cannot be read" in run("gc", code=2).stderr
