# SPDX-License-Identifier: GPL-2.0
"""Drops for a collector of OpenTelemetry, by OTLP over HTTP.

A thread of its own sends them. Those that tell stories put them into a bounded queue and never
wait: where a collector is slow or gone, the oldest ones go, and are counted.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ipttctl.fleet.collector_files import headers_of
from ipttctl.fleet.config import OtlpOptions
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.host import Told
from ipttctl.fleet.otlp_records import record_of
from ipttctl.paths import VERSION
from ipttctl.show.render_json import dumps
from ipttctl.show.told_drops import drops_in
from ipttctl.stories.model import is_drop

MOST_BYTES: Final = 8 << 20
"""Bytes of drops that wait."""

_AT_ONCE: Final = 512
"""Drops of a request."""

_LINGER: Final = 0.5
"""Seconds that drops wait for others."""

_PATIENCE: Final = 10.0
"""Seconds that a request may take, with what is tried again."""

_LONGEST_ANSWER: Final = 1 << 16

_LIBRARY: Final = "opentelemetry"


class OtlpDrops:
    """Sends drops, from ``start`` to ``stop``."""

    def __init__(
        self,
        config: OtlpOptions,
        host: str,
        run: str,
        tell: Callable[[str], None] = lambda _: None,
        *,
        most: int = MOST_BYTES,
    ) -> None:
        """Keep ``most`` bytes of drops that wait; ``tell`` takes sentences for the log.

        Raises:
            UsageError: the file of headers cannot be read.
        """
        self._tell = tell
        self._most = most
        self._waiting: deque[tuple[str, str]] = deque()
        self._bytes = 0
        self._lock = threading.Condition()
        self._stopping = False
        self._problem = ""
        self.sent = 0
        """Drops that the collector took."""
        self.lost = 0
        """Drops that were thrown away, because of the bound or because it did not take them."""
        self._resource = Resource(
            {
                "service.name": "ipttctl",
                "service.version": VERSION,
                "service.instance.id": run,
                "host.name": host,
            }
        )
        self._scope = InstrumentationScope("ipttctl", VERSION)
        self._session = _Session()
        self._exporter = self._made(config)
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, limit: float) -> None:
        """Send what is left, for at most ``limit`` seconds; the rest is lost."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        self._thread.join(limit)
        # ends what is being tried again
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library's
        self._thread.join(1)
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def told(self, stories: Sequence[Told], watch: str = "") -> None:
        """Take stories of a watch, or of traces for others; those of no drop are passed over."""
        lines = [line for one in stories if is_drop(one.story) for line in _drops(one)]
        if not lines:
            return
        with self._lock:
            for line in lines:
                self._waiting.append((line, watch))
                self._bytes += len(line)
            while self._bytes > self._most:
                self._bytes -= len(self._waiting.popleft()[0])
                self.lost += 1
            self._lock.notify()

    def _made(self, config: OtlpOptions) -> OTLPLogExporter:
        logger = logging.getLogger(_LIBRARY)
        # what it says once in a while would go to our standard error
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        return OTLPLogExporter(
            endpoint=endpoint(config.url),
            certificate_file=config.ca,
            headers=headers_of(config),
            timeout=_PATIENCE,
            session=self._session,
        )

    def _run(self) -> None:
        while drops := self._next():
            found = [one for drop in drops if (one := self._readable(*drop)) is not None]
            done = found and self._exporter.export(found) is LogRecordExportResult.SUCCESS
            taken = max(0, len(found) - self._session.refused) if done else 0
            with self._lock:
                self.sent += taken
                self.lost += len(drops) - taken
            self._say(self._session.problem if taken < len(drops) else "")

    def _next(self) -> list[tuple[str, str]]:
        """The next drops with their watches, at least one; none at the end."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._stopping)
            if not self._stopping:
                self._lock.wait_for(
                    lambda: len(self._waiting) >= _AT_ONCE or self._stopping, _LINGER
                )
            drops = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._bytes -= sum(len(line) for line, _ in drops)
            return drops

    def _readable(self, line: str, watch: str) -> ReadableLogRecord | None:
        try:
            return ReadableLogRecord(record_of(line, watch), self._resource, self._scope)
        except (KeyError, TypeError, ValueError):
            return None

    def _say(self, problem: str) -> None:
        """Tell a problem, once until it is over."""
        if problem and not self._problem:
            self._tell(f"otlp: {' '.join(problem.split())[:300]}")
        self._problem = problem


class _Session(requests.Session):
    """Looks at answers: the library takes redirects for success, and those that refuse a part."""

    def __init__(self) -> None:
        super().__init__()
        self.problem = ""
        """The reason why something of the last request was not taken."""
        self.refused = 0
        """Records of it that were refused though the others were taken."""

    def request(self, *args: Any, **more: Any) -> requests.Response:
        """Send a request.

        Raises:
            requests.RequestException: it was not answered, with a redirect, or at length.
        """
        self.problem, self.refused = "", 0
        try:
            # whoever listens there may send without an end, or one byte after the other
            response = super().request(*args, **more | {"stream": True})
            with response:
                self._look(response)
        except (OSError, DecodeError) as error:
            self.problem = sentence(error)
            raise
        return response

    def _look(self, response: requests.Response) -> None:
        if response.status_code == HTTPStatus.OK:
            answer = ExportLogsServiceResponse.FromString(_content(response))
            self.refused = max(0, answer.partial_success.rejected_log_records)
            self.problem = answer.partial_success.error_message or "it refuses some"
            return
        self.problem = f"it answers {response.status_code} {response.reason}"
        if response.status_code in range(300, 400):
            where = response.headers.get("Location", "nowhere")
            raise requests.RequestException(f"{self.problem}, {where}")


def _drops(one: Told) -> list[str]:
    """A line for each drop of a story: of the packet, and of its copies and parts."""
    if not one.story.shown_branches():
        return [one.line]
    return [dumps(drop) for drop in drops_in(json.loads(one.line))]


def _content(response: requests.Response) -> bytes:
    """The body of an answer, within bounds of size and time."""
    end = time.monotonic() + _PATIENCE
    data = bytearray()
    # a longer part would be waited for until it is whole
    for part in response.iter_content(1):
        data += part
        if len(data) > _LONGEST_ANSWER or time.monotonic() > end:
            raise requests.RequestException("its answer has no end")
    return bytes(data)


def endpoint(url: str) -> str:
    """The address of logs of a collector: a path that is not given is that of the protocol."""
    return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1/logs"
