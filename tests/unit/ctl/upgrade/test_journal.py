# SPDX-License-Identifier: GPL-2.0
"""The journal of an upgrade: what is read is what was written; and the outcome in print."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf import syscalls
from ipttctl.errors import ModuleError
from ipttctl.link.model import Link
from ipttctl.link.restore import LinkRecord, Numbers
from ipttctl.state.journal import Record, RecordedLink, carry_over, life
from ipttctl.system.endings import ENDING
from ipttctl.upgrade import run, shown
from ipttctl.upgrade.journal import Journal, ModuleFile, Phase, discard
from ipttctl.upgrade.steps import UpgradeOutcome
from ipttproto import Slot
from ipttproto.family import Top
from tests.unit.ctl.support import link

PAST = {
    "generation": 1,
    "action": 1,
    "time": 5,
    "pid": 7,
    "uid": 0,
    "comm": "ipttctl",
    "program": [{"slot": 1, "id": 12, "tag": bytes(range(8)), "name": "trace_entry"}],
    "transaction": 1 << 40,
    "reason": "because",
}
ATTRIBUTES = link(
    flags=1,
    name="web",
    chain="\udcff",
    labels={"label": [{"key": "team", "value": "core"}]},
    stats={"packets": 9, "slot": [{"slot": 1, "runs": 3, "run-time": 2}]},
    **{"reason-text": "because", "owner-pid": 7, "owner-comm": "ipttctl", "transaction": 4},
)
ATTRIBUTES["programs"]["filter"] = bytes(16)
RECORD = LinkRecord(ATTRIBUTES, (PAST,))
JOURNAL = Journal(
    "boot",
    [1, "boot", 77],
    ModuleFile("aa", "0.1.0", "/copy/old/ipttrace.ko", "/lib/ipttrace.ko"),
    ModuleFile("bb", "0.2.0", "/copy/new/ipttrace.ko", "/lib/ipttrace.ko"),
    Numbers(1 << 40, 5),
    (RECORD,),
    ("link 4 is at no hook any more",),
    Phase.BACK,
    3.5,
    failure="it does not load",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "upgrade" / "journal.json"


def test_what_was_written_is_read(place: Path) -> None:
    assert Journal.read(place) is None
    JOURNAL.write(place)
    assert Journal.read(place) == JOURNAL
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    pins = place.parent.parent / "pins"
    pins.mkdir()
    discard(place, pins)
    assert not place.parent.exists()
    assert not pins.exists()
    discard(place, pins)


def test_counters_are_replaced(place: Path) -> None:
    counted = JOURNAL.with_counters({3: {"packets": 12}, 9: {}})
    counted.write(place)
    found = Journal.read(place)
    assert found is not None
    assert found.counted
    assert found.records[0].link.stats.packets == 12
    assert found.records[0].link.name == "web"
    assert replace(found, counted=False, records=JOURNAL.records) == JOURNAL


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "written by another version"),
        ({"numbers": {"sequence": 1}}, "makes no sense"),
        ({"phase": "sideways"}, "makes no sense"),
    ],
)
def test_other_journals_are_refused(place: Path, change: dict[str, Any], sentence: str) -> None:
    JOURNAL.write(place)
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    with pytest.raises(ModuleError, match=sentence):
        Journal.read(place)


def test_a_journal_of_others_is_not_believed(place: Path) -> None:
    JOURNAL.write(place)
    place.chmod(0o666)
    with pytest.raises(ModuleError, match="can be written to by others"):
        Journal.read(place)


def test_a_journal_that_cannot_be_written(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    place.mkdir()
    with pytest.raises(ModuleError, match="cannot write"):
        JOURNAL.write(place)
    with pytest.raises(ModuleError, match="cannot read"):
        Journal.read(place)


def test_a_record_is_the_request_that_restores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built as the protocol has it, from what the module said."""
    opened: list[int] = []

    def program_by_id(number: int) -> int:
        opened.append(number)
        return number

    monkeypatch.setattr(syscalls, "program_by_id", program_by_id)
    monkeypatch.setattr("os.close", lambda _: None)
    record = LinkRecord({k: v for k, v in ATTRIBUTES.items() if k != "chain"}, (PAST,))
    with ExitStack() as stack:
        request = record.request(stack)
    assert opened == [12, 13]
    assert request["programs"]["program"] == [
        {"slot": Slot.ENTRY, "fd": 12},
        {"slot": Slot.EXIT, "fd": 13},
    ]
    assert (request["programs"]["filter"], request["programs"]["cookie"]) == (bytes(16), 5)
    assert (request["name"], request["reason-text"], request["flags"]) == ("web", "because", 1)
    built = Top.parse(Top.build(request))
    assert built["restore"] == {
        "link": 3,
        "generation": record.link.generation,
        "transaction": 4,
        "owner-pid": 7,
        "owner-comm": "ipttctl",
        "stats": ATTRIBUTES["stats"],
        "past": [PAST],
    }
    assert record.same(Link.from_attributes({**ATTRIBUTES, "stats": {}}))
    assert not record.same(Link.from_attributes({**ATTRIBUTES, "name": "other"}))


