"""The compose files: their schema, and that they say the same as the image, the settings, the exit codes and the page."""

from __future__ import annotations

import json
import re
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
GPU: dict[str, Any] = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())
PAGE = (ROOT / "docs" / "containers.md").read_text()
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


def test_what_runs_for_long_is_started_again_whatever_ended_it() -> None:
    # `on-failure` is not meant for a machine that was switched off, and with a number not for a database that is away for hours.
    restarts = {name: service["restart"] for name, service in COMPOSE["services"].items()}
    assert restarts.pop("init") == "no"
    assert restarts == dict.fromkeys(("database", "worker", "dashboard"), "unless-stopped")
    assert "`unless-stopped`" in PAGE and "docker compose logs worker" in PAGE


@pytest.mark.parametrize("name", ["database", *OURS])
def test_no_log_fills_the_disk(name: str) -> None:
    logging = COMPOSE["services"][name]["logging"]
    assert logging["driver"] == "json-file"
    assert re.fullmatch(r"\d{1,2}m", logging["options"]["max-size"])
    assert 1 < int(logging["options"]["max-file"]) < 10
    assert all(f"--log-opt {key}={value}" in PAGE for key, value in logging["options"].items())


def test_the_worker_waits_for_the_tables_and_they_for_the_database() -> None:
    services = COMPOSE["services"]
    assert services["worker"]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    for name in ("init", "worker"):
        assert services[name]["depends_on"]["database"] == {"condition": "service_healthy"}
    # Only by TCP: at the first start a server that is about to end listens on the socket.
    assert "--host 127.0.0.1" in services["database"]["healthcheck"]["test"][1]
    assert "ports" not in services["database"]


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(COMPOSE["services"]["init"], id="init"),
        pytest.param(COMPOSE["services"]["worker"], id="worker"),
        pytest.param(GPU["services"]["worker"], id="worker with a GPU"),
    ],
)
def test_the_commands_are_commands_of_ours(service: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "synicix_core.cli", *service["command"]]
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
    services = GPU["services"]
    assert services.keys() == set(OURS)
    # An image that nobody has built would be asked of a registry; so whatever runs ours runs the one of the GPU.
    image = "${SYNICIX_IMAGE:-synicix:" + __version__ + "-cu130}"
    assert [service["image"] for service in services.values()] == [image] * 3
    worker = services["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert [services[name].keys() for name in OURS if name != "worker"] == [{"image"}] * 2
    # The command takes the place of the other file's; it trains on the GPU or not at all.
    assert worker["command"] == [*COMPOSE["services"]["worker"]["command"], "--device", "cuda"]


def test_the_page_builds_the_image_of_the_gpu_before_it_is_used_and_names_both_files_once_for_all_commands() -> None:
    part = PAGE.split("\n## Compose\n")[1].split("\n## ")[0]
    assert "COMPOSE_FILE=compose.yaml:compose.gpu.yaml" in part and "-f compose.gpu.yaml" not in part
    assert part.index(f"VARIANT=cu130 -t synicix:{__version__}-cu130") < part.index("COMPOSE_FILE=")
    for name in re.findall(r"\bSYNICIX_\w+", (DOCKER / "compose.yaml").read_text()):
        assert f"`{name}`" in part, name
    assert "/.env" in (DOCKER / ".gitignore").read_text().splitlines()
