"""Prove, before the first training starts, that what it will read is there and what it will write can be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

from synicix_core.database import STORE
from synicix_core.errors import ConfigurationError
from synicix_core.settings import Settings

__all__ = ["prove_writable"]


def prove_writable(settings: Settings, connection: Any) -> None:
    """Look for the dataset directory; write and remove a small file in the model directory, the cache and the store.

    Raises
    ------
    ConfigurationError
        If one of them cannot be written, or there is no dataset directory.
    """
    if not settings.dataset_dir.is_dir():
        raise ConfigurationError(
            "dataset_dir is not a directory",
            where=str(settings.dataset_dir),
            hint="Mount its disk, or set dataset_dir in synicix.toml, SYNICIX_DATASET_DIR or --dataset-dir.",
        )
    _prove(settings.model_save_dir, "model_save_dir")
    # A cache that is full does without copies.
    _prove(settings.dataset_cache_dir, "dataset_cache_dir", may_be_full=True)
    spec = connection._config.get_store_spec(STORE)
    if spec["protocol"] == "file":
        _prove(Path(spec["location"]), f"the store {STORE}")


def _prove(directory: Path, name: str, *, may_be_full: bool = False) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, file = tempfile.mkstemp(prefix=".synicix-", dir=directory)
        try:
            os.write(descriptor, b"\0" * 4096)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            Path(file).unlink()
    except OSError as error:
        if may_be_full and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return
        raise ConfigurationError(
            f"{name} cannot be written",
            where=str(directory),
            why=error.strerror or str(error),
            hint="Results could not be saved.",
        ) from error
