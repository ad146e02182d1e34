# SPDX-License-Identifier: GPL-2.0
"""Drops for a collector of OpenTelemetry: an HTTP server here takes them, parsing the protobuf."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from ipttctl.errors import UsageError
from ipttctl.fleet.config import OtlpOptions
from ipttctl.fleet.config_file import parse_config, read_config
from ipttctl.fleet.host import Told
from ipttctl.fleet.otlp import OtlpDrops, endpoint
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    client,
    running_agent,
    until,
)
from tests.unit.ctl.fleet.test_metrics import by_kernel, by_rule, fetch, samples, told
from tests.unit.ctl.stories.packets import in_parts, one_story

Answer = tuple[int, bytes]


class Collector(ThreadingHTTPServer):
    """A collector, which keeps what it is sent."""

    daemon_threads = True

    def __init__(self, answer: Callable[[int], Answer]) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def records(self) -> list[LogRecord]:
        """The records of all requests."""
        return [
            record
            for request in self.requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportLogsServiceRequest()
        request.ParseFromString(body)
        self.server.requests.append(request)
        self.server.headers.append({name.lower(): one for name, one in self.headers.items()})
        self.server.paths.append(self.path)
        status, answer = self.server.answer(len(self.server.requests))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://elsewhere.example/")
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named so by the base
        """Log nothing."""


def taken(_: int) -> Answer:
    return 200, b""


@contextmanager
def collector(answer: Callable[[int], Answer] = taken) -> Iterator[Collector]:
    with Collector(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@contextmanager
def drops(config: OtlpOptions, said: list[str], **more: int) -> Iterator[OtlpDrops]:
    running = OtlpDrops(config, "web1", "run1", said.append, **more)
    running.start()
    try:
        yield running
    finally:
        running.stop(10)


def wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def values(record: LogRecord) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "")
        for one in record.attributes
    }


def has_lost(running: OtlpDrops, count: int) -> bool:
    return running.lost == count


def dropped(number: int) -> Told:
    return told(one_story(by_rule(number)))


def test_a_drop_is_a_record_with_names_of_the_conventions() -> None:
    said: list[str] = []
    with collector() as server, drops(OtlpOptions(url=server.url), said) as running:
        running.told([dropped(7), told(one_story(by_kernel(8)))])
        wait(lambda: running.sent == 2)
        [path] = server.paths
        [request] = server.requests
    assert path == "/v1/logs"
    [resource] = request.resource_logs
    found = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert found["host.name"] == "web1"
    assert (found["service.name"], found["service.instance.id"]) == ("ipttctl", "run1")
    first, second = server.records
    story = json.loads(dropped(7).line)
    assert first.event_name == "ipttctl.drop"
    assert first.time_unix_nano == story["time_ns"] + story["duration_ns"]
    assert first.body.string_value == story["end"]["text"]
    known = values(first)
    assert known["source.address"] == story["headers"]["source"]
    assert known["source.port"] == story["headers"]["source_port"]
    assert known["destination.address"] == story["headers"]["destination"]
    assert known["network.transport"] == story["headers"]["protocol"]
    assert (known["network.type"], known["network.interface.name"]) == ("ipv4", "eth0")
    assert known["security_rule.ruleset.name"] == "inet fw input"
    assert (known["ipttctl.end"], known["ipttctl.rulenum"]) == ("dropped_by_rule", 2)
    assert "process.pid" not in known
    assert values(second)["ipttctl.end"] == "dropped_by_kernel"
    assert said == []


def test_parts_and_copies_that_are_dropped_are_records() -> None:
    with collector() as server, drops(OtlpOptions(url=server.url), []) as running:
        running.told([told(in_parts())], "w")
        wait(lambda: running.sent == 2)
        found = [values(record) for record in server.records]
        times = [record.time_unix_nano for record in server.records]
    story = json.loads(told(in_parts()).line)
    parts = [step["story"] for step in story["steps"] if step["step"] == "branch"][:2]
    assert [(one["ipttctl.packet"], one["ipttctl.function"]) for one in found] == [
        *((2, "__dev_queue_xmit"), (3, "tcf_action_exec")),
    ]
    assert {one["ipttctl.watch"] for one in found} == {"w"}
    assert times == [part["time_ns"] + part["duration_ns"] for part in parts]


def test_the_documentation_has_every_attribute() -> None:
    page = (Path(__file__).parents[4] / "docs/fleet.md").read_text()
    story = json.loads(dropped(1).line)
    story["sender"] = {
        "pid": 1,
        "comm": "c",
        "unit": "u",
        "container": {"id": "i", "name": "n"},
        "pod": {"name": "p", "namespace": "s"},
    }
    story["netns_name"] = "x"
    story["end"]["rule"] |= {
        "rule": "r",
        "owner": "o",
        "owner_about": "a",
        "rule_handle": 2**64 - 1,
    }
    story["end"] |= {"function": "f", "module": "m", "drop_reason": "d"}
    line = json.dumps(story)
    with collector() as server, drops(OtlpOptions(url=server.url), []) as running:
        running.told([Told(dropped(1).story, line)], "w")
        wait(lambda: running.sent == 1)
        known = values(server.records[0])
    # the protocol's numbers have a sign
    assert known["ipttctl.rule_handle"] == str(2**64 - 1)
    assert {name for name in known if f"`{name}`" not in page} == set()


def test_names_that_are_not_utf_8_are_sent_escaped() -> None:
    story = json.loads(dropped(1).line)
    story["in_device"] = "eth\udcff"
    with collector() as server, drops(OtlpOptions(url=server.url), []) as running:
        running.told([Told(dropped(1).story, json.dumps(story))])
        wait(lambda: running.sent == 1)
        assert values(server.records[0])["network.interface.name"] == "eth\\udcff"


def test_headers_of_the_file_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# of the collector\nAuthorization: Bearer s3cret\n\nX-Tenant:  a b\n")
    with collector() as server:
        config = OtlpOptions(url=f"{server.url}/otlp/logs", headers_file=str(file))
        with drops(config, []) as running:
            running.told([dropped(1)])
            wait(lambda: running.sent == 1)
        [headers] = server.headers
        assert server.paths == ["/otlp/logs"]
    assert (headers["authorization"], headers["x-tenant"]) == ("Bearer s3cret", "a b")


def test_a_collector_that_does_not_answer_holds_nothing_up_and_what_is_lost_is_counted() -> None:
    go = threading.Event()

    def slow(_: int) -> Answer:
        assert go.wait(60)
        return 200, b""

    one = dropped(1)
    with collector(slow) as server:
        config = OtlpOptions(url=server.url)
        with drops(config, [], most=100 * len(one.line)) as running:
            running.told([one])
            wait(lambda: server.requests)
            begin = time.monotonic()
            for _ in range(50):
                running.told([one] * 20)
            assert time.monotonic() - begin < 1
            assert (running.sent, running.lost) == (0, 900)
            go.set()
            wait(lambda: running.sent == 101)
        assert running.lost == 900
        assert len(server.records) == 101


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "400"),
        (302, "302 Found, http://elsewhere.example/"),
        (304, "304 Not Modified, http://elsewhere.example/"),
    ],
)
def test_what_a_collector_refuses_is_lost_and_told_once(status: int, sentence: str) -> None:
    said: list[str] = []
    with (
        collector(lambda number: (status if number < 3 else 200, b"")) as server,
        drops(OtlpOptions(url=server.url), said) as running,
    ):
        for lost in (1, 2):
            running.told([dropped(lost)])
            wait(partial(has_lost, running, lost))
        running.told([dropped(3)])
        wait(lambda: running.sent == 1)
        assert running.lost == 2
    [line] = said
    assert line.startswith("otlp: ")
    assert sentence in line


def _endless(connection: socket.socket) -> None:
    """Answer a request by a body that does not end."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 100_000)


