"""What is known of a dataset that was read once, kept beside the copies so that no other process need read it for that."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Record", "read_record", "write_record"]


@dataclass(frozen=True)
class Record:
    """What is known of a dataset.

    Attributes
    ----------
    path : str
        Where it lies; for people who look into the file.
    fingerprint : str
        `Contents.fingerprint` of what was read; the rest holds as long as it is the same.
    sha256 : str
        Digest.
    size : int
        Bytes.
    """

    path: str
    fingerprint: str
    sha256: str
    size: int


def read_record(file: Path) -> Record | None:
    """Return a record, or None if there is none; one that a power cut tore is none."""
    try:
        values = json.loads(file.read_text(encoding="ascii"))
        record = Record(**values)
    except (OSError, ValueError, TypeError):
        return None
    return record if isinstance(record.size, int) else None


def write_record(file: Path, record: Record) -> None:
    """Write a record so that readers see the old one or the new one, never a part.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    half = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        half.write_text(json.dumps(asdict(record)), encoding="ascii")
        half.rename(file)
    finally:
        half.unlink(missing_ok=True)
