"""Find the installed plugins and turn the names that rows hold into providers."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synicix_core import hookspecs
from synicix_core.errors import (
    PluginImportError,
    PluginValidationError,
    ProviderConflict,
    ProviderNotFound,
)
from synicix_core.plugin_loading import CORE, LoadedPlugins, Plugin, Problem, normalise, one_line
from synicix_core.providers import KINDS, Provider

if TYPE_CHECKING:
    import click

__all__ = ["CORE", "Observer", "Plugin", "Problem", "Registered", "Registry", "get_registry"]


@dataclass(frozen=True)
class Registered:
    """One provider and where it comes from."""

    provider: Provider
    distribution: str
    distribution_version: str
    entry_point: str

    @property
    def kind(self) -> str:
        """``dataset``, ``model``, ``sampler``, ``trainer``, ``optimizer``, ``criterion`` or ``metric``."""
        return self.provider.kind

    @property
    def name(self) -> str:
        """The short name."""
        return self.provider.name

    @property
    def qualified(self) -> str:
        """The name that rows hold: ``distribution/Name``, with ``@N`` from version 2 on."""
        suffix = f"@{self.provider.version}" if self.provider.version > 1 else ""
        return f"{self.distribution}/{self.name}{suffix}"

    @property
    def target(self) -> str:
        """The target as text, without importing it."""
        return _target_text(self.provider.target)

    def load(self) -> Any:
        """Import the target and return it.

        Raises
        ------
        PluginImportError
            If its module cannot be imported or has no such attribute.
        """
        return self._load(self.provider.target)

    def load_params(self) -> Any:
        """Return the dataclass that describes the parameters, or None where the target's signature does."""
        return self._load(self.provider.params) if self.provider.params is not None else None

    def source_file(self) -> Path | None:
        """Return the file that defines the target, or None where there is none (a built-in)."""
        try:
            return Path(inspect.getfile(inspect.unwrap(self.load()))).resolve()
        except TypeError:
            return None

    def _load(self, reference: Any) -> Any:
        if not isinstance(reference, str):
            return reference
        try:
            return _import_reference(reference)
        except (Exception, SystemExit) as error:
            raise PluginImportError(
                f"the {self.kind} {self.name!r} cannot be loaded",
                distribution=self.distribution,
                version=self.distribution_version,
                entry_point=self.entry_point,
                why=f"importing {reference} raised {one_line(error)}",
                hint=f"Run: synicix-run plugins info {self.qualified}",
            ) from error


@dataclass(frozen=True)
class Observer:
    """One observer hook implementation of a plugin."""

    plugin: Plugin
    function: Callable[..., Any]


