"""What a long queue costs: statements as there are chunks of rows, and no more rows read for a claim than for a short one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.runner import supervisor
from synicix_core.runner.options import WorkerOptions
from synicix_core.tables.queue import Claim, Exclusions, Queue
from tests.rows import DATASET, MODEL, TRAINING

pytestmark = pytest.mark.database

MD5 = "training_task_md5_hash"
CONFIGS = ("dataset_config_md5_hash", "model_config_md5_hash", "training_config_md5_hash")
MODELS, TRAININGS = 50, 100
SHORT, LONG = 200, 5_000


@dataclass
class Traffic:
    """Statements that were sent, and rows that came back.

    Attributes
    ----------
    statements : list of str
        Without those that have PostgreSQL count its rows.
    rows : int
        Fetched by the client, however many the server had to look at.
    """

    statements: list[str] = field(default_factory=list)
    rows: int = 0


@pytest.fixture
def counted(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count, inside a ``with``, what goes over every connection of this process; DataJoint's own statements as well."""

    @contextmanager
    def counting() -> Iterator[Traffic]:
        traffic = Traffic()
        original = type(pipeline.connection).query

        def query(self: Any, sql: str, *args: Any, **options: Any) -> Any:
            cursor = original(self, sql, *args, **options)
            if not sql.startswith("ANALYZE "):
                traffic.statements.append(sql)
            # The drivers fetch what a statement yields at once; the number is that of rows changed if it yields none.
            traffic.rows += cursor.rowcount if cursor.description else 0
            return cursor

        with monkeypatch.context() as patch:
            patch.setattr(type(pipeline.connection), "query", query)
            yield traffic

    return counting


def insert_configs(pipeline: Any) -> list[list[dict[str, str]]]:
    """Insert one dataset, 50 models and 100 trainings; return their keys."""
    reports = (
        pipeline.DatasetConfig.insert_tuples([DATASET]),
        pipeline.ModelConfig.insert_tuples(
            [{**MODEL, "model_class_params": {"penalty": float(number)}} for number in range(MODELS)]
        ),
        pipeline.TrainingConfig.insert_tuples([{**TRAINING, "seed": seed} for seed in range(TRAININGS)]),
    )
    return [report.new for report in reports]


def fill(pipeline: Any, number: int) -> None:
    """Make the queue so long, of tasks that one statement inserts."""
    tables, digest = pipeline.tables, f"CONCAT({', '.join(CONFIGS)})"
    # MySQL 9 has no MD5() without a component that nobody installs.
    digest = (
        f"MD5({digest})" if pipeline.connection.adapter.backend == "postgresql" else f"LEFT(SHA2({digest}, 256), 32)"
    )
    for name in (tables.TrainingAttempt.full_table_name, tables.jobs_name, tables.TrainingTask.full_table_name):
        execute(pipeline.connection, f"DELETE FROM {name}")
    execute(
        pipeline.connection,
        f"INSERT INTO {tables.TrainingTask.full_table_name} ({MD5}, {', '.join(CONFIGS)}) "
        f"SELECT {digest}, {', '.join(CONFIGS)} FROM {tables.DatasetConfig.full_table_name} d "
        f"CROSS JOIN {tables.ModelConfig.full_table_name} m CROSS JOIN {tables.TrainingConfig.full_table_name} c "
        f"ORDER BY {digest} LIMIT {number}",
    )
    assert pipeline.queue.enqueue() == number


def test_statements_of_an_insert_grow_with_its_chunks_not_with_its_rows(pipeline: Any, counted: Any) -> None:
    (dataset,), models, trainings = insert_configs(pipeline)
    rows = [{**dataset, **model, **training} for model in models for training in trainings]
    pipeline.TrainingTask.insert_tuples(rows[-1:])  # reads the headings
    sent: dict[int, Traffic] = {}
    for number, chunk in ((SHORT, rows[:SHORT]), (10 * SHORT, rows[SHORT : 11 * SHORT])):
        with counted() as sent[number]:
            report = pipeline.TrainingTask.insert_tuples(chunk)
        assert len(report.new) == number
    # Of a thousand rows each: one to ask which are there and one to insert them.
    assert len(sent[10 * SHORT].statements) == len(sent[SHORT].statements) + 2, sent[10 * SHORT].statements
    assert len(sent[SHORT].statements) < 20, sent[SHORT].statements
    assert pipeline.queue.waiting() == 11 * SHORT + 1
    with counted() as again:
        assert len(pipeline.TrainingTask.insert_tuples(rows[: 11 * SHORT]).existing) == 11 * SHORT
    assert len(again.statements) <= len(sent[10 * SHORT].statements)


