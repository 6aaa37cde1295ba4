"""Where the project's database is, and where its password lies; each in a process of its own, as DataJoint reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synicix_core.settings import create_project

CODE = """
import json
from synicix_core import load_settings
from synicix_launch.database import find_database
found = find_database(load_settings())
alone = found.password_in_variable_alone
print(json.dumps({**vars(found), "is_local": found.is_local, "alone": alone, "text": str(found), "repr": repr(found)}))
"""
SERVER = {"database": {"backend": "postgresql", "host": "db.example.org", "user": "ann", "name": "lab"}}
SECRET = "a-very-secret-word"


def find(project: Path, document: Any = None, **variables: str) -> dict[str, Any]:
    create_project(project)
    if document is not None:
        (project / "datajoint.json").write_text(json.dumps(document))
    # A repository ends DataJoint's search for its file upward.
    (project / ".git").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJ_", "SYNICIX_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=project, env=kept | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_configured_is_the_postgresql_inside_the_project(tmp_path):
    found = find(tmp_path)
    assert found["embedded"] and found["is_local"] and found["text"] == "the PostgreSQL inside the project"


def test_a_server_is_found_with_its_store_and_without_keys(tmp_path):
    store = {"protocol": "s3", "endpoint": "s3.example.org", "bucket": "lab", "location": "histories"}
    keys = {"access_key": SECRET, "secret_key": SECRET}
    found = find(tmp_path, SERVER | {"stores": {"external_training_result": store | keys}})
    assert (found["backend"], found["host"], found["port"], found["name"]) == (
        "postgresql",
        "db.example.org",
        5432,
        "lab",
    )
    assert found["store"] == store
    assert not found["is_local"] and found["text"] == "PostgreSQL at db.example.org:5432"
    assert password(found) == (False, "", "", False)


def password(found: dict[str, Any]) -> tuple[bool, str, str, bool]:
    """Return whether it is in the variable, which files it is in, and whether it is in the variable alone."""
    files = (found["password_in_config"], found["password_in_secrets"])
    return (found["password_in_variable"], *files, found["alone"])


@pytest.mark.parametrize(
    "places",
    [
        ("variable",),
        ("file",),
        ("flat file",),
        ("secret",),
        ("variable", "secret"),
        ("variable", "file"),
        ("file", "secret"),
        ("variable", "empty secret"),
        ("variable", "secret", "ignored"),
    ],
    ids=" and ".join,
)
def test_every_place_of_the_password_is_known(tmp_path, places):
    document: dict[str, Any] = {"database": dict(SERVER["database"])}
    variables = {"DJ_PASS": SECRET} if "variable" in places else {}
    if "file" in places:
        document["database"]["password"] = SECRET
    if "flat file" in places:
        document["database.password"] = SECRET
    secret = tmp_path / ".secrets" / "database.password"
    if "secret" in places or "empty secret" in places:
        secret.parent.mkdir()
        secret.write_text(SECRET if "secret" in places else "\n")
    if "ignored" in places:
        # DataJoint reads neither file then.
        variables |= {"DJ_IGNORE_CONFIG_FILE": "true", "DJ_HOST": "db", "DJ_USER": "ann"}
    in_config = str(tmp_path / "datajoint.json") if {"file", "flat file"} & set(places) else ""
    in_secrets = str(secret) if "secret" in places and "ignored" not in places else ""
    alone = "variable" in places and not (in_config or in_secrets)
    assert password(find(tmp_path, document, **variables)) == ("variable" in places, in_config, in_secrets, alone)


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("/run/postgresql", True), ("10.0.0.1", False), ("db", False)],
)
def test_hosts_that_other_machines_cannot_reach_are_known(host, local):
    from synicix_launch.database import Database

    assert Database(embedded=False, host=host).is_local is local
