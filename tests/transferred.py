"""A schema with everything that rows can hold, to be moved, and what people see of it."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synicix_core.database import execute
from synicix_core.tables.queue import Problem
from synicix_core.tables.queue_control import cancel, pause, set_priority
from tests.cli.conftest import RESULT
from tests.rows import insert_tasks
from tests.saved import claim, touch

MD5 = "training_task_md5_hash"
NASTY = 'héllo "quoted" \\ \' %s %% \n\t\x07 \N{SNAKE} 漢字 {"json": 1} \\u0000'
FLOATS = (5e-324, -2.2250738585072014e-308, 0.1 + 0.2, math.pi * 1e15, sys.float_info.max, -0.0, 1e16, 1e19, 1e-7)
STACK = "".join(f'  File "x.py", line {n}, in f \N{SNAKE}\n' for n in range(20_000))


@dataclass(frozen=True)
class World:
    """Tasks by what became of them."""

    finished: tuple[str, ...]
    pending: str
    failed: str
    cancelled: str
    paused: str
    urgent: str
    later: str
    given_back: str
    unqueued: str

    @property
    def all(self) -> list[str]:
        """Every task."""
        return [*self.finished, *(value for value in vars(self).values() if isinstance(value, str))]


def fill(pipeline: Any, finished: int = 4) -> World:
    """Fill a schema with tasks in every state, and with values that are easily changed on the way."""
    models = [{"model_class_params": {"penalty": value}} for value in (0.0, 1e16, 1e19, 5e-324, 0.1 + 0.2)]
    datasets = [{"dataset_type": NASTY.replace("\x07", "")[:200], "dataset_class_params": {"offer": "wïde"}}]
    tasks = sorted(insert_tasks(pipeline, trainings=[{"seed": 2**63 - 1}, {"seed": 1}, {"seed": 2}], models=models))
    tasks += insert_tasks(pipeline, datasets=datasets)
    done = tuple(tasks[:finished])
    for index, task in enumerate(done):
        _finish(pipeline, task, index)
    world = World(done, *tasks[finished : finished + 8])
    pipeline.queue.fail(claim(pipeline, world.failed), Problem(f"ValueError: {NASTY}", STACK, cause="0123abcd"))
    cancel(pipeline.tables, [world.cancelled])
    held = claim(pipeline, world.paused)
    pipeline.queue.heartbeat(held, {"epoch": 1, "train_loss": 1e16, "validation_loss": 0.1 + 0.2})
    pause(pipeline.tables, [world.paused])
    set_priority(pipeline.tables, [world.urgent], -128)
    pipeline.queue.retry_later(claim(pipeline, world.later), Problem("it died", kind="died", cause="died"), 86_400.0)
    pipeline.queue.release(claim(pipeline, world.given_back), f"{world.given_back}.1.checkpoint", epoch=1)
    touch(pipeline, f"{world.given_back}.1.checkpoint")
    (pipeline.TrainingResult.jobs & {MD5: world.unqueued}).delete_quick()
    return world


def _finish(pipeline: Any, task: str, index: int) -> None:
    held = claim(pipeline, task)
    model = f"{task}.{held.attempt}.pt"
    touch(pipeline, model, content=f"weights {task}")
    score = None if index == 1 else FLOATS[index % len(FLOATS)]
    row = {
        **RESULT,
        "test_score": score,
        "status": "diverged" if score is None else "completed",
        "best_epoch": None if score is None else 2,
        "scores": {"test": {"loss": score, NASTY: list(FLOATS)}, "train": {}},
        "training_epoch_loss_history": [float(index), *FLOATS],
        "model_save_path": model,
        "model_sha256": hashlib.sha256(f"weights {task}".encode()).hexdigest(),
        "train_seconds": math.pi,
        "provenance": {"host": NASTY, "numbers": [*FLOATS, 2**63 - 1, -(2**63)], "none": None, "providers": []},
    }
    pipeline.queue.commit(held, row)


def contents(pipeline: Any) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of all tables, decoded by DataJoint, in order."""
    tables = ("DatasetConfig", "ModelConfig", "TrainingConfig", "TrainingTask", "TrainingAttempt", "TrainingResult")
    found = {name: getattr(pipeline, name)().to_dicts() for name in tables}
    found["Job"] = pipeline.TrainingResult().jobs.to_dicts()
    for rows in found.values():
        rows.sort(key=lambda row: [str(value) for value in row.values()][:2])
    return found


def printed(run_json: Callable[..., Any], world: World) -> dict[str, Any]:
    """Return what the commands that people look with print, without what tells the time of the look."""
    views: dict[str, Any] = {
        "results": run_json("results"),
        "status": run_json("status"),
        "errors": run_json("errors"),
        "queue": run_json("queue", "list"),
        "gc": run_json("gc"),
        **{task: run_json("show", task) for task in world.all},
    }
    # Tasks that were queued in the same millisecond come in any order, and the mean is one of differences to now.
    views["queue"]["next"].sort(key=lambda task: (task["priority"], task["task"]))
    views["status"]["mean_seconds"] = round(views["status"]["mean_seconds"], 6)
    return _timeless(views)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in ("due_in_seconds", "seconds_ago")}
    # PostgreSQL returns large floats as integers.
    if isinstance(value, int) and abs(value) >= 1e16:
        return float(value)
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def drop_schema(connection: Any, schema: str) -> None:
    """Drop a schema whatever is in it."""
    postgres = connection.adapter.backend == "postgresql"
    execute(
        connection, f'DROP SCHEMA IF EXISTS "{schema}" CASCADE' if postgres else f"DROP DATABASE IF EXISTS `{schema}`"
    )


def rewrite(path: Path, member: str, change: Callable[[bytes], bytes], *, keep_digest: bool = False) -> None:
    """Change one member of an export; with `keep_digest` the manifest is left as it was."""
    import json
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(members[member])
    if not keep_digest and member != "manifest.json":
        manifest = json.loads(members["manifest.json"])
        facts = manifest["tables"][member.removesuffix(".jsonl")]
        facts |= {"sha256": hashlib.sha256(members[member]).hexdigest(), "rows": members[member].count(b"\n")}
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
