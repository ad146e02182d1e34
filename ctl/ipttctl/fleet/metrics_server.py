# SPDX-License-Identifier: GPL-2.0
"""The HTTP server of metrics. Every local user can reach it: it holds a few threads, not for long.

A server of the library has a thread for each connection, for as long as its peer likes; the
agent's own threads and descriptors would run out.
"""

from __future__ import annotations

import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_AT_ONCE: Final = 8
"""Connections at a time; further ones are closed."""

_PATIENCE: Final = 10.0
"""Seconds that a peer has to say something, or to take something."""


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named so by the base
        """Log nothing."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves the metrics of a registry."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, registry: CollectorRegistry) -> None:
        """Listen."""
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__((address, port), _Handler)
        self.set_app(make_wsgi_app(registry))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a thread serve a connection, if one is free."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of peers that are slow, or gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
