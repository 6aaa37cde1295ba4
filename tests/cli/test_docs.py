"""docs/commands.md has every command and option, and no other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from synicix_core.cli.main import COMMANDS, cli
from synicix_core.settings import Settings, WorkerSettings, create_project

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {each}": part for each, part in command.commands.items()}
        else:
            found[name] = command
    return found


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]


def test_every_command_has_its_section_and_every_section_its_command():
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(commands())


def test_the_global_options_are_on_the_page():
    top = PAGE.partition("\n## ")[0]
    for parameter in cli.params:
        assert all(f"`{option}" in top or f"{option}`" in top for option in parameter.opts), parameter.name


@pytest.mark.parametrize("name", list(commands()))
def test_a_section_has_every_option_and_no_other(name):
    options = {
        option for parameter in commands()[name].params if not getattr(parameter, "hidden", False)
        for option in (parameter.opts if isinstance(parameter, click.Option) else [])
    }  # fmt: skip
    rows = [line for line in section(name).splitlines() if line.startswith("| `-")]
    written = {word for row in rows for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row.split(" | ")[0])}
    assert written == options


def test_options_of_a_worker_name_their_settings_and_the_defaults(tmp_path):
    settings = create_project(tmp_path)
    rows = [line for line in section("populate").splitlines() if line.startswith("| `-")]
    named = 0
    for parameter in commands()["populate"].params:
        worker = parameter.name.removeprefix("worker_")
        if worker != parameter.name:
            key, value = f"worker.{worker}", getattr(settings.worker, worker)
        elif parameter.name in Settings.__dataclass_fields__:
            key, value = parameter.name, getattr(settings, parameter.name)
        else:
            continue
        value = str(value.relative_to(tmp_path)) if isinstance(value, Path) else value
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}"
        [row] = [row for row in rows if re.search(rf"`{parameter.opts[0]}[ `]", row.split(" | ")[0])]
        assert f"`{key}`, {shown}" in row, row
        named += 1
    assert named == len(WorkerSettings.__dataclass_fields__) + 5


def test_other_defaults_of_a_worker_are_named():
    defaults = {
        parameter.opts[0]: parameter.default for parameter in commands()["populate"].params
        if isinstance(parameter.default, str)
    }  # fmt: skip
    assert defaults == {"--device": "auto", "--order": "original"}
    for option, default in defaults.items():
        assert re.search(rf"^\| `{option} .*`{default}`, the default", section("populate"), re.MULTILINE)


@pytest.mark.parametrize("name", list(commands()))
def test_the_example_of_a_section_can_be_parsed(name):
    example = section(name).partition("```\n")[2].partition("\n```")[0]
    program, *words = shlex.split(example)
    assert program == "synicix-run" and words[: len(name.split())] == name.split()
    arguments = words[len(name.split()) :]
    if name in ("add", "check"):
        # The file of the example is not there; everything else about it is checked.
        arguments[0] = __file__
    commands()[name].make_context(name, arguments)
