"""Queueing tasks in bulk, over DataJoint's jobs.refresh(). Aim: 20 times as fast."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import Spread, table
from stopwatch import Stopwatch

__all__ = ["MD5", "Place", "analyze", "empty", "fill_tasks", "on_each_engine", "run"]

MANY, SOME = 100_000, 10_000
PAIRS, AGAIN = 3, 3
AIM = 20.0
ENGINES = ("PostgreSQL", "MySQL")
MD5 = "training_task_md5_hash"
DATASETS, MODELS, TRAININGS = 20, 50, 100
"""How many configs there are; every combination is a task."""
NO_MYSQL = 'not measured: no SYNICIX_TEST_MYSQL; eval "$(.ci/mysql start)" starts a server'
LAB = str(Path(__file__).parent / "lab")

INSERT_PARTS = {
    "_prepare": "check the rows, compute their md5s",
    "existing": "ask which are there",
    "insert": "DataJoint's insert",
    "enqueue": "queue them",
}


def run() -> str:
    """Measure, and return what to print."""
    return on_each_engine(_measure)


@dataclass(frozen=True)
class Place:
    """A project on a server of one kind.

    Attributes
    ----------
    project : Path
        The project.
    variables : dict of str to str
        The environment in which its database is found.
    """

    project: Path
    variables: dict[str, str]

    def enter(self) -> None:
        """Make this process one that works there."""
        for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_"))]:
            del os.environ[name]
        os.environ.update(self.variables)
        if LAB not in sys.path:
            sys.path.insert(0, LAB)

    def pipeline(self) -> Any:
        """Connect, and make the tables if there are none."""
        from synicix_core import Pipeline
        from synicix_core.settings import load_settings

        return Pipeline(settings=load_settings(self.project), declare=True)


def on_each_engine(measure: Callable[[str, Place], str]) -> str:
    """Measure on a server of each kind, in a project of its own; return what to print of them all."""
    blocks = []
    for engine in ENGINES:
        with open_place(engine) as place:
            blocks.append(f"{engine}: {NO_MYSQL}" if place is None else measure(engine, place))
    return "\n\n".join(blocks)


@contextmanager
def open_place(engine: str) -> Iterator[Place | None]:
    """Make a project with a schema of its own, and remove both at the end; None where there is no such server."""
    from synicix_core.database import embedded
    from synicix_core.settings import create_project

    before = dict(os.environ)
    server: dict[str, str] = {}
    if engine == "MySQL":
        if "SYNICIX_TEST_MYSQL" not in before:
            yield None
            return
        host, port, user, password = before["SYNICIX_TEST_MYSQL"].split(":")
        server = {"DJ_HOST": host, "DJ_PORT": port, "DJ_USER": user, "DJ_PASS": password, "DJ_BACKEND": "mysql"}
    schema = f"benchmark_{uuid.uuid4().hex[:12]}"
    variables = {**server, "SYNICIX_SCHEMA_NAME": schema, "DJ_IGNORE_CONFIG_FILE": "1", "PYTHONPATH": LAB}
    with tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        place = Place(Path(folder) / "project", variables)
        place.enter()
        create_project(place.project)
        try:
            if not server:
                embedded.start(place.project)
            yield place
        finally:
            if server:
                _drop(place, schema)
            else:
                embedded.stop(place.project)
            os.environ.clear()
            os.environ.update(before)


def fill_tasks(pipeline: Any, count: int) -> None:
    """Insert configs, half of the models of a plugin that is not installed, and `count` tasks; no model is built of them."""
    from synicix_core.database import execute

    _insert_configs(pipeline, absent=MODELS // 2)
    tables = pipeline.tables
    names = ("dataset_config_md5_hash", "model_config_md5_hash", "training_config_md5_hash")
    content = f"CONCAT({', '.join(names)})"
    # MySQL 9 has no MD5() without a component that nobody installs.
    postgres = pipeline.connection.adapter.backend == "postgresql"
    digest = f"MD5({content})" if postgres else f"LEFT(SHA2({content}, 256), 32)"
    execute(
        pipeline.connection,
        f"INSERT INTO {tables.TrainingTask.full_table_name} ({MD5}, {', '.join(names)}) "
        f"SELECT {digest}, {', '.join(names)} FROM {tables.DatasetConfig.full_table_name} d "
        f"CROSS JOIN {tables.ModelConfig.full_table_name} m CROSS JOIN {tables.TrainingConfig.full_table_name} c "
        f"ORDER BY {digest} LIMIT {count}",
    )


def empty(pipeline: Any, *names: str) -> None:
    """Take every row out of tables, the job table among them as ``jobs``, and the dead ones out of the way of what comes."""
    from synicix_core.database import execute

    for name in names:
        full_name = _full_name(pipeline, name)
        execute(pipeline.connection, f"DELETE FROM {full_name}")
        if pipeline.connection.adapter.backend == "postgresql":
            execute(pipeline.connection, f"VACUUM {full_name}")


def analyze(pipeline: Any) -> None:
    """Have the server count the rows, as it does by itself in a while."""
    from synicix_core.database import execute

    how = "ANALYZE" if pipeline.connection.adapter.backend == "postgresql" else "ANALYZE TABLE"
    for name in ("jobs", "TrainingTask", "TrainingAttempt", "TrainingResult", "ModelConfig"):
        execute(pipeline.connection, f"{how} {_full_name(pipeline, name)}").close()


def _measure(engine: str, place: Place) -> str:
    pipeline = place.pipeline()
    try:
        enqueue, refresh = pipeline.queue.enqueue, pipeline.TrainingResult.jobs.refresh
        fill_tasks(pipeline, SOME)
        ours, theirs = [], []
        for _ in range(PAIRS):
            empty(pipeline, "jobs")
            ours.append(_seconds(enqueue, SOME))
            empty(pipeline, "jobs")
            theirs.append(_seconds(lambda: refresh()["added"], SOME))
        some, rival = Spread(tuple(ours)), Spread(tuple(theirs))
        empty(pipeline, "jobs", "TrainingTask")
        fill_tasks(pipeline, MANY)
        many = Spread(tuple(_queued_anew(pipeline, enqueue) for _ in range(AGAIN)))
        queued = Spread(tuple(_seconds(enqueue, 0) for _ in range(AGAIN)))
        rival_queued = Spread(tuple(_seconds(lambda: refresh()["added"], 0) for _ in range(AGAIN)))
        _finish_all(pipeline)
        finished = Spread(tuple(_seconds(enqueue, 0) for _ in range(AGAIN)))
        rival_finished = Spread(tuple(_seconds(lambda: refresh()["added"], 0) for _ in range(AGAIN)))
        empty(pipeline, "TrainingResult", "TrainingTask", "ModelConfig", "TrainingConfig", "DatasetConfig")
        inserted, parts = _insert(pipeline)
    finally:
        pipeline.connection.close()
    return _tables(engine, (some, rival), many, (queued, rival_queued), (finished, rival_finished), inserted, parts)


def _tables(
    engine: str,
    some: tuple[Spread, Spread],
    many: Spread,
    queued: tuple[Spread, Spread],
    finished: tuple[Spread, Spread],
    inserted: float,
    parts: dict[str, float],
) -> str:
    ratio = some[1].over(some[0])
    scaled = Spread(tuple(MANY / SOME * some[1].median / mine for mine in many.values))
    rows = [
        [f"queue {SOME:,} tasks", _ms(some[0]), _ms(some[1]), ratio.text()],
        [f"queue {MANY:,} tasks", _ms(many), f"{_ms(some[1])} x {MANY // SOME}", scaled.text()],
        [f"nothing to add, {MANY:,} queued", _ms(queued[0]), _ms(queued[1]), queued[1].over(queued[0]).text()],
        [
            f"nothing to add, {MANY:,} finished",
            _ms(finished[0]),
            _ms(finished[1]),
            finished[1].over(finished[0]).text(),
        ],
    ]
    text = table([engine, "Queue.enqueue() ms", "jobs.refresh() ms", "times as fast"], rows)
    met = "met" if min(ratio.median, scaled.median) >= AIM else "MISSED"
    text += (
        f"\nqueueing: aim {AIM:.0f}x: {met} ({ratio.median:.0f}x at {SOME:,}, {scaled.median:.0f}x at {MANY:,})."
        f" Median (min..max) of {PAIRS} pairs, or {AGAIN} runs; the rival's time for {MANY:,} is {MANY // SOME} times"
        f" that for {SOME:,}, since it inserts row by row.\n\n"
    )
    told = [[f"  of it: {label}", f"{parts.get(name, 0.0):.1f}"] for name, label in INSERT_PARTS.items()]
    told.insert(0, [f"TrainingTask.insert_tuples of {MANY:,} new tasks", f"{inserted:.1f}"])
    return text + table([engine, "s (once)"], told)


def _queued_anew(pipeline: Any, enqueue: Callable[[], int]) -> float:
    empty(pipeline, "jobs")
    return _seconds(enqueue, MANY)


def _seconds(work: Callable[[], int], expected: int) -> float:
    """Time something that returns how many tasks it queued."""
    started = time.monotonic()
    count = work()
    seconds = time.monotonic() - started
    if count != expected:
        raise RuntimeError(f"{count} tasks were queued instead of {expected}")
    return seconds


def _insert(pipeline: Any) -> tuple[float, dict[str, float]]:
    """Insert tasks as people do; return the seconds it took, and those of its parts."""
    _insert_configs(pipeline, absent=0)
    keys = [list(getattr(pipeline, name).keys()) for name in ("DatasetConfig", "ModelConfig", "TrainingConfig")]
    rows = [{**dataset, **model, **training} for dataset in keys[0] for model in keys[1] for training in keys[2]]
    with Stopwatch() as stopwatch:
        for name in INSERT_PARTS:
            # Where the function is defined: the class hands out its methods bound to an instance.
            owners = (base for base in pipeline.TrainingTask.__mro__ if name in vars(base))
            stopwatch.watch(pipeline.queue if name == "enqueue" else next(owners), name)
        started = time.monotonic()
        report = pipeline.TrainingTask.insert_tuples(rows)
        seconds = time.monotonic() - started
    if len(report.new) != MANY:
        raise RuntimeError(f"{report} instead of {MANY}")
    return seconds, dict(stopwatch.seconds)


def _insert_configs(pipeline: Any, absent: int) -> None:
    """Insert configs that no dataset file and no plugin has to be looked at for."""
    md5 = "{:032x}".format
    pipeline.DatasetConfig().insert(
        [
            {
                "dataset_config_md5_hash": md5(index),
                "dataset_file_name": f"trials_{index:02d}.npz",
                "dataset_file_sha256": "0" * 64,
                "dataset_type": "",
                "dataset_provider": "bench-lab/Trials",
                "dataset_class_params": {},
                **{f"{tier}_sampler_provider": "" for tier in ("train", "validation", "test")},
                **{f"{tier}_sampler_class_params": {} for tier in ("train", "validation", "test")},
                "input_shape": [64],
                "output_shape": [8],
                "additional_model_params": {},
            }
            for index in range(DATASETS)
        ],
        skip_duplicates=True,
    )
    pipeline.ModelConfig().insert(
        [
            {
                "model_config_md5_hash": md5(index),
                "model_provider": "absent-lab/Net" if index < absent else "bench-lab/TwoLayers",
                "model_class_params": {"hidden_size": 8 + index},
            }
            for index in range(MODELS)
        ],
        skip_duplicates=True,
    )
    pipeline.TrainingConfig().insert(
        [
            {
                "training_config_md5_hash": md5(index),
                "trainer_provider": "synicix-core/NNTrainer",
                "trainer_class_params": {},
                "batch_size": 64,
                "epoch_limit": 1,
                "seed": index,
                "optimizer_provider": "synicix-core/Adam",
                "optimizer_class_params": {},
                "criterion_provider": "synicix-core/MSELoss",
                "criterion_class_params": {},
                "metrics": [{"provider": "synicix-core/loss", "params": {}}],
            }
            for index in range(TRAININGS)
        ],
        skip_duplicates=True,
    )


def _finish_all(pipeline: Any) -> None:
    """Give every task a result, and take all of them off the queue."""
    from synicix_core.database import execute

    blobs = ("training_epoch_loss", "validation_epoch_loss", "regularization_loss", "model_class_params")
    columns = {
        MD5: MD5,
        "test_score": "0.5",
        "status": "'completed'",
        "epochs": "1",
        "model_save_path": f"CONCAT({MD5}, '.1.pt')",
        "by_attempt": "1",
        "train_seconds": "1",
        **dict.fromkeys(("model_sha256", "code_sha256"), f"CONCAT({MD5}, {MD5})"),
        **dict.fromkeys((*(f"{blob}_history" for blob in blobs), "scores", "provenance"), "CAST('{}' AS json)"),
        "utc_insert_time": "CURRENT_TIMESTAMP(3)",
    }
    execute(
        pipeline.connection,
        f"INSERT INTO {_full_name(pipeline, 'TrainingResult')} ({', '.join(columns)}) "
        f"SELECT {', '.join(columns.values())} FROM {_full_name(pipeline, 'TrainingTask')}",
    )
    empty(pipeline, "jobs")


def _full_name(pipeline: Any, name: str) -> str:
    tables = pipeline.tables
    return str(tables.jobs_name if name == "jobs" else getattr(tables, name).full_table_name)


def _drop(place: Place, schema: str) -> None:
    from synicix_core.database import connect, execute
    from synicix_core.settings import load_settings

    connection = connect(load_settings(place.project))
    execute(connection, f"DROP DATABASE IF EXISTS `{schema}`")
    connection.close()


def _ms(spread: Spread) -> str:
    return Spread(tuple(1000 * value for value in spread.values)).text(0)
