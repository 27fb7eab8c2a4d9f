"""A TCP proxy that counts: what a program really sends and receives, below its own libraries."""

import socket
import threading
from types import TracebackType
from typing import Self


class CountingProxy:
    """Forwards connections from `port`, on 127.0.0.1, to `target_port`; a context manager.

    `to_target` and `from_target` are TCP payload bytes over all connections so far.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.to_target = 0
        self.from_target = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (self._listener, *self._sockets):
            opened.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # Closed: the measurement is over.
            try:
                target = socket.create_connection(("127.0.0.1", self._target_port))
            except ConnectionRefusedError:
                client.close()  # The server is not up yet; clients try again.
                continue
            self._sockets += [client, target]
            threading.Thread(target=self._pump, args=(client, target, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(target, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, to_target: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    if to_target:
                        self.to_target += len(data)
                    else:
                        self.from_target += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # One end has gone; so does the other.