def _dripping(connection: socket.socket) -> None:
    """Answer a request by a body that comes byte by byte."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [_endless, _dripping])
def test_an_answer_without_an_end_is_none(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any local user can listen at the port of a collector that does not run."""
    monkeypatch.setattr("ipttctl.fleet.otlp._PATIENCE", 1.0)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with drops(OtlpOptions(url=url), said) as running:
            running.told([dropped(1)])
            wait(lambda: running.lost == 1)
        thread.join(10)
        assert not thread.is_alive()
    assert said == ["otlp: its answer has no end"]


def test_a_part_that_is_refused_is_counted() -> None:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    answer.partial_success.error_message = "too old"
    said: list[str] = []
    with (
        collector(lambda _: (200, answer.SerializeToString())) as server,
        drops(OtlpOptions(url=server.url), said) as running,
    ):
        running.told([dropped(number) for number in range(1, 6)])
        wait(lambda: running.sent + running.lost == 5)
        assert (running.sent, running.lost) == (3, 2)
    assert said == ["otlp: too old"]


def test_the_end_is_bounded_and_counts_what_is_left() -> None:
    with collector(lambda _: (503, b"")) as server:
        running = OtlpDrops(OtlpOptions(url=server.url), "web1", "run1")
        running.start()
        running.told([dropped(number) for number in range(1, 2001)])
        wait(lambda: server.requests)
        begin = time.monotonic()
        running.stop(0.2)
        assert time.monotonic() - begin < 5
    assert (running.sent, running.lost) == (0, 2000)