class Registry:
    """The plugins that are installed, what they provide, and what is wrong with them.

    Parameters
    ----------
    entry_points : iterable of importlib_metadata.EntryPoint, optional
        Where to look instead of the environment.
    disabled : str
        Distributions to skip before they are imported, separated by commas; ``*`` skips all but the core.
    """

    def __init__(self, entry_points: Iterable[Any] | None = None, disabled: str = "") -> None:
        self._loaded = LoadedPlugins(entry_points, disabled)
        self._providers: dict[tuple[str, str], list[Registered]] = {}
        self._stored: dict[tuple[str, str], Registered] = {}
        self._commands: list[tuple[Plugin, click.Command]] | None = None
        for kind, hook in hookspecs.PROVIDER_HOOKS.items():
            for plugin, provider in self._loaded.call(hook):
                self._add(plugin, kind, provider)

    @classmethod
    def discover(cls) -> Registry:
        """Load the plugins of this environment.

        ``SYNICIX_DISABLE_PLUGINS`` names distributions to skip; ``SYNICIX_STRICT=1`` raises the first problem.
        """
        registry = cls(disabled=os.environ.get("SYNICIX_DISABLE_PLUGINS", ""))
        if registry.problems and os.environ.get("SYNICIX_STRICT", "") not in ("", "0"):
            raise registry.problems[0].error
        return registry

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that were loaded, sorted by distribution."""
        return tuple(self._loaded.plugins.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with installed plugins."""
        return tuple(self._loaded.problems)

    def providers(self, kind: str | None = None) -> tuple[Registered, ...]:
        """Return the providers of one kind, or of all, sorted by kind, distribution, name and version."""
        order = list(KINDS)
        found = [entry for entries in self._providers.values() for entry in entries]
        found = [entry for entry in found if kind in (None, entry.kind)]
        return tuple(
            sorted(
                found,
                key=lambda e: (order.index(e.kind), e.distribution != CORE, e.distribution, e.name, e.provider.version),
            )
        )

    def resolve(self, kind: str, name: str) -> Registered:
        """Return the provider that somebody means who types `name`.

        Parameters
        ----------
        kind : str
            One of the kinds of provider.
        name : str
            A short name or an old one (``SimpleMLP``), or a qualified one (``synicix-mlp/SimpleMLP``, ``…@2``). Without
            ``@N`` the newest version that is installed is meant.

        Raises
        ------
        ProviderNotFound
            If no plugin provides it.
        ProviderConflict
            If several distributions do.
        """
        distribution, short, version = _parse(name)
        matches = self._matches(kind, distribution, short)
        if version is not None:
            matches = [entry for entry in matches if entry.provider.version == version]
        newest: dict[str, Registered] = {}
        for entry in matches:
            held = newest.get(entry.distribution)
            if held is None or entry.provider.version > held.provider.version:
                newest[entry.distribution] = entry
        if not newest:
            raise self._not_found(kind, name)
        if len(newest) > 1:
            raise _conflict(kind, name, list(newest.values()))
        return next(iter(newest.values()))

    def resolve_stored(self, kind: str, stored: str) -> Registered:
        """Return the provider that a row names, in the very version that the row means.

        Raises
        ------
        ProviderNotFound
            If the distribution is not installed, does not provide the name, or only in another version.
        """
        if (known := self._stored.get((kind, stored))) is not None:
            return known
        distribution, short, version = _parse(stored)
        wanted = version or 1
        matches = self._matches(kind, distribution, short)
        for entry in matches:
            if entry.provider.version == wanted:
                return self._stored.setdefault((kind, stored), entry)
        if matches:
            installed = ", ".join(str(entry.provider.version) for entry in matches)
            raise ProviderNotFound(
                f"the row means version {wanted} of the {kind} {distribution}/{short}",
                kind=kind,
                name=stored,
                why=f"{distribution} {matches[0].distribution_version} provides version {installed}",
                hint=f"Install the {distribution} that provides version {wanted}, or add a config with the present version.",
            )
        raise self._not_found(kind, stored)

    def observers(self, hook: str) -> tuple[Observer, ...]:
        """Return the implementations of one observer hook, sorted by distribution."""
        return tuple(Observer(plugin, function) for plugin, function in self._loaded.implementations(hook))

    def commands(self) -> list[tuple[Plugin, click.Command]]:
        """Return the click commands that plugins add; one of a name that another plugin has is a problem and left out."""
        if self._commands is None:
            self._commands = list(self._collect_commands())
        return self._commands

    def collect(self, hook: str) -> list[tuple[Plugin, Any]]:
        """Return what the implementations of a plugin's own hook yield, sorted by distribution.

        One that raises is a problem, and the others are collected.

        Parameters
        ----------
        hook : str
            Name of a hook that a plugin declared with `synicix_hookspecs`.

        Raises
        ------
        ValueError
            If no installed plugin declares such a hook.
        """
        return self._loaded.collect(hook)

    @property
    def disabled(self) -> tuple[str, ...]:
        """Distributions that were skipped before they were imported."""
        return self._loaded.disabled

    def _collect_commands(self) -> Iterator[tuple[Plugin, click.Command]]:
        import click

        taken: dict[str, Plugin] = {}
        for plugin, command in self._loaded.call("synicix_commands"):
            if not isinstance(command, click.Command) or not command.name:
                self._loaded.problem(
                    PluginValidationError,
                    plugin,
                    f"synicix_commands yielded {command!r}, which is no named click command",
                )
            elif command.name in taken:
                owner = taken[command.name].distribution
                self._loaded.problem(
                    PluginValidationError, plugin, f"the command {command.name!r} is provided by {owner} already"
                )
            else:
                taken[command.name] = plugin
                yield plugin, command

    def _add(self, plugin: Plugin, kind: str, provider: Any) -> None:
        hook = hookspecs.PROVIDER_HOOKS[kind]
        if type(provider) is not KINDS[kind]:
            what = f"{hook} yielded {provider!r}, which is no {KINDS[kind].__name__}"
            self._loaded.problem(PluginValidationError, plugin, what)
            return
        held = self._providers.setdefault((kind, plugin.distribution), [])
        for other in held:
            same_version = other.provider.version == provider.version
            if same_version and {provider.name, *provider.aliases} & {other.name, *other.provider.aliases}:
                what = f"the {kind} {provider.name!r} is declared twice; {other.target} is used, not {_target_text(provider.target)}"
                self._loaded.problem(PluginValidationError, plugin, what)
                return
        held.append(Registered(provider, plugin.distribution, plugin.version, plugin.entry_point))

    def _matches(self, kind: str, distribution: str | None, short: str) -> list[Registered]:
        entries = [e for e in self.providers(kind) if distribution in (None, e.distribution)]
        named = [e for e in entries if e.name == short]
        return named or [e for e in entries if short in e.provider.aliases]

    def _not_found(self, kind: str, name: str) -> ProviderNotFound:
        distribution, short, _ = _parse(name)
        entries = self.providers(kind)
        installed = {plugin.distribution for plugin in self.plugins}
        why, hints, commands = "", [], []
        broken = [p for p in self._loaded.problems if distribution in (None, p.distribution)]
        if distribution is not None and distribution not in installed:
            why = "" if broken else f"the distribution {distribution} is not installed"
            if distribution in self.disabled:
                why = f"{distribution} is switched off by SYNICIX_DISABLE_PLUGINS"
            elif not broken:
                commands.append(f"Run: pip install {distribution}")
        elif "." in name and distribution is None and not _close(short, entries):
            hints.append(
                f"Only installed plugins can be named, never a module. To use {name}, make a plugin of it: a package with the "
                f"entry point [project.entry-points.synicix] and a hook that yields "
                f'{KINDS[kind].__name__}("{name.rsplit(".", 1)[-1]}", target="{":".join(name.rsplit(".", 1))}").'
            )
        suggestions = _close(short, entries)
        if suggestions:
            hints.insert(0, "Did you mean " + " or ".join(suggestions) + "?")
        other = [e.kind for e in self.providers() if e.kind != kind and short == e.name]
        if other:
            hints.append(f"There is {_article(other[0])} of that name.")
        if broken:
            hints.append("A plugin that does not work may provide it: " + "; ".join(str(problem) for problem in broken))
        if not hints and not commands:
            commands.append(f"Run: synicix-run plugins list --kind {kind}")
        return ProviderNotFound(
            f"no installed plugin provides {_article(kind)} named {name!r}",
            kind=kind,
            name=name,
            suggestions=suggestions,
            why=why,
            hint=" ".join(hints + commands),
        )


