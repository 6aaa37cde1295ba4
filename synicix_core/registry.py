"""Find the installed plugins and turn the names that rows hold into providers."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import importlib_metadata
import pluggy

from synicix_core import hookspecs
from synicix_core.errors import (
    PluginError,
    PluginHookError,
    PluginImportError,
    PluginValidationError,
    ProviderConflict,
    ProviderNotFound,
)
from synicix_core.providers import KINDS, Provider

if TYPE_CHECKING:
    import click

__all__ = ["CORE", "Observer", "Plugin", "Problem", "Registered", "Registry", "get_registry"]

GROUP = "synicix"
CORE = "synicix-core"


@dataclass(frozen=True)
class Problem:
    """A plugin, or a part of one, that does not work."""

    distribution: str
    version: str
    entry_point: str
    error: PluginError

    def __str__(self) -> str:
        return str(self.error)


@dataclass(frozen=True)
class Plugin:
    """An entry point whose hook module was loaded."""

    distribution: str
    version: str
    entry_point: str
    module: str

    @property
    def label(self) -> str:
        """Name under which pluggy knows it."""
        return f"{self.distribution}[{self.entry_point}]"


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
                why=f"importing {reference} raised {_one_line(error)}",
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
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        self._problems: list[Problem] = []
        self._providers: dict[tuple[str, str], list[Registered]] = {}
        self._stored: dict[tuple[str, str], Registered] = {}
        self._commands: list[tuple[Plugin, click.Command]] | None = None
        self.disabled: tuple[str, ...] = ()
        self._load_plugins(_scan() if entry_points is None else entry_points, disabled)
        for kind, hook in hookspecs.PROVIDER_HOOKS.items():
            for plugin, provider in self._call(hook):
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
        return tuple(self._plugins.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with installed plugins."""
        return tuple(self._problems)

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
        return tuple(Observer(plugin, function) for plugin, function in self._implementations(hook))

    def commands(self) -> list[tuple[Plugin, click.Command]]:
        """Return the click commands that plugins add; one of a name that another plugin has is a problem and left out."""
        if self._commands is None:
            self._commands = list(self._collect_commands())
        return self._commands

    def _collect_commands(self) -> Iterator[tuple[Plugin, click.Command]]:
        import click

        taken: dict[str, Plugin] = {}
        for plugin, command in self._call("synicix_commands"):
            if not isinstance(command, click.Command) or not command.name:
                self._problem(
                    PluginValidationError,
                    plugin,
                    f"synicix_commands yielded {command!r}, which is no named click command",
                )
            elif command.name in taken:
                owner = taken[command.name].distribution
                self._problem(
                    PluginValidationError, plugin, f"the command {command.name!r} is provided by {owner} already"
                )
            else:
                taken[command.name] = plugin
                yield plugin, command

    def _load_plugins(self, entry_points: Iterable[Any], disabled: str) -> None:
        skip = {_normalise(name) for name in disabled.split(",") if name.strip()}
        seen: set[tuple[str, str, str]] = set()
        skipped = []
        for entry_point in sorted(entry_points, key=_order):
            distribution = _normalise(entry_point.dist.name)
            identity = (distribution, entry_point.name, entry_point.value)
            if identity in seen:
                continue
            seen.add(identity)
            if distribution != CORE and (distribution in skip or "*" in skip):
                skipped.append(distribution)
                continue
            self._load_plugin(
                Plugin(distribution, entry_point.dist.version, entry_point.name, entry_point.value), entry_point
            )
        self.disabled = tuple(dict.fromkeys(skipped))

    def _load_plugin(self, plugin: Plugin, entry_point: Any) -> None:
        try:
            module = entry_point.load()
        except (Exception, SystemExit) as error:
            why = f"importing {plugin.module} raised {_one_line(error)}"
            self._problem(PluginImportError, plugin, "the plugin cannot be imported", why, cause=error)
            return
        try:
            self._manager.register(module, name=plugin.label)
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(plugin.label):
                self._manager.unregister(name=plugin.label)
            self._problem(
                PluginValidationError, plugin, "the plugin cannot be registered", _one_line(error), cause=error
            )
            return
        self._plugins[plugin.label] = plugin
        self._find_misspelt_hooks(plugin, module)

    def _find_misspelt_hooks(self, plugin: Plugin, module: Any) -> None:
        known = [*hookspecs.PROVIDER_HOOKS.values(), *hookspecs.OBSERVER_HOOKS, "synicix_commands"]
        for name in dir(module):
            function = getattr(module, name, None)
            marked = hasattr(function, f"{hookspecs.PROJECT}_impl")
            if marked and name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.4)
                hint = f"Did you mean {near[0]}?" if near else "Hooks are: " + ", ".join(known)
                self._problem(PluginValidationError, plugin, f"there is no hook {name!r}", hint=hint)
            elif (
                not marked and name in known and inspect.isfunction(function) and function.__module__ == module.__name__
            ):
                self._problem(
                    PluginValidationError, plugin, f"{name} is not a hook yet", hint="Decorate it with @hookimpl."
                )

    def _implementations(self, hook: str) -> Iterator[tuple[Plugin, Callable[..., Any]]]:
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda impl: impl.plugin_name):
            plugin = self._plugins.get(implementation.plugin_name)
            if plugin is not None:
                yield plugin, implementation.function

    def _call(self, hook: str) -> Iterator[tuple[Plugin, Any]]:
        """Call the implementations one by one, so that one that raises leaves the others alone."""
        for plugin, function in self._implementations(hook):
            try:
                items = list(function())
            except (Exception, SystemExit) as error:
                self._problem(PluginHookError, plugin, f"{hook} failed", f"it raised {_one_line(error)}", cause=error)
                continue
            for item in items:
                yield plugin, item

    def _add(self, plugin: Plugin, kind: str, provider: Any) -> None:
        hook = hookspecs.PROVIDER_HOOKS[kind]
        if type(provider) is not KINDS[kind]:
            what = f"{hook} yielded {provider!r}, which is no {KINDS[kind].__name__}"
            self._problem(PluginValidationError, plugin, what)
            return
        held = self._providers.setdefault((kind, plugin.distribution), [])
        for other in held:
            same_version = other.provider.version == provider.version
            if same_version and {provider.name, *provider.aliases} & {other.name, *other.provider.aliases}:
                what = f"the {kind} {provider.name!r} is declared twice; {other.target} is used, not {_target_text(provider.target)}"
                self._problem(PluginValidationError, plugin, what)
                return
        held.append(Registered(provider, plugin.distribution, plugin.version, plugin.entry_point))

    def _matches(self, kind: str, distribution: str | None, short: str) -> list[Registered]:
        entries = [e for e in self.providers(kind) if distribution in (None, e.distribution)]
        named = [e for e in entries if e.name == short]
        return named or [e for e in entries if short in e.provider.aliases]

    def _problem(
        self,
        error_class: type[PluginError],
        plugin: Plugin,
        what: str,
        why: str = "",
        hint: str = "",
        cause: BaseException | None = None,
    ) -> None:
        error = error_class(
            what,
            distribution=plugin.distribution,
            version=plugin.version,
            entry_point=plugin.entry_point,
            why=why,
            hint=hint,
        )
        error.__cause__ = cause
        self._problems.append(Problem(plugin.distribution, plugin.version, plugin.entry_point, error))

    def _not_found(self, kind: str, name: str) -> ProviderNotFound:
        distribution, short, _ = _parse(name)
        entries = self.providers(kind)
        installed = {plugin.distribution for plugin in self.plugins}
        why, hints, commands = "", [], []
        broken = [p for p in self._problems if distribution in (None, p.distribution)]
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


def _scan() -> Iterable[Any]:
    return importlib_metadata.entry_points(group=GROUP)


def _order(entry_point: Any) -> tuple[bool, str, str, str]:
    distribution = _normalise(entry_point.dist.name)
    return distribution != CORE, distribution, entry_point.name, entry_point.value


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _parse(name: str) -> tuple[str | None, str, int | None]:
    head, slash, tail = name.partition("/")
    distribution, rest = (_normalise(head), tail) if slash else (None, head)
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


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
