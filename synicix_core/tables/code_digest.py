"""Which source files made a result, as one digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["code_digest"]


def code_digest(providers: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 over the source files of the providers in a result's provenance.

    Parameters
    ----------
    providers : iterable of mapping
        Each with ``kind``, ``provider`` and ``sha256`` of its source file (empty where it has none).
    """
    parts = sorted([str(item["kind"]), str(item["provider"]), str(item["sha256"])] for item in providers)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
