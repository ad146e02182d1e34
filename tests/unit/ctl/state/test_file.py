# SPDX-License-Identifier: GPL-2.0
"""The file of ``apply``: its paths, its texts, its errors."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import yaml

from ipttctl.cli import run
from ipttctl.errors import UsageError
from ipttctl.programs.sources import FromObject
from ipttctl.state.file import read_state, state_object, state_text
from ipttproto import Slot
from tests.unit.ctl.state.support import Machine, given
from tests.unit.ctl.support import LAUGHS

pytestmark = pytest.mark.usefixtures("left_open")

FULL = {
    "links": {
        "a": {
            "link": 4,
            "hook": "nf:netdev/ingress@5",
            "device": "lo",
            "mode": "filter",
            "report-drops": True,
            "object": {"packet": "/x/y.o:blocklist"},
            "filter": "tcp",
            "payload": "bytes",
            "set": {"limit": 100, "low": -5, "on": True, "name": "eth0", "wide": "0x10"},
            "keep-maps": ["blocked4", "names"],
            "maps": {
                "blocked4": ["10.0.0.0/8", "10.1.0.0/16"],
                "names": {'{"a": 1}': [1, 2], 7: None, "00:10:20": 12},
            },
        },
        "b": {
            "hook": "table",
            "family": 6,
            "count-rules": True,
            "tag": {"entry": "0000000000000012"},
            "pid": {"rule": "12:7"},
            "pinned": {"exit": "/sys/fs/bpf/x"},
            "filter": "1,6 0 0 262144",
            "sample": "1/100",
            "limit-rate": "20/s",
            "governor": "50000/s,12.5%",
            "cookie": 18446744073709551615,
        },
        "c": {
            "hook": r"chain:ip/a\x2fb\x20\\/\xff",
            "id": {"rule": 7},
            "keep-maps": True,
        },
    }
}


def test_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = given(tmp_path / "full.yaml", yaml.safe_dump(FULL, sort_keys=False))
    state = read_state(file)
    assert state_object(state) == FULL
    assert read_state(given(tmp_path / "again.yaml", state_text(state))) == state


def test_a_text_is_read_as_a_file_is(tmp_path: Path) -> None:
    text = yaml.safe_dump(FULL, sort_keys=False)
    state = read_state(text=text)
    assert state == read_state(Path(given(tmp_path / "full.yaml", text)))
    assert read_state(text=state_text(state)) == state
    relative = "links: {a: {object: {rule: x.o:g}}}"
    (here,) = read_state(text=relative).links
    (below,) = read_state(text=relative, directory=tmp_path).links
    sources = [one.programs.sources[Slot.RULE] for one in (here, below)]
    assert sources == [FromObject("x.o", "g"), FromObject(f"{tmp_path}/x.o", "g")]
    with pytest.raises(UsageError, match=r"^the text is neither YAML nor JSON: line 1"):
        read_state(text="a: [")
    with pytest.raises(UsageError, match=r"^the text is not an object of links"):
        read_state(text="router.yaml")


def test_what_is_named_by_aliases_is_read_as_if_written_out(tmp_path: Path) -> None:
    text = "links: {a: &a {object: {rule: x.o:y}, label: {team: web}}, b: *a, c: *a}"
    found = state_object(read_state(given(tmp_path / "state.yaml", text)))["links"]
    assert found["a"] == found["b"] == found["c"]
    deep = f"links: {{a: &a {'[' * 60}{']' * 60}, b: {'[' * 60}*a{']' * 60}}}"
    with pytest.raises(UsageError, match="is nested too deeply"):
        read_state(text=deep)


def test_constants_with_parts_become_json(tmp_path: Path) -> None:
    text = "links: {a: {object: {rule: x.o:y}, set: {list: [1, 2], net: {a: 1}, off: false}}}"
    (found,) = read_state(given(tmp_path / "state.yaml", text)).links
    assert found.programs.constants == {"list": "[1, 2]", "net": '{"a": 1}', "off": "false"}
    assert found.keep_maps is None


def test_paths_begin_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'links: {a: {source: "exit=x.c:f", object: {rule: "sub/x.o:g"}, pinned: entry=/p}}'
    found = state_object(read_state(given(tmp_path / "state.yaml", text)))["links"]["a"]
    assert found["source"] == {"exit": f"{tmp_path}/x.c:f"}
    assert found["object"] == {"rule": f"{tmp_path}/sub/x.o:g"}
    assert found["pinned"] == {"entry": "/p"}
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    found = state_object(read_state("-"))["links"]["a"]
    assert found["source"] == {"exit": "x.c:f"}


def test_plain_texts_are_what_they_look_like(tmp_path: Path) -> None:
    """YAML 1.1 would read these as numbers in base 60, octal numbers and truth values."""
    text = """
