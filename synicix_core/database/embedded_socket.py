"""Under which directory clients find the server's socket."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path

from synicix_core.errors import ConfigurationError

__all__ = ["SOCKET", "answers", "client_directory"]

SOCKET = ".s.PGSQL.5432"
# A socket's path has 107 bytes on Linux and 103 on macOS.
_LIMIT = 103
# The protocol's SSLRequest: its length, 8, and its code; the answer is one byte.
_MAY_I_ENCRYPT = struct.pack("!ii", 8, 80877103)


def client_directory(data: Path) -> str:
    """Return the directory to give libpq as host: `data`, or a link to it.

    A socket's path must be short, DataJoint takes a colon for the start of a port, and libpq a comma for the start of another
    host. Where the path of `data` has such a thing, a symbolic link in a private temporary directory stands in.

    Raises
    ------
    ConfigurationError
        No temporary directory is usable.
    """
    if _is_usable(str(data)):
        return str(data)
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    for parent in (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", "")):
        folder = Path(parent) / f"synicix-{os.geteuid()}"
        if parent and _is_usable(str(folder / name)) and _is_private(folder):
            return str(_link(folder / name, data))
    raise ConfigurationError(
        "There is no short path to the project's PostgreSQL",
        where=str(data),
        why=f"a socket's path has at most {_LIMIT} bytes, and no temporary directory can hold a link to it",
        hint="Set TMPDIR to a short directory, or move the project.",
    )


def answers(data: Path) -> bool:
    """Return whether a server takes connections: a socket alone may be a dead server's that is about to vanish."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        try:
            client.connect(f"{client_directory(data)}/{SOCKET}")
            client.sendall(_MAY_I_ENCRYPT)
            return client.recv(1) != b""
        except OSError:
            return False


def _is_usable(path: str) -> bool:
    return len(os.fsencode(f"{path}/{SOCKET}")) <= _LIMIT and not set(path) & {":", ","}


def _is_private(folder: Path) -> bool:
    """Whether `folder` is ours alone: in a directory for everybody, somebody else could have put a link to his server."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _link(link: Path, target: Path) -> Path:
    if not link.is_symlink() or link.readlink() != target:
        new = link.with_name(f"{link.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)
    return link
