"""Run `synicix-run` in this process, or as people do, and put results into the tables without training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from synicix_core.cli.main import cli
from synicix_core.tables.queue import Problem

RESULT: dict[str, Any] = {
    "test_score": 0.5,
    "status": "completed",
    "scores": {"train": {"loss": 0.4}, "validation": {"loss": 0.45}, "test": {"loss": 0.5}},
    "best_epoch": 2,
    "epochs": 3,
    "training_epoch_loss_history": [1.0, 0.6, 0.4],
    "validation_epoch_loss_history": [1.1, 0.5, 0.6],
    "regularization_loss_history": [0.0, 0.0, 0.0],
    "model_class_params_history": [],
    "model_save_path": "model.pt",
    "code_sha256": "1" * 64,
    "model_sha256": "0" * 64,
    "train_seconds": 1.5,
    "provenance": {"host": "node7", "providers": [{"kind": "model", "provider": "toy-lab/Line", "version": "1.0"}]},
}

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """``run("status", "--json", code=0)`` runs a command and asserts its exit code."""

    def invoke(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Run a command with ``--json`` and return the one document on its standard output."""
    return lambda *arguments, code=0: json.loads(run(*arguments, "--json", code=code).stdout)


def as_program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `synicix-run` as a process of its own."""
    command = [sys.executable, "-m", "synicix_core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def finish(pipeline: Any, test_scores: dict[str, float | None], **columns: Any) -> None:
    """Commit a result for each of these tasks, through the queue as a worker does."""
    wanted = dict(test_scores)
    while wanted:
        claim = pipeline.queue.claim("a" * 32, "node7", 41, "cpu", restriction=_only(pipeline, wanted))
        score = wanted.pop(claim.task)
        pipeline.queue.commit(claim, {**RESULT, "test_score": score, **columns})


def fail(pipeline: Any, task: str, error: str, stack: str = "") -> None:
    """End a task in an error, through the queue as a worker does."""
    pipeline.queue.fail(claim_task(pipeline, task), Problem(error, stack))


def claim_task(pipeline: Any, task: str) -> Any:
    """Claim one task."""
    claim = pipeline.queue.claim("b" * 32, "node8", 42, "cuda:0", restriction=_only(pipeline, [task]))
    assert claim is not None
    return claim


def _only(pipeline: Any, tasks: Any) -> str:
    listed = ", ".join(f"'{task}'" for task in tasks)
    return f"SELECT training_task_md5_hash FROM {pipeline.TrainingTask.full_table_name} WHERE training_task_md5_hash IN ({listed})"
