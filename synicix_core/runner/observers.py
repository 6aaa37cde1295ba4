"""Deliver events to the observers of plugins; none of them can harm a task."""

from __future__ import annotations

import logging
from typing import Any

from synicix_core.registry import Registry

__all__ = ["Observers"]

_logger = logging.getLogger("synicix")


class Observers:
    """The observer hooks of all plugins, for one task.

    Parameters
    ----------
    registry : Registry
        The installed plugins.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._switched_off: set[str] = set()

    def start_task(self) -> None:
        """Switch on again what an earlier task switched off."""
        self._switched_off.clear()

    def notify(self, hook: str, event: Any) -> None:
        """Give an event to every observer; one that raises is logged once and switched off for this task."""
        for observer in self._registry.observers(hook):
            plugin = observer.plugin
            if plugin.label in self._switched_off:
                continue
            try:
                observer.function(event=event)
            except Exception as error:
                self._switched_off.add(plugin.label)
                _logger.warning(
                    "%s of %s %s raised %s: %s. It is switched off for this task.",
                    hook,
                    plugin.distribution,
                    plugin.version,
                    type(error).__name__,
                    error,
                    exc_info=_logger.isEnabledFor(logging.DEBUG),
                )
