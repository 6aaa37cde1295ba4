"""Import DataJoint, and keep what it prints about itself off the standard output.

DataJoint logs to the standard output, where ``--json`` has the word. What it says about connecting is either in our own
errors or of no use to somebody who runs the embedded database.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from synicix_core.errors import ConfigurationError

__all__ = ["datajoint", "quiet", "without_values"]

_NOISE = ("DataJoint ", "Loading configuration from", "SSL connection failed", "Deleting ", "Delete completed")


@contextmanager
def quiet() -> Iterator[None]:
    """Drop DataJoint's messages about its configuration, its connections and what it deletes while the block runs."""
    logger = logging.getLogger("datajoint")
    # A new one each time: a filter that is added twice is removed by the first that ends.
    drop = _DropNoise()
    logger.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No datajoint.json found")
            # A file that does not load is our own error (`server`), a MariaDB likewise (`versions`).
            warnings.filterwarnings("ignore", message="Failed to load config from")
            warnings.filterwarnings("ignore", message="MariaDB is not officially supported")
            warnings.filterwarnings("ignore", message="database.name is set but the MySQL backend")
            yield
    finally:
        logger.removeFilter(drop)


class _DropNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_NOISE)


def without_values(error: Exception) -> str:
    """Describe `error` without the offending input that pydantic shows, which may be a password."""
    if hasattr(error, "errors"):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return f"{type(error).__name__}: {error}"


try:
    with quiet():
        import datajoint
except ValueError as error:
    # DataJoint reads its variables at import; a wrong one is the user's mistake, not a traceback.
    raise ConfigurationError(
        "DataJoint's configuration is wrong", where="a DJ_* environment variable", why=without_values(error)
    ) from None
