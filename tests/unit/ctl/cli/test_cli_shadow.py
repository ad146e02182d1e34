# SPDX-License-Identifier: GPL-2.0
"""``swap --shadow``, ``promote`` and ``drop-shadow``, with a module in user space."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipttctl.cli import keep, run
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, RefusalError, link, nf_link

pytestmark = pytest.mark.usefixtures("left_open")

NUMBER = 17
SHADOW: dict[str, Any] = {
    "number": NUMBER,
    "programs": {
        "program": [{"slot": 4, "id": 22, "tag": bytes(8), "name": "new"}],
        "filter-length": 3,
        "cookie": 9,
        "payload-map": 5,
        "payload-size": 8,
    },
    "promote-if": [
        {"counter": 9, "comparison": 1, "threshold": 1, "per-packets": 10000, "minimum": 10000}
    ],
}
COUNTERS = {"agreed": 40, "disagreed": 2, "shadow-runs": 41, "shadow-run-time": 700}


@pytest.fixture(autouse=True)
def _shadows(module: FakeModule, answering: None) -> None:  # noqa: ARG001 - order
    """The module answers with a link that has a shadow, or has none any more."""
    stats = {**link()["stats"], **COUNTERS}
    with_shadow = nf_link(link=3, shadow=SHADOW, stats=stats)
    module.handlers[Command.SHADOW] = lambda *_: [with_shadow]
    module.handlers[Command.GET] = lambda *_: [with_shadow]
    for command in (Command.PROMOTE, Command.DROP_SHADOW):
        module.handlers[command] = lambda *_: [nf_link(link=3, stats=stats)]


def test_a_shadow_is_asked_for_as_a_swap_is(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "swap 3 --shadow --fd packet=7 --expect-gen 2 --expect-prog packet=21 --label v=2"
    conditions = ["--promote-if", "disagreements < 1/10000 for 10m", "--promote-if=agreements>9/s"]
    assert run([*line.split(), "--force", "--cookie", "5", *conditions, "-o", "json"]) == 0
    assert module.requested(Command.SHADOW) == [
        {
            "link": 3,
            "programs": {"program": [{"slot": 4, "fd": 7}], "cookie": 5},
            "expect-generation": 2,
            "expect-program": [{"slot": 4, "id": 21}],
            "labels": {"label": [{"key": "v", "value": "2"}]},
            "force": 1,
            "promote-if": [
                {
                    "counter": 9,
                    "comparison": 1,
                    "threshold": 1,
                    "per-packets": 10000,
                    "window": 600_000,
                    "minimum": 10000,
                },
                {
                    "counter": 8,
                    "comparison": 3,
                    "threshold": 9,
                    "per-time": 1000,
                    "window": 1000,
                    "minimum": 1,
                },
            ],
        }
    ]
    assert module.requested(Command.SWAP) == []
    found = json.loads(capsys.readouterr().out)
    assert found["shadow"] == {
        "number": NUMBER,
        "programs": {"packet": {"id": 22, "tag": "00" * 8, "name": "new"}},
        "filter_length": 3,
        "cookie": 9,
        "payload_map": 5,
        "payload_size": 8,
        "limits": {"sample": None, "rate": None, "budget_events": None, "budget_cpu": None},
        "promote_if": ["disagreements < 1/10000"],
    }
    assert (found["agreed"], found["disagreed"]) == (40, 2)
    assert (found["shadow_runs"], found["shadow_run_time_ns"]) == (41, 700)


def test_a_line_has_the_shadow_and_its_counters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["links", "3"]) == 0
    line = capsys.readouterr().out
    assert " shadow.packet=22(new) shadow.packet.tag=0000000000000000 " in line
    assert " shadow.number=17 shadow.promote-if=disagreements<1/10000 agreed=40 " in line
    assert line.endswith(" agreed=40 disagreed=2 shadow.ns=700\n")
    # the counters outlive the shadow
    assert run(["drop-shadow", "3"]) == 0
    line = capsys.readouterr().out
    assert line.endswith(" agreed=40 disagreed=2 shadow.ns=700\n")
    assert "shadow.number" not in line


def test_what_promote_and_drop_shadow_send(module: FakeModule) -> None:
    expected = ["--expect-gen", "2", "--expect-shadow", str((1 << 64) - 1)]
    assert run(["promote", "web", *expected, "--rollback-after", "2s", "--reason", "ok"]) == 0
    assert run(["promote", "3", "--force", "--guard", "lost < 1"]) == 0
    assert module.requested(Command.PROMOTE) == [
        {
            "name": "web",
            "expect-generation": 2,
            "expect-shadow": (1 << 64) - 1,
            "rollback-after": 2000,
            "reason-text": "ok",
        },
        {
            "link": 3,
            "force": 1,
            "guard": [{"counter": 5, "comparison": 1, "threshold": 1, "minimum": 1}],
        },
    ]
    assert run(["drop-shadow", "web", *expected, "--force"]) == 0
    assert run(["drop-shadow", "3"]) == 0
    assert module.requested(Command.DROP_SHADOW) == [
        {
            "name": "web",
            "expect-generation": 2,
            "expect-shadow": (1 << 64) - 1,
            "force": 1,
        },
        {"link": 3},
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("swap 3 --shadow --fd packet=7 --rollback-after 3s", "--rollback-after does not go"),
        ("swap 3 --shadow --fd packet=7 --reason x", "--reason does not go with --shadow"),
        ("swap --shadow --txn -", "--shadow is for one link"),
        ("swap 3 --shadow --fd packet=7 --wait", "--wait does not go with --shadow"),
        ("swap 3 --shadow --fd packet=7 --expedite", "--expedite does not go with --shadow"),
        ("swap 3 --shadow --fd packet=7 --guard lost<1", "--guard does not go with --shadow"),
        ("swap 3 --fd packet=7 --promote-if disagreements<1", "--promote-if is for a shadow"),
        ("swap 3 --shadow --fd packet=7 --promote-if drops<1", "is not about a shadow"),
        ("swap 3 --fd packet=7 --guard disagreements<1", "a swap that waits has none"),
        ("promote 3 --guard agreements<1", "a swap that waits has none"),
        ("promote 3 --expect-shadow 0", "--expect-shadow"),
        ("promote 3 --rollback-after 25h", "is not between"),
        ("drop-shadow 0", "neither the id nor the name"),
    ],
)
def test_lines_that_make_no_sense(
    line: str, words: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    assert words in capsys.readouterr().err
    assert module.requests == []


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENODATA, 1), (errno.ESTALE, 7), (errno.ENOENT, 6)]
)
@pytest.mark.parametrize("command", [Command.PROMOTE, Command.DROP_SHADOW])
def test_refusals(
    command: Command,
    number: int,
    status: int,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(number, {"message": "the link has no shadow"})

    module.handlers[command] = refuse
    line = "promote" if command == Command.PROMOTE else "drop-shadow"
    assert run([line, "web"]) == status
    error = capsys.readouterr().err
    assert "shadow of link web: the link has no shadow" in error


def test_kept_maps_are_copied(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not shared: the programs are loaded with maps of their own first."""
    copied: list[tuple[int, tuple[str, ...], ProgramSet]] = []

    class Kept:
        """Maps that are copied, and nothing else."""

        def __init__(self, of: Link, names: tuple[str, ...]) -> None:
            self._of, self._names = of, names

        def copy_to(self, programs: ProgramSet) -> None:
            copied.append((self._of.id, self._names, programs))

    @contextmanager
    def keep_maps(of: Link, names: tuple[str, ...], *_: Any) -> Iterator[Kept]:
        yield Kept(of, names)

    monkeypatch.setattr(keep, "keep_maps", keep_maps)
    line = "swap 3 --shadow --fd packet=7 --keep-maps=limits --keep cookie"
    assert run(line.split()) == 0
    [(number, names, programs)] = copied
    assert (number, names, dict(programs.programs)) == (3, ("limits",), {4: 7})
    [sent] = module.requested(Command.SHADOW)
    # of the generation that the maps and the cookie are of
    assert sent["expect-generation"] == 1
