"""Plugins that are broken in many ways: the command line and the other plugins work, and each problem is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.third_party.fresh_environment import PLUGINS, Workplace

pytestmark = [pytest.mark.database, pytest.mark.slow]

BROKEN = ("broken-import", "broken-runtime", "broken-exit", "broken-hooks")

RESOLVE = """
import json
from synicix_core.errors import SynicixError
from synicix_core.registry import get_registry

answers = []
for kind, name in [("model", "Readout"), ("model", "lab-kit/Readout"), ("model", "Unseen"), ("trainer", "PlainTrainer")]:
    try:
        answers.append(get_registry().resolve(kind, name).qualified)
    except SynicixError as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Iterator[Workplace]:
    folders = [PLUGINS / "broken_kit" / name.replace("-", "_") for name in BROKEN]
    workplace.environment.install(PLUGINS / "lab_kit", *folders)
    yield workplace.with_schema("broken_kit")
    workplace.environment.uninstall("lab-kit", *BROKEN)


@pytest.fixture(scope="module")
def listing(place: Workplace) -> dict[str, Any]:
    listed = place.synicix("plugins", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found: dict[str, Any] = json.loads(listed.stdout)
    return found


def test_help_does_not_notice(place: Workplace) -> None:
    said = place.synicix("--help")
    assert (said.returncode, said.stderr) == (0, "")
    assert "populate" in said.stdout


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("broken-import 0.1", "a_library_that_nobody_has"),
        ("broken-runtime 0.2", "RuntimeError: no licence server was found"),
        ("broken-exit 0.3", "SystemExit: this plugin does not run here"),
        ("broken-hooks 0.4", "there is no hook 'synicix_model'"),
        ("broken-hooks 0.4", "Did you mean synicix_models?"),
        ("broken-hooks 0.4", "synicix_metrics is not a hook yet"),
        ("broken-hooks 0.4", "Decorate it with @hookimpl"),
        ("broken-hooks 0.4", "synicix_samplers failed"),
        ("broken-hooks 0.4", "KeyError: 'sampler table'"),
        ("broken-hooks 0.4", "which is no OptimizerProvider"),
    ],
)
def test_each_problem_is_named_with_its_plugin_and_reason(listing: dict[str, Any], plugin: str, reason: str) -> None:
    assert any(plugin in problem and reason in problem for problem in listing["problems"]), listing["problems"]


def test_what_works_in_a_broken_plugin_is_there(listing: dict[str, Any]) -> None:
    qualified = {provider["qualified"] for provider in listing["providers"]}
    assert {"broken-hooks/Readout", "lab-kit/Readout", "lab-kit/PlainTrainer", "synicix-core/NNTrainer"} <= qualified
    assert not any("NotAnOptimizer" in name for name in qualified)


def test_check_imports_every_target_and_finds_the_missing_ones(place: Workplace) -> None:
    checked = place.synicix("plugins", "list", "--check", "--json")
    assert checked.returncode == 1, checked.stderr
    problems = json.loads(checked.stdout)["problems"]
    for target, reason in (
        ("broken-hooks/LostLoss", "ModuleNotFoundError"),
        ("broken-hooks/QuittingDataset", "SystemExit: 3"),
    ):
        assert any(target in problem and reason in problem for problem in problems), problems
    assert not any("lab-kit/" in problem for problem in problems), problems


def test_a_short_name_of_two_plugins_is_an_error_that_lists_both(place: Workplace) -> None:
    ambiguous, qualified, unknown, other = place.python(RESOLVE)
    assert ambiguous.startswith("ProviderConflict")
    assert "lab-kit/Readout (lab-kit 1.2.0)" in ambiguous
    assert "broken-hooks/Readout (broken-hooks 0.4)" in ambiguous
    assert qualified == "lab-kit/Readout"
    assert unknown.startswith("ProviderNotFound")
    for name in BROKEN:
        assert name in unknown, "a broken plugin may be the one that provides it"
    assert other == "lab-kit/PlainTrainer"


def test_plugins_can_be_switched_off_before_they_are_imported(place: Workplace) -> None:
    some = place.python(RESOLVE, SYNICIX_DISABLE_PLUGINS=",".join(BROKEN))
    assert some[0] == "lab-kit/Readout"
    assert "broken" not in some[2]
    every = place.python(RESOLVE, SYNICIX_DISABLE_PLUGINS="*")
    assert "lab-kit is switched off by SYNICIX_DISABLE_PLUGINS" in every[1]


def test_strict_raises_the_first_problem(place: Workplace) -> None:
    strict = place.synicix("plugins", "list", SYNICIX_STRICT="1")
    assert strict.returncode == 1
    assert "broken-exit 0.3" in strict.stderr
    assert "Traceback" not in strict.stderr
    verbose = place.synicix("-v", "plugins", "list", SYNICIX_STRICT="1")
    assert "Traceback" in verbose.stderr
    assert 'sys.exit("this plugin does not run here")' in verbose.stderr
    lenient = {"SYNICIX_STRICT": "1", "SYNICIX_DISABLE_PLUGINS": ",".join(BROKEN)}
    assert place.synicix("plugins", "list", **lenient).returncode == 0


def test_no_command_of_a_plugin_takes_the_place_of_a_core_one(place: Workplace) -> None:
    listed = json.loads(place.synicix("plugins", "commands", "--json").stdout)["commands"]
    hidden = {item["command"]: item["hidden_by_core"] for item in listed}
    assert hidden == {"populate": True, "lab-kit-hello": False}
    said = place.synicix("populate", "--help")
    assert said.returncode == 0
    assert "--max-tasks" in said.stdout


def test_another_plugin_trains_and_the_observer_that_raises_is_switched_off(place: Workplace) -> None:
    place.python("""
import json
from synicix_core import Pipeline

pipeline = Pipeline()
[dataset] = pipeline.DatasetConfig.insert_tuples([dict(dataset_file_name="lab.npz", dataset_provider="NpzDataset")]).new
[model] = pipeline.ModelConfig.insert_tuples([dict(model_provider="lab-kit/Readout")]).new
[training] = pipeline.TrainingConfig.insert_tuples(
    [dict(trainer_provider="PlainTrainer", criterion_provider="MSELoss", epoch_limit=1)]
).new
pipeline.TrainingTask.insert_tuples([dataset | model | training])
print(json.dumps(None))
""")
    worker = place.synicix("populate")
    output = worker.stdout + worker.stderr
    assert worker.returncode == 0, output
    assert (
        output.count("synicix_task_started of broken-hooks 0.4 raised RuntimeError: this observer does not like") == 1
    )
    assert "broken-hooks saw the end" not in output
    assert "broken-hooks took the place" not in output
