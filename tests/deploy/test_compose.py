"""The compose file: its schema, and that it says the same as the image, the settings and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from synicix_core.settings import load_settings
from synicix_core.version import __version__
from tests.deploy import needed
from tests.deploy.image import ROOT

DOCKER = ROOT / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = ("init", "worker", "dashboard")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_it_fits_the_schema_of_compose_files(name: str) -> None:
    program = needed.program(str(Path(sys.executable).with_name("check-jsonschema")), "check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_runs_without_any_right(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True and service["init"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert "user" not in service and "privileged" not in service  # the image's user
    assert service["image"] == "${SYNICIX_IMAGE:-synicix:" + __version__ + "-cpu}"


def test_secrets_are_files_and_nothing_else() -> None:
    for name, service in COMPOSE["services"].items():
        values = " ".join(
            map(str, [service.get("environment", ""), service.get("command", ""), service.get("labels", "")])
        )
        for word in ("DJ_PASS", "DJ_USER", "POSTGRES_PASSWORD:"):
            assert word not in values, name
    targets = {entry["target"] for entry in COMPOSE["services"]["worker"]["secrets"]}
    assert targets == {f"/run/secrets/datajoint/database.{part}" for part in ("user", "password")}
    environment = COMPOSE["services"]["database"]["environment"]
    for part in ("user", "password"):
        assert environment[f"POSTGRES_{part.upper()}_FILE"] == f"/run/secrets/database.{part}"
        assert COMPOSE["secrets"][f"database.{part}"] == {"file": f"./secrets/database.{part}"}
    assert "/secrets/" in (DOCKER / ".gitignore").read_text().splitlines()


def test_the_worker_is_given_its_grace_and_thirty_seconds() -> None:
    grace = load_settings(DOCKER / "project").worker.grace_seconds
    assert COMPOSE["services"]["worker"]["stop_grace_period"] == f"{grace + 30:.0f}s"


def test_a_broken_configuration_is_not_tried_for_ever() -> None:
    policy, _, tries = COMPOSE["services"]["worker"]["restart"].partition(":")
    assert policy == "on-failure" and 1 <= int(tries) <= 10
    assert COMPOSE["services"]["init"]["restart"] == "no"


def test_the_worker_waits_for_the_tables_and_they_for_the_database() -> None:
    services = COMPOSE["services"]
    assert services["worker"]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    for name in ("init", "worker"):
        assert services[name]["depends_on"]["database"] == {"condition": "service_healthy"}
    # Only by TCP: at the first start a server that is about to end listens on the socket.
    assert "--host 127.0.0.1" in services["database"]["healthcheck"]["test"][1]
    assert "ports" not in services["database"]


@pytest.mark.parametrize("name", ["init", "worker"])
def test_the_commands_are_commands_of_ours(name: str) -> None:
    command = [sys.executable, "-m", "synicix_core.cli", *COMPOSE["services"][name]["command"]]
    assert subprocess.run([*command, "--help"], capture_output=True).returncode == 0
    assert subprocess.run([*command, "--not-a-flag", "--help"], capture_output=True).returncode != 0


def test_the_dashboard_starts_only_if_asked_for() -> None:
    dashboard = COMPOSE["services"]["dashboard"]
    assert dashboard["profiles"] == ["dashboard"]
    assert dashboard["command"].split()[0] == "dashboard"
    assert all(port.startswith("127.0.0.1:") for port in dashboard["ports"])
    assert [name for name, service in COMPOSE["services"].items() if service.get("profiles")] == ["dashboard"]


def test_the_project_names_the_places_that_are_mounted() -> None:
    settings = load_settings(DOCKER / "project")
    service = COMPOSE["services"]["worker"]
    mounted = dict(volume.removesuffix(":ro").rsplit(":", 1)[::-1] for volume in service["volumes"])
    assert str(settings.dataset_dir) in mounted and any(
        volume.endswith("/data/datasets:ro") for volume in service["volumes"]
    )
    assert str(settings.dataset_cache_dir) in mounted
    assert str(settings.model_save_dir.parent) in mounted
    document = json.loads((DOCKER / "project" / "datajoint.json").read_text())
    assert document["stores"]["external_training_result"]["location"].startswith("/data/results/")
    assert document["database"]["host"] in COMPOSE["services"]
    assert document["database"]["name"] == COMPOSE["services"]["database"]["environment"]["POSTGRES_DB"]
    assert not {"user", "password"} & document["database"].keys()
    files = {name: entry["file"] for name, entry in COMPOSE["configs"].items()}
    assert files == {name: f"./project/{name}" for name in ("synicix.toml", "datajoint.json")}


def test_a_gpu_is_added_by_a_second_file() -> None:
    (name, service), *others = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"].items()
    assert name == "worker" and not others
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert service["image"].endswith("-cu130}")
