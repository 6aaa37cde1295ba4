"""The wire between workers and their database server, which tests cut, silence and take away."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Wire"]


class Wire:
    """Listens on a port of its own and carries every connection on to the server.

    Parameters
    ----------
    server : mapping
        The DJ_* variables that lead to the server.

    Attributes
    ----------
    variables : dict
        The same, leading here.
    cuts : int
        Connections that `cut_at` has cut.
    """

    def __init__(self, server: Mapping[str, str]) -> None:
        self._server = dict(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.variables = {**server, "DJ_HOST": "127.0.0.1", "DJ_PORT": str(port)}
        self.cuts = 0
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._is_away = False
        self._flows = threading.Event()
        self._flows.set()
        self._trap: tuple[tuple[re.Pattern[str], ...], bool] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def ports(self) -> list[int]:
        """The ports from which the server sees the connections come, if it is reached by TCP."""
        with self._lock:
            return [connection.port for connection in self._connections if connection.port]

    def cut(self) -> None:
        """Cut every connection that is open now; new ones can be made at once."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection and refuse new ones inside the block."""
        self._is_away = True
        self.cut()
        try:
            yield
        finally:
            self._is_away = False

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing pass inside the block, in either direction, although nothing is cut."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def cut_at(self, *statements: str, answered: bool) -> None:
        """Cut the connection, once, at the last of several statements that pass one after the other.

        Parameters
        ----------
        *statements : str
            Regular expressions.
        answered : bool
            Whether the server still gets the last one and obeys, so that only its answer is lost.
        """
        self._trap = tuple(re.compile(text, re.DOTALL) for text in statements), answered

    def close(self) -> None:
        """Cut everything and listen no more."""
        self._is_away = True
        self._flows.set()
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_away:
                client.close()
                continue
            try:
                connection = _Connection(client, self._connect())
            except OSError:
                client.close()
                continue
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._server["DJ_HOST"], self._server.get("DJ_PORT")
        if not port:
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(Path(host) / ".s.PGSQL.5432"))
            return server
        return socket.create_connection((host, int(port)))

    def _carry(self, connection: _Connection) -> None:
        watched, passed = self._trap, 0  # the trap, and how many of its statements have passed
        doomed = False
        greeted = self._server.get("DJ_BACKEND") != "mysql"
        try:
            while True:
                ready, _, _ = select.select([connection.client, connection.server], [], [], 1.0)
                self._flows.wait()
                for end in ready:
                    data = end.recv(1 << 20)
                    if not data or (doomed and end is connection.server):
                        return
                    if end is connection.server and not greeted:
                        data, greeted = _without_tls(data), True
                    if watched is not self._trap:
                        watched, passed = self._trap, 0
                    if end is connection.client and watched is not None:
                        statements, answered = watched
                        passed += statements[passed].search(data.decode(errors="replace")) is not None
                        if passed == len(statements):
                            self._trap = None
                            self.cuts += 1
                            if not answered:
                                return
                            doomed = True
                    (connection.server if end is connection.client else connection.client).sendall(data)
        except (OSError, ValueError, IndexError):
            return  # one end is gone
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        name = server.getsockname()
        self.port = name[1] if isinstance(name, tuple) else 0

    def close(self) -> None:
        for end in (self.client, self.server):
            # Closing alone would not wake the thread that waits for it.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _without_tls(greeting: bytes) -> bytes:
    """Return what a MySQL server says first, without its offer of TLS: statements have to be read on their way.

    DataJoint 2.3 takes the offer even where it is told not to. PostgreSQL offers none on the socket of this machine.
    """
    # A header of 4 bytes, the protocol's number, the server's version up to a zero, 4 bytes for the thread's number, 8 of
    # random data, a zero, and the lower two bytes of what the server can do; TLS is bit 3 of the second.
    flags = greeting.index(0, 5) + 1 + 4 + 8 + 1
    return greeting[: flags + 1] + bytes([greeting[flags + 1] & ~0x08]) + greeting[flags + 2 :]
