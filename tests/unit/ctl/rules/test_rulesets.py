# SPDX-License-Identifier: GPL-2.0
"""The text of the rule that an event names, or none."""

from __future__ import annotations

import os
import random
import re
import select
import threading
import time
from pathlib import Path

import pytest

from ipttctl.escape import escape
from ipttctl.rules import confine
from ipttctl.rules.confine import Bounds
from ipttctl.rules.expressions import raw_text
from ipttctl.rules.netlink import Asking
from ipttctl.rules.origin import Syntax
from ipttctl.rules.rulesets import IDLE, IDLE_WITHOUT_NAME, RuleKey, Rulesets, RuleText
from tests.unit.ctl.rules.support import Net, script

PATIENCE = 20.0


def certain(text: str, syntax: Syntax) -> RuleText:
    """An answer that is a text."""
    return RuleText(escape(text), certain=True, syntax=syntax)


class Followed:
    """A namespace and its rulesets, worked on in a thread."""

    def __init__(self, net: Net, rulesets: Rulesets) -> None:
        self.net = net
        self.rulesets = rulesets
        rulesets.follow(net.cookie, net.fd)

    def key(self, index: int, chain: str | None = None) -> RuleKey:
        """The rule that stands at an index now."""
        with Asking(self.net.fd) as asking:
            snapshot = asking.snapshot()
        rules = [rule for rule in snapshot.rules if chain in {None, rule.chain}]
        tables = {(table.family, table.name): table.handle for table in snapshot.tables}
        raw = rules[index]
        handle = tables[raw.family, raw.table]
        return RuleKey(self.net.cookie, handle, raw.handle, snapshot.generation)

    def text(self, key: RuleKey) -> RuleText:
        """The answer, once it is one."""

        def known() -> bool:
            return not self.rulesets.text(key).pending

        assert self.rulesets.settle(PATIENCE, known)
        answer = self.rulesets.text(key)
        assert bool(answer.chain) == bool(answer.table) == answer.certain
        return answer._replace(chain="", table="")


@pytest.fixture
def followed(net: Net, rulesets: Rulesets) -> Followed:
    return Followed(net, rulesets)


def test_iptables_and_nft(followed: Followed) -> None:
    net = followed.net
    net.iptables('-A INPUT -p tcp --dport 22 -j ACCEPT -m comment --comment a_"b')
    net.nft('table inet t { chain c { tcp dport { 22, 80 } counter accept comment "c # d"; }; }')
    assert followed.text(followed.key(0)) == certain(
        r'-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "a_\"b" -j ACCEPT',
        Syntax.IPTABLES,
    )
    assert followed.text(followed.key(1)) == certain(
        'tcp dport { 22, 80 } counter accept comment "c # d"', Syntax.NFT
    )


def test_a_rule_in_nft_syntax_in_a_table_of_iptables(followed: Followed) -> None:
    """iptables-nft would leave out what it does not know, and show another rule."""
    followed.net.iptables("-A INPUT -j DROP")
    followed.net.nft("insert rule ip filter INPUT ip length 100 counter accept")
    answer = followed.text(followed.key(0))
    assert (answer.text, answer.syntax) == ("ip length 100 counter accept", Syntax.NFT)
    # iptables of today refuses the whole table then
    assert followed.text(followed.key(1)).text in {"-A INPUT -j DROP", "counter drop"}


def test_kin(followed: Followed) -> None:
    net = followed.net
    net.iptables("-A INPUT -s fe80::/10 -j DROP", "ip6tables-nft")
    net.iptables("-A FORWARD -p IPv4 -j DROP", "ebtables-nft")
    net.iptables("-A INPUT -s 10.0.0.1 -j DROP", "arptables-nft")
    assert {followed.text(followed.key(index)).text for index in range(3)} == {
        "-A INPUT -s fe80::/10 -j DROP",
        "-A FORWARD -p IPv4 -j DROP",
        "-A INPUT -j DROP -s 10.0.0.1",
    }