@functools.cache
def get_registry() -> Registry:
    """Return the registry of this process; the environment is scanned once."""
    return Registry.discover()


def _parse(name: str) -> tuple[str | None, str, int | None]:
    head, slash, tail = name.partition("/")
    distribution, rest = (normalise(head), tail) if slash else (None, head)
    short, at, number = rest.rpartition("@")
    if at and number.isdigit():
        return distribution, short, int(number)
    return distribution, rest, None


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "optimizer" else f"a {kind}"


def _close(short: str, entries: Iterable[Registered]) -> list[str]:
    names: dict[str, str] = {}
    for entry in entries:
        for name in (entry.name, *entry.provider.aliases):
            names[name.lower()] = f"{entry.name} ({entry.distribution} {entry.distribution_version})"
    return list(dict.fromkeys(names[near] for near in difflib.get_close_matches(short.lower(), names, 2, 0.6)))


def _conflict(kind: str, name: str, entries: list[Registered]) -> ProviderConflict:
    listed = ", ".join(f"{e.qualified} ({e.distribution} {e.distribution_version})" for e in entries)
    return ProviderConflict(
        f"the {kind} {name!r} is provided by several plugins",
        kind=kind,
        name=name,
        candidates=[e.qualified for e in entries],
        why=listed,
        hint=f"Name the one you mean, such as {entries[0].qualified}.",
    )


def _target_text(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{getattr(target, '__qualname__', target)}"


def _import_reference(reference: str) -> Any:
    module, _, attributes = reference.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
