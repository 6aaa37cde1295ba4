"""What takes several parts of the runner together: a tree as a dataset, code that changes, pauses that grow, an idle fleet."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from synicix_core import Pipeline
from synicix_core.cli.main import cli
from synicix_core.database import execute
from synicix_core.errors import DatabaseUnavailable
from synicix_core.hashing import file_sha256
from synicix_core.registry import get_registry
from synicix_core.runner import patience
from synicix_core.runner.display import Silent
from synicix_core.runner.endings import Endings
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.options import WorkerSummary
from synicix_core.runner.patience import Patience
from synicix_core.settings import Settings, WorkerSettings
from synicix_core.tables.code_digest import code_digest
from synicix_core.tables.queue import Claim, Problem
from synicix_core.tables.tries import Tries
from tests.rows import TRAINING, insert_tasks

MD5 = "training_task_md5_hash"
POPULATE = [sys.executable, "-m", "synicix_core.cli", "populate", "--device", "cpu"]
HOUR = 3600.0

HOOKS = """
from synicix_core import DatasetProvider, ModelProvider, hookimpl

@hookimpl
def synicix_datasets():
    yield DatasetProvider("Tree", target="tree_kit.tree:Tree", summary="A directory with one of its own for each tier")

@hookimpl
def synicix_models():
    yield ModelProvider("Shifted", target="tree_kit.shifted:Shifted", summary="A linear model and a constant")
"""
TREE = """
import os
from pathlib import Path
import torch

class Tree(torch.utils.data.Dataset):
    def __init__(self, path, tier):
        with open(os.environ["TREE_KIT_READ"], "a") as file:
            file.write(f"{os.getpid()} {path}\\n")
        self.y = torch.tensor([[float(file.read_text())] for file in sorted(Path(path, tier).glob("*/*.txt"))])
        self.x = torch.ones(len(self.y), 3)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]

    def get_additional_model_params(self):
        return {}
"""
SHIFTED = """
from torch import nn

SHIFT = 0.0

class Shifted(nn.Module):
    def __init__(self, input_shape, output_shape):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], output_shape[0])

    def forward(self, x):
        return self.linear(x) + SHIFT, 0.0 * self.linear.weight.sum()
"""
FILES = {
    "tree_kit/__init__.py": "",
    "tree_kit/hooks.py": HOOKS,
    "tree_kit/tree.py": TREE,
    "tree_kit/shifted.py": SHIFTED,
    "tree_kit-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tree-kit\nVersion: 1.0\n",
    "tree_kit-1.0.dist-info/entry_points.txt": "[synicix]\ntree = tree_kit.hooks\n",
}


def populate(*arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run([*POPULATE, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


def run(*arguments: str) -> Any:
    ended = CliRunner().invoke(cli, [*arguments, "--json"])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def wait_until(condition, timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def kit(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a plugin of this test's own, which its workers and this process find."""
    folder = tmp_path / "kit"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("TREE_KIT_READ", str(tmp_path / "read"))
    monkeypatch.syspath_prepend(str(folder))
    get_registry.cache_clear()  # it may have looked before
    yield folder
    get_registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tree_kit"]:
        del sys.modules[name]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dataset cache on another disk than the datasets."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    cache = memory / f"synicix-{uuid.uuid4().hex}"
    monkeypatch.setenv("SYNICIX_DATASET_CACHE_DIR", str(cache))
    yield cache
    shutil.rmtree(cache, ignore_errors=True)