def test_an_agent_sends_the_drops_of_its_traces(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    host = FakeHost(story=lambda number: dropped(number + 1))

    async def run(url: str) -> str:
        more = f"otlp: {{url: '{url}'}}\nmetrics: {{port: 0}}\n"
        config = agent_config(leaf, agent_key, more)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as asker:
            await until(lambda: agent.connection.client)
            assert (await ask(asker, verb="trace", lease=60))["ok"]
            host.feed.put(3, link=100)
            await until(lambda: agent.otlp and agent.otlp.sent == 3)
            assert agent.metrics is not None
            await until(lambda: agent.metrics and agent.metrics.address)
            text = await asyncio.to_thread(fetch, agent.metrics.address[1])
            # what comes last is sent too
            host.feed.put(2, link=100)
        assert agent.otlp is not None
        assert agent.otlp.sent == 5
        return text

    with collector() as server:
        text = asyncio.run(run(server.url))
        assert [values(one)["ipttctl.packet"] for one in server.records] == [1, 2, 3, 1, 2]
    found = samples(text)
    sent = ("ipttctl_otlp_drops_total", (("host", "web1"), ("outcome", "sent")))
    assert found[sent] == 3


def test_mistakes_are_told(tmp_path: Path) -> None:
    leaf = f"leaf: {{url: 'nats://127.0.0.1:4222', nkey: {Key.make(tmp_path, 'web1').seed}}}\n"
    with pytest.raises(UsageError, match=r"line 2: otlp\.url: ca is for TLS"):
        parse_config(f"{leaf}otlp: {{url: 'http://h', ca: /c}}\n", "agent.yaml")
    with pytest.raises(UsageError, match=r"line 2: otlp\.url: this is no collector"):
        parse_config(f"{leaf}otlp: {{url: 'http://me:secret@h'}}\n", "agent.yaml")
    headers = tmp_path / "headers"
    headers.write_text("X-Token: s3cret\nno header s3cret\n")
    file = tmp_path / "agent.yaml"
    file.write_text(f"{leaf}otlp: {{url: 'http://h', headers-file: {headers}}}\n")
    headers.chmod(0o644)
    with pytest.raises(UsageError, match=r"otlp\.headers-file: others than its owner may read"):
        read_config(str(file))
    headers.chmod(0o600)
    with pytest.raises(UsageError, match="line 2: this is no header") as caught:
        read_config(str(file))
    assert "s3cret" not in str(caught.value)
    headers.unlink()
    with pytest.raises(UsageError, match=r"agent\.yaml, line 2: otlp\.headers-file: cannot read"):
        read_config(str(file))
    file.write_text(f"{leaf}otlp: {{url: 'https://h', ca: {file}}}\n")
    with pytest.raises(UsageError, match=r"line 2: otlp\.ca: .* has no certificate in PEM"):
        read_config(str(file))


def test_a_path_that_is_not_given_is_that_of_the_protocol() -> None:
    assert endpoint("http://h:4318") == "http://h:4318/v1/logs"
    assert endpoint("http://h:4318/") == "http://h:4318/v1/logs"
    assert endpoint("https://h/x") == "https://h/x"


def test_the_library_is_imported_where_it_is_switched_on_alone() -> None:
    script = (
        "import sys, ipttctl.fleet.agent, ipttctl.fleet.counts\n"
        "print('opentelemetry' in sys.modules, 'requests' in sys.modules)"
    )
    path = ":".join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path},
    )
    assert done.stdout == "False False\n"
