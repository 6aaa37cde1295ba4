"""docs/operating.md is right: its users can do what it says and no more, and its steps lead from one database to another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import click
import pytest

from synicix_core import Pipeline
from synicix_core.cli.main import cli
from synicix_core.database import connect, execute
from synicix_core.settings import create_project, load_settings
from synicix_core.tables.queue import Problem
from tests.conftest import TOY_LAB
from tests.docs.markdown_page import SURROUNDINGS, blocks
from tests.rows import insert_tasks
from tests.saved import claim
from tests.transferred import drop_schema, fill

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
MOVE = "Moving to another database"


@pytest.fixture
def act_as(server, project, monkeypatch):
    """Make the page's users, each with a name of its own, and become one with ``act_as("owner")``."""
    mark = uuid.uuid4().hex[:8]
    schema = os.environ["SYNICIX_SCHEMA_NAME"]
    as_superuser, grants, mysql = (block.text for block in blocks(PAGE) if block.language == "sql")
    postgres = server["DJ_BACKEND"] == "postgresql"

    def ours(text):
        text = re.sub(r"synicix_(owner|worker|reader)", rf"u{mark}_\1", text)
        text = text.replace("DATABASE lab", f"DATABASE lab_{mark}")
        return text.replace("SCHEMA synicix", f"SCHEMA {schema}").replace("`synicix`", f"`{schema}`")

    def statements(text):
        connection = connect(load_settings())
        for statement in ours(text).split(";"):
            if statement.strip():
                execute(connection, statement)
        connection.close()

    def become(role):
        passwords = dict(re.findall(r"synicix_(\w+).*'(change-me-\d)'", as_superuser + mysql))
        monkeypatch.setenv("DJ_USER", f"u{mark}_{role}")
        monkeypatch.setenv("DJ_PASS", passwords[role])
        if postgres:
            monkeypatch.setenv("DJ_DATABASE_NAME", f"lab_{mark}")

    statements(as_superuser if postgres else mysql)
    become("owner")
    become.grants = (lambda: statements(grants)) if postgres else lambda: None
    yield become
    for name in ("DJ_USER", "DJ_PASS"):
        monkeypatch.setenv(name, server[name])
    monkeypatch.delenv("DJ_DATABASE_NAME", raising=False)
    connection = connect(load_settings())
    if postgres:
        execute(connection, f"DROP DATABASE lab_{mark} WITH (FORCE)")
    for role in ("owner", "worker", "reader"):
        execute(connection, f"DROP {'ROLE' if postgres else 'USER'} u{mark}_{role}")
    connection.close()


@pytest.mark.database
def test_the_three_users(act_as, project, run, run_json):
    (project / "datasets" / "line.txt").write_text("2.0")
    run("init")
    act_as.grants()
    act_as("worker")
    working = Pipeline()
    world = fill(working)
    working.queue.fail(claim(working, world.urgent), Problem("no", "stack"))
    run("queue", "refresh")
    run("retry", "--all")
    run("queue", "pause", "--all")
    run("gc", "--yes")
    run("db", "export", "worker.synicix")
    assert "this user may not import" in run("db", "import", "worker.synicix", code=2).stderr
    working.connection.close()
    act_as("reader")
    run("db", "export", "reader.synicix")
    refused = run("queue", "resume", "--all", code=2).stderr
    assert f"may not do this (user {os.environ['DJ_USER']})" in refused and "training_result" in refused
    assert run_json("status")["states"]["paused"] > 0
    act_as("owner")
    assert run_json("db", "import", "reader.synicix")["tasks"] == {"same": 16}
    # The import has declared a table more.
    for role in ("worker", "reader"):
        act_as(role)
        run("db", "export", f"{role}.synicix", "--force")
    # As docs/kubernetes.md has the worker's user repeat it, to read the files.
    act_as("worker")
    assert run_json("db", "import", "reader.synicix", "--files", "all")["results_looked_at"] == 4


