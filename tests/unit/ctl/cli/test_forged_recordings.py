# SPDX-License-Identifier: GPL-2.0
"""Recordings with right checksums that somebody made up: one sentence, no traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipttctl.cli import run
from ipttctl.frames.bodies import json_body, json_of
from ipttctl.frames.codec import encode
from ipttctl.frames.head import EVENTS, FrameHead
from ipttctl.frames.reader import FrameReader
from tests.unit.ctl.cli.test_trace_stories import message, when_traced
from tests.unit.ctl.stories.packets import flood, to_docker
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open", "answering", "programs")

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=5),
    st.just("\udcff"),
    st.just("\ud800"),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["text", "kind"]), st.integers(0, 3), max_size=2),
)
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
VERBS = (
    ["show"],
    ["show", "-v", "-o", "json"],
    ["show", "--lines"],
    ["show", "--summary"],
    ["show", "--netns", "web"],
    ["show", "--both-ways", "--stop-after", "9", "tcp[4:4] = 5 or net 10.0.0.0/8"],
    ["show", "--lines", "-H", "192.0.2.7", "--backend", "nft", "udp[4:2] > 7"],
    ["query", "SELECT * FROM stories LEFT JOIN drops USING (story)"],
    ["query", "SELECT count(*) FROM steps, links, hosts"],
    ["query", "SELECT * FROM events"],
)


@pytest.fixture
def frames(
    module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> list[tuple[FrameHead, bytes]]:
    """The frames of a recording."""
    path = tmp_path / "file"
    when_traced(module, message(to_docker(), *flood(2, 20)))
    assert run(["record", str(path), "-c", "3", "--stop-after", "20"]) == 0
    capsys.readouterr()
    with path.open("rb") as file:
        return list(FrameReader(file))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All places in an object that hold a value: a container, and a key in it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(entries):
        yield value, key
        if isinstance(one, dict | list):
            yield from places(one)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_values_of_other_types_are_told_in_a_sentence(
    frames: list[tuple[FrameHead, bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    others = [place for place, (head, _) in enumerate(frames) if head.kind != EVENTS]
    chosen = data.draw(st.sampled_from(others))
    head, body = frames[chosen]
    objects = json_of(head, body)
    for _ in range(data.draw(st.integers(1, 3))):
        one = data.draw(st.sampled_from(objects))
        container, key = data.draw(st.sampled_from(list(places(one)) or [(one, "x")]))
        if data.draw(st.booleans()) and isinstance(container, dict):
            container.pop(key, None)
        elif isinstance(container, dict) or key < len(container):
            container[key] = data.draw(VALUES)
    forged = [*frames]
    forged[chosen] = head, json_body(json.dumps(one) for one in objects)
    _is_told(forged, tmp_path, capsys, data)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_events_of_any_numbers_are_told_in_a_sentence(
    frames: list[tuple[FrameHead, bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    forged = [*frames]
    for place, (head, body) in enumerate(frames):
        if head.kind != EVENTS or not body:
            continue
        hurt = bytearray(body)
        for _ in range(data.draw(st.integers(1, 12))):
            size = data.draw(st.sampled_from([1, 2, 4, 8]))
            at = data.draw(st.integers(0, len(hurt) // size - 1)) * size
            value = data.draw(st.one_of(st.sampled_from(NUMBERS), st.integers(0, 2**64 - 1)))
            hurt[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        forged[place] = head, bytes(hurt)
    _is_told(forged, tmp_path, capsys, data)


def _is_told(
    forged: list[tuple[FrameHead, bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    """Show a recording, or ask it: that ends well, or with one sentence."""
    path = tmp_path / "forged"
    path.write_bytes(b"".join(encode(*frame) for frame in forged))
    verb, *options = data.draw(st.sampled_from(VERBS))
    status = run(
        [verb, *options[:1], str(path), *options[1:]]
        if verb == "query"
        else [verb, str(path), *options]
    )
    said = capsys.readouterr().err
    assert status in {0, 1, 2}, said
    assert "Traceback" not in said
    if status:
        assert said.splitlines()[-1].startswith("ipttctl: ")
