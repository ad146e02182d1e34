# SPDX-License-Identifier: GPL-2.0
"""Names chosen by somebody else reach the terminal as plain text, by every way to it."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import ipttctl
from ipttctl import state as declared
from ipttctl.cli import run
from ipttctl.errors import ModuleError, ProgramError
from ipttctl.escape import escape, part, part_name, quoted, word
from ipttctl.events.records import decode_events
from ipttctl.hooks.chain import ChainHook
from ipttctl.host import doctor
from ipttctl.host import module as kernel_module
from ipttctl.host.doctor import Finding
from ipttctl.host.module import ModuleState
from ipttctl.link.model import Link, ModuleStatus
from ipttctl.link.wire import Connection
from ipttctl.programs import maps as link_maps
from ipttctl.programs import trace as trace_programs
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_table import EventTable
from ipttctl.show.link_table import print_links
from ipttctl.show.render_json import dumps
from ipttctl.state import SavedState, State, Step, StepAction
from ipttctl.state.steps import step_object
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Command, EventFlag, Kind, Slot, parse_batch
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    batch_payload,
    chain_event,
    chain_link,
    event,
    events_message,
    joined,
    link,
    nf_link,
    notification,
    status,
)

HOSTILE = "\x1b]0;p\a\x9b\n[red]"
"""As long as a device's name can be: sets the title, ends the line, and is markup of rich."""
SHOWN = r"\x1b]0;p\x07\x9b\n[red]"

LINK = link(
    **{"owner-comm": HOSTILE},
    programs={"program": [{"slot": 1, "id": 12, "tag": bytes(8), "name": HOSTILE}]},
)
NF_LINK = nf_link(
    **{"owner-comm": HOSTILE},
    ifname=HOSTILE,
    programs={"program": [{"slot": 4, "id": 21, "tag": bytes(8), "name": HOSTILE}]},
)
CHAIN_LINK = chain_link(
    **{"owner-comm": HOSTILE},
    table=HOSTILE,
    chain=HOSTILE,
    programs={"program": [{"slot": 1, "id": 12, "tag": bytes(8), "name": HOSTILE}]},
)
EVENT = event(
    packet=5,
    in_name=HOSTILE.encode(),
    out_name=HOSTILE.encode(),
    table=HOSTILE.encode(),
    chain=HOSTILE.encode(),
)
PACKET = {**EVENT, "kind": Kind.PACKET}
CHAIN_RULE = chain_event(
    in_name=HOSTILE.encode(),
    table=HOSTILE.encode(),
    chain=HOSTILE.encode(),
    target=HOSTILE.encode(),
)
CHAIN_EVENTS = [{**CHAIN_RULE, "kind": kind} for kind in sorted(ChainHook.EVENTS)]
HISTORY = {
    "generation": 2,
    "action": 1,
    "time": 0,
    "pid": 7,
    "uid": 0,
    "comm": HOSTILE,
    "program": [{"slot": 1, "id": 12, "tag": bytes(8), "name": HOSTILE}],
}


class _Map:
    """A map that anybody may have named and filled."""

    name = HOSTILE
    type = "hash"
    info = SimpleNamespace(id=7, name=HOSTILE, key_size=4, value_size=4, max_entries=1, flags=0)
    format = SimpleNamespace(
        key_type=HOSTILE, value_type=HOSTILE, key=str, key_bytes=lambda key: key
    )

    def get(self, key: str) -> Any:
        return {"comm": HOSTILE, key: HOSTILE} if key == HOSTILE else None

    def dump(self) -> Iterator[tuple[Any, Any]]:
        yield HOSTILE, HOSTILE
        yield {"name": HOSTILE}, [HOSTILE]


@contextmanager
def _one_map(*_: object) -> Iterator[_Map]:
    yield _Map()


@contextmanager
def _maps(*_: object) -> Iterator[list[Any]]:
    yield [SimpleNamespace(map=_Map(), slots=(Slot.ENTRY,))]


class _Program:
    fd = 10

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


