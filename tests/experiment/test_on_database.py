"""Experiment files on a real database, with a real plugin."""

import re
from pathlib import Path

import pytest

from synicix_core.errors import ParamsError
from synicix_core.experiment import Count, add, check, expand, read_experiment

pytestmark = pytest.mark.database

SWEEP = """
[[dataset]]
name = "line"
files = "*.txt"
provider = "Points"
[[model]]
name = "linear"
provider = "Line"
[model.grid]
"params.bias" = [true, false]
[[training]]
name = "t"
criterion = "MSELoss"
batch_size = 8
[training.random]
samples = 2
"optimizer.params.lr" = { loguniform = [1e-4, 1e-2] }
[training.grid]
seed = [0, 1, 2]
"""


def plan_of(pipeline, project, text=SWEEP):
    (project / "sweep.toml").write_text(text)
    return expand(read_experiment(project / "sweep.toml"), pipeline.settings.dataset_dir)


def lengths(pipeline):
    tables = (pipeline.DatasetConfig, pipeline.ModelConfig, pipeline.TrainingConfig, pipeline.TrainingTask)
    return [len(table()) for table in tables]


def test_a_file_becomes_rows_and_queued_tasks_and_only_once(pipeline, project):
    plan = plan_of(pipeline, project)
    dry = add(pipeline, plan, dry_run=True)
    assert lengths(pipeline) == [0, 0, 0, 0]
    first = add(pipeline, plan)
    assert first.tables == dry.tables
    assert lengths(pipeline) == [1, 2, 6, 12]
    assert len(pipeline.TrainingResult.jobs.pending) == 12
    for again in (add(pipeline, plan), add(pipeline, plan, dry_run=True)):
        assert (again.tables["TrainingTask"], again.tables["TrainingConfig"]) == (Count(0, 12), Count(0, 6))
    assert lengths(pipeline) == [1, 2, 6, 12]


def test_mistakes_that_only_the_tables_find_come_in_the_words_of_the_file(pipeline, project):
    text = SWEEP.replace("params.bias", "params.bais").replace('"MSELoss"', '"MSLoss"').replace('"Points"', '"Pints"')
    with pytest.raises(ParamsError) as caught:
        add(pipeline, plan_of(pipeline, project, text))
    assert [place for place, _ in caught.value.mistakes] == [
        "sweep.toml, [[dataset]] 'line', provider",
        "sweep.toml, [[model]] 'linear', params.bais",
        "sweep.toml, [[training]] 't', criterion.provider",
    ]
    assert lengths(pipeline) == [0, 0, 0, 0]


def test_what_a_task_would_be_refused_for_is_found_before_its_configs_are_inserted(pipeline, project):
    text = SWEEP.replace('"Line"\n[model.grid]\n"params.bias" = [true, false]', '"NeedsMore"')
    with pytest.raises(ParamsError, match=r"params\.width: toy-lab/NeedsMore needs this parameter"):
        add(pipeline, plan_of(pipeline, project, text))
    assert lengths(pipeline) == [0, 0, 0, 0]


def test_tasks_in_the_database_are_checked_as_those_of_a_plan(pipeline, project):
    plan = plan_of(pipeline, project)
    planned = check(pipeline, plan, device="cpu")
    assert [(result.ok, result.tasks, result.reason) for result in planned] == [(True, 3, "")] * 4
    add(pipeline, plan)
    inserted = check(pipeline, True, device="cpu")
    assert {str(result).partition(" (")[0] for result in inserted} == {str(r).partition(" (")[0] for r in planned}
    assert [(result.ok, result.tasks, result.origins) for result in inserted] == [(True, 3, ())] * 4
    assert [result.tasks for result in check(pipeline, "seed = 1", device="cpu")] == [1] * 4
    assert check(pipeline, {"dataset_file_name": "none"}, device="cpu") == []


def test_the_python_of_the_docs_runs(pipeline, project, capsys):
    page = (Path(__file__).parents[2] / "docs" / "experiment-files.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (project / "sweep.toml").write_text(SWEEP)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed.startswith("12\n")
    assert printed.count("): ok") == 4
    assert lengths(pipeline) == [1, 2, 6, 12]
