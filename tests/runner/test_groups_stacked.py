"""A sweep that a worker trains as one has the results that it has one by one: real recordings, models, workers, database."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.database

RUN = [sys.executable, "-m", "synicix_core.cli"]
EXPERIMENT = """
[[dataset]]
files = "*.h5"
provider = "NeuroDataDataset"

[[model]]
provider = "SimpleMLP"
params = {{ hidden_size = 8 }}
[model.grid]
"params.l2_loss_lamda" = [0.001, 0.01]

[[training]]
criterion = "PoissonLoss"
optimizer = "Adam"
trainer = {{ provider = "NNTrainer", params = {{ early_stopping_patience = 0 }} }}
metrics = ["correlation", "loss"]
batch_size = 16
epoch_limit = {epochs}
[training.grid]
seed = [0, 1]
"optimizer.params.lr" = [1e-3, 3e-3]
"""


def run(*words: str, **options: Any) -> str:
    """Run a command in the project and return what it prints."""
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def sweep(project: Path) -> Path:
    """Eight tasks that differ in seed, learning rate and penalty."""
    run("init")
    run("neurodata", "simulate", "datasets", "--recordings", "1", "--neurons", "6", "--images", "60")
    add(project, epochs=3)
    return project


def add(project: Path, epochs: int) -> None:
    (project / "experiment.toml").write_text(EXPERIMENT.format(epochs=epochs))
    run("add", "experiment.toml")


def results() -> dict[str, dict[str, Any]]:
    """Return the rows of TrainingResult by task."""
    from synicix_core import Pipeline

    pipeline = Pipeline()
    try:
        rows = pipeline.TrainingResult.to_dicts()
    finally:
        pipeline.connection.close()
    return {row["training_task_md5_hash"]: row for row in rows}


def test_the_results_are_those_of_each_alone(sweep: Path) -> None:
    run("populate", "--device", "cpu", "--fuse", "8")
    together = results()
    assert len(together) == 8
    assert {row["provenance"]["fused"]["tasks"] for row in together.values()} == {8}
    from synicix_core import Pipeline

    pipeline = Pipeline()
    pipeline.TrainingResult.delete(prompt=False)
    pipeline.connection.close()
    run("populate", "--device", "cpu", "--fuse", "off")
    alone = results()
    assert alone.keys() == together.keys()
    for task, row in alone.items():
        other = together[task]
        assert "fused" not in row["provenance"]
        assert (row["status"], row["epochs"], row["best_epoch"]) == (
            other["status"],
            other["epochs"],
            other["best_epoch"],
        )
        assert row["test_score"] == pytest.approx(other["test_score"], abs=1e-3)
        for history in ("training_epoch_loss_history", "validation_epoch_loss_history"):
            assert list(row[history]) == pytest.approx(list(other[history]), rel=1e-3)


def test_a_group_that_is_stopped_goes_on_one_by_one_and_as_a_group(sweep: Path) -> None:
    add(sweep, epochs=2000)
    worker = subprocess.Popen(
        [*RUN, "populate", "--device", "cpu", "--fuse", "8", "--heartbeat", "0.3", "--where", "epoch_limit=2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _is_at_work(epoch=50):
        time.sleep(0.2)
    worker.send_signal(signal.SIGTERM)
    text, _ = worker.communicate(timeout=60)
    assert worker.returncode == 75, text
    said = re.sub(r"\b[0-9a-f]{8}\b", "task", text).splitlines()
    assert (
        "8 tasks are claimed as a group (task, task, task, …): SimpleMLP on static60000-1-1-simulated.h5, 0 pending"
        in said
    )
    assert said.count("task and 7 others are trained as one.") == 1
    assert len([line for line in said if line.startswith("8 tasks (task, task, task, …) are saved after epoch ")]) == 1
    assert not re.search(r"^task: ", "\n".join(said), re.MULTILINE)
    states = json.loads(run("status", "--json"))["states"]
    assert (states["finished"], states["running"], states["pending"]) == (0, 0, 16), states
    run("populate", "--device", "cpu", "--fuse", "off", "--max-tasks", "2", "--where", "epoch_limit=2000")
    again = [*RUN, "populate", "--device", "cpu", "--fuse", "6", "--where", "epoch_limit=2000"]
    told = subprocess.run(again, capture_output=True, text=True, check=True, timeout=300).stderr
    assert len(re.findall(r"^[0-9a-f]{8} and 5 others have checkpoints to go on from\.$", told, re.MULTILINE)) == 1
    # The time of each, its share, is the one that `results` has.
    shown = dict(re.findall(r"^([0-9a-f]{8}): completed .* (\d+\.\d) s$", told, re.MULTILINE))
    taken = {task[:8]: f"{row['train_seconds']:.1f}" for task, row in results().items()}
    assert len(shown) == 6 and shown.items() <= taken.items()
    rows = [row for row in results().values() if row["epochs"] == 2000]
    assert len(rows) == 8
    assert {row["provenance"]["resumed_from_epoch"] is None for row in rows} == {False}


def _is_at_work(epoch: int) -> bool:
    from synicix_core import Pipeline

    pipeline = Pipeline()
    try:
        epochs = [row["epoch"] or 0 for row in (pipeline.TrainingAttempt & "state = 'running'").to_dicts()]
    finally:
        pipeline.connection.close()
    return bool(epochs) and max(epochs) >= epoch
