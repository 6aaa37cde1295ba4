"""What people look at, with 100,000 tasks. Aim: under a second each, on both databases."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import Spread, table

__all__ = ["run"]

REPEATS = 3
ENOUGH_SECONDS = 10.0
AIM_SECONDS = 1.0
HERE = Path(__file__).resolve().parent
LAB = str(HERE / "lab")

COMMANDS = {
    "status": ("status",),
    "errors": ("errors",),
    "first page": ("results", "--limit", "50"),
    "sorted by a config's column": ("results", "--sort", "lr", "--limit", "50"),
    "--where score<0.1": ("results", "--where", "score<0.1", "--limit", "50"),
    "--where seed=3": ("results", "--where", "seed=3", "--limit", "50"),
    "--group-by dataset,model": ("results", "--group-by", "dataset,model", "--limit", "50"),
    "--over seed": ("results", "--over", "seed", "--limit", "50"),
}
"""What is measured: whole commands, from opening the tables to the last line, in a process that has the imports behind it."""

_MD5 = "training_task_md5_hash"
_SCALARS = ("test_score", "status", "epochs", "train_seconds", "utc_insert_time")


def run() -> str:
    """Measure, and return what to print."""
    parts = []
    for engine in ("PostgreSQL", *(["MySQL"] if os.environ.get("SYNICIX_TEST_MYSQL") else [])):
        with _pipeline(engine) as pipeline:
            parts.append(_measure(engine, pipeline))
    return "\n\n".join(parts)


def _measure(engine: str, pipeline: Any) -> str:
    from views_rows import fill

    started = time.monotonic()
    amounts = fill(pipeline)
    filled = time.monotonic() - started
    rivals = _rivals(pipeline)
    rows, slowest = [], 0.0
    for name, arguments in COMMANDS.items():
        mine, theirs = _Times(), _Times()
        while len(mine.seconds) < REPEATS and sum(mine.seconds + theirs.seconds) < ENOUGH_SECONDS:
            mine.take(lambda arguments=arguments: _command(*arguments))
            if name in rivals:
                theirs.take(rivals[name])
        slowest = max(slowest, mine.spread.median)
        ratio = mine.spread.over(theirs.spread).text(3) if name in rivals else ""
        rows.append([name, mine.spread.text(2), theirs.spread.text(2) if name in rivals else "", ratio])
    mine, theirs = _Times(), _Times()
    mine.take(lambda: _read_all(pipeline))
    theirs.take(rivals["every result"])
    rows.append(
        [
            "every result, page by page",
            mine.spread.text(2),
            theirs.spread.text(2),
            mine.spread.over(theirs.spread).text(3),
        ]
    )
    header = [f"{engine}, {amounts['tasks']:,} tasks", "s", "DataJoint s", "ratio"]
    met = "met" if slowest <= AIM_SECONDS else "MISSED"
    return (
        f"{table(header, rows)}\n"
        f"Slowest command {slowest:.2f} s, aim {AIM_SECONDS:g}: {met}. {amounts['results']:,} results, {amounts['errors']:,} errors,"
        f" filled in {filled:.0f} s. Median (min..max) of {REPEATS}, of fewer where that takes long, side by side.\n"
        "DataJoint: progress() of table and jobs; the jobs in error; the joined tables, 50 by score, by md5 grouped with aggr,"
        " and all with to_dicts(). It fetches columns, we render pages with what differs and what is the same."
    )


class _Times:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def take(self, call: Callable[[], Any]) -> None:
        started = time.monotonic()
        call()
        self.seconds.append(time.monotonic() - started)

    @property
    def spread(self) -> Spread:
        return Spread(tuple(self.seconds))


def _command(*arguments: str) -> None:
    from click.testing import CliRunner

    from synicix_core.cli.main import cli

    result = CliRunner().invoke(cli, list(arguments))
    if result.exit_code:
        raise RuntimeError(f"{' '.join(arguments)} failed: {result.output}")


def _read_all(pipeline: Any) -> None:
    from synicix_core.tables.overview_results import Order, Selection, read_pages

    read = sum(len(page) for page in read_pages(pipeline.tables, Selection(), Order("score", True)))
    if read != len(pipeline.TrainingResult()):
        raise RuntimeError(f"{read} results were read")


def _rivals(pipeline: Any) -> dict[str, Callable[[], Any]]:
    """Return how people who know DataJoint look at the same."""
    from synicix_core.database.quiet import datajoint as dj

    results = pipeline.TrainingResult.proj(*_SCALARS)
    joined = results * pipeline.TrainingTask
    configs = joined * pipeline.DatasetConfig.proj("dataset_file_name") * pipeline.ModelConfig * pipeline.TrainingConfig
    jobs = pipeline.TrainingResult.jobs
    groups = dj.U("dataset_config_md5_hash", "model_config_md5_hash")
    numbers = {"n": "COUNT(test_score)", "mean": "AVG(test_score)", "best": "MAX(test_score)"}
    return {
        "status": lambda: (pipeline.TrainingResult().progress(display=False), jobs.progress()),
        "errors": (jobs & "status = 'error'").to_dicts,
        "first page": lambda: configs.to_dicts(order_by="test_score DESC", limit=50),
        "--group-by dataset,model": lambda: groups.aggr(joined, **numbers).to_dicts(),
        "every result": joined.to_dicts,
    }


@contextmanager
def _pipeline(engine: str) -> Iterator[Any]:
    """Make a project with a schema of its own on one of the databases; remove both at the end."""
    from synicix_core.database import embedded, execute
    from synicix_core.settings import create_project

    mysql = os.environ.get("SYNICIX_TEST_MYSQL", "")
    held = {name: value for name, value in os.environ.items() if name.startswith(("DJ_", "SYNICIX_"))}
    for name in held:
        del os.environ[name]
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "1"
    os.environ["SYNICIX_SCHEMA_NAME"] = schema = f"views_{uuid.uuid4().hex[:12]}"
    os.environ["PYTHONPATH"] = LAB
    # The working directory changes below.
    sys.path[:0] = [folder for folder in (LAB, str(HERE)) if folder not in sys.path]
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="synicix-bench-") as folder:
        project = Path(folder) / "project"
        create_project(project)
        if engine == "MySQL":
            host, port, user, password = mysql.split(":")
            os.environ |= {
                "DJ_BACKEND": "mysql",
                "DJ_HOST": host,
                "DJ_PORT": port,
                "DJ_USER": user,
                "DJ_PASS": password,
            }
        else:
            embedded.start(project)
        os.chdir(project)
        from synicix_core import Pipeline

        pipeline = Pipeline(declare=True)
        try:
            yield pipeline
        finally:
            os.chdir(here)
            if engine == "MySQL":
                execute(pipeline.connection, f"DROP DATABASE `{schema}`")
            pipeline.connection.close()
            if engine != "MySQL":
                embedded.stop(project)
            for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_"))]:
                del os.environ[name]
            os.environ |= held
