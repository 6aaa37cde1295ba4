"""`synicix-run plugins`: what is installed, what is wrong with it, and what one provider takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, json_option
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count
from synicix_core.providers import KINDS

if TYPE_CHECKING:
    from synicix_core.parameters import Signature
    from synicix_core.registry import Registered, Registry

__all__ = ["plugins"]


@click.group()
def plugins() -> None:
    """Show the installed plugins."""


@plugins.command("list", cls=Command)
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only providers of this kind.")
@click.option("--check", is_flag=True, help="Import every target, and end with 1 if anything is wrong.")
@json_option
def list_(kind: str | None, check: bool, as_json: bool) -> None:
    """List every provider, and every plugin that does not work."""
    from synicix_core.registry import get_registry

    registry = get_registry()
    providers = registry.providers(kind)
    problems = [str(problem) for problem in registry.problems]
    if check:
        problems += [error for registered in providers if (error := _import_error(registered))]
    if as_json:
        print_json(
            {
                "providers": [_summary(registered) for registered in providers],
                "problems": problems,
                "disabled": registry.disabled,
            }
        )
    else:
        click.echo(_listing(providers))
        if registry.disabled:
            click.echo(f"\nSwitched off by SYNICIX_DISABLE_PLUGINS: {', '.join(registry.disabled)}")
        if problems:
            click.echo(f"\n{count(len(problems), 'problem')}:")
            for problem in problems:
                click.echo(f"  {problem}")
        elif check:
            click.echo("\nEvery target can be imported.")
    if check and problems:
        click.get_current_context().exit(1)


@plugins.command(cls=Command)
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Which one, where several kinds have the name.")
@json_option
def info(name: str, kind: str | None, as_json: bool) -> None:
    """Show everything about one provider: parameters, origin and source."""
    from synicix_core.parameters import describe
    from synicix_core.registry import get_registry

    registered = _resolve(get_registry(), name, kind)
    signature = describe(registered)
    facts = _summary(registered) | {
        "aliases": registered.provider.aliases,
        "neutral": registered.provider.neutral,
        "entry_point": registered.entry_point,
        "target": registered.target,
        "source": registered.source_file(),
        "accepts_any": signature.accepts_any,
        "parameters": _parameters(signature),
    }
    if as_json:
        print_json(facts)
    else:
        _show(facts, registered)


@plugins.command(cls=Command)
@json_option
def commands(as_json: bool) -> None:
    """List the commands that plugins add to synicix-run."""
    from synicix_core.cli.main import COMMANDS
    from synicix_core.registry import get_registry

    registry = get_registry()
    found = [
        {
            "command": command.name or "",
            "distribution": plugin.distribution,
            "version": plugin.version,
            "help": command.get_short_help_str(120),
            "hidden_by_core": command.name in COMMANDS,
        }
        for plugin, command in registry.commands()
    ]
    problems = [str(problem) for problem in registry.problems]
    if as_json:
        print_json({"commands": found, "problems": problems})
        return
    if found:
        rows = [[str(item["command"]), f"{item['distribution']} {item['version']}", _what(item)] for item in found]
        click.echo(format_table(["command", "plugin", ""], rows, width=fit_width()))
    else:
        click.echo("No plugin adds a command.")
    for problem in problems:
        click.echo(f"problem: {problem}")


def _what(item: dict[str, Any]) -> str:
    return "cannot be used: the core has a command of that name" if item["hidden_by_core"] else str(item["help"])


def _summary(registered: Registered) -> dict[str, Any]:
    return {
        "kind": registered.kind,
        "name": registered.name,
        "qualified": registered.qualified,
        "version": registered.provider.version,
        "distribution": registered.distribution,
        "distribution_version": registered.distribution_version,
        "summary": registered.provider.summary,
    }


def _listing(providers: Sequence[Registered]) -> str:
    if not providers:
        return "No provider."
    rows = [[r.kind, r.qualified, r.distribution_version, r.provider.summary] for r in providers]
    header = ["kind", "provider", "version", "summary"]
    return format_table(header, rows, width=fit_width())


def _import_error(registered: Registered) -> str:
    from synicix_core.errors import PluginImportError

    try:
        registered.load()
        registered.load_params()
    except PluginImportError as error:
        return f"{registered.qualified}: {error}"
    return ""


def _resolve(registry: Registry, name: str, kind: str | None) -> Registered:
    """Find a provider by name alone, of whatever kind it is."""
    from synicix_core.errors import ProviderConflict, ProviderNotFound

    if kind is not None:
        return registry.resolve(kind, name)
    found, missing = [], []
    for each in KINDS:
        try:
            found.append(registry.resolve(each, name))
        except ProviderNotFound as error:
            missing.append(error)
    if len(found) == 1:
        return found[0]
    if found:
        raise ProviderConflict(
            f"several kinds of provider are called {name!r}",
            kind="provider",
            name=name,
            candidates=[registered.qualified for registered in found],
            why=", ".join(f"{registered.kind} {registered.qualified}" for registered in found),
            hint=f"Say which one you mean: --kind {found[0].kind}",
        )
    near = next((error for error in missing if error.suggestions), None)
    raise near or ProviderNotFound(
        f"no installed plugin provides {name!r}", kind="provider", name=name, hint="Run: synicix-run plugins list"
    )


def _parameters(signature: Signature) -> list[dict[str, Any]]:
    return [
        {
            "name": parameter.name,
            "type": parameter.type_text or None,
            "required": parameter.required,
            "default": None if parameter.required else parameter.default,
        }
        for parameter in signature.parameters
    ]


def _show(facts: dict[str, Any], registered: Registered) -> None:
    click.echo(f"{facts['kind']} {facts['qualified']}")
    if facts["summary"]:
        click.echo(facts["summary"])
    lines = {
        "plugin": f"{facts['distribution']} {facts['distribution_version']} (entry point {facts['entry_point']})",
        "target": facts["target"],
        "source": facts["source"] or "built in",
        "aliases": ", ".join(facts["aliases"]),
        "neutral": ", ".join(facts["neutral"]),
    }
    if registered.kind == "metric":
        lines["better"] = "higher" if registered.provider.higher_is_better else "lower"  # type: ignore[attr-defined]
    click.echo("")
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<8} {text}")
    click.echo("")
    if facts["parameters"]:
        rows = [
            [item["name"], item["type"] or "", "required" if item["required"] else repr(item["default"])]
            for item in facts["parameters"]
        ]
        click.echo(format_table(["parameter", "type", "default"], rows, left=("default",), width=fit_width()))
    if facts["accepts_any"]:
        click.echo("It takes any other parameter, too.")
    elif not facts["parameters"]:
        click.echo("It has no parameters.")
