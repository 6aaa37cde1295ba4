"""Import the installed plugins, each on its own, and call the hooks that they implement."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import importlib_metadata
import pluggy

from synicix_core import hookspecs
from synicix_core.errors import PluginError, PluginHookError, PluginImportError, PluginValidationError

__all__ = ["CORE", "LoadedPlugins", "Plugin", "Problem", "normalise", "one_line"]

GROUP = "synicix"
CORE = "synicix-core"
_HOOKSPECS = "synicix_hookspecs"


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


class LoadedPlugins:
    """The plugins whose hook modules could be imported, and what is wrong with the others.

    Parameters
    ----------
    entry_points : iterable of importlib_metadata.EntryPoint, optional
        Where to look instead of the environment.
    disabled : str
        Distributions to skip before they are imported, separated by commas; ``*`` skips all but the core.

    Attributes
    ----------
    plugins : dict of str to Plugin
        By label, sorted by distribution.
    problems : list of Problem
    disabled : tuple of str
        Distributions that were skipped.
    """

    def __init__(self, entry_points: Iterable[Any] | None = None, disabled: str = "") -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._hooks = [*hookspecs.PROVIDER_HOOKS.values(), *hookspecs.OBSERVER_HOOKS, "synicix_commands", _HOOKSPECS]
        self._collected: dict[str, list[tuple[Plugin, Any]]] = {}
        self.plugins: dict[str, Plugin] = {}
        self.problems: list[Problem] = []
        self.disabled: tuple[str, ...] = ()
        self._load(importlib_metadata.entry_points(group=GROUP) if entry_points is None else entry_points, disabled)

    def implementations(self, hook: str) -> Iterator[tuple[Plugin, Callable[..., Any]]]:
        """Yield the implementations of one hook, sorted by distribution."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda impl: impl.plugin_name):
            plugin = self.plugins.get(implementation.plugin_name)
            if plugin is not None:
                yield plugin, implementation.function

    def call(self, hook: str) -> Iterator[tuple[Plugin, Any]]:
        """Yield what the implementations yield; one that raises is a problem and leaves the others alone."""
        for plugin, function in self.implementations(hook):
            try:
                items = list(function())
            except (Exception, SystemExit) as error:
                self.problem(PluginHookError, plugin, f"{hook} failed", f"it raised {one_line(error)}", cause=error)
                continue
            for item in items:
                yield plugin, item

    def collect(self, hook: str) -> list[tuple[Plugin, Any]]:
        """Return what the implementations of a plugin's own hook yield; ValueError if nobody declares such a hook."""
        if hook not in self._hooks:
            raise ValueError(f"no installed plugin declares a hook named {hook!r}")
        if hook not in self._collected:
            self._collected[hook] = list(self.call(hook))
        return self._collected[hook]

    def problem(
        self,
        error_class: type[PluginError],
        plugin: Plugin,
        what: str,
        why: str = "",
        hint: str = "",
        cause: BaseException | None = None,
    ) -> None:
        """Note that a plugin, or a part of one, does not work."""
        error = error_class(
            what,
            distribution=plugin.distribution,
            version=plugin.version,
            entry_point=plugin.entry_point,
            why=why,
            hint=hint,
        )
        error.__cause__ = cause
        self.problems.append(Problem(plugin.distribution, plugin.version, plugin.entry_point, error))

    def _load(self, entry_points: Iterable[Any], disabled: str) -> None:
        skip = {normalise(name) for name in disabled.split(",") if name.strip()}
        seen: set[tuple[str, str, str]] = set()
        skipped = []
        modules: list[tuple[Plugin, Any]] = []
        for entry_point in sorted(entry_points, key=_order):
            distribution = normalise(entry_point.dist.name)
            identity = (distribution, entry_point.name, entry_point.value)
            if identity in seen:
                continue
            seen.add(identity)
            if distribution != CORE and (distribution in skip or "*" in skip):
                skipped.append(distribution)
                continue
            plugin = Plugin(distribution, entry_point.dist.version, entry_point.name, entry_point.value)
            try:
                modules.append((plugin, entry_point.load()))
            except (Exception, SystemExit) as error:
                why = f"importing {plugin.module} raised {one_line(error)}"
                self.problem(PluginImportError, plugin, "the plugin cannot be imported", why, cause=error)
        self.disabled = tuple(dict.fromkeys(skipped))
        # The hooks of plugins have to be known before anybody's implementations of them are looked at.
        for plugin, module in modules:
            self._add_hookspecs(plugin, module)
        for plugin, module in modules:
            self._register(plugin, module)

    def _add_hookspecs(self, plugin: Plugin, module: Any) -> None:
        declare: Any = getattr(module, _HOOKSPECS, None)
        if not _is_marked(declare):
            return
        try:
            for specs in declare():
                names = [name for name in dir(specs) if hasattr(getattr(specs, name), f"{hookspecs.PROJECT}_spec")]
                if taken := sorted({*names} & {*self._hooks}):
                    what = f"{_HOOKSPECS} declares {', '.join(taken)}, which exists already"
                    self.problem(PluginValidationError, plugin, what)
                    continue
                self._manager.add_hookspecs(specs)
                self._hooks += names
        except (Exception, SystemExit) as error:
            why = f"it raised {one_line(error)}"
            self.problem(PluginHookError, plugin, f"{_HOOKSPECS} failed", why, cause=error)

    def _register(self, plugin: Plugin, module: Any) -> None:
        try:
            self._manager.register(module, name=plugin.label)
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(plugin.label):
                self._manager.unregister(name=plugin.label)
            self.problem(PluginValidationError, plugin, "the plugin cannot be registered", one_line(error), cause=error)
            return
        self.plugins[plugin.label] = plugin
        self._find_misspelt_hooks(plugin, module)

    def _find_misspelt_hooks(self, plugin: Plugin, module: Any) -> None:
        known = self._hooks
        for name in dir(module):
            function = getattr(module, name, None)
            marked = _is_marked(function)
            if marked and name not in known:
                if getattr(function, f"{hookspecs.PROJECT}_impl")["optionalhook"]:
                    continue
                near = difflib.get_close_matches(name, known, 1, 0.4)
                hint = f"Did you mean {near[0]}?" if near else "Hooks are: " + ", ".join(known)
                self.problem(PluginValidationError, plugin, f"there is no hook {name!r}", hint=hint)
            elif (
                not marked and name in known and inspect.isfunction(function) and function.__module__ == module.__name__
            ):
                self.problem(
                    PluginValidationError, plugin, f"{name} is not a hook yet", hint="Decorate it with @hookimpl."
                )


def _is_marked(function: Any) -> bool:
    return hasattr(function, f"{hookspecs.PROJECT}_impl")


def _order(entry_point: Any) -> tuple[bool, str, str, str]:
    distribution = normalise(entry_point.dist.name)
    return distribution != CORE, distribution, entry_point.name, entry_point.value


def normalise(name: str) -> str:
    """Return a distribution's name as it is compared: lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def one_line(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
