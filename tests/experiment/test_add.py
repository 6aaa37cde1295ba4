"""add: everything is checked before anything is inserted, and adding twice adds nothing."""

import time

import pytest

from synicix_core.errors import ParamsError
from synicix_core.experiment import Count, add, expand, read_experiment
from tests.experiment.fake_pipeline import FakePipeline

SWEEP = """
[[dataset]]
name = "v1"
files = "*.h5"
provider = "Data"
[[model]]
name = "net"
provider = "Net"
[model.grid]
"params.hidden_size" = [8, 16]
[[training]]
name = "adam"
optimizer = "Descent"
criterion = "Loss"
[training.grid]
seed = [0, 1, 2]
"""


@pytest.fixture
def pipeline(tmp_path):
    dataset_dir = tmp_path / "datasets"
    dataset_dir.mkdir()
    for name in ("a.h5", "b.h5"):
        (dataset_dir / name).write_text(name)
    return FakePipeline(dataset_dir)


def plan_of(pipeline, text):
    path = pipeline.dataset_dir.parent / "sweep.toml"
    path.write_text(text)
    return expand(read_experiment(path), pipeline.dataset_dir)


def mistakes(pipeline, text):
    with pytest.raises(ParamsError) as caught:
        add(pipeline, plan_of(pipeline, text))
    assert pipeline.counts() == [0, 0, 0, 0]
    return caught.value.mistakes


def test_configs_and_tasks_are_added_once(pipeline):
    plan = plan_of(pipeline, SWEEP)
    first = add(pipeline, plan)
    assert pipeline.counts() == [2, 2, 3, 12]
    assert first.tables == {
        "DatasetConfig": Count(2, 0),
        "ModelConfig": Count(2, 0),
        "TrainingConfig": Count(3, 0),
        "TrainingTask": Count(12, 0),
    }
    assert first.origins == {
        "sweep.toml [[dataset]] #1 'v1'": Count(2, 0),
        "sweep.toml [[model]] #1 'net'": Count(2, 0),
        "sweep.toml [[training]] #1 'adam'": Count(3, 0),
    }

    second = add(pipeline, plan)
    assert pipeline.counts() == [2, 2, 3, 12]
    assert {count.new for count in (*second.tables.values(), *second.origins.values())} == {0}
    assert second.tasks == 12


def test_each_table_is_inserted_in_one_go(pipeline):
    add(pipeline, plan_of(pipeline, SWEEP))
    tables = (pipeline.DatasetConfig, pipeline.ModelConfig, pipeline.TrainingConfig, pipeline.TrainingTask)
    assert [table.inserts for table in tables] == [1, 1, 1, 1]


def test_what_a_larger_sweep_shares_with_a_smaller_one_is_there_already(pipeline):
    add(pipeline, plan_of(pipeline, SWEEP))
    summary = add(pipeline, plan_of(pipeline, SWEEP.replace("[8, 16]", "[16, 32]")))
    assert summary.tables["ModelConfig"] == Count(1, 1)
    assert summary.tables["TrainingTask"] == Count(6, 6)


def test_a_dry_run_counts_the_same_and_inserts_nothing(pipeline):
    plan = plan_of(pipeline, SWEEP)
    dry = add(pipeline, plan, dry_run=True)
    assert pipeline.counts() == [0, 0, 0, 0]
    assert dry.tables == add(pipeline, plan).tables
    again = add(pipeline, plan_of(pipeline, SWEEP.replace("[8, 16]", "[16, 32]")), dry_run=True)
    assert (again.tables["ModelConfig"], again.tables["TrainingTask"]) == (Count(1, 1), Count(6, 6))
    assert "TrainingTask" in str(dry)
    assert "12 would be new" in str(dry)
    assert dry.to_dict()["tables"]["TrainingTask"] == {"new": 12, "existing": 0}
    assert (dry.to_dict()["dry_run"], dry.to_dict()["tasks"]) == (True, 12)


def test_tasks_join_the_configs_that_the_rules_name(pipeline):
    rules = '[[task]]\ndataset = "v1"\nmodel = "net"\ntraining = "adam"\n'
    add(pipeline, plan_of(pipeline, SWEEP + '[[model]]\nname = "other"\nprovider = "Net"\n' + rules))
    assert pipeline.counts() == [2, 3, 3, 12]
    used = {row["model_config_md5_hash"] for row in pipeline.TrainingTask.stored.values()}
    assert {pipeline.ModelConfig.stored[key]["model_class_params"]["hidden_size"] for key in used} == {8, 16}


def test_mistakes_of_all_tables_come_at_once_in_the_words_of_the_file(pipeline):
    text = (
        SWEEP.replace('"Data"', '"Date"')
        .replace('"params.hidden_size" = [8, 16]', '"params.hiden_size" = [8, 16]')
        .replace('optimizer = "Descent"', 'optimizer = { provider = "Decent", params = { lr = 1 } }\nbatch_size = 0')
        .replace('criterion = "Loss"', 'criterion = { provider = "Loss", params = { weight = "x" } }')
    )
    found = dict(mistakes(pipeline, text))
    assert list(found) == [
        "sweep.toml, [[dataset]] 'v1', provider",
        "sweep.toml, [[model]] 'net', params.hiden_size",
        "sweep.toml, [[training]] 'adam', optimizer.provider",
        "sweep.toml, [[training]] 'adam', criterion.params.weight",
        "sweep.toml, [[training]] 'adam', batch_size",
    ]
    assert "did you mean 'hidden_size'?" in found["sweep.toml, [[model]] 'net', params.hiden_size"]


