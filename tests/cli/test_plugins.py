"""`plugins list`, `plugins info` and `plugins commands`."""

from __future__ import annotations

import click
import pytest

from synicix_core import MetricProvider, ModelProvider, hookimpl
from tests.factories import plugin, registry


class Net:
    def __init__(self, input_shape, output_shape, width: int, depth: int = 2, activation: str = "relu", **more):
        pass


@click.command("wave")
def wave():
    """Wave to the crowd."""


@pytest.fixture
def kits(monkeypatch):
    def install(*entry_points, **options):
        found = registry(*entry_points, **options)
        monkeypatch.setattr("synicix_core.registry.get_registry", lambda: found)

    net = ModelProvider("Net", target=Net, summary="A net", aliases=("OldNet",), version=2, neutral=("depth",))
    kit = plugin(
        "lab-kit",
        net,
        MetricProvider("rmse", target="lab_kit:rmse", higher_is_better=False),
        synicix_commands=hookimpl(lambda: [wave]),
    )
    install(kit)
    install.kit = kit
    return install


def test_list_names_every_provider_with_its_origin(kits, run, run_json):
    origin = {"distribution": "lab-kit", "distribution_version": "1.0"}
    net = {"kind": "model", "name": "Net", "qualified": "lab-kit/Net@2", "version": 2, "summary": "A net"}
    rmse = {"kind": "metric", "name": "rmse", "qualified": "lab-kit/rmse", "version": 1, "summary": ""}
    assert run_json("plugins", "list") == {"providers": [net | origin, rmse | origin], "problems": [], "disabled": []}
    text = run("plugins", "list").stdout
    assert "lab-kit/Net@2" in text and "A net" in text and "problem" not in text
    assert [item["kind"] for item in run_json("plugins", "list", "--kind", "metric")["providers"]] == ["metric"]


def test_list_names_the_plugins_that_do_not_work(kits, run, run_json):
    kits(kits.kit, plugin("broken-kit", raises=SystemExit("no licence")), plugin("off-kit"), disabled="off-kit")
    text = run("plugins", "list").stdout
    assert "1 problem:" in text and "broken-kit 1.0" in text and "SystemExit: no licence" in text
    assert "Switched off by SYNICIX_DISABLE_PLUGINS: off-kit" in text
    assert len(run_json("plugins", "list")["problems"]) == 1


def test_check_finds_missing_targets(kits, run, run_json):
    text = run("plugins", "list", "--check", code=1).stdout
    assert "lab-kit/rmse: " in text and "lab_kit:rmse" in text and "ModuleNotFoundError" in text
    assert len(run_json("plugins", "list", "--check", code=1)["problems"]) == 1
    assert "Every target can be imported." in run("plugins", "list", "--check", "--kind", "model").stdout


def test_info_has_parameters_types_defaults_and_source(kits, run, run_json):
    found = run_json("plugins", "info", "OldNet")
    assert found["qualified"] == "lab-kit/Net@2" and found["aliases"] == ["OldNet"] and found["neutral"] == ["depth"]
    assert found["source"] == __file__ and found["accepts_any"]
    assert found["parameters"] == [
        {"name": "width", "type": "int", "required": True, "default": None},
        {"name": "depth", "type": "int", "required": False, "default": 2},
        {"name": "activation", "type": "str", "required": False, "default": "relu"},
    ]
    text = run("plugins", "info", "Net").stdout
    for part in (
        "model lab-kit/Net@2",
        "A net",
        "plugin   lab-kit 1.0 (entry point lab-kit)",
        "required",
        "'relu'",
        "It takes any other",
    ):
        assert part in text


def test_info_of_a_real_metric_says_which_way_is_better(run):
    assert "better   higher" in run("plugins", "info", "correlation").stdout
    assert "better   lower" in run("plugins", "info", "loss").stdout
    assert "It has no parameters." in run("plugins", "info", "r2").stdout


def test_info_of_what_is_not_there(kits, run):
    assert "Did you mean Net (lab-kit 1.0)" in run("plugins", "info", "Nett", code=2).stderr
    assert "Run: synicix-run plugins list" in run("plugins", "info", "zzz", code=2).stderr
    assert "cannot be loaded" in run("plugins", "info", "rmse", code=1).stderr


def test_info_of_a_name_that_two_kinds_have(kits, run):
    kits(plugin("lab-kit", ModelProvider("Both", target=Net), MetricProvider("Both", target=Net)))
    assert "Say which one you mean: --kind model" in run("plugins", "info", "Both", code=2).stderr
    assert "metric lab-kit/Both" in run("plugins", "info", "Both", "--kind", "metric").stdout


def test_commands_of_plugins_are_listed(kits, run, run_json):
    assert "Wave to the crowd." in run("plugins", "commands").stdout
    listed = {"command": "wave", "distribution": "lab-kit", "version": "1.0", "help": "Wave to the crowd."}
    assert run_json("plugins", "commands") == {"commands": [listed | {"hidden_by_core": False}], "problems": []}
    kits()
    assert "No plugin adds a command." in run("plugins", "commands").stdout
