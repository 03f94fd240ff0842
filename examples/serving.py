"""Serving HTTP from the standard library such that nothing is left behind: what the stand-ins here share."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self


class Service(AbstractContextManager[Any], Protocol):
    """Something that serves while it is open."""

    @property
    def url(self) -> str:
        """Its base URL."""

    @property
    def port(self) -> int:
        """Its port."""


class Server(ThreadingHTTPServer):
    """An HTTP server, accepting from ``start`` to ``stop`` in a thread, with a thread per connection.

    Handlers wait on ``stopping`` instead of sleeping, so that stopping waits for nobody.
    """

    daemon_threads = False
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name=f"serving-{handler.__name__}")
        super().__init__(address, handler)

    def start(self) -> Self:
        """Begin to accept connections."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop accepting, wake every delayed answer, end every connection, and wait for all threads."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its thread was closing it at this moment
        self.server_close()

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which may take seconds."""
        host, port = self.server_address[:2]
        try:
            self.socket.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host!s}:{port}: {error.strerror}") from error
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread of its own."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what is not simply a client that went away: being killed is what clients do here."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(service: Service, port_file: Path | None) -> None:
    """Open ``service``, write its port to ``port_file``, print its URL, and close it on SIGTERM or SIGINT.

    Raises:
        OSError: the service cannot be opened, or the file not written.

    """
    stop = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the service starts threads, so that sigwait is the one place where these signals arrive.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with service:
        if port_file:
            # Renamed into place: whoever sees the file sees the whole number.
            partial = port_file.with_name(f"{port_file.name}.partial")
            partial.write_text(f"{service.port}\n")
            partial.replace(port_file)
        print(service.url, flush=True)
        signal.sigwait(stop)
