"""docs/training.md says what the code does: the tables of options and the two trainers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from synicix_core import TrainerProvider, builtin
from synicix_core.training.contract import TrainingContext, TrainingInterrupted
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.precision import PRECISIONS
from synicix_core.training.run import run_task
from synicix_core.training.schedules import SCHEDULES
from synicix_core.training.spec import Component
from tests.factories import Distribution, EntryPoint, plugin, registry
from tests.training.toys import PROVIDERS, Recorder, toy_spec

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading."""
    section = PAGE.split(f"{heading}\n", 1)[1]
    table = re.search(r"(^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()]
    return cells[2:]


def test_every_option_is_listed_with_its_default() -> None:
    parameters = inspect.signature(NNTrainer).parameters.values()
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "context"]
    listed = [[cell.strip("`") for cell in row[:2]] for row in rows("## NNTrainer")]
    assert listed == [
        [p.name, '"' + p.default + '"' if isinstance(p.default, str) else str(p.default)] for p in options
    ]


def test_precisions_schedules_metrics_and_context_are_complete() -> None:
    assert tuple(row[0].strip("`") for row in rows("### Precision")) == PRECISIONS
    for row, (name, schedule) in zip(rows("### Schedules"), SCHEDULES.items(), strict=True):
        assert row[0] == f"`{name}`" and f"`{schedule.scheduler.__name__}`" in row[1] and row[2] == f"{schedule.unit}s"
    declared = {m.name: "higher" if m.higher_is_better else "lower" for m in builtin.synicix_metrics()}
    assert {row[0].strip("`"): row[1] for row in rows("### Metrics and the score")} == declared
    members = {re.match(r"`(\w+)", row[0])[1] for row in rows("### With a context")}  # type: ignore[index]
    assert members == {name for name in vars(TrainingContext) if not name.startswith("_")}


@pytest.fixture(scope="module")
def trainers() -> Any:
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, namespace)
    core = EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)
    mine = [TrainerProvider(name, target=namespace[name]) for name in ("PlainTrainer", "CarefulTrainer")]
    return registry(core, plugin("toys", *PROVIDERS, *mine))


def test_the_plain_trainer_trains(trainers: Any, tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, trainer=Component("trainer", "toys/PlainTrainer", {"label_noise": 0.1}))
    outcome = run_task(spec, trainers, Recorder())
    assert outcome.test_score is not None and len(outcome.training_epoch_loss_history) == 4


def test_the_careful_trainer_goes_on_where_it_was(trainers: Any, tmp_path: Path) -> None:
    trainer = Component("trainer", "toys/CarefulTrainer", {"precision": "bf16"})
    whole = run_task(toy_spec(tmp_path / "a", trainer=trainer), trainers, Recorder())
    assert whole.provenance["precision"] == "bf16"
    halves = toy_spec(tmp_path / "b", trainer=trainer)
    with pytest.raises(TrainingInterrupted):
        run_task(halves, trainers, Recorder(stop_at=2))
    observer = Recorder()
    resumed = run_task(halves, trainers, observer)
    assert [event["epoch"] for event in observer.epochs] == [3, 4]
    assert resumed.metrics == whole.metrics
