"""Tiny factories: plugins that live in memory, for tests that need no installed distribution."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from synicix_core import hookimpl
from synicix_core.hookspecs import PROVIDER_HOOKS
from synicix_core.providers import Provider
from synicix_core.registry import Registered, Registry


@dataclass(frozen=True)
class Distribution:
    """What importlib_metadata tells of a distribution, as far as the registry asks."""

    name: str
    version: str


@dataclass(frozen=True)
class EntryPoint:
    """An entry point whose module is at hand, or whose import raises."""

    dist: Distribution
    name: str
    value: str
    module: Any

    def load(self) -> Any:
        """Return the hook module, or raise what importing it raises."""
        if isinstance(self.module, BaseException):
            raise self.module
        return self.module


def plugin(
    distribution: str,
    *providers: Provider,
    version: str = "1.0",
    raises: BaseException | None = None,
    **functions: Callable[..., Any],
) -> EntryPoint:
    """Make an entry point of a plugin that provides `providers` and implements the hooks in `functions`."""
    module = types.ModuleType(f"{distribution.replace('-', '_')}.hooks")
    for kind, hook in PROVIDER_HOOKS.items():
        of_kind = [provider for provider in providers if provider.kind == kind]
        if of_kind:
            setattr(module, hook, hookimpl(_yielding(of_kind)))
    for name, function in functions.items():
        setattr(module, name, function)
    return EntryPoint(Distribution(distribution, version), distribution, module.__name__, raises or module)


def registry(*entry_points: EntryPoint, **options: Any) -> Registry:
    """Make a registry of these plugins alone."""
    return Registry(entry_points, **options)


def registered(provider: Provider) -> Registered:
    """Make the registry's entry of a provider."""
    return Registered(provider, "lab-kit", "1.0", "lab-kit")


def _yielding(providers: Sequence[Provider]) -> Callable[[], Sequence[Provider]]:
    return lambda: providers
