# SPDX-License-Identifier: GPL-2.0
"""Command lines that make no sense: one sentence, exit status 2, and the module is not asked."""

from __future__ import annotations

import re

import pytest

from ipttctl.cli import run
from ipttproto import Command
from tests.unit.ctl.support import FakeModule

NF = "--hook nf:inet4/local_out"


@pytest.mark.parametrize(
    "line",
    [
        "bogus",
        "trace --bogus",
        "trace -4 -6",
        "trace -T -t",
        "trace --hub hub.yaml",
        "trace --hosts all --lines",
        "trace --hosts all -N web",
        "trace --hosts all --governor off",
        "trace --hosts all --proto udp",
        "trace --hosts all -v",
        "trace -H nonsense",
        "trace -H ::1 -4",
        "trace -H fd00::/8 -4",
        "trace -H 10.0.0.0/33",
        "trace -P no-such-service",
        "trace -P bgp --proto udp",
        "trace -P 65536",
        "trace --proto no-such-protocol",
        "trace --proto nonsense",
        "trace --proto 256",
        "trace -P 0",
        "trace -N /dev/null",
        "attach",
        "attach --fd rule",
        "attach --fd rule=",
        "attach --fd bogus=7",
        "attach --fd rule=x",
        "attach --fd rule=7 --id rule=8",
        "attach --fd rule=7 --cookie x",
        "attach --fd rule=7 --family 5",
        "attach --fd rule=7 --hook bogus",
        "swap",
        "swap 0 --fd rule=7",
        "swap 3",
        "swap 3 --fd rule=7 --expect-prog bogus=1",
        "detach",
        "detach 3 --all",
        "links 3x",
        "links -o xml",
        "-o json links",
        "module -o json status",
        "module -o text verify",
        "attach --fd packet=7 --hook nf:inet4/nowhere",
        "attach --fd packet=7 --hook nf:inet4/input@soon",
        "attach --fd packet=7 --hook nf:",
        "attach --fd packet=7 --hook chain",
        "attach --fd rule=7 --hook chain:",
        "attach --fd rule=7 --hook chain:ipx",
        "attach --fd rule=7 --hook chain --device lo",
        "attach --fd rule=7 --hook chain --count-rules",
        "attach --fd rule=7 --hook chain --netns /nowhere",
        "attach --fd packet=7",
        "attach --fd rule=7 --hook nf:ip/input",
        "attach --fd rule=7 --netns x",
        "attach --fd rule=7 --device lo",
        "attach --fd rule=7 --mode filter",
        "attach --fd rule=7 --report-drops",
        f"attach --fd packet=7 {NF} --family 4",
        f"attach --fd packet=7 {NF} --report-drops",
        f"attach --fd packet=7 {NF} --count-rules",
        f"attach --fd packet=7 {NF} --mode observe --report-drops",
        f"attach --fd packet=7 {NF} --mode bogus",
        f"attach --fd packet=7 {NF} --netns no-such-namespace",
        f"attach --fd packet=7 {NF} --netns 1",
        f"attach --fd packet=7 {NF} --netns /dev/null",
        f"attach --fd packet=7 {NF} --device lo",
        "attach --fd packet=7 --hook nf:netdev/ingress",
        "swap --fd rule=7",
        "swap 3 --fd rule=7 --rollback-after 30",
        "swap 3 --fd rule=7 --rollback-after 0s",
        "swap 3 --fd rule=7 --rollback-after 25h",
        "swap 3 --fd rule=7 --guard drops",
        "swap 3 --fd rule=7 --guard drops<0",
        "swap 3 --fd rule=7 --guard drops<1,for=25h",
        "swap 3 --fd rule=7" + " --guard lost<1" * 9,
        "swap 3 --txn /dev/null",
        "swap --txn /dev/null --fd rule=7",
        "swap --txn /dev/null --expect-gen 1",
        "swap --txn /dev/null --expect-prog rule=1",
        "swap --txn /no/such/file",
        "swap --txn /dev/null",
        "confirm",
        "confirm 0",
        "confirm txn:",
        "confirm txn:0",
        "confirm txn:web",
        "rollback",
        "rollback 0",
        "rollback txn:18446744073709551616",
        "rollback txn:7 --expect-gen 2",
        "history 3x",
        "adopt",
        "links --measure 0",
        "links --measure x",
        "run --fd rule=7",
        "run --fd rule=7 --",
        "run -- true",
        "events --hook bogus",
        "events --verdict bogus",
        "events --rule a/b/c",
        "events --netns no-such-namespace",
        "events --link 3x",
        "events --links --hook table",
        "events --links --rule filter",
        "apply --plan --watch /dev/null",
        "apply --plan --prune /dev/null",
        "apply --every 1s /dev/null",
        "module upgrade --resume --force",
    ],
)
def test_errors_usage(line: str, module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"ipttctl: .+\n", captured.err)
    assert captured.out == ""
    assert all(command == Command.STATS for command, _ in module.requests)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("apply --plan --watch x", "--plan excludes --watch; a plan is carried out once"),
        (
            "apply --plan --take x",
            "--plan takes no other terms; they are in the plan: give them to diff",
        ),
        (
            "module upgrade --resume --force",
            "--resume excludes --force; what cannot be kept was decided before",
        ),
        (
            "query --hub --ends --since 0s",
            "--since: 0s is not between 1ms and 10 years",
        ),
    ],
)
@pytest.mark.usefixtures("module")
def test_options_that_exclude_each_other(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr().err == f"ipttctl: {said}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bogus", "No such command 'bogus'; see `ipttctl --help`"),
        ("links --bogus", "No such option: --bogus; see `ipttctl links --help`"),
        ("links -o xml", "see `ipttctl links --help`"),
        ("fleet", "Missing command; see `ipttctl fleet --help`"),
        ("map", "Missing command; see `ipttctl map --help`"),
        ("fleet bogus", "No such command 'bogus'; see `ipttctl fleet --help`"),
        ("fleet apply", "see `ipttctl fleet apply --help`"),
        ("module build --bogus", "see `ipttctl module build --help`"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_said_of_a_command_line_names_the_commands_own_help(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith("ipttctl: ")
    assert told.endswith(said)
