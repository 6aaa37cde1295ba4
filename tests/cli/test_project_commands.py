"""`init`, `db`, `add`, `check` and `doctor`."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from synicix_core.database import embedded
from tests.cli.conftest import as_program, finish
from tests.rows import insert_tasks

EXPERIMENT = """
[[dataset]]
files = "line.txt"
provider = "Points"
[[model]]
provider = "Line"
[[training]]
criterion = "MSELoss"
epoch_limit = 2
[training.grid]
seed = [0, 1]
"""


@pytest.fixture
def without_server(tmp_path_factory, monkeypatch, request):
    """No server is configured: a project of its own with its own PostgreSQL, which is stopped at the end."""
    folder = tmp_path_factory.mktemp("own")
    # The server runs as another user when root runs the tests.
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("DJ_", "SYNICIX_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DJ_IGNORE_CONFIG_FILE", "1")
    monkeypatch.chdir(folder)
    request.addfinalizer(lambda: embedded.stop(folder))
    return folder


@pytest.fixture
def experiment(project):
    (project / "datasets" / "line.txt").write_text("2.0")
    (project / "sweep.toml").write_text(EXPERIMENT)
    return project / "sweep.toml"


@pytest.mark.database
@pytest.mark.slow
def test_a_project_with_a_database_of_its_own_from_nothing(without_server):
    def program(*arguments, code=0):
        done = as_program(*arguments)
        assert done.returncode == code, done.stderr
        return done.stdout

    made = json.loads(program("init", "--json"))
    assert made["project"] == str(without_server) and made["database"] == "embedded"
    assert made["project_created"] and made["schema_created"]
    again = json.loads(program("init", "--json"))
    assert not again["project_created"] and not again["schema_created"]
    (without_server / "below").mkdir()
    below = as_program("init", cwd=without_server / "below")
    assert below.returncode == 2 and "lies above this directory already" in below.stderr

    status = json.loads(program("db", "status", "--json"))
    assert status["running"] and status["pid"] and status["database"] == "embedded"
    url = program("db", "url").strip()
    assert url.startswith("postgresql://postgres@/postgres?host=/")
    shell = program("db", "shell", "-At", "-c", "SELECT current_schema(), current_setting('TimeZone')")
    assert shell.strip() == "synicix|UTC"
    assert "was running already" in program("db", "start")
    assert "is stopped" in program("db", "stop")
    assert not json.loads(program("db", "status", "--json"))["running"]
    assert "was not running" in program("db", "stop")
    # The database starts by itself.
    assert json.loads(program("status", "--json"))["tasks"] == 0


@pytest.mark.database
def test_init_on_a_configured_server_says_which(project, run, run_json):
    text = run("init").stdout
    assert (
        f"The project {project} exists already" in text
        and "Made the tables: schema test_" in text
        and " as user " in text
    )
    assert "What to do next" in text and "synicix-run db import FILE" in text
    assert "The tables are there already" in run("init").stdout
    assert " as user " in run_json("init")["database"]


@pytest.mark.database
def test_a_configured_server_is_not_started_or_stopped(project, run, run_json):
    for what in ("start", "stop"):
        assert f"There is nothing to {what}" in run("db", what, code=2).stderr
    facts = run_json("db", "status")
    assert facts["running"] and " as user " in facts["database"]
    secret = os.environ["DJ_PASS"]
    for arguments in (("db", "status"), ("db", "url")):
        text = run(*arguments).output
        assert not secret or secret not in text
    assert run_json("db", "url")["url"].partition(":")[0] in ("postgresql", "mysql")


@pytest.mark.database
def test_commands_before_init_say_so(project, run):
    assert "Run: synicix-run init" in run("status", code=2).stderr


@pytest.mark.database
def test_add_says_what_is_new_and_adds_nothing_twice(pipeline, experiment, run, run_json):
    dry = run_json("add", str(experiment), "--dry-run")
    assert dry["dry_run"] and dry["tables"]["TrainingTask"] == {"new": 2, "existing": 0}
    assert "2 tasks would be added; nothing was." in run("add", str(experiment), "--dry-run").stdout
    assert len(pipeline.TrainingTask()) == 0
    assert "2 tasks added. To train, run: synicix-run populate" in run("add", str(experiment)).stdout
    assert len(pipeline.TrainingTask()) == 2
    assert "No task is new." in run("add", str(experiment)).stdout
    assert run_json("add", str(experiment))["tables"]["TrainingTask"] == {"new": 0, "existing": 2}


@pytest.mark.database
def test_add_shows_every_mistake_and_adds_nothing(pipeline, experiment, run):
    text = EXPERIMENT.replace('"Line"', '"Lin"').replace('"MSELoss"', '"MSELos"')
    experiment.write_text(text)
    error = run("add", str(experiment), code=2).stderr
    assert (
        "sweep.toml, [[model]] #1" in error and "sweep.toml, [[training]] #1" in error and "Did you mean Line" in error
    )
    assert len(pipeline.DatasetConfig()) == 0


@pytest.mark.database
def test_very_many_tasks_are_asked_about(pipeline, experiment, run, monkeypatch):
    monkeypatch.setattr("synicix_core.experiment.MAX_TASKS_UNASKED", 1)
    error = run("add", str(experiment), code=2).stderr
    assert "2 tasks would be added" in error and "--yes" in error
    assert len(pipeline.TrainingTask()) == 0
    run("add", str(experiment), "--yes")
    assert len(pipeline.TrainingTask()) == 2


def test_a_file_that_is_not_there_is_a_mistake(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "does not exist" in run("add", "sweep.toml", code=2).stderr


@pytest.mark.database
def test_dataset_dir_may_be_given(pipeline, experiment, project, run):
    shutil.move(project / "datasets", project / "elsewhere")
    assert "dataset" in run("add", str(experiment), code=2).stderr
    run("add", str(experiment), "--dataset-dir", str(project / "elsewhere"))
    assert len(pipeline.TrainingTask()) == 2


@pytest.mark.database
def test_check_tries_a_file_or_what_is_pending(pipeline, experiment, run, run_json):
    text = run("check", str(experiment), "--device", "cpu").stdout
    assert "ok   1/1 line.txt" in text and "1 combination checked, 0 failed." in text
    assert len(pipeline.TrainingTask()) == 0
    assert "There is nothing to check." in run("check").stdout
    insert_tasks(pipeline, trainings=[{"optimizer_class_params": {"lr": -1.0}}, {"seed": 3}])
    found = run_json("check", "--device", "cpu", code=1)
    assert found["checked"] == 2 and found["failed"] == 1
    assert [result["ok"] for result in found["combinations"]].count(False) == 1
    text = run("check", "--device", "cpu", code=1).stdout
    assert "FAIL" in text and "Invalid learning rate" in text


@pytest.mark.database
def test_check_prints_the_notes_of_a_combination_that_works(pipeline, experiment, run, monkeypatch):
    from synicix_core.training import check

    monkeypatch.setattr(check, "notes_of", lambda _: ("2 trials are left out",))
    assert "     note: 2 trials are left out\n" in run("check", str(experiment), "--device", "cpu").stdout


@pytest.mark.database
def test_doctor_is_content_with_a_working_project(pipeline, project, run, run_json, monkeypatch):
    done, _ = insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}])
    finish(pipeline, {done: 0.5})
    found = run_json("doctor")
    assert found["ok"]
    outcomes = {item["check"]: item["outcome"] for item in found["checks"]}
    wanted = ("plugins", "device", "project", "disk", "database", "privileges", "directories", "datasets", "tasks")
    assert [outcomes[check] for check in (*wanted, "claims")] == ["ok"] * (len(wanted) + 1)
    monkeypatch.setattr("synicix_core.cli.doctor._DEVICE", "print('cpu|CPU|2.0')")
    text = run("doctor").stdout
    assert "ok    tasks: 1 pending task, all can be trained here" in text and "no GPU was found" in text


@pytest.mark.database
def test_doctor_names_what_is_wrong_and_what_to_do(pipeline, project, run_json, monkeypatch):
    monkeypatch.setattr("synicix_core.cli.doctor._DEVICE", "import nothing_of_that_name")
    task, other, _ = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    jobs = pipeline.TrainingResult.jobs
    jobs.update1({"training_task_md5_hash": task, "status": "reserved", "host": "elsewhere", "pid": 7})
    held = pipeline.queue.claim("c" * 32, "node9", 1, "cpu")
    pipeline.TrainingAttempt().update1({**held.key, "attempt": 1, "heartbeat_at": "2020-01-01 00:00:00"})
    (project / "datasets" / "line.txt").unlink()
    monkeypatch.setenv("SYNICIX_MODEL_SAVE_DIR", str(project / "synicix.toml" / "models"))
    monkeypatch.setattr("synicix_core.cli.doctor._LEAST_FREE", 1 << 80)
    found = {item["check"]: item for item in run_json("doctor", code=1)["checks"]}
    assert (
        found["directories"]["outcome"] == "fail" and "model_save_dir cannot be written" in found["directories"]["text"]
    )
    assert found["disk"]["outcome"] == "warn"
    assert found["device"]["outcome"] == "fail" and "nothing_of_that_name" in found["device"]["text"]
    assert found["datasets"]["outcome"] == "warn" and "line.txt" in found["datasets"]["text"]
    assert found["tasks"]["outcome"] == "fail"
    assert found["tasks"]["text"] == "1 of 1 pending task cannot be trained here"
    first, missing = found["tasks"]["advice"].splitlines()
    assert first == "First see to what failed above: device, directories."
    assert "there is no dataset file 'line.txt'" in missing
    assert found["claims"]["outcome"] == "warn"
    assert task[:8] in found["claims"]["text"] and "elsewhere" in found["claims"]["text"]
    jobs.update1({"training_task_md5_hash": task, "status": "pending"})
    found = {item["check"]: item for item in run_json("doctor", code=1)["checks"]}
    assert "1 claim without a heartbeat" in found["claims"]["text"]
    assert other is not None


@pytest.mark.database
def test_doctor_counts_the_tasks_whose_dataset_files_are_here(pipeline, project, run_json, monkeypatch):
    monkeypatch.setattr("synicix_core.cli.doctor._DEVICE", "print('cpu|CPU|2.0')")
    names = [f"more{number}.txt" for number in range(7)]
    for name in names:
        (project / "datasets" / name).write_text(f"1.{name[4]}1")
    datasets = [{}, *({"dataset_file_name": name} for name in names)]
    insert_tasks(pipeline, trainings=[{"seed": 0}, {"seed": 1}], datasets=datasets)

    def tasks(code=0):
        return {item["check"]: item for item in run_json("doctor", code=code)["checks"]}["tasks"]

    assert tasks()["text"] == "16 pending tasks, all can be trained here"
    for name in names:
        (project / "datasets" / name).unlink()
    found = tasks()
    assert found["outcome"] == "warn" and found["text"] == "14 of 16 pending tasks cannot be trained here"
    *listed, rest = found["advice"].splitlines()
    assert rest == "2 more" and len(listed) == 5
    assert all(f"there is no dataset file {name!r}" in line for name, line in zip(names, listed, strict=False))
    (project / "datasets" / "line.txt").unlink()
    found = tasks(code=1)
    assert found["outcome"] == "fail" and found["text"] == "16 of 16 pending tasks cannot be trained here"
    (project / "datasets").rmdir()
    found = tasks(code=1)
    assert found["outcome"] == "fail" and found["text"] == "16 of 16 pending tasks cannot be trained here"
    assert found["advice"].startswith("First see to what failed above: directories.\ndataset_dir is not a directory")
    assert len(found["advice"].splitlines()) == 2


@pytest.mark.database
def test_doctor_names_the_plugins_that_pending_tasks_lack(pipeline, project):
    insert_tasks(pipeline)
    done = as_program("doctor", "--json", env={**os.environ, "SYNICIX_DISABLE_PLUGINS": "toy-lab"})
    assert done.returncode == 1
    tasks = {item["check"]: item for item in json.loads(done.stdout)["checks"]}["tasks"]
    assert tasks["outcome"] == "fail" and tasks["text"] == "1 of 1 pending task cannot be trained here"
    assert "toy-lab is switched off" in tasks["advice"]


def test_doctor_outside_a_project_still_looks_at_the_rest(run_json, tmp_path, monkeypatch):
    monkeypatch.setattr("synicix_core.cli.doctor._DEVICE", "print('cpu|CPU|2.0')")
    monkeypatch.chdir(tmp_path)
    found = run_json("doctor", code=1)
    assert not found["ok"]
    last = found["checks"][-1]
    assert last["check"] == "project" and last["outcome"] == "fail" and "synicix-run init" in last["advice"]