def test_each_generation_has_its_text(followed: Followed) -> None:
    """A handle stays, and so does each answer."""
    net = followed.net
    net.iptables("-A INPUT -p tcp --dport 1 -j ACCEPT")
    one = followed.key(0)
    first = followed.text(one)
    net.iptables("-R INPUT 1 -p tcp --dport 2 -j DROP")
    other = followed.key(0)
    assert (one.table, one.rule) == (other.table, other.rule)
    assert one.generation < other.generation
    assert followed.text(other).text == "-A INPUT -p tcp -m tcp --dport 2 -j DROP"
    assert followed.text(one) == first
    assert first.text == "-A INPUT -p tcp -m tcp --dport 1 -j ACCEPT"


def test_nobody_waits_for_a_namespace_without_time(followed: Followed) -> None:
    net = followed.net
    net.nft("table ip t { chain c { accept; }; }")
    first = followed.key(0)
    answer = followed.text(first)
    known = followed.rulesets._namespaces[net.cookie]
    known._budget.spend(100.0)
    net.nft("add rule ip t c drop")
    second = followed.key(1)
    held = followed.rulesets.text(second)
    assert not held.pending
    assert "has taken its share of the time" in held.why
    assert followed.text(first) == answer
    # when there is time again, what was asked for is listed
    known._budget.spend(-100.0)
    followed.rulesets._wake_up()
    assert followed.rulesets.settle(PATIENCE, lambda: followed.rulesets.text(second).certain)


def test_a_rule_that_went_before_it_was_listed(followed: Followed) -> None:
    net = followed.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    key = followed.key(0)
    assert followed.rulesets.settle(PATIENCE)
    net.nft(f"replace rule ip t c handle {key.rule} udp dport 2 drop")
    assert followed.text(followed.key(0)).text == "udp dport 2 drop"
    answer = followed.text(key)
    assert answer.certain
    assert answer.syntax is Syntax.RAW
    assert answer.text is not None
    assert answer.text.endswith("cmp eq 0x0001, immediate accept")


def test_no_answer_rather_than_a_wrong_one(followed: Followed) -> None:
    net = followed.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    key = followed.key(0)
    followed.text(key)
    for other, why in (
        (key._replace(uncertain=True), "the ruleset changed while the packet passed"),
        (key._replace(generation=0), "the packet passed before the ruleset was read"),
        (key._replace(rule=999), "not known, or not kept"),
        (key._replace(table=999), "not known, or not kept"),
        (key._replace(cookie=1), "its network namespace is not followed"),
    ):
        answer = followed.rulesets.text(other)
        assert answer.text is None
        assert not answer.certain
        assert not answer.pending
        assert why in answer.why
    assert followed.rulesets.text(key._replace(generation=key.generation + 1)).pending


def test_what_came_between_is_not_known(followed: Followed) -> None:
    """It was let go, and followed again."""
    net, rulesets = followed.net, followed.rulesets
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    before = followed.key(0)
    text = followed.text(before)
    rulesets.release(net.cookie)
    net.nft(f"replace rule ip t c handle {before.rule} udp dport 2 drop")
    between = followed.key(0)
    net.nft(f"replace rule ip t c handle {before.rule} tcp dport 1 accept")
    assert not rulesets.followed(net.cookie)
    assert rulesets.text(before)._replace(chain="", table="") == text
    assert rulesets.text(between).why == "its network namespace is not followed"
    rulesets.settle(PATIENCE, lambda: rulesets.due is None)
    rulesets.follow(net.cookie, net.fd)
    after = followed.key(0)
    assert followed.text(after) == text
    assert rulesets.text(before)._replace(chain="", table="") == text
    assert rulesets.text(between).text is None


