"""The file that holds a database: a ZIP archive of one member of JSON lines for each table, and a manifest.

``manifest.json`` is written last and says what the file is (`FORMAT`, `FORMAT_VERSION`), of which schema version the rows
are, and for each table its columns, its number of rows and the sha256 of its member. A member ``TrainingTask.jsonl`` has one
row a line, an object by column name, in the order of the primary key. See `transfer_columns` for the values.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from synicix_core.errors import ConfigurationError
from synicix_core.tables.schema import SCHEMA_VERSION
from synicix_core.tables.transfer_columns import TABLES, Row, TransferTable

__all__ = ["FORMAT", "FORMAT_VERSION", "ExportFile", "ExportWriter", "written_whole"]

FORMAT = "synicix database export"
FORMAT_VERSION = 1
"""Raised whenever a file could be misread by the version before."""

_MANIFEST = "manifest.json"
_HINTS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Name a file in a directory that you may write to."),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Name a file on a disk with room."),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "Name a file in a directory that is there."),
}
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError)
"""What `zipfile` raises at files that are damaged."""


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write that has its name only when all of it is on the disk; if the block raises, nothing is left.

    Raises
    ------
    ConfigurationError
        If it cannot be written: the disk is full, the directory is missing or closed.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise ConfigurationError(
            "the export cannot be written",
            where=str(path),
            why=error.strerror or str(error),
            hint=f"{_HINTS.get(error.errno or 0, 'Name a file in another place.')} Nothing of this one was left behind.",
        ) from error


class ExportWriter:
    """Writes the members of an export, one after the other, into an open file.

    Parameters
    ----------
    handle : binary file
        Open for writing.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED)
        self._tables: dict[str, Any] = {}

    def write(self, table: TransferTable, rows: Iterable[Row]) -> int:
        """Write all rows of a table; return how many there were."""
        digest, count, member = hashlib.sha256(), 0, f"{table.name}.jsonl"
        with self._archive.open(member, "w", force_zip64=True) as file:
            for row in rows:
                line = (
                    json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
                )
                digest.update(line)
                file.write(line)
                count += 1
        self._tables[table.name] = {"rows": count, "sha256": digest.hexdigest(), "columns": table.names}
        return count

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the manifest, with `facts` beside what describes the file itself."""
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "schema_version": SCHEMA_VERSION,
            **facts,
            "tables": self._tables,
        }
        self._archive.writestr(_MANIFEST, json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        self._archive.close()

    def abandon(self) -> None:
        """Let go of the file without a word, whatever state it is in."""
        with contextlib.suppress(Exception):
            self._archive.close()


class ExportFile:
    """An export, open for reading.

    Parameters
    ----------
    path : Path
        Where it is.

    Attributes
    ----------
    manifest : dict
        What the file says of itself.
    sha256 : str
        Names this export: digest of its manifest, which holds the digests of the tables.

    Raises
    ------
    ConfigurationError
        If it is no export, is cut short, or is of a version that cannot be read here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            text = self._archive.read(_MANIFEST)
            manifest = json.loads(text)
        except OSError as error:
            raise ConfigurationError(
                "the export cannot be read", where=str(path), why=error.strerror or str(error)
            ) from error
        except (*_BROKEN, ValueError) as error:
            raise ConfigurationError(
                "the file is no whole export of a database",
                where=str(path),
                why="it is something else, or was cut short on its way",
                hint="Make it with: synicix-run db export FILE",
            ) from error
        self.sha256 = hashlib.sha256(text).hexdigest()
        self.manifest: dict[str, Any] = _checked(manifest, path)

    def rows_of(self, name: str) -> int:
        """Return how many rows a table has, as the manifest says."""
        return int(self.manifest["tables"][name]["rows"])

    def read(self, table: TransferTable) -> Iterator[Row]:
        """Yield the rows of a table in the order of their keys, and make sure that they are those that were written.

        Raises
        ------
        ConfigurationError
            At the end if the member has another digest than the manifest says, or before if it cannot be read or is not in
            order: then the file was changed or damaged.
        """
        facts, digest, number = self.manifest["tables"][table.name], hashlib.sha256(), 0
        last: tuple[Any, ...] | None = None
        for number, line in enumerate(self._lines(f"{table.name}.jsonl"), 1):
            digest.update(line)
            try:
                row = json.loads(line)
                key = table.key_of(row)
                in_order = last is None or key > last
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise self.damaged(f"line {number} of {table.name} is no row") from error
            if not in_order:
                raise self.damaged(f"line {number} of {table.name} is out of order")
            last = key
            yield row
        if number != facts["rows"] or digest.hexdigest() != facts["sha256"]:
            raise self.damaged(f"{table.name} is not what was exported: its rows have another sha256")

    def damaged(self, why: str) -> ConfigurationError:
        """Return the error that says that the file was changed or damaged."""
        return ConfigurationError(
            "the export was changed or damaged",
            where=str(self.path),
            why=why,
            hint="Nothing was written. Copy the file again, or make another one with: synicix-run db export FILE",
        )

    def _lines(self, member: str) -> Iterator[bytes]:
        if member not in self._archive.namelist():
            raise self.damaged(f"{member} is missing")
        try:
            with self._archive.open(member) as file:
                yield from file
        except _BROKEN as error:
            raise self.damaged(f"{member} cannot be unpacked") from error


def _checked(manifest: Any, path: Path) -> dict[str, Any]:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ConfigurationError(
            "the file is no export of a database", where=str(path), hint="Make one with: synicix-run db export FILE"
        )
    found = manifest.get("format_version"), manifest.get("schema_version")
    if found != (FORMAT_VERSION, SCHEMA_VERSION):
        raise ConfigurationError(
            "the export is of another version than this synicix-core reads",
            where=str(path),
            why=f"it is of format {found[0]} and schema version {found[1]}, made by synicix-core "
            f"{manifest.get('synicix_version')}; this one knows format {FORMAT_VERSION} and schema version {SCHEMA_VERSION}",
            hint="Import it with a synicix-core that knows them, into a schema which that one declared.",
        )
    tables = manifest.get("tables")
    if not isinstance(tables, dict) or set(tables) != {*TABLES} or not all(map(_is_described, tables.values())):
        raise ConfigurationError(
            "the manifest of the export does not describe its tables", where=str(path), why="it was changed or damaged"
        )
    return manifest


def _is_described(facts: Any) -> bool:
    return (
        isinstance(facts, dict)
        and isinstance(facts.get("rows"), int)
        and isinstance(facts.get("sha256"), str)
        and isinstance(facts.get("columns"), list)
    )
