"""Where the numbers of a result come from: code, libraries, machine."""

from __future__ import annotations

import functools
import platform
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synicix_core.hashing import file_sha256
from synicix_core.registry import Registry
from synicix_core.training.spec import TaskSpec

__all__ = ["describe_providers", "describe_run"]


def describe_run(spec: TaskSpec, registry: Registry, device: torch.device, precision: str) -> dict[str, Any]:
    """Return what a result records about the run: JSON.

    Parameters
    ----------
    spec : TaskSpec
        The task.
    registry : Registry
        Where its providers were found.
    device : torch.device
        Where it ran.
    precision : str
        As resolved on that device.
    """
    return {
        "providers": describe_providers(spec, registry),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **_describe_device(device),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "num_workers": spec.num_workers,
        "project_commit": spec.project_commit,
    }


def describe_providers(spec: TaskSpec, registry: Registry) -> list[dict[str, str]]:
    """Return every provider of a task with its distribution, its version and the sha256 of its source file."""
    return [dict(_describe_provider(registry, c.kind, c.provider)) for c in spec.components()]


@functools.lru_cache(maxsize=1024)
def _describe_provider(registry: Registry, kind: str, stored: str) -> dict[str, str]:
    # Once per process: what is imported does not change any more, even if the file does.
    registered = registry.resolve_stored(kind, stored)
    file = registered.source_file()
    return {
        "kind": kind,
        "provider": stored,
        "distribution": registered.distribution,
        "version": registered.distribution_version,
        "sha256": "" if file is None else file_sha256(file),
    }


def _describe_device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": str(device), "gpu": None, "cuda": None, "cudnn": None, "driver": None}
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver_version(),
    }


@functools.cache
def _driver_version() -> str | None:
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", Path("/proc/driver/nvidia/version").read_text(encoding="utf-8"))
    except OSError:
        found = None
    if found:
        return found.group(1)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0] if answer else None