@pytest.fixture(autouse=True)
def _world(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give hostile names to everything that has a name."""
    monkeypatch.setattr(Connection, "open", module.connect)
    monkeypatch.setattr(NamespaceNames, "name", lambda *_: HOSTILE)
    for command in (Command.GET, Command.DETACH, Command.CONFIRM):
        module.handlers[command] = lambda *_: [LINK, NF_LINK, CHAIN_LINK]
    module.handlers[Command.HISTORY] = lambda *_: [
        {"link": 3, "generation": 2, "history": [HISTORY]}
    ]
    module.handlers[Command.STATS] = lambda *_: [{**status(), "module-version": HOSTILE}]

    def attach(*_: Any) -> Any:
        exit_event = {**EVENT, "kind": Kind.EXIT}
        module.multicast(events_message([EVENT, PACKET, exit_event, *CHAIN_EVENTS]))
        module.multicast(notification(Command.LINK_DETACHED, {**LINK, "reason": 1}))
        return [LINK]

    def refuse(*_: Any) -> Any:
        raise RefusalError(22, {"message": HOSTILE})

    module.handlers[Command.ATTACH] = attach
    module.handlers[Command.SWAP] = refuse
    # with the second socket, the command listens for events or changes
    module.when_connected(
        2,
        events_message([EVENT, PACKET, *CHAIN_EVENTS]),
        notification(Command.LINK_SWAPPED, LINK),
        notification(Command.LINK_DETACHED, {**NF_LINK, "reason": 1}),
    )
    monkeypatch.setattr(trace_programs, "load_trace_programs", lambda *_, **__: {1: _Program()})
    monkeypatch.setattr(link_maps, "map_of", _one_map)
    monkeypatch.setattr(link_maps, "maps_of", _maps)
    finding = Finding(HOSTILE, doctor.Health.WARNING, f"{HOSTILE} of {HOSTILE}", HOSTILE)
    monkeypatch.setattr(doctor, "examine", lambda: iter([finding]))
    state = ModuleState(
        loaded=True,
        status=ModuleStatus.from_attributes([{**status(), "module-version": HOSTILE}]),
        links=tuple(map(Link.from_attributes, (LINK, NF_LINK, CHAIN_LINK))),
        problem=ModuleError(HOSTILE),
    )
    monkeypatch.setattr(kernel_module, "state", lambda: state)
    saved = SavedState(State(), ((Link.from_attributes(LINK), HOSTILE),))
    monkeypatch.setattr(declared, "save_state", lambda *_, **__: saved)
    step = Step(StepAction.SET, HOSTILE, 3, (HOSTILE,), HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    monkeypatch.setattr(declared, "diff_state", lambda *_, **__: [step])
    plan = [step_object(step)], [step]
    monkeypatch.setattr("ipttctl.cli.declared.plan_state", lambda *_, **__: plan)


COMMANDS = {
    "": 0,
    "module": 0,
    "links": 0,
    "links 3": 0,
    "attach --fd rule=7": 10,
    "detach 3": 0,
    "swap 3 --fd rule=7": 1,
    "confirm 3": 0,
    "history 3": 0,
    "trace --lines -c 7": 0,
    "trace --lines -v -c 7": 0,
    "trace": 0,
    "trace -v": 0,
    "trace --summary": 0,
    "events -c 6": 0,
    "events --links -c 2": 0,
    "stats": 0,
    "maps 3": 0,
    "map get 3/x HOSTILE": 0,
    "map get 3/x HOSTILE-": 4,
    "map dump 3/x": 0,
    "save": 0,
    "diff FILE": 9,
    "doctor": 0,
    "run --fd rule=7 HOSTILE": 127,
    "HOSTILE": 2,
    "attach --fd HOSTILE": 2,
    "trace -N HOSTILE": 2,
}
SILENT = {"map get 3/x HOSTILE-", "swap 3 --fd rule=7", "run --fd rule=7 HOSTILE"}


def arguments(line: str, path: Path) -> list[str]:
    """The arguments of a command line, with its placeholders replaced."""
    path.write_text("links: {}\n")
    return [w.replace("HOSTILE", HOSTILE).replace("FILE", str(path)) for w in line.split()]


def check(text: str) -> None:
    """Check that nothing acts on a terminal, and that no name began a line."""
    acted_on = [c for c in text if not c.isprintable() and c not in "\n\t"]
    assert not acted_on
    assert not re.search(r"^\[red\]", text, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_text(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(line, tmp_path / "state")) == COMMANDS[line]
    captured = capsys.readouterr()
    check(captured.out)
    check(captured.err)
    # the name was shown; messages about command lines fold white space
    assert SHOWN in captured.out + captured.err or SHOWN.replace(r"\n", " ") in captured.err


@pytest.mark.parametrize(
    "line", [line for line, code in COMMANDS.items() if code != 2 and line not in SILENT]
)
def test_json(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(line, tmp_path / "state")
    assert run([*words, "-o", "json"]) == COMMANDS[line]
    out = capsys.readouterr().out
    assert out.isascii()
    check(out)
    objects = [json.loads(one) for one in out.splitlines()]
    if line != "save":
        assert all(HOSTILE in _strings(value) for value in objects)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)


def test_table_of_links() -> None:
    links = [Link.from_attributes(told) for told in (LINK, NF_LINK, CHAIN_LINK)]
    for width in (80, 400):
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=width, highlight=False)
        print_links(links, {}, console, NamespaceNames())
        text = file.getvalue()
        check(re.sub(r"\x1b\[[01]m", "", text))
        assert text.count("[red]") >= 10


def test_colours_are_ours() -> None:
    [found] = decode_events(parse_batch(batch_payload([EVENT])))
    [text] = EventTable(colour=True).lines(joined(found))
    assert re.findall(r"\x1b\[\d*m", text) == ["\x1b[36m", "\x1b[0m"]
    check(re.sub(r"\x1b\[\d*m", "", text))


def test_blocks() -> None:
    for members in (EVENT, PACKET, {**EVENT, "kind": Kind.EXIT}, *CHAIN_EVENTS):
        [found] = decode_events(parse_batch(batch_payload([members])))
        for colour in (True, False):
            text = "\n".join(EventBlocks(80, colour=colour).lines(joined(found)))
            check(re.sub(r"\x1b\[\d*m", "", text))
            assert SHOWN in text


def test_payloads_stay_one_field() -> None:
    payload = batch_payload([event(flags=EventFlag.PAYLOAD)], payloads={0: b"x"})
    [found] = decode_events(parse_batch(payload))
    [line] = EventTable(payload=lambda _: {"host": "x rulenum=7] " + HOSTILE}).lines(joined(found))
    check(line)
    assert line.split()[-1].startswith("payload=")


def test_errors_of_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise ProgramError(f"cannot compile: {HOSTILE}", HOSTILE)

    monkeypatch.setattr(doctor, "examine", fail)
    assert run(["doctor"]) == 4
    check(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "escaped", "as_word"),
    [
        ("eth0", "eth0", "eth0"),
        ("Web Content", "Web Content", r"Web\x20Content"),
        (r"a\x1b", r"a\x1b", r"a\\x1b"),
        ("a\x1b", r"a\x1b", r"a\x1b"),
        ("\x7f\x80\x9f\xa0", r"\x7f\x80\x9f\xa0", r"\x7f\x80\x9f\xa0"),
        ("\r\n\t", r"\r\n\t", r"\r\n\t"),
        ("\u202egpj.\u2028", r"\u202egpj.\u2028", r"\u202egpj.\u2028"),
        ("\U000e0001", r"\U000e0001", r"\U000e0001"),
        ("\udcff\ud800", r"\xff\ud800", r"\xff\ud800"),
        ("Zoë", "Zoë", "Zoë"),
    ],
)
def test_escape(text: str, escaped: str, as_word: str) -> None:
    assert escape(text) == escaped
    assert escape(escape(text)) == escaped
    assert word(text) == as_word
    json_text = dumps({text: text})
    assert json_text.isascii()
    assert json_text.isprintable()
    same = text.replace("\udcff", r"\xff").replace("\ud800", r"\ud800")
    assert json.loads(json_text) == {same: same}


def test_bytes() -> None:
    assert word(b"\xff\\\x1b \xc2\x9b") == r"\xff\\\x1b\x20\x9b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"filter", "filter"),
        (b"a/b c", r"a\x2fb\x20c"),
        (b"\\x2f", r"\\x2f"),
        ("Zoë".encode(), "Zoë"),
        # a character that is not printable is its bytes, and so not the byte of its number
        ("\x9b\u2028".encode(), r"\xc2\x9b\xe2\x80\xa8"),
        (b"\x9b\xff", r"\x9b\xff"),
        (HOSTILE.encode(), r"\x1b]0;p\x07\xc2\x9b\x0a[red]"),
    ],
)
def test_parts_of_paths(name: bytes, text: str) -> None:
    assert part(name) == part(name.decode(errors="surrogateescape")) == text
    assert part_name(text) == name.decode(errors="surrogateescape")


@pytest.mark.parametrize("text", ["\\", r"\n", r"\x1", r"\xgg", r"\x00", "\0", "\ud800", r"\\\x"])
def test_what_no_name_is(text: str) -> None:
    assert part_name(text) is None


def test_nothing_goes_to_the_terminal_by_another_way() -> None:
    """The controller writes to standard output and standard error only in known files."""
    writers = set()
    root = Path(ipttctl.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            printed = isinstance(node, ast.Call) and (
                (isinstance(node.func, ast.Name) and node.func.id == "print")
                or (
                    isinstance(node.func, ast.Attribute)
                    and ast.unparse(node.func).endswith((".print", "typer.echo", ".writelines"))
                )
            )
            if printed:
                writers.add(str(path.relative_to(root)))
    assert writers == {
        # the modules that print
        "cli/output.py",
        "cli/printing.py",
        # one line of a terminal, escaped
        "cli/progress.py",
        # rich: cells are escaped
        "show/link_table.py",
        # passes events on to the output module
        "cli/view.py",
        # a child whose output the controller reads
        "bpf/bpfcc_compiler.py",
        # a sentence of the project's own
        "cli/options.py",
        # an entry for developers; rulesets and packets are its own
        "verify/__main__.py",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("core", "core"),
        ("", '""'),
        ("a fix", '"a fix"'),
        ('say "x"', r'"say \"x\""'),
        ('"', r'"\""'),
        ("a\\b", r"a\\b"),
        ("a \\", r'"a \\"'),
        ("x\x1b[1m y", r'"x\x1b[1m y"'),
    ],
)
def test_texts_of_people_are_one_field(text: str, shown: str) -> None:
    assert quoted(text) == shown


@given(*[st.text(alphabet='a" \\n\n', max_size=4)] * 2)
def test_no_two_texts_look_alike(one: str, other: str) -> None:
    assert (quoted(one) == quoted(other)) == (one == other)
    assert quoted(one).isprintable()
