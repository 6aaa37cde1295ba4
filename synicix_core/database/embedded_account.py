"""As whom the PostgreSQL inside the project runs, and how that user gets to its files."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synicix_core.errors import ConfigurationError

if sys.platform != "win32":
    import pwd

__all__ = ["USER", "Account", "account_for", "give_to", "make_reachable"]

USER = "pgserver"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """A user for the server to become."""

    uid: int
    gid: int


def account_for(data: Path) -> Account | None:
    """Return whom the server has to become to work on `data`; None means to stay who we are.

    Raises
    ------
    ConfigurationError
        The data is another user's, or root cannot make the system user.
    """
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise ConfigurationError(
                "The project's PostgreSQL belongs to another user",
                where=str(data),
                why=f"the data is owned by {_name(owner.st_uid)}",
                hint="Work as that user, or configure a database server that all can use.",
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    entry = _entry() or _create_user()
    return Account(entry.pw_uid, entry.pw_gid)


def give_to(data: Path, account: Account | None) -> None:
    """Make `data` what PostgreSQL insists on: owned by the server's user, closed for everybody else.

    Copying a project as root leaves files of root's and modes that PostgreSQL refuses.
    """
    if account is not None and data.stat().st_uid != account.uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    if stat.S_IMODE(data.stat().st_mode) not in (0o700, 0o750):
        data.chmod(0o700)


def make_reachable(directory: Path, account: Account | None, *, tree: bool = False) -> None:
    """Let the server's user get to `directory`.

    Only for a server that runs as another user than we do, which means only as root: each directory on the way, and only
    where that user could not pass, gets the search permission for others (``chmod o+x``). They can then reach what they know
    the name of, as far as its own permissions allow, but cannot list anything; no file is made readable.

    Parameters
    ----------
    directory : Path
        Where the user has to get.
    account : Account or None
        The user; None changes nothing.
    tree : bool
        Also open all that lies below for reading (``chmod -R a+rX``): for PostgreSQL's programs, which a strict umask at
        installation hides.
    """
    if account is None:
        return
    for folder in reversed((directory, *directory.parents)):
        _add(folder, stat.S_IXOTH, account, stat.S_IXUSR)
    if tree and not _may(directory / "bin" / "postgres", account, stat.S_IRUSR | stat.S_IXUSR):
        for path in (directory, *_below(directory)):
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if executable else 0))


def _below(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if not path.is_symlink())


def _add(path: Path, bits: int, account: Account, wanted: int) -> None:
    if not _may(path, account, wanted):
        _log.info("letting the database's user pass through %s (chmod o+x)", path)
        path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)


def _may(path: Path, account: Account, wanted: int) -> bool:
    """Whether the permission bits, given as the owner's, are there for `account`."""
    found = path.stat()
    if found.st_uid == account.uid:
        return found.st_mode & wanted == wanted
    shift = 3 if found.st_gid == account.gid else 6
    return (found.st_mode << shift) & wanted == wanted


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _create_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = done.stderr.strip()
    except OSError as error:
        why = f"useradd: {error.strerror}"
    entry = _entry()  # also there if another process was faster
    if entry is None:
        raise ConfigurationError(
            f"The system user {USER} cannot be created",
            why=why,
            hint="PostgreSQL refuses to run as root, so root needs that user: create it by hand, or work as an ordinary "
            "user.",
        )
    return entry


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
