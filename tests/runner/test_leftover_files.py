"""Which files are ours, and which of them nobody needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from synicix_core.runner.leftover_files import SavedFile, find_saved_files, is_unchanged, unneeded
from synicix_core.tables.housekeeping import TaskRows
from synicix_core.training import saved_files
from synicix_core.training.task_specs import checkpoint_path, model_path

TASK = "0123456789abcdef" * 2


def listed(directory: Path) -> dict[str, tuple[str, str, int]]:
    return {file.name: (file.kind, file.task, file.attempt) for file in find_saved_files(directory)}


def test_models_and_checkpoints_are_known_by_their_names(tmp_path):
    for name in (model_path(TASK, 1), checkpoint_path(TASK, 12), f".{TASK}.3.partial.pt"):
        (tmp_path / name).touch()
    assert listed(tmp_path) == {
        model_path(TASK, 1): ("model", TASK, 1),
        checkpoint_path(TASK, 12): ("checkpoint", TASK, 12),
        f".{TASK}.3.partial.pt": ("temporary", TASK, 3),
    }


@pytest.mark.parametrize("name", [model_path(TASK, 2), checkpoint_path(TASK, 2), f".{TASK}.2.partial.pt"])
def test_what_a_killed_save_leaves_is_known(tmp_path, monkeypatch, name):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr(os, "fsync", killed)
    # What a process that is killed cannot do any more.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        saved_files.save_atomically({"w": torch.zeros(1)}, tmp_path / name)
    ((left, found),) = listed(tmp_path).items()
    assert left != name and found == ("temporary", TASK, 2)


@pytest.mark.parametrize(
    "name",
    [
        "model.pt",
        f"{TASK}.pt",
        f"{TASK}.0.pt",
        f"{TASK}.1.pt.bak",
        f"x{TASK}.1.pt",
        f"{TASK.upper()}.1.pt",
        f"{TASK}.1.partial.pt",
        f".{TASK}.1.pt",
        f"{TASK}.1.pt\n",
        f".{TASK}.1.pt.0123.tmp",
        f"..{TASK}.1.pt.0123456789abcdef.tmp",
        f"{TASK[:31]}.1.checkpoint",
        ".synicix-abc",
    ],
)
def test_other_names_are_foreign(tmp_path, name):
    (tmp_path / name).touch()
    assert listed(tmp_path) == {}


def test_folders_and_links_are_foreign(tmp_path):
    (tmp_path / model_path(TASK, 1)).mkdir()
    (tmp_path / model_path(TASK, 2)).symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path) == {}


def test_a_file_that_was_replaced_is_another_file(tmp_path):
    path = tmp_path / model_path(TASK, 1)
    path.write_text("old")
    (file,) = find_saved_files(tmp_path)
    assert is_unchanged(tmp_path, file)
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(path)
    assert not is_unchanged(tmp_path, file)
    path.unlink()
    assert not is_unchanged(tmp_path, file)


def saved(*names: str) -> list[SavedFile]:
    made = []
    for name in names:
        attempt, kind = name.split()
        made.append(SavedFile(name, kind, TASK, int(attempt), 1, (1, 1)))
    return made


@pytest.mark.parametrize(
    ("files", "rows", "expected"),
    [
        # A task with a result needs its model alone.
        (["1 checkpoint", "2 checkpoint", "1 model", "2 model"], TaskRows({1: "failed", 2: "finished"}, "2 model"),
         {"1 checkpoint", "2 checkpoint", "1 model"}),
        # Pending, paused or in error: the latest checkpoint is gone on from.
        (["1 checkpoint", "3 checkpoint", "2 model"], TaskRows({1: "lost", 2: "failed", 3: "released"}),
         {"1 checkpoint", "2 model"}),
        # Running without a checkpoint of its own: any earlier one may serve.
        (["1 checkpoint", "2 checkpoint", "3 temporary"], TaskRows({1: "lost", 2: "lost", 3: "running"}), set()),
        # Running with one of its own: that one serves.
        (["1 checkpoint", "3 checkpoint", "3 model"], TaskRows({1: "lost", 2: "lost", 3: "running"}), {"1 checkpoint"}),
        # What an attempt that ended left half-written.
        (["1 temporary", "2 temporary"], TaskRows({1: "lost", 2: "running"}), {"1 temporary"}),
        # The row names the file, whatever its attempt.
        (["7 model"], TaskRows({1: "finished"}, "7 model"), set()),
    ],
)  # fmt: skip
def test_what_nobody_needs(files, rows, expected):
    found = dict(unneeded(saved(*files), rows))
    assert {file.name for file in found} == expected
    assert all(found.values())


@pytest.mark.parametrize("rows", [None, TaskRows({1: "released"})])
def test_what_no_row_knows_has_no_reason(rows):
    found = dict(unneeded(saved("2 checkpoint", "2 model", "2 temporary"), rows))
    assert len(found) == 3 and set(found.values()) == {""}


def test_an_unknown_checkpoint_does_not_outdate_a_known_one():
    found = {file.name for file, _ in unneeded(saved("1 checkpoint", "9 checkpoint"), TaskRows({1: "released"}))}
    assert found == {"9 checkpoint"}