@pytest.mark.database
def test_a_directory_is_trained_from_its_copy_and_a_file_in_it_that_changes_is_an_error(project, kit, elsewhere):
    source = project / "datasets" / "trees" / "oak"
    for number, tier in enumerate(["train", "validation", "test"]):
        for leaf in range(4):
            file = source / tier / f"branch{leaf % 2}" / f"{leaf}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{number}.{leaf}")
    files = {path.relative_to(source): path.read_text() for path in source.rglob("*.txt")}
    dataset = [{"dataset_provider": "Tree", "dataset_file_name": "trees/oak"}]
    pipeline = Pipeline(declare=True)
    (trained,) = insert_tasks(pipeline, datasets=dataset)
    old = pipeline.DatasetConfig.fetch1("dataset_file_sha256")
    assert old == file_sha256(source)

    populate()
    assert pipeline.TrainingResult.fetch1(MD5) == trained
    copy = elsewhere / old
    assert {path.relative_to(copy): path.read_text() for path in copy.rglob("*.txt")} == files
    read = [line.split(" ", 1) for line in (kit.parent / "read").read_text().splitlines()]
    # This process looked at the original when the config was inserted.
    assert {path for pid, path in read if pid != str(os.getpid())} == {str(copy)}

    # A machine that has no copy yet meets the tree as it is now. The size of the file stays the same.
    (source / "validation" / "branch1" / "3.txt").write_text("9.9")
    shutil.rmtree(elsewhere)
    configs = {
        name: pipeline.TrainingTask.fetch1(name) for name in ("dataset_config_md5_hash", "model_config_md5_hash")
    }
    (training,) = pipeline.TrainingConfig.insert_tuples([{**TRAINING, "seed": 1}]).new
    (changed,) = [key[MD5] for key in pipeline.TrainingTask.insert_tuples([{**configs, **training}]).new]
    populate()
    (attempt,) = (pipeline.TrainingAttempt & {MD5: changed}).to_dicts()
    assert (attempt["state"], attempt["error_kind"]) == ("failed", "data")
    assert pipeline.TrainingResult.jobs.errors.fetch1(MD5) == changed
    for part in (str(source), old, file_sha256(source)):
        assert part in attempt["error"]
    assert old != file_sha256(source)
    assert pipeline.TrainingResult.fetch1(MD5) == trained
    assert not (elsewhere / old).exists() and not (elsewhere / file_sha256(source)).exists()
    pipeline.connection.close()


