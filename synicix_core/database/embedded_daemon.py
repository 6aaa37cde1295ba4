"""Detach from the caller, become another user, take a lock and turn into another program. Standard library only.

Run as a script: ``embedded_daemon.py LOCK_FD STATUS_FD UID GID PROGRAM ARGUMENTS...``; -1 keeps the user. What goes wrong is
written to STATUS_FD; nothing, if the program was started.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time


def main() -> None:
    """Do what the module says."""
    lock, status, uid, gid = (int(argument) for argument in sys.argv[1:5])
    command = sys.argv[5:]
    # The caller's child ends here, so that the daemon is never a zombie of a long-lived caller.
    if os.fork():
        os._exit(0)
    try:
        os.setsid()
        os.set_inheritable(status, False)
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        # Taken by the very process that stays: on NFS a lock belongs to a process, not to an open file. Whoever looks
        # whether it is held has it for a moment, hence the patience.
        deadline = time.monotonic() + 5
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        os.execve(command[0], command, dict(os.environ))
    except OSError as error:
        os.write(status, f"{error.filename or command[0]}: {error.strerror}".encode())
    os._exit(1)


if __name__ == "__main__":
    main()
