"""`--help` and `--version` are cheap, whatever is installed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import click
import pytest

from synicix_core.cli.main import COMMANDS, cli

HEAVY = {"torch", "datajoint", "numpy", "pandas", "pydantic", "h5py", "importlib_metadata"}


def modules_after(*arguments: str) -> set[str]:
    script = (
        "import sys, json\nfrom synicix_core.cli.main import main\nsys.argv[0] = 'synicix-run'\ntry:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("populate", "--help"), ("results", "--help"), ("db", "--help")]
)
def test_help_loads_nothing_heavy_and_no_plugin(arguments):
    loaded = modules_after(*arguments)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not {name.partition(".")[0] for name in loaded} & {"synicix_mlp", "synicix_neurodata", "toy_lab"}
    assert "synicix_core.registry" not in loaded


def test_help_imports_no_command():
    commands = {f"synicix_core.cli.{name}" for name in COMMANDS}
    assert not modules_after("--help") & commands


def test_listing_plugins_imports_no_target():
    loaded = modules_after("plugins", "list")
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY - {"importlib_metadata"})
    assert "synicix_mlp.model" not in loaded


def test_every_command_is_listed_with_the_first_sentence_of_its_help():
    ctx = click.Context(cli)
    for name, sentence in COMMANDS.items():
        command = cli.get_command(ctx, name)
        assert command is not None and command.name == name
        assert command.get_short_help_str(200) == sentence


def test_every_command_takes_the_global_options():
    ctx = click.Context(cli)
    wanted = {"--project", "--schema", "--verbose"}
    for name in COMMANDS:
        command = cli.get_command(ctx, name)
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            assert wanted <= {option for parameter in each.params for option in parameter.opts}, each.name


def test_the_installed_program_is_this_one():
    pyproject = importlib.import_module("importlib.metadata").entry_points(group="console_scripts", name="synicix-run")
    assert [entry.value for entry in pyproject] == ["synicix_core.cli.main:main"]