def by_model(pipeline) -> dict[str, dict[str, Any]]:
    """Return the results, one for each model, by its provider."""
    rows = (pipeline.TrainingResult * pipeline.TrainingTask * pipeline.ModelConfig).to_dicts()
    found = {row["model_provider"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.database
def test_a_result_is_stale_once_the_code_that_trained_it_changes_until_it_is_trained_again(project, kit):
    (project / "datasets" / "line.txt").write_text("2.0")
    pipeline = Pipeline(declare=True)
    shifted, line = {"model_provider": "Shifted"}, {"model_provider": "Line"}
    insert_tasks(pipeline, models=[shifted, line])
    populate()
    before = by_model(pipeline)
    old, other = before["tree-kit/Shifted"], before["toy-lab/Line"]
    assert run("results", "--stale") == {"listings": [], "stale": [], "unknown": []}

    source = kit / "tree_kit" / "shifted.py"
    source.write_text(SHIFTED.replace("SHIFT = 0.0", "SHIFT = 100.0"))
    stale = run("results", "--stale")
    (listing,) = stale["listings"]
    assert [row["task"] for row in listing["results"]] == [old[MD5]]
    assert stale["stale"] == ["the source file of the model tree-kit/Shifted has changed"]
    assert run("retry", "--stale", "--yes")["retried"] == 1
    assert list(pipeline.TrainingResult.jobs.pending.to_arrays(MD5)) == [old[MD5]]
    assert pipeline.TrainingResult.fetch1(MD5) == other[MD5]

    populate()
    assert run("results", "--stale") == {"listings": [], "stale": [], "unknown": []}
    after = by_model(pipeline)
    new = after["tree-kit/Shifted"]
    assert new["test_score"] > 1000 > old["test_score"]  # of the loss: it was trained with what stands there now
    assert after["toy-lab/Line"]["utc_insert_time"] == other["utc_insert_time"]  # and nothing else was
    providers = {provider["provider"]: provider for provider in new["provenance"]["providers"]}
    assert providers["tree-kit/Shifted"]["sha256"] == file_sha256(source)
    for row in (old, other, new):
        assert row["code_sha256"] == code_digest(row["provenance"]["providers"])
    assert len({old["code_sha256"], other["code_sha256"], new["code_sha256"]}) == 3
    pipeline.connection.close()


class Recorder:
    """A queue of one task, which failed so often before, and where it is written what becomes of it."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.delays: list[float | None] = []

    def tries(self, task: str) -> Tries:
        return Tries(failures=self.failures)

    def retry_later(self, claim: Claim, problem: Problem, delay: float) -> None:
        self.delays.append(delay)

    def fail(self, claim: Claim, problem: Problem) -> None:
        self.delays.append(None)


def make_endings(queue: Any, folder: Path, **times: Any) -> Endings:
    settings = Settings(folder, folder, folder, folder, worker=replace(WorkerSettings(), **times))
    observers = SimpleNamespace(notify=lambda *_: None)
    return Endings(queue, settings, lambda action: action(), observers, Silent(), WorkerSummary(), None)  # type: ignore[arg-type]


def delays_after(failures: int, folder: Path, *, draws: int = 300, kind: str = "transient", **times: Any) -> list[Any]:
    """Return after which delays a task is tried again that failed so often, this time included; None for not at all."""
    queue = Recorder(failures - 1)
    endings = make_endings(queue, folder, **times)
    for _ in range(draws):
        endings.fail(Claim("a" * 32, failures, "b" * 32), Problem("a disk hiccuped", kind=kind))
    return queue.delays


@pytest.mark.parametrize("kind", ["transient", "died", "hung"])
@pytest.mark.parametrize("failures", [1, 2, 3, 5])
def test_the_delay_before_another_try_doubles_and_is_not_the_same_for_all(tmp_path, failures, kind):
    delays = delays_after(failures, tmp_path, kind=kind, retry_seconds=20.0, max_attempts=9)
    mean = 20.0 * 2 ** (failures - 1)
    assert all(0.75 * mean <= delay <= 1.25 * mean for delay in delays)
    # Spread over all of that, not only a little.
    assert min(delays) < 0.85 * mean and max(delays) > 1.15 * mean


def test_the_last_try_and_what_another_try_would_not_help_are_errors(tmp_path):
    assert delays_after(3, tmp_path, draws=1, max_attempts=3) == [None]
    assert delays_after(2, tmp_path, draws=1, max_attempts=3) != [None]
    for kind in ("error", "data", "diverged"):
        assert delays_after(1, tmp_path, draws=1, kind=kind) == [None]


def test_however_often_a_task_failed_it_is_tried_again_about_an_hour_later(tmp_path):
    for failures in (7, 12, 500):
        delays = delays_after(failures, tmp_path, retry_seconds=60.0, max_attempts=1000)
        assert all(0.5 * HOUR <= delay <= 1.25 * HOUR for delay in delays)
        assert len(set(delays)) > 100


def test_no_delay_is_longer_than_an_hour(tmp_path):
    assert max(delays_after(12, tmp_path, retry_seconds=60.0, max_attempts=1000)) <= HOUR


@pytest.mark.database
def test_each_failure_of_a_task_puts_it_off_for_longer_in_the_queue(pipeline, tmp_path):
    """The same through the tables: what counts the failures, and what keeps the task from being claimed."""
    (task,) = insert_tasks(pipeline)
    queue = pipeline.queue
    endings = make_endings(queue, tmp_path, retry_seconds=100.0, max_attempts=4)
    for mean in (100.0, 200.0, 400.0):
        endings.fail(queue.claim("b" * 32, "host", 1, "cpu"), Problem("a disk hiccuped", kind="transient"))
        assert queue.claim("b" * 32, "host", 1, "cpu") is None
        due = queue.next_due()
        assert 0.75 * mean - 10 <= due <= 1.25 * mean  # less what this test took since then
        jobs = pipeline.tables.jobs_name
        execute(pipeline.connection, f"UPDATE {jobs} SET scheduled_time = '2020-01-01' WHERE {MD5} = %s", (task,))
    endings.fail(queue.claim("b" * 32, "host", 1, "cpu"), Problem("a disk hiccuped", kind="transient"))
    assert queue.next_due() is None
    assert pipeline.TrainingResult.jobs.errors.fetch1("error_message") == "a disk hiccuped"


class Said(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


class Outage:
    """A database that is away for so many questions, and a clock that only pauses move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, questions: int, timeout: float = 600.0) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.said = Said()
        self.reconnects = 0
        self._questions = questions
        monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(patience, "ensure_connected", self._connect)
        monkeypatch.setattr(Patience, "sleep", lambda _, seconds: self._sleep(seconds))
        self.patience = Patience(None, timeout, Interruption(25.0, exits=False), self.said)

    def ask(self) -> str:
        if self._questions > 0:
            self._questions -= 1
            raise DatabaseUnavailable("The database is away")
        return "here"

    def _connect(self, connection: Any) -> None:
        self.reconnects += 1

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_the_pauses_while_the_database_is_away_grow_and_are_not_the_same_for_all(monkeypatch):
    random.seed(1)
    runs = []
    for _ in range(200):
        outage = Outage(monkeypatch, questions=8)
        assert outage.patience(outage.ask) == "here"
        assert outage.said.texts == [
            "The database is away. It is tried again for 600 s.",
            "The database is back.",
        ]
        assert outage.reconnects == 8
        runs.append(outage.pauses)
    means = [sum(pauses) / len(runs) for pauses in zip(*runs, strict=True)]
    expected = [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert means == pytest.approx(expected, rel=0.1)
    assert all(earlier < later for earlier, later in pairwise(means[:6]))
    for column, mean in zip(zip(*runs, strict=True), expected, strict=True):
        assert 0.5 * mean <= min(column) < 0.7 * mean and 1.3 * mean < max(column) <= 1.5 * mean


def test_a_database_that_stays_away_is_given_up_in_time_and_said_once(monkeypatch):
    outage = Outage(monkeypatch, questions=1000, timeout=100.0)
    with pytest.raises(DatabaseUnavailable, match="away"):
        outage.patience(outage.ask)
    # Nothing is begun that would end too late, but for how far a pause is off its mean.
    assert 100.0 - 15.0 * 1.5 <= outage.now - 1000.0 <= 100.0 + 15.0 * 0.5
    assert outage.said.texts == ["The database is away. It is tried again for 100 s."]


def sleeps(seconds: float, seed: int) -> dict[str, Any]:
    return {
        "trainer_provider": "Misbehaving",
        "trainer_class_params": {"how": "sleep", "seconds": seconds},
        "seed": seed,
    }


@pytest.fixture
def fleet(pipeline, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Two workers that stay, on an empty queue."""
    with (tmp_path / "fleet.log").open("w") as log:
        command = [*POPULATE, "--workers", "2", "--wait"]
        started = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
    yield started
    if started.poll() is None:
        started.kill()
        started.wait()


def end(fleet: subprocess.Popen[str], log: Path) -> int:
    fleet.send_signal(signal.SIGTERM)
    code = fleet.wait(60)
    assert "Traceback" not in log.read_text()
    assert "by 2 workers: interrupted by a signal." in log.read_text(), log.read_text()
    return code


@pytest.mark.database
def test_a_fleet_that_waits_trains_what_comes_while_all_its_workers_are_idle(pipeline, fleet, tmp_path):
    insert_tasks(pipeline, trainings=[sleeps(1.0, seed) for seed in range(2)])
    wait_until(lambda: len(pipeline.TrainingResult()) == 2)
    time.sleep(1.0)
    assert fleet.poll() is None
    assert pipeline.queue.next_due() is None

    insert_tasks(pipeline, trainings=[sleeps(4.0, seed) for seed in range(10, 12)])
    wait_until(lambda: len(pipeline.TrainingResult()) == 4)
    later = pipeline.TrainingAttempt.to_dicts(order_by="started_at")[2:]
    assert len({row["pid"] for row in later}) == 2  # each had one
    assert {row["state"] for row in pipeline.TrainingAttempt.to_dicts()} == {"finished"}
    assert len(pipeline.TrainingAttempt()) == 4
    assert end(fleet, tmp_path / "fleet.log") == 0  # no work was left


@pytest.mark.database
def test_a_fleet_that_waits_and_is_stopped_with_work_left_exits_75(pipeline, fleet, tmp_path):
    time.sleep(1.0)
    insert_tasks(pipeline, trainings=[{"epoch_limit": 10**6, "seed": seed} for seed in range(2)])
    wait_until(lambda: len({row["pid"] for row in (pipeline.TrainingAttempt & "state = 'running'").to_dicts()}) == 2)
    assert end(fleet, tmp_path / "fleet.log") == 75
    assert [row["state"] for row in pipeline.TrainingAttempt.to_dicts()] == ["released", "released"]
    assert len(pipeline.TrainingResult.jobs.pending) == 2