def test_a_mistake_of_one_choice_says_which(pipeline):
    ((place, message),) = mistakes(pipeline, SWEEP.replace("[8, 16]", '[8, "16"]'))
    assert place == "sweep.toml, [[model]] 'net', params.hidden_size"
    assert message.endswith("(with params.hidden_size = '16')")


def test_a_mistake_of_some_choices_says_how_many(pipeline):
    text = SWEEP.replace("[8, 16]", '[8, 16]\nprovider = ["Net", "Nett"]')
    ((place, message),) = mistakes(pipeline, text)
    assert place == "sweep.toml, [[model]] 'net', provider"
    assert message.endswith("(in 2 of its 4 configs)")


def test_many_mistakes_are_cut_short(pipeline):
    values = [f"x{number}" for number in range(80)]
    found = mistakes(pipeline, SWEEP.replace("[8, 16]", str(values)))
    assert len(found) == 51
    assert found[-1] == ("", "and 30 more mistakes")


def test_what_a_model_needs_is_asked_before_its_config_is_inserted(pipeline):
    text = SWEEP.replace('"Net"\n[model.grid]\n"params.hidden_size" = [8, 16]', '"Needy"')
    ((place, message),) = mistakes(pipeline, text)
    assert place == "sweep.toml, [[model]] 'net', params.density"
    assert "needs this parameter (float)" in message
    assert message.endswith("(with [[dataset]] 'v1')")
    dense = text.replace('"Data"\n', '"Data"\nparams = { dense = true }\n')
    assert add(pipeline, plan_of(pipeline, dense)).tasks == 6


def test_a_model_sets_nothing_that_its_dataset_supplies(pipeline):
    text = SWEEP.replace('"params.hidden_size" = [8, 16]', '"params.density" = [1.0]')
    ((place, message),) = mistakes(pipeline, text.replace('"Data"\n', '"Data"\nparams = { dense = true }\n'))
    assert place == "sweep.toml, [[model]] 'net', params.density"
    assert "the dataset supplies this" in message
    assert add(pipeline, plan_of(pipeline, text)).tasks == 6


def test_a_model_is_not_checked_against_a_dataset_that_no_task_joins_it_with(pipeline):
    text = SWEEP + (
        '[[model]]\nname = "needy"\nprovider = "Needy"\n[[dataset]]\nname = "dense"\nfiles = "a.h5"\nprovider = "Data"\n'
        'params = { dense = true }\n[[task]]\nmodel = "needy"\ndataset = "dense"\n[[task]]\nmodel = "net"\n'
    )
    assert add(pipeline, plan_of(pipeline, text)).tasks == 3 + 2 * 3 * 3


def test_configs_of_one_content_are_one_config_and_said_so(pipeline):
    (pipeline.dataset_dir / "b.h5").write_text("a.h5")
    summary = add(pipeline, plan_of(pipeline, SWEEP + '[[model]]\nprovider = "Net"\nparams = { hidden_size = 8 }\n'))
    assert summary.tables["DatasetConfig"] == Count(1, 0)
    assert summary.tables["TrainingTask"] == Count(6, 0)
    assert summary.origins["sweep.toml [[model]] #2"] == Count(0, 1)
    assert summary.notes == (
        "one dataset config has the content of another: b.h5 is a.h5",
        "one model config has the content of another: sweep.toml [[model]] #2 is sweep.toml [[model]] #1 'net'",
    )


def test_notes_of_the_tables_come_once_in_the_words_of_the_file(pipeline):
    summary = add(pipeline, plan_of(pipeline, SWEEP + '"optimizer.params.lr" = [0.1, 0.2]\n'))
    assert summary.notes == (
        "sweep.toml, [[training]] 'adam', optimizer.params.lr: lab-kit/Descent takes any name, so this one is not checked",
    )


def test_a_file_without_all_kinds_adds_configs_alone(pipeline):
    summary = add(pipeline, plan_of(pipeline, '[[model]]\nprovider = "Net"\n'))
    assert pipeline.counts() == [0, 1, 0, 0]
    assert "makes no task" in summary.notes[0]
    assert pipeline.TrainingTask.inserts == 0


def test_a_hundred_thousand_tasks_are_added_in_seconds(pipeline):
    text = SWEEP.replace("[8, 16]", str(list(range(1, 251)))).replace("[0, 1, 2]", str(list(range(200))))
    plan = plan_of(pipeline, text)
    started = time.process_time()
    assert add(pipeline, plan).tables["TrainingTask"] == Count(100_000, 0)
    assert time.process_time() - started < 15


def test_a_mistake_of_no_single_row_is_shown_as_it_is(pipeline, monkeypatch):
    def refuse(rows, labels):
        raise ParamsError("no", [("", "the table is being moved")])

    monkeypatch.setattr(pipeline.ModelConfig, "prepare", refuse)
    assert mistakes(pipeline, SWEEP) == (("", "the table is being moved"),)
