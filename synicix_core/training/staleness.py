"""Which results were trained with other code than is installed here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synicix_core.database.reconnect import execute
from synicix_core.errors import SynicixError
from synicix_core.hashing import file_sha256
from synicix_core.registry import Registry
from synicix_core.tables.schema import Tables

__all__ = ["Change", "StaleReport", "find_stale", "stale_restriction", "stale_tasks", "why_stale"]

_MD5 = "training_task_md5_hash"
_PAGE = 2000


@dataclass(frozen=True)
class Change:
    """A provider whose source file is another one here than the one that a result was trained with.

    Attributes
    ----------
    kind, provider : str
        Which one, as results name it.
    before, now : str
        Version of its distribution then and here.
    """

    kind: str
    provider: str
    before: str
    now: str

    def __str__(self) -> str:
        versions = f", version {self.before} then and {self.now} now" if self.before and self.before != self.now else ""
        return f"the source file of the {self.kind} {self.provider} has changed{versions}"


@dataclass(frozen=True)
class StaleReport:
    """What comparing results with the code installed here has shown.

    Attributes
    ----------
    codes : dict
        ``{code_sha256: changes}`` of the stale results.
    unknown : tuple of str
        Providers that cannot be compared here, each with its kind; what only they made does not count as stale.
    """

    codes: dict[str, tuple[Change, ...]]
    unknown: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why results are stale, each reason once."""
        return tuple(sorted({str(change) for changes in self.codes.values() for change in changes}))


def find_stale(tables: Tables, registry: Registry) -> StaleReport:
    """Compare the source files of all providers that made a result with those installed here.

    The targets of the providers are imported for it, and with them torch.

    Parameters
    ----------
    tables : Tables
        Where the results are.
    registry : Registry
        Knows the providers that are installed here.
    """
    results = tables.TrainingResult.full_table_name
    # Equal digests mean equal files, so one result of each is enough; there are few of them.
    found = execute(
        tables.connection,
        f"SELECT c.code_sha256, (SELECT r.provenance FROM {results} r WHERE r.code_sha256 = c.code_sha256 LIMIT 1) "
        f"FROM (SELECT DISTINCT code_sha256 FROM {results}) c ORDER BY 1",
    ).fetchall()
    present = _PresentCode(registry)
    codes: dict[str, tuple[Change, ...]] = {}
    unknown: set[str] = set()
    for code, provenance in found:
        known = json.loads(provenance) if isinstance(provenance, str | bytes) else provenance
        changes, missing = present.compare(known)
        unknown.update(missing)
        if changes:
            codes[str(code)] = changes
    return StaleReport(codes, tuple(sorted(unknown)))


def why_stale(provenance: Mapping[str, Any] | None, registry: Registry) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Compare one result.

    Returns
    -------
    tuple of Change, tuple of str
        Why it is stale, nothing where it is not; and the providers that cannot be compared here.
    """
    return _PresentCode(registry).compare(provenance)


def stale_restriction(tables: Tables, report: StaleReport) -> str:
    """Return the SQL of a query that yields the md5s of the tasks whose results are stale."""
    listed = ", ".join(f"'{code}'" for code in sorted(report.codes)) or "''"
    return f"SELECT {_MD5} FROM {tables.TrainingResult.full_table_name} WHERE code_sha256 IN ({listed})"


def stale_tasks(tables: Tables, report: StaleReport) -> Iterator[str]:
    """Yield the md5s of the tasks whose results are stale, in order, read in pages; results may go while it runs."""
    sql = f"{stale_restriction(tables, report)} AND {_MD5} > %s ORDER BY {_MD5} LIMIT {_PAGE}"
    last = ""
    while page := execute(tables.connection, sql, (last,)).fetchall():
        yield from (str(row[0]) for row in page)
        last = str(page[-1][0])


class _PresentCode:
    """The source files of the providers installed here, each read once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str], tuple[str, str] | None] = {}

    def compare(self, provenance: Mapping[str, Any] | None) -> tuple[tuple[Change, ...], tuple[str, ...]]:
        """Return why a result is stale, and the providers that cannot be compared."""
        changes, unknown = list[Change](), list[str]()
        for item in (provenance or {}).get("providers", ()):
            kind, provider, then = str(item["kind"]), str(item["provider"]), item.get("sha256")
            present = self._present(kind, provider)
            if present is None or then is None:
                unknown.append(f"{kind} {provider}")
            elif present[0] != then:
                changes.append(Change(kind, provider, str(item.get("version") or ""), present[1]))
        return tuple(changes), tuple(unknown)

    def _present(self, kind: str, provider: str) -> tuple[str, str] | None:
        """Return the digest of a provider's source file, empty where it has none, and its version; None if not here."""
        key = kind, provider
        if key not in self._known:
            try:
                registered = self._registry.resolve_stored(kind, provider)
                file = registered.source_file()
                self._known[key] = ("" if file is None else file_sha256(file), registered.distribution_version)
            except (SynicixError, OSError):
                self._known[key] = None
        return self._known[key]
