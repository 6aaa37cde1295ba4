"""Which command a word means, and what is said when something goes wrong."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from datajoint import errors

from synicix_core import hookimpl
from synicix_core.cli import main
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from tests.cli.conftest import as_program
from tests.factories import plugin, registry


@pytest.fixture
def plugins(monkeypatch):
    """Have these plugins installed, and nothing else."""

    def install(*entry_points):
        found = registry(*entry_points)
        monkeypatch.setattr("synicix_core.registry.get_registry", lambda: found)
        main._plugin_commands.cache_clear()

    yield install
    main._plugin_commands.cache_clear()


def commands(*names):
    def synicix_commands():
        for name in names:

            @click.command(name)
            def command():
                """Say hello."""
                click.echo("hello")

            yield command

    return hookimpl(synicix_commands)


def raising(error, monkeypatch):
    """Have `synicix-run status` raise."""
    monkeypatch.setattr("synicix_core.settings.load_settings", lambda *_, **__: (_ for _ in ()).throw(error))


def test_help_says_where_the_commands_of_plugins_are(run):
    text = run("--help").stdout
    assert "synicix-run plugins commands" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "..." not in text.partition("Commands:")[2]


def test_an_unknown_word_is_looked_up_among_plugins(run, plugins):
    plugins(plugin("lab-kit", synicix_commands=commands("wave")))
    assert run("wave").stdout == "hello\n"


def test_global_options_may_stand_behind_the_commands_of_plugins(run, plugins):
    @click.group()
    def lab() -> None: ...

    @lab.command()
    @click.option("-v", "--volume", type=int, default=1)
    @click.pass_obj
    def loud(place, volume):
        click.echo(f"{place.directory} {volume}")

    @lab.command()
    @click.pass_obj
    def plain(place):
        click.echo(place.verbose)

    plugins(plugin("lab-kit", synicix_commands=hookimpl(lambda: [lab])))
    assert run("lab", "loud", "--project", "x", "-v", "3").stdout == "x 3\n"
    assert run("lab", "plain", "-v").stdout == "True\n"


def test_a_plugin_never_shadows_the_core(run, plugins):
    plugins(plugin("lab-kit", synicix_commands=commands("status", "wave")))
    assert "Say hello" not in run("status", "--help").stdout
    assert "the core has a command of that name" in run("plugins", "commands").stdout


def test_a_misspelt_command_gets_a_suggestion_and_the_broken_plugins(run, plugins):
    broken = plugin("broken-kit", raises=ImportError("no module named waves"))
    plugins(plugin("lab-kit", synicix_commands=commands("wave")), broken)
    text = run("wavee", code=2).stderr
    assert "There is no command 'wavee'. Did you mean wave?" in text
    assert "broken-kit 1.0" in text and "no module named waves" in text
    assert "Did you mean populate?" in run("popluate", code=2).stderr


def test_an_experiment_file_in_the_place_of_a_command(run):
    assert "run: synicix-run add sweep.toml" in run("sweep.toml", code=2).stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            ConfigurationError("the schema is odd", hint="Run: synicix-run init"),
            2,
            "Error: the schema is odd. Run: synicix-run init\n",
        ),
        (DatabaseUnavailable("The database is away"), 1, "Error: The database is away.\n"),
        (
            RuntimeError("two\nlines"),
            1,
            "Error: unexpected RuntimeError: two lines. To see where it happened, put -v behind synicix-run.\n",
        ),
        (PermissionError(13, "Permission denied", "/models"), 1, "Error: Permission denied (/models). To see where"),
        (errors.AccessError("Insufficient privileges.", "denied for table x\n", ""), 2, "denied for table x. To see"),
        (errors.QuerySyntaxError("near it\n", ""), 1, "said no (QuerySyntaxError): near it. To see where"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.ClickException("a plugin's own"), 1, "Error: a plugin's own"),
    ],
)
def test_an_error_is_one_paragraph_and_its_exit_code(run, monkeypatch, error, code, text):
    raising(error, monkeypatch)
    result = run("status", code=code)
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("-v", "status"), ("status", "-v"), ("status", "--verbose")])
def test_only_verbose_shows_the_traceback(run, monkeypatch, arguments):
    raising(RuntimeError("deep down"), monkeypatch)
    text = run(*arguments, code=1).stderr
    assert "Traceback" in text and "Error: unexpected RuntimeError: deep down." in text
    assert "put -v" not in text


def test_what_a_command_returns_is_no_exit_code(run, plugins):
    @click.command("seven")
    def seven():
        return 7

    plugins(plugin("lab-kit", synicix_commands=hookimpl(lambda: [seven])))
    run("seven")


def test_a_mistaken_option_is_exit_code_2(run):
    assert "No such option '--jso'" in run("status", "--jso", code=2).stderr


def test_no_project_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run("status", code=2).stderr
    assert "There is no Synicix project here" in text and "synicix-run init" in text


def test_another_project_is_named_before_or_behind_the_command(run, tmp_path):
    for arguments in (["--project", str(tmp_path), "status"], ["status", "--project", str(tmp_path)]):
        assert str(tmp_path) in run(*arguments, code=2).stderr


def test_errors_have_no_colour_where_nobody_sees_it(tmp_path):
    done = as_program("status", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: There is no Synicix project here") and "\x1b" not in done.stderr


def test_completion_of_the_shell_lists_commands(monkeypatch):
    environment = {"_SYNICIX_RUN_COMPLETE": "bash_complete", "COMP_WORDS": "synicix-run popu", "COMP_CWORD": "1"}
    result = CliRunner(env=environment).invoke(main.cli, [], prog_name="synicix-run")
    assert "populate" in result.stdout