def test_followed_again_at_once(net: Net, rulesets: Rulesets) -> None:
    """At no moment of the thread's work does it say otherwise."""
    for _ in range(300):
        rulesets.follow(net.cookie, net.fd)
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            assert rulesets.followed(net.cookie)
        rulesets.release(net.cookie)
        assert not rulesets.followed(net.cookie)
    rulesets.follow(net.cookie, net.fd)
    assert rulesets.settle(PATIENCE)
    assert rulesets.followed(net.cookie)


def test_idle_namespaces_are_let_go(net: Net) -> None:
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    with Rulesets(idle=0.3) as rulesets:
        rulesets.start()
        followed = Followed(net, rulesets)
        key = followed.key(0)
        text = followed.text(key)
        assert _descriptors(net) > 1
        assert rulesets.settle(PATIENCE, lambda: not rulesets.followed(net.cookie))
        assert rulesets.text(key)._replace(chain="", table="") == text
    assert _descriptors(net) == 1


def test_a_namespace_that_lost_its_name_is_let_go_sooner(net: Net) -> None:
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    with Rulesets() as rulesets:
        rulesets.start()
        followed = Followed(net, rulesets)
        text = followed.text(followed.key(0))
        begin = time.monotonic()
        rulesets.lost_name(net.cookie)
        assert rulesets.settle(PATIENCE, lambda: not rulesets.followed(net.cookie))
        assert time.monotonic() - begin < IDLE
        # a process was in it: there are packets after all
        assert Followed(net, rulesets).text(followed.key(0)) == text
        longer = 1.5 * IDLE_WITHOUT_NAME
        assert not rulesets.settle(longer, lambda: not rulesets.followed(net.cookie))


def _descriptors(net: Net) -> int:
    """How many descriptors of a namespace we have."""
    inode = f"net:[{os.fstat(net.fd).st_ino}]"
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        try:
            found += str(path.readlink()) == inode
        except OSError:
            continue
    return found


def test_a_limited_number_of_namespaces(net: Net) -> None:
    other = Net()
    try:
        with Rulesets(most=1) as rulesets:
            rulesets.follow(net.cookie, net.fd)
            rulesets.follow(other.cookie, other.fd)
            assert rulesets.settle(PATIENCE)
            assert not rulesets.followed(net.cookie)
            assert rulesets.followed(other.cookie)
            assert _descriptors(net) == 1
    finally:
        other.close()


def test_a_limited_number_of_bytes(net: Net) -> None:
    other = Net()
    try:
        for one in (net, other):
            one.nft("table ip t { chain c { tcp dport 1 accept; }; }")
        with Rulesets(most_bytes=1000) as rulesets:
            rulesets.follow(net.cookie, net.fd)
            assert rulesets.settle(PATIENCE)
            assert rulesets.followed(net.cookie)
            rulesets.follow(other.cookie, other.fd)
            assert rulesets.settle(PATIENCE)
            assert [rulesets.followed(one.cookie) for one in (net, other)] == [False, True]
    finally:
        other.close()


def test_the_descriptor_of_another_namespace(net: Net, rulesets: Rulesets) -> None:
    rulesets.follow(net.cookie + 1000, net.fd)
    key = RuleKey(net.cookie + 1000, 1, 1, 1)
    rulesets.text(key)
    assert rulesets.settle(PATIENCE, lambda: not rulesets.text(key).pending)
    assert "is not of network namespace" in rulesets.text(key).why


def test_without_a_thread(net: Net) -> None:
    """A caller with an event loop of its own."""
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    with Rulesets() as rulesets:
        followed = Followed(net, rulesets)
        poll = select.poll()
        poll.register(rulesets.fileno(), select.POLLIN)
        assert poll.poll(0)
        assert rulesets.settle(PATIENCE)
        assert not poll.poll(0)
        key = followed.key(0)
        assert rulesets.text(key).pending
        assert poll.poll(0)
        assert rulesets.work(0)
        assert rulesets.text(key).text == "tcp dport 1 accept"
        net.nft("add rule ip t c tcp dport 2 accept")
        assert poll.poll(1000)
        rulesets.work(0)
        later = followed.key(1)
        assert rulesets.text(later).pending
        rulesets.work(0)
        assert rulesets.text(later).text == "tcp dport 2 accept"
    assert rulesets.text(later).text == "tcp dport 2 accept"
    rulesets.close()


