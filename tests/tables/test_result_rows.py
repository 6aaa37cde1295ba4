"""The files of the histories: never there in part, whoever else writes the same."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from synicix_core.tables.result_rows import _Store
from tests.rows import insert_tasks
from tests.saved import finish, histories

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"


def test_two_workers_may_write_equal_histories_at_once(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])
    other = _Store(pipeline.connection._config, pipeline.schema_name)
    replace = Path.replace
    written: list[str] = []

    def replaced(self: Path, target: Path) -> Path:
        if self.name.endswith(".saving") and not written:
            written.append(self.name)
            other.put([1.0, 0.5])  # somebody else came in between
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    finish(pipeline, tasks[0], [1.0, 0.5])
    assert written and len(histories(pipeline)) == 1
    finish(pipeline, tasks[1], [1.0, 0.5])
    assert len(histories(pipeline)) == 1
    for task in tasks:
        assert list((pipeline.TrainingResult & {MD5: task}).fetch1("training_epoch_loss_history")) == [1.0, 0.5]


def test_a_full_disk_leaves_no_half_of_a_history(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = insert_tasks(pipeline, trainings=[{"seed": 0}])
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.endswith(".saving"):
            write_bytes(self, data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            finish(pipeline, task, [1.0])
    assert histories(pipeline) == set()