def test_queueing_takes_the_same_statements_however_many_tasks_there_are(pipeline: Any, counted: Any) -> None:
    insert_configs(pipeline)
    sent = []
    for number in (SHORT, 10 * SHORT):
        fill(pipeline, number)
        execute(pipeline.connection, f"DELETE FROM {pipeline.tables.jobs_name}")
        with counted() as traffic:
            assert pipeline.queue.enqueue() == number
            assert pipeline.queue.enqueue() == 0
        sent.append(traffic)
    assert len(sent[0].statements) == len(sent[1].statements) < 10, sent[1].statements
    assert sent[0].rows == sent[1].rows == 0


class _Claimed(Exception):
    """The first claim is there."""


class _ReadyExecutor:
    """An executor that does not import torch, and is never sent a task."""

    device, description, alive = "cpu", "none", True

    def __init__(self, device: str, threads: int, devices: int) -> None: ...

    def wait_ready(self, interrupted: Any) -> bool:
        return True

    def close(self) -> None: ...


@pytest.mark.parametrize("condition", [None, "seed < 50"])
@pytest.mark.parametrize("order", ["original", "random"])
def test_a_worker_reads_as_little_of_a_long_queue_before_its_first_claim(
    pipeline: Any, counted: Any, monkeypatch: pytest.MonkeyPatch, condition: str | None, order: str
) -> None:
    claims: list[Claim | None] = []
    claim = Queue.claim

    def claimed(self: Queue, *args: Any, **options: Any) -> Claim | None:
        claims.append(claim(self, *args, **options))
        raise _Claimed

    monkeypatch.setattr(supervisor, "ExecutorProcess", _ReadyExecutor)
    monkeypatch.setattr(Queue, "claim", claimed)
    insert_configs(pipeline)
    read: dict[int, Traffic] = {}
    for number in (SHORT, LONG):
        fill(pipeline, number)
        with counted() as read[number]:
            own = Pipeline()
            with pytest.raises(_Claimed):
                own.run_worker(WorkerOptions(restriction=own.restriction([condition]), order=order, device="cpu"))
            own.connection.close()
        assert claims.pop() is not None and not claims
    # A random place may be tried again, and has to be more often in a short queue.
    assert len(read[LONG].statements) <= len(read[SHORT].statements) + 3
    # Of the jobs themselves: the first ones under a condition or for a random order, and a stretch for the latter.
    looked_at = 2 * SHORT if condition or order == "random" else 0
    assert read[LONG].rows <= read[SHORT].rows + looked_at, read[LONG].statements
    # What a worker reads of the schema and the configs.
    assert read[SHORT].rows < 5 * TRAININGS + looked_at, read[SHORT].statements


@pytest.mark.parametrize(
    ("order", "condition", "excluded", "most"),
    [
        # The job that is locked, and the attempts at it.
        ("original", "", (), 2),
        # Besides, 200 jobs to lock one of, and for a random order 200 near a random place of the queue.
        ("original", "seed < 50", (), 202),
        ("original", "seed = 7", (), 202),
        ("original", "", ("absent-lab/Net",), 202),
        ("random", "", (), 402),
        ("random", "seed < 50", (), 402),
    ],
)
def test_a_claim_reads_no_more_of_a_long_queue(
    pipeline: Any, counted: Any, order: str, condition: str, excluded: tuple[str, ...], most: int
) -> None:
    insert_configs(pipeline)
    restriction = pipeline.restriction([condition or None])
    exclusions = Exclusions({("ModelConfig", "model_provider"): excluded} if excluded else {})
    options = {"restriction": restriction, "exclusions": exclusions, "order": order}
    read: dict[int, Traffic] = {}
    for number in (SHORT, LONG):
        fill(pipeline, number)
        with counted() as read[number]:
            assert pipeline.queue.claim("a" * 32, "host", 1, "cpu", **options) is not None
        assert 2 <= read[number].rows <= most, read[number].statements
    if most == 2:
        assert read[LONG] == read[SHORT]
    assert len(read[LONG].statements) <= 12, read[LONG].statements
