"""The rivals of populate, in a process of their own that stays warm as populate's executor does.

Started by ``populate_overhead`` with the project's directory; reads one JSON command a line and answers with one JSON line.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datajoint as dj
from populate_tasks import DATASET_FILE, by_hand, train_bare
from stopwatch import Stopwatch

from synicix_core import Pipeline
from synicix_core.settings import load_settings
from synicix_core.training.spec import Unheard


def main(project: Path) -> None:
    """Answer until the input ends."""
    rivals = Rivals(project)
    print(json.dumps({"refresh_seconds": rivals.refresh_seconds}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(rivals, command["rival"])(command["seeds"])), flush=True)


class Rivals:
    """Each method does the work of some tasks in its way and returns the seconds it took, by the clock and of CPU."""

    def __init__(self, project: Path) -> None:
        settings = load_settings(project)
        self.pipeline = Pipeline(settings=settings)
        self.path = str(settings.dataset_dir / DATASET_FILE)
        self.folder = project / "rival"
        self.folder.mkdir()
        self.table = _declare(self.pipeline, self.path, self.folder)
        started = time.monotonic()
        self.table().jobs.refresh()
        self.refresh_seconds = time.monotonic() - started

    def bare(self, seeds: list[int]) -> dict[str, float]:
        """Train only."""
        return _timed(lambda: [train_bare(self.path, seed) for seed in seeds])

    def hand(self, seeds: list[int]) -> dict[str, float]:
        """Train, save and score."""
        return _timed(lambda: [by_hand(self.path, seed, self.folder / "hand.pt") for seed in seeds])

    def datajoint(self, seeds: list[int]) -> dict[str, float]:
        """Let DataJoint's own populate do that, and store the same columns."""
        return _timed(lambda: self.table().populate(reserve_jobs=True, refresh=False, max_calls=len(seeds)))

    def parts(self, seeds: list[int]) -> dict[str, float]:
        """Train as the executor does, with a stopwatch at each part; return CPU seconds by part instead."""
        import synicix_core.training.run as running
        from synicix_core.training import task_run
        from synicix_core.training.nn_trainer import NNTrainer
        from synicix_core.training.training_run import TrainingRun

        specs = [self.pipeline.spec(key) for key in self.pipeline.TrainingTask.keys(limit=len(seeds))]
        with Stopwatch(time.process_time) as stopwatch:
            for name in ("load_parts", "open_tiers", "make_metrics", "seed_everything", "make_outcome"):
                stopwatch.watch(task_run, name)
            for name in ("prepare", "train", "_score"):
                stopwatch.watch(task_run.TaskRun, name)
            stopwatch.watch(NNTrainer, "save")
            stopwatch.watch(TrainingRun, "train_epoch")
            stopwatch.watch(TrainingRun, "measure")
            stopwatch.watch(running, "run_task")
            for number, spec in enumerate(specs):
                running.run_task(_elsewhere(spec, self.folder / f"parts{number}"), self.pipeline.registry, Unheard())
        return stopwatch.seconds


def _declare(pipeline: Pipeline, path: str, folder: Path) -> Any:
    columns = pipeline.TrainingResult.definition.split("---", 1)[1]

    class PlainResult(dj.Computed):  # type: ignore[misc]
        definition = f"-> TrainingTask\n---{columns}"

        def make(self, key: dict[str, Any]) -> None:
            """Do a task's work inside DataJoint's transaction."""
            configs = pipeline.TrainingTask * pipeline.DatasetConfig * pipeline.ModelConfig * pipeline.TrainingConfig
            row = (configs & key).fetch1()
            result = by_hand(path, int(row["seed"]), folder / f"{key['training_task_md5_hash']}.pt")
            now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
            self.insert1({**key, **result, "code_sha256": "0" * 64, "by_attempt": 1, "utc_insert_time": now})

    schema = dj.Schema("benchmark_rival", connection=pipeline.connection)
    schema(PlainResult, context={"TrainingTask": pipeline.TrainingTask})
    return PlainResult


def _elsewhere(spec: Any, path: Path) -> Any:
    import dataclasses

    return dataclasses.replace(spec, model_save_path=f"{path}.pt", checkpoint_path=f"{path}.checkpoint")


def _timed(work: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