def test_changes_while_it_is_listed(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change elsewhere does not matter, one of the chain does."""
    net = followed.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; chain d { }; }")
    key = followed.key(0)
    changes = ["add rule ip t d counter", f"replace rule ip t c handle {key.rule} udp dport 9 drop"]
    run = confine.run
    listed = []

    def change(name: str, *rest: object, **more: object) -> bytes:
        output = run(name, *rest, **more)  # type: ignore[arg-type] # handed on
        listed.append(name)
        if changes:
            net.nft(changes.pop(0))
        return output

    monkeypatch.setattr(confine, "run", change)
    assert followed.text(key).text == "tcp dport 1 accept"
    assert listed == ["nft"]
    now = followed.key(0, "c")
    assert followed.rulesets.settle(PATIENCE)
    # the text of the first generation was there when the rule was replaced
    net.nft("add rule ip t c tcp dport 3 accept")
    newest = followed.key(1, "c")
    changes[:] = [f"replace rule ip t c handle {newest.rule} udp dport 8 drop"]
    answer = followed.text(newest)
    assert answer.syntax in {Syntax.RAW, Syntax.NFT}
    assert answer.text != "udp dport 8 drop"
    assert followed.text(now).text == "tcp dport 1 accept"


def test_a_storm_of_changes(followed: Followed) -> None:
    """No answer is another generation's, and the work has a bound."""
    net = followed.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    key = followed.key(0)
    over = threading.Event()

    def storm() -> None:
        port = 1
        while not over.is_set():
            port = port % 60000 + 1
            net.nft(f"replace rule ip t c handle {key.rule} tcp dport {port} accept")

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        with Asking(net.fd) as asking:
            known = wrong = 0
            end = time.monotonic() + 3
            while time.monotonic() < end:
                try:
                    generation, rules = asking.rules(2, "t", "c")
                except Exception:
                    continue
                (number,) = re.findall("0x(....),", raw_text(rules[0].expressions))
                asked = key._replace(generation=generation)
                for _ in range(20):
                    answer = followed.rulesets.text(asked)
                    if not answer.pending:
                        break
                    time.sleep(0.01)
                known += answer.certain
                if answer.text is not None:
                    expected = {f"tcp dport {int(number, 16)} accept", f"0x{number}"}
                    wrong += not any(text in answer.text for text in expected)
        assert known
        assert not wrong
    finally:
        over.set()
        thread.join()


def _step(net: Net, rng: random.Random) -> None:
    """Change something of two tables, one of them of iptables."""
    port = rng.randrange(1, 60_000)
    with Asking(net.fd) as asking:
        rules = asking.snapshot().rules
    ours = [rule for rule in rules if rule.table == "t"]
    some = f"handle {rng.choice(ours).handle}" if ours else ""
    theirs = len(rules) - len(ours)
    number = rng.randrange(theirs) + 1 if theirs else 0
    table = f"table inet t {{ chain c {{ tcp dport {port} accept; udp dport {port}; }}; }}"
    choices = {
        f"add rule inet t c tcp dport {{ {port}, 5 }} counter": bool(ours),
        f"insert rule inet t c udp dport {port} drop": bool(ours),
        f"replace rule inet t c {some} tcp dport {{ {port}, 7 }} drop": bool(ours),
        f"delete rule inet t c {some}": len(ours) > 1,
        f"flush chain inet t c\nadd rule inet t c tcp dport {port} accept": bool(ours),
        f"delete table inet t\n{table}": bool(ours),
        table: not ours,
        f"-A INPUT -p tcp --dport {port} -m tos --tos 4 -j DROP": True,
        f"-I INPUT -s 10.0.0.{port & 255} -j ACCEPT": True,
        f"-R INPUT {number} -p udp --dport {port} -j DROP": bool(number),
        f"-D INPUT {number}": theirs > 1,
    }
    change = rng.choice([text for text, possible in choices.items() if possible])
    if change.startswith("-"):
        net.iptables(change)
    else:
        net.nft(change)


@pytest.mark.parametrize("seed", range(3))
def test_every_generation_at_once(followed: Followed, seed: int) -> None:
    """After many changes, each rule of each generation has its own text."""
    net, rulesets = followed.net, followed.rulesets
    rng = random.Random(seed)
    truth: dict[RuleKey, set[str]] = {}
    for _ in range(25):
        _step(net, rng)
        with Asking(net.fd) as asking:
            snapshot = asking.snapshot()
        handles = {(table.family, table.name): table.handle for table in snapshot.tables}
        words = net.run("nft", "-a", "-s", "list", "ruleset").splitlines()
        lines = [line.strip() for line in words if " # handle " in line and "{ #" not in line]
        theirs = net.run("iptables-nft", "-S", "INPUT").splitlines()[1:]
        for raw, line in zip(snapshot.rules, lines, strict=True):
            key = RuleKey(
                net.cookie, handles[raw.family, raw.table], raw.handle, snapshot.generation
            )
            own = theirs.pop(0) if raw.chain == "INPUT" else line.partition(" # handle ")[0]
            truth[key] = {own, raw_text(raw.expressions, raw.userdata)}
            if rng.random() < 0.5:
                rulesets.text(key)
        if rng.random() < 0.5:
            rulesets.settle(PATIENCE)
    answers = {key: followed.text(key) for key in truth}
    listed = 0
    for key, answer in answers.items():
        if answer.text is None:
            # nobody saw it
            assert "not known, or not kept" in answer.why or "before the ruleset" in answer.why
            continue
        assert str(answer.text) in truth[key]
        listed += answer.syntax is not Syntax.RAW
    assert listed > len(truth) / 4


# --- programs that do not do what they should -----------------------------------------------------


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise SystemExit(1)", "nft fails with status 1"),
        ("import time; time.sleep(60)", "nft takes too long"),
        ("print('garbage')", "the output of nft has lines that cannot be told apart"),
        ("while True: print('x' * 99999)", "nft writes more than"),
        ("import os; os.kill(os.getpid(), 11)", "nft is killed by SIGSEGV"),
        (
            "print('table ip t {\\n\\tchain c { # handle 1\\n\\t\\tdrop # handle 7\\n\\t}\\n}')",
            "cannot be told apart",
        ),
    ],
)
def test_a_hostile_program_costs_the_text(
    followed: Followed, body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = followed.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    path, system = str(script(tmp_path, "nft", body)), confine.program
    monkeypatch.setattr(confine, "program", lambda name: path if name == "nft" else system(name))
    monkeypatch.setattr(confine, "Bounds", lambda: Bounds(seconds=1.0, output=1 << 20))
    answer = followed.text(followed.key(0))
    assert answer.certain
    assert answer.syntax is Syntax.RAW
    assert why in answer.why
    assert answer.text == (
        "meta l4proto, cmp eq 0x06, payload 2b@transport+2, cmp eq 0x0001, immediate accept"
    )


def test_closing_does_not_wait_for_a_program(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    body = f"import time; open('{tmp_path}/began', 'x'); time.sleep(60)"
    path, system = str(script(tmp_path, "nft", body)), confine.program
    monkeypatch.setattr(confine, "program", lambda name: path if name == "nft" else system(name))
    monkeypatch.setattr(confine, "Bounds", lambda: Bounds(seconds=60.0))
    with Rulesets() as rulesets:
        rulesets.start()
        followed = Followed(net, rulesets)
        assert rulesets.settle(PATIENCE)
        rulesets.text(followed.key(0))
        # no work of ours ends when it begins: nothing wakes who waits for that
        end = time.monotonic() + PATIENCE
        while not (tmp_path / "began").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < 10


def test_listing_makes_nothing(followed: Followed) -> None:
    """A table of iptables that lacks chains, and tables that are not there."""
    net = followed.net
    net.nft("table ip filter { chain INPUT { type filter hook input priority 0; counter drop; }; }")
    key = followed.key(0)
    assert followed.text(key).text == "-A INPUT -j DROP"
    with Asking(net.fd) as asking:
        assert asking.generation() == key.generation


def test_names_that_would_be_commands(followed: Followed) -> None:
    """The names of a chain are not words of a command line."""
    net = followed.net
    net.iptables("-N x;flush")
    net.iptables("-A x;flush -j ACCEPT")
    answer = followed.text(followed.key(0))
    assert answer.text in {"-A x;flush -j ACCEPT", "counter, immediate accept"}
    assert followed.key(0)


def test_comments_with_escapes(followed: Followed) -> None:
    net = followed.net
    net.run("iptables-nft", "-A", "INPUT", "-m", "comment", "--comment", "\x1b[31m\u202e")
    net.run("iptables-nft", "-A", "OUTPUT", "-m", "comment", "--comment", "a\n-A OUTPUT -j DROP")
    assert followed.text(followed.key(0)).text == (
        r'-A INPUT -m comment --comment "\x1b[31m\u202e"'
    )
    forged = followed.text(followed.key(0, "OUTPUT"))
    assert forged.syntax is Syntax.RAW
    assert forged.text == r'match comment "a\n-A OUTPUT -j DROP", counter'


# --- many rules -----------------------------------------------------------------------------------

MANY = 20_000


def test_many_rules(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"-A INPUT -s 10.1.{i >> 8}.{i & 255}/32 -p tcp -m tcp --dport {i % 60000 + 1}"
        f' -m comment --comment "rule {i}" -j ACCEPT'
        for i in range(MANY)
    ]
    net.run("iptables-nft-restore", text="\n".join(["*filter", *lines, "COMMIT", ""]))
    with Asking(net.fd) as asking:
        begin = time.monotonic()
        snapshot = asking.snapshot()
        read = time.monotonic() - begin
    keys = [RuleKey(net.cookie, 1, rule.handle, snapshot.generation) for rule in snapshot.rules]

    with Rulesets(idle=None) as rulesets:
        rulesets.start()
        begin = time.monotonic()
        followed = Followed(net, rulesets)
        assert followed.text(keys[MANY // 2]).text == lines[MANY // 2]
        first = time.monotonic() - begin

        begin = time.monotonic()
        answers = [rulesets.text(key) for key in keys]
        look_up = (time.monotonic() - begin) / MANY
        begin = time.monotonic()
        assert all(rulesets.text(key).certain for key in keys)
        later = (time.monotonic() - begin) / MANY
        assert [answer.text for answer in answers] == lines

        net.iptables("-R INPUT 5 -p udp --dport 5 -j DROP")
        begin = time.monotonic()
        assert followed.text(keys[4]._replace(generation=snapshot.generation + 1)).text == (
            "-A INPUT -p udp -m udp --dport 5 -j DROP"
        )
        changed = time.monotonic() - begin
        assert rulesets.text(keys[4]).text == lines[4]
        assert rulesets.text(keys[5]._replace(generation=snapshot.generation + 1)).text == lines[5]
    with capsys.disabled():
        print(
            f"\n{MANY} rules: snapshot {read:.2f} s, first text {first:.2f} s,"
            f" first look-up {look_up * 1e6:.1f} us, later ones"
            f" {later * 1e6:.1f} us, text of a changed rule {changed:.2f} s"
        )
    # generous: other work goes on beside the tests
    assert read < 5
    assert first < 20
    assert look_up < 1e-3
    assert later < 100e-6