@pytest.mark.database
def test_the_reader_can_use_the_commands_that_the_page_names_and_no_others(act_as, project, run, run_json):
    (project / "datasets" / "line.txt").write_text("2.0")
    run("init")
    act_as.grants()
    act_as("worker")
    working = Pipeline()
    task, failing = insert_tasks(working, trainings=[{"seed": 0}, {"seed": 1}])
    working.queue.fail(claim(working, failing), Problem("no", "stack"))
    assert run_json("populate")["success_count"] == 1
    # A result that says how good it could be at best is looked up by its dataset's primary key.
    (dataset,) = working.DatasetConfig().keys()
    working.DatasetConfig().update1({**dataset, "additional_model_params": {"noise_ceiling": {"loss": 0.25}}})
    tables = (working.DatasetConfig, working.TrainingTask, working.TrainingAttempt, working.TrainingResult)
    keys = [table().primary_key for table in tables]
    (listing,) = run_json("results")["listings"]
    (result,) = listing["results"]
    assert result["noise_ceiling"] == 0.25
    working.connection.close()

    act_as("reader")
    reading = Pipeline()
    tables = (reading.DatasetConfig, reading.TrainingTask, reading.TrainingAttempt, reading.TrainingResult)
    assert [table().primary_key for table in tables] == keys
    reading.connection.close()
    assert run_json("results")["listings"] == [listing]
    sentence = re.search(r"The reader can use (.+?)\.", PAGE, re.DOTALL)[1]
    arguments = {"show": [task], "load": [task], "db export": ["reader.synicix"]}
    for command in re.findall(r"`([^`]+)`", sentence):
        run(*command.split(), *arguments.get(command, []))
    for options in ("--stale", "--json", "--csv results.csv"):
        run("results", *options.split())
    run("errors", "--stack", failing)

    # populate has exit codes of its own, in a fleet too.
    for options in ([], ["--workers", "2"]):
        done = subprocess.run(
            [sys.executable, "-m", "synicix_core.cli", "populate", *options],
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 78, done.stdout + done.stderr
        assert f"may read, but not train (user {os.environ['DJ_USER']}" in done.stderr and "('" not in done.stderr
        assert "training_attempt" in done.stderr and "docs/operating.md" in done.stderr
    for command in ("retry --all", "queue refresh", f"queue cancel {task}", "queue pause --all"):
        text = run(*command.split(), code=2).stderr
        assert os.environ["DJ_USER"] in text and "training_" in text and "('" not in text
    found = {item["check"]: item for item in run_json("doctor", code=1)["checks"]}
    assert found["privileges"]["outcome"] == "fail" and "may read, but not train" in found["privileges"]["text"]
    assert "docs/operating.md" in found["privileges"]["advice"]
    assert found["directories"]["outcome"] == "ok"
    environment = os.environ | {"SYNICIX_SCHEMA_NAME": f"{os.environ['SYNICIX_SCHEMA_NAME']}_b"}
    made = subprocess.run(
        [sys.executable, "-m", "synicix_core.cli", "init"], capture_output=True, text=True, timeout=60, env=environment
    )
    assert made.returncode == 2 and "may not make tables" in made.stderr and os.environ["DJ_USER"] in made.stderr


@pytest.mark.database
def test_the_steps_from_a_project_to_a_server(server, monkeypatch):
    from synicix_core.database import embedded

    folder = Path(tempfile.mkdtemp(prefix="synicix-page-"))
    settings = create_project(folder)
    (settings.dataset_dir / "line.txt").write_text("2.0")
    schema = f"test_{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("SYNICIX_SCHEMA_NAME", schema)
    monkeypatch.chdir(folder)
    environment = {**os.environ, **SURROUNDINGS, "PYTHONPATH": TOY_LAB}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def steps(text):
        done = subprocess.run(["sh", "-ec", text], capture_output=True, text=True, timeout=180, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    made = Pipeline(declare=True)
    insert_tasks(made, trainings=[{"seed": seed} for seed in range(3)])
    made.connection.close()
    before, after = (block.text for block in blocks(PAGE) if block.section == MOVE and block.language == "sh")
    try:
        assert "3 tasks: 3 pending" in steps(before)
        host, port = server["DJ_HOST"], server.get("DJ_PORT")
        database = {"backend": server["DJ_BACKEND"], "host": host} | ({"port": int(port)} if port else {})
        store = {"protocol": "file", "location": str(folder / ".synicix/stores/external_training_result")}
        config = {"database": database, "stores": {"external_training_result": store}}
        (folder / "datajoint.json").write_text(json.dumps(config))
        (folder / ".secrets").mkdir()
        (folder / ".secrets/database.user").write_text(server["DJ_USER"])
        (folder / ".secrets/database.password").write_text(server["DJ_PASS"])
        text = steps(after)
        assert "3 tasks are new" in text and text.rstrip().endswith("run: synicix-run populate")
        assert not embedded.status(folder).running
        wait = next(block.text for block in blocks(PAGE) if block.section == "Draining and stopping")
        steps(wait)
        for name, value in server.items():
            monkeypatch.setenv(name, value)
        there = Pipeline()
        assert len(there.TrainingTask()) == 3
        drop_schema(there.connection, schema)
        there.connection.close()
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)


def test_every_command_on_the_page_exists():
    named = re.findall(r"`synicix-run ([^`]+)`", PAGE)
    named += [command for block in blocks(PAGE) for command in re.findall(r"synicix-run ([^|;\n]+)", block.text)]
    assert len(named) > 15
    for text in named:
        words = text.split()
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, text
            command = found
        if command.context_settings.get("ignore_unknown_options"):
            continue  # they are those of another program
        options = {option for parameter in [*command.params, *cli.params] for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, text


def test_links_lead_somewhere():
    folder = Path(__file__).parents[2] / "docs"
    for page, anchor in re.findall(r"\]\(([\w.-]*)(?:#([\w-]+))?\)", PAGE):
        text = (folder / page).read_text(encoding="utf-8") if page else PAGE
        headings = [
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
            for line in text.splitlines()
            if line[:1] == "#"
        ]
        assert not anchor or anchor in headings, (page, anchor)