def test_the_record_of_apply_is_carried_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.parent.mkdir(mode=0o700)
    past: list[str | int] = [0, "earlier", 1]
    kept, other, begun = (RecordedLink("a", link, 1, (1,), {}) for link in (3, 4, 0))
    monkeypatch.setattr("ipttctl.state.journal.life", lambda: past)
    Record((kept, other, begun)).write(place)
    monkeypatch.undo()
    carry_over(place, life(), {3})
    assert Record.read(place).links == ()
    carry_over(place, past, {3})
    assert Record.read(place).links == (kept,)


def test_an_upgrade_of_another_boot_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    discarded: list[bool] = []
    monkeypatch.setattr(run, "require_privilege", lambda: None)
    monkeypatch.setattr(run, "locked", lambda *_, **__: nullcontext())
    monkeypatch.setattr(run, "discard", lambda: discarded.append(True))
    monkeypatch.setattr(Journal, "read", lambda: JOURNAL)
    assert run.resume(told.append) is None
    assert discarded == [True]
    assert [sentence.partition("; ")[2] for sentence in told] == [
        "its links went with that, as with any reboot: web"
    ]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_does_not_hide_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It comes while the links are restored, and again while the outcome is printed."""
    outcome = UpgradeOutcome(JOURNAL.old, JOURNAL.new)
    failed = ModuleError("neither module takes the links")
    come: list[int] = []
    reported: list[UpgradeOutcome] = []
    before = signal.signal(number, lambda told, _: come.append(told))
    monkeypatch.setattr(run, "require_privilege", lambda: None)
    monkeypatch.setattr(run, "locked", lambda *_, **__: nullcontext())
    monkeypatch.setattr(run, "boot", lambda: JOURNAL.boot)
    monkeypatch.setattr(Journal, "read", lambda: replace(JOURNAL, counted=True))

    def complete(*_: object) -> UpgradeOutcome:
        signal.raise_signal(number)
        if failing:
            raise failed
        return outcome

    def report(told: UpgradeOutcome) -> None:
        signal.raise_signal(number)
        reported.append(told)

    monkeypatch.setattr(run, "complete", complete)
    try:
        failing = False
        assert run.upgrade(lambda _: None, report=report) is outcome
        assert run.resume(lambda _: None, report=report) is outcome
        failing = True
        with pytest.raises(ModuleError, match="neither"):
            run.upgrade(lambda _: None, report=report)
    finally:
        signal.signal(number, before)
    assert reported == [outcome, outcome]
    assert come == []


def test_the_outcome_in_print() -> None:
    outcome = UpgradeOutcome(JOURNAL.old, JOURNAL.new, (RECORD,), {3: 0.1234}, ("link 4 ended",))
    assert shown.as_lines(outcome) == [
        "loaded: version 0.2.0, 1 link restored",
        "gap: 0.123 s, in which packets passed without the links",
        f"  link=3 gen={RECORD.link.generation} hook=table name=web gap=0.123s",
        "not kept: link 4 ended",
    ]
    told = shown.as_object(outcome)
    assert (told["upgraded"], told["failure"], told["gap_ms"]) == (True, None, 123)
    assert told["links"][0]["gap_ms"] == 123
    back = replace(outcome, gaps={}, back="it does not load", left_out=())
    assert shown.as_lines(back)[0] == "loaded: version 0.1.0, 1 link restored"
    assert shown.as_lines(back)[-1].endswith("gap=unknown")
    told = shown.as_object(back)
    assert (told["upgraded"], told["failure"], told["gap_ms"]) == (False, "it does not load", None)
    assert shown.as_object(None).keys() == told.keys()


def test_a_link_is_the_same_once_its_replaced_sets_have_ended() -> None:
    """A swap may be answered before they have; when links are parked, they have."""
    before = LinkRecord({**ATTRIBUTES, "generation": 3, "ended": 1}, (PAST,))
    assert before.same(Link.from_attributes({**ATTRIBUTES, "generation": 3, "ended": 2}))
    assert not before.same(Link.from_attributes({**ATTRIBUTES, "generation": 4, "ended": 3}))
