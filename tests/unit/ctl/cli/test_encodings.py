# SPDX-License-Identifier: GPL-2.0
"""Character sets of terminals and pipes: no command fails because of one."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from ipttctl.cli import main, standard_files
from ipttctl.host import doctor
from ipttctl.host.doctor import Finding, Health
from ipttctl.link.model import Link
from ipttctl.link.wire import Connection
from ipttctl.programs import trace as trace_programs
from ipttctl.show import link_table
from ipttproto import Command, Kind
from tests.unit.ctl.support import FakeModule, event, events_message, link


class _Program:
    fd = 10

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        module.multicast(events_message([event(kind=Kind.EXIT, cost=1500, out_name="ä".encode())]))
        return [link()]

    monkeypatch.setattr(Connection, "open", module.connect)
    monkeypatch.setattr(trace_programs, "load_trace_programs", lambda *_, **__: {1: _Program()})
    module.handlers[Command.ATTACH] = attach
    module.handlers[Command.DETACH] = lambda *_: [link()]


@pytest.mark.parametrize(
    ("encoding", "cost", "name"),
    [
        ("ascii", "cost=1.500us", r"\xe4(2)"),
        ("latin-1", "cost=1.500µs", "ä(2)"),
        ("iso8859-5", "cost=1.500us", r"\xe4(2)"),
        ("utf-8", "cost=1.500µs", "ä(2)"),
    ],
)
def test_trace(encoding: str, cost: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(sys, "argv", ["ipttctl", "trace", "--lines", "-c", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    text = written.getvalue().decode(encoding)
    assert cost in text
    assert name in text


def test_errors_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, "ascii", errors="strict"))
    monkeypatch.setattr(sys, "argv", ["ipttctl", "trace", "-H", "Zoë\udcff\u202e"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert rb"'Zo\xeb\xff\u202e' is neither an IP address nor a network" in written.getvalue()


def test_doctor_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    findings = [Finding("legacy tables", Health.OK, "日本: filter")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", errors="strict"))
    monkeypatch.setattr(sys, "argv", ["ipttctl", "doctor"])
    with pytest.raises(SystemExit):
        main()
    assert written.getvalue() == b"ok      legacy tables  \\u65e5\\u672c: filter\n"


def test_table_of_links_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    standard_files.take_any_encoding()
    console = Console(force_terminal=True, width=300, highlight=False)
    link_table.print_links([Link.from_attributes(link(**{"owner-comm": "Zoë"}))], {}, console)
    stream.flush()
    assert rb"1234(Zo\xeb)" in written.getvalue()
