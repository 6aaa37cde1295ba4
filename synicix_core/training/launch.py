"""What tells a process which one of several it is, by the conventions of ``torchrun``. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["ADDRESS", "launch_environment", "launch_variables"]

ADDRESS = "127.0.0.1"
"""All processes are on one machine, and nobody else is to reach them."""


def launch_variables(rank: int, ranks: int) -> dict[str, str]:
    """Return the environment variables of one of several processes; ``MASTER_PORT`` is added when it is known."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": ADDRESS,
    }


@contextmanager
def launch_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