links:
  on: {tag: {exit: 0123456701234567}, maps: {m: {00:10:20: 0x10, yes: no, 1.5: true, 8: ~}}}
"""
    (found,) = read_state(given(tmp_path / "state.yaml", text)).links
    assert found.name == "on"
    assert found.maps["m"].entries == (
        ("00:10:20", 16), ("yes", "no"), (1.5, True), (8, None),
    )  # fmt: skip  # pairs together


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", 'is not an object of links; it begins with "links: NAME:"'),
        ("{links: [], more: 1}", "is not an object of links"),
        ("links: {a: }", "link a is not an object"),
        (
            "links:\n  a: {fd: rule=1}\n  b: {fd: rule=2}\n  a: {fd: rule=2}",
            "state.yaml, line 4, column 3: the key 'a' is there twice in one object",
        ),
        ("links: &a {a: *a}", "line 1, column 8: an alias in this names this itself"),
        ("links: {a: &a [1, [*a]]}", "line 1, column 12: an alias in this names this itself"),
        (LAUGHS, "state.yaml: its aliases repeat more than"),
        ("links: {a: !!int x}", "line 1, column 12: this is no value of its tag"),
        ("links: {a: !!bool x}", "line 1, column 12: this is no value of its tag"),
        ("links: {a: !!float ''}", "line 1, column 12: this is no value of its tag"),
        ("links: {a: !!timestamp x}", "line 1, column 12: this is no value of its tag"),
        ("links: {[]: x}", "line 1, column 9: found unhashable key"),
        (f"links: {{a: {'[' * 120}{']' * 120}}}", "state.yaml is nested too deeply"),
        ("links: {a: {}}", "link a: no program is given"),
        ("links: {a b: {fd: rule=7}}", "'a b' is not a name of a link"),
        ("links: {a: {fd: packet=7}}", "a: hook table has no slot 'packet'"),
        ("links: {a: {fd: rule=7, hook: nf:ip/input}}", "has no slot 'rule'"),
        ("links: {a: {fd: packet=7, hook: chain}}", "hook chain has no slot 'packet'"),
        ("links: {a: {fd: rule=7, hook: 'chain:ip/\\x00'}}", "is not a name of nftables"),
        ('links: {a: {fd: rule=7, hook: "chain:ip/\\ud800"}}', "half a character in it"),
        ("links: {a: {fd: rule=7, hook: chain, mode: filter}}", "--mode does not go with chains"),
        ("links: {a: {fd: rule=7, family: 5}}", "link a: family is one of 4, 6, not 5"),
        ("links: {a: {fd: rule=7, mode: 5}}", "link a: mode is one of observe, filter, not 5"),
        ("links: {a: {fd: rule=7, report-drops: 1}}", "report-drops is neither true nor false"),
        ("links: {a: {fd: rule=7, what: 1}}", "link a: there is no key 'what'; there are: hook,"),
        ("links: {a: {fd: rule=7, maps: []}}", None),
        ("links: {a: {fd: rule=7, keep-maps: false}}", None),
        ("links: {a: {fd: rule=7, keep-maps: 7}}", "link a: keep-maps is neither true nor a list"),
        ("links: {a: {fd: rule=7, set: {x: 1.5}}}", "link a: set: 1.5 is neither text nor a num"),
        ("links: {a: {fd: rule=7, set: x}}", "link a: --set: 'x' is not NAME=VALUE"),
        ("links: {a: {fd: rule=7, maps: [1]}}", "link a: maps is not an object"),
        ("links: {a: {fd: rule=7, maps: {x: 1}}}", "maps: x: there are neither keys nor values"),
        ("links: {a: {fd: rule=7, link: 0}}", "link a: link is not a number from 1 on"),
        ("links: {a: {fd: rule=7, link: 3}, b: {fd: rule=7, link: 3}}", "link 3 is declared twice"),
        (
            "links: {a: {fd: packet=7, hook: nf:ip/input, netns: no-such}}",
            "there is no network namespace 'no-such'",
        ),
        ("a: [", "is neither YAML nor JSON"),
    ],
)
def test_errors_in_a_file(
    text: str, sentence: str | None, machine: Machine, tmp_path: Path
) -> None:
    del machine
    file = given(tmp_path / "state.yaml", text)
    if sentence is None:
        assert len(read_state(file).links) == 1
        return
    with pytest.raises(UsageError) as caught:
        read_state(file)
    assert sentence in str(caught.value)
    assert run(["apply", file]) == 2
