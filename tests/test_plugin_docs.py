"""docs/plugins.md says what is: its tutorial runs, and its lists are those of the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from synicix_core import Place, events, hookspecs, providers
from synicix_core.cli import main as cli_main
from synicix_core.errors import PluginImportError, ProviderConflict
from synicix_core.parameters import SUPPLIED
from synicix_core.registry import Registry
from synicix_core.training.contract import Trainer
from tests import factories
from tests.third_party.fresh_environment import CORE, FreshEnvironment, temporary_folder

PAGE = (CORE / "docs" / "plugins.md").read_text()


def section(heading: str) -> str:
    """Return the text below a heading of the second level."""
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def table(text: str) -> dict[str, list[str]]:
    """Return the rows of the tables in a text: first cell, without backticks, to the others."""
    rows = re.findall(r"^\| (.+) \|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells if not first.startswith("---")}


@pytest.mark.database
@pytest.mark.slow
def test_the_tutorial_ends_in_an_installed_plugin_that_trains() -> None:
    tutorial = section("Write a plugin in ten minutes")
    files = re.findall(r"^\*\*`(.+?)`\*\*\n\n```\w+\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^```sh\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    assert (len(files), len(commands)) == (7, 3)

    # The test has no network: pip builds with the setuptools that is there.
    offline = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with temporary_folder() as folder:
        environment = FreshEnvironment.create(folder / "environment")
        environment.install(CORE)
        for name, text in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        done = environment.run("sh", "-ec", "\n".join(commands), folder=folder, **offline)
        environment.run("synicix-run", "db", "stop", folder=folder / "project")
    assert done.returncode == 0, done.stdout + done.stderr

    assert "my-lab/Bottleneck" in done.stdout
    assert "mean_responses" in done.stdout, "plugins info shows the parameters"
    ranked = re.findall(r"^[0-9a-f]{8} +(\d) +(0\.\d+) ", done.stdout, re.MULTILINE)
    assert [rank for rank, _ in ranked] == ["2", "1"], done.stdout
    assert float(ranked[0][1]) > 0.9 > float(ranked[1][1]), "rank 2 wins"


def test_every_hook_has_a_heading_with_its_signature() -> None:
    headings = re.findall(r"^### `(synicix_.+)`$", section("The hooks"), re.MULTILINE)
    hooks = [*hookspecs.PROVIDER_HOOKS.values(), "synicix_commands", "synicix_hookspecs", *hookspecs.OBSERVER_HOOKS]
    signatures = [f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "") for hook in hooks]
    assert headings == signatures


def test_no_hook_is_left_out() -> None:
    specified = [name for name, item in vars(hookspecs).items() if hasattr(item, "synicix_spec")]
    assert specified
    for name in specified:
        assert f"### `{name}(" in PAGE, name


def test_every_descriptor_field_is_listed_with_its_default() -> None:
    rows = table(section("Descriptors"))
    fields = {item.name: item for kind in providers.KINDS.values() for item in dataclasses.fields(kind)}
    assert set(rows) - {"field"} == set(fields)
    for name, item in fields.items():
        default = "required" if item.default is dataclasses.MISSING else f"`{item.default!r}`"
        assert rows[name][0] == default, name
    for kind in providers.KINDS.values():
        assert f"`{kind.__name__}`" in section("Descriptors")


def test_every_kind_of_target_is_listed_with_what_it_is_passed() -> None:
    rows = table(section("What a target must look like").split("### Datasets")[0])
    assert list(rows) == ["kind", *providers.KINDS]
    for kind, names in SUPPLIED.items():
        for name in names:
            assert f"{name}=…" in rows[kind][0], (kind, name)
    for method in ("train", "validate", "evaluate", "load_best_performing_model"):
        assert hasattr(Trainer, method)
        assert f"`{method}(" in rows["trainer"][1]


def test_every_event_is_listed_with_its_fields() -> None:
    rows = table(section("Observers"))
    common = {item.name for item in dataclasses.fields(events.TaskEvent)}
    for name in events.__all__:
        fields = {item.name for item in dataclasses.fields(getattr(events, name))} - common
        assert fields <= set(re.findall(r"`(\w+)`", rows[name][0])), name
    assert set(rows) == {"event", *events.__all__}
    for name in common:
        assert f"`{name}`" in section("Observers")


def test_the_problems_are_worded_as_the_page_words_them() -> None:
    page = [phrase for phrase in table(section("When something does not work")) if phrase != "what you see"]
    registry = _broken_registry()
    said = [str(problem) for problem in registry.problems]
    with pytest.raises(ProviderConflict) as conflict:
        registry.resolve("model", "Net")
    with pytest.raises(PluginImportError) as missing:
        registry.resolve("model", "e/Net").load()
    said += [str(conflict.value), str(missing.value)]
    unsaid = [phrase for phrase in page if not any(phrase in message for message in said)]
    assert unsaid == ["the plugin is not listed", "variable", "SYNICIX_DISABLE_PLUGINS", "SYNICIX_STRICT"], said


def test_the_variables_are_those_that_the_registry_reads() -> None:
    source = inspect.getsource(Registry.discover)
    read = set(re.findall(r'"(SYNICIX_\w+)"', source))
    listed = set(re.findall(r"^\| `(SYNICIX_\w+)` \|", section("When something does not work"), re.MULTILINE))
    assert read == listed


@pytest.mark.database
def test_the_command_of_the_page_works_on_the_project(project: Path) -> None:
    [source] = [text for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "def lab_report" in text]
    names: dict[str, Any] = {}
    exec(source, names)
    assert CliRunner().invoke(cli_main.cli, ["init"]).exit_code == 0

    def run() -> Result:
        return CliRunner().invoke(names["lab_report"], obj=Place())

    assert run().output == "Training: 0 tasks pending, 0 finished\n"
    (project / "synicix.toml").write_text('[plugins.My_Lab]\ntitle = "Autumn"\n')
    assert run().output == "Autumn: 0 tasks pending, 0 finished\n"
    (project / "synicix.toml").write_text("[plugins.my-lab]\ntitle = 3\n")
    assert "(plugins.my-lab.title): it must be a text" in str(run().exception)


def test_the_hooks_of_the_page_s_own_plugin_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    specification, declaration = (
        next(
            text
            for text in re.findall(r"^```python\n(.*?)^```$", section("Hooks of your own"), re.M | re.S)
            if word in text
        )
        for word in ("def my_lab_stimuli", "def synicix_hookspecs")
    )
    specs = ModuleType("my_lab.hookspecs")
    exec(specification, vars(specs))
    namespace: dict[str, Any] = {}
    exec(declaration, namespace)
    monkeypatch.setitem(sys.modules, "my_lab", package := ModuleType("my_lab"))
    package.hookspecs = specs  # type: ignore[attr-defined] # a module takes any attribute
    found = factories.registry(
        factories.plugin("my-lab", synicix_hookspecs=namespace["synicix_hookspecs"]),
        factories.plugin("art", my_lab_stimuli=hookspecs.hookimpl(lambda: ["gratings"])),
    )
    assert not found.problems
    assert [(plugin.distribution, item) for plugin, item in found.collect("my_lab_stimuli")] == [("art", "gratings")]


def _broken_registry() -> Registry:
    def failing() -> None:
        raise RuntimeError("no")

    def mistaken() -> list[providers.Provider]:
        return [providers.CriterionProvider("Loss", target="math:fsum")]

    def undecorated() -> None:
        """Lack the decorator."""

    undecorated.__module__ = "d.hooks"
    twice = [providers.ModelProvider("Net", target="no_such_module:b"), providers.ModelProvider("Net", target="c:d")]
    return factories.registry(
        factories.plugin("a", raises=ImportError("no")),
        factories.plugin("b", synicix_model=hookspecs.hookimpl(mistaken)),
        factories.plugin("c", synicix_optimizers=hookspecs.hookimpl(mistaken)),
        factories.plugin("d", synicix_metrics=undecorated),
        factories.plugin("e", *twice),
        factories.plugin("g", providers.ModelProvider("Net", target="e:f")),
        factories.plugin("f", synicix_samplers=hookspecs.hookimpl(failing)),
    )
