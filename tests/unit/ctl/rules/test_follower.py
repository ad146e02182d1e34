# SPDX-License-Identifier: GPL-2.0
"""Rulesets followed: replaced rules, tables made anew, changes that were lost or interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ipttctl.errors import KernelError, OverrunError
from ipttctl.rules import follower as follower_module
from ipttctl.rules import netlink
from ipttctl.rules.follower import Follower
from ipttctl.rules.history import History
from ipttctl.rules.netlink import Asking, ChangedError, Listening, TooLargeError
from tests.unit.ctl.rules import support
from tests.unit.ctl.rules.support import Net, attribute, rule

TABLE = "table inet t { chain c { tcp dport 1 accept; tcp dport 2 accept; }; }"


@contextmanager
def following(
    net: Net, buffer: int = netlink.BUFFER, most: int = netlink.MOST_BYTES
) -> Iterator[Follower]:
    with Follower(Listening(net.fd, buffer), Asking(net.fd, most)) as follower:
        follower.read_again()
        yield follower


def catch_up(follower: Follower) -> int:
    """Follow to the present; its generation."""
    while follower.follow():
        pass
    assert follower.history.known == follower.asking.generation()
    return follower.history.known


def expressions(follower: Follower, generation: int, table: int = 1) -> dict[int, bytes]:
    """The rules of a table in a generation, by handle."""
    found = {h: follower.history.find((table, h), generation) for h in range(1, 500)}
    return {h: version.rule.expressions for h, version in found.items() if version}


def check(follower: Follower) -> None:
    """The rules that were followed are those that can be read."""
    snapshot = follower.asking.snapshot()
    generation = follower.history.known
    assert generation == snapshot.generation
    for raw in snapshot.rules:
        table = follower.table_of(raw.family, raw.table)
        assert table is not None
        assert raw.handle in table.chains[raw.chain].rules
        found = follower.history.find((table.raw.handle, raw.handle), generation)
        assert found is not None
        assert found.rule == raw
    assert len(snapshot.rules) == sum(
        len(c.rules) for t in follower.tables.values() for c in t.chains.values()
    )
    assert {t.raw for t in follower.tables.values()} == set(snapshot.tables)
    followed = [c.raw for t in follower.tables.values() for c in t.chains.values()]
    assert sorted(followed) == sorted(snapshot.chains)


def test_replacing_keeps_the_handle(net: Net) -> None:
    net.nft(TABLE)
    with following(net) as follower:
        before = catch_up(follower)
        first = expressions(follower, before)
        handle = min(first)
        net.nft(f"replace rule inet t c handle {handle} udp dport 5 drop")
        after = catch_up(follower)
        now = expressions(follower, after)
        assert now.keys() == first.keys()
        assert now[handle] != first[handle]
        # both generations are there at once
        assert expressions(follower, before) == first
        assert follower.readings == 1
        check(follower)


def test_replacing_by_iptables(net: Net) -> None:
    net.iptables("-A INPUT -p tcp --dport 1 -j ACCEPT")
    with following(net) as follower:
        before = catch_up(follower)
        net.iptables("-R INPUT 1 -p tcp --dport 2 -j ACCEPT")
        after = catch_up(follower)
        old, new = expressions(follower, before), expressions(follower, after)
        assert old.keys() == new.keys()
        assert old != new
        check(follower)


def test_a_table_made_anew(net: Net) -> None:
    """Its rules count from the beginning, under another handle of the table."""
    net.nft(TABLE)
    with following(net) as follower:
        before = catch_up(follower)
        net.nft("flush ruleset\n" + TABLE.replace("accept", "drop"))
        after = catch_up(follower)
        (handle,) = follower.tables
        old, new = expressions(follower, before), expressions(follower, after, handle)
        assert handle != 1
        assert old.keys() == new.keys()
        assert old != new
        assert not expressions(follower, after)
        assert not expressions(follower, before, handle)
        assert follower.readings == 1
        check(follower)


CHANGES = (
    "add rule inet t c udp dport 9 drop",
    "insert rule inet t c udp dport 9 drop",
    "add table ip u { chain d { type filter hook input priority 0; counter drop; }; }",
    "add chain inet t e",
    "add rule inet t e jump c",
    "add chain inet t c { policy accept; }",
    "delete chain inet t e",
    "flush chain inet t c",
    "add set inet t s { type ipv4_addr; }",
    "add element inet t s { 10.0.0.1 }",
    "add rule inet t c ip saddr { 10.0.0.1, 10.0.0.2 } accept",
    "delete table inet t",
    "flush ruleset",
)


def test_one_change_after_another(net: Net) -> None:
    net.nft(TABLE)
    with following(net) as follower:
        for change in CHANGES:
            if change == "delete chain inet t e":
                net.nft("flush chain inet t e")
            if change.endswith("policy accept; }"):
                continue  # of base chains
            net.nft(change)
            catch_up(follower)
            check(follower)
        assert follower.readings == 1


def test_many_changes_at_once(net: Net) -> None:
    net.nft(TABLE)
    with following(net) as follower:
        for change in CHANGES[:3]:
            net.nft(change)
        catch_up(follower)
        check(follower)
        assert follower.readings == 1


def test_a_chain_with_another_name(net: Net) -> None:
    """Rules that jump to it say something else, and nothing tells of them."""
    net.nft(TABLE + "\nadd chain inet t d\nadd rule inet t d jump c")
    with following(net) as follower:
        before = catch_up(follower)
        net.nft("rename chain inet t c e")
        after = catch_up(follower)
        assert follower.readings == 2
        old, new = expressions(follower, before), expressions(follower, after)
        assert old.keys() == new.keys()
        assert old != new
        check(follower)


def test_chains_that_go_with_their_rule(net: Net) -> None:
    """The kernel tells of the rule alone."""
    net.nft(TABLE + "\nadd rule inet t c tcp dport 3 jump { drop; }")
    with following(net) as follower:
        for change in (
            "add rule inet t c tcp dport 4 jump { udp dport 4 drop; udp dport 5 accept; }",
            "add rule inet t c tcp dport 5 goto { drop; }",
        ):
            net.nft(change)
            catch_up(follower)
            check(follower)
        (table,) = follower.tables.values()
        assert table.bound == 3
        before = catch_up(follower)
        rules = expressions(follower, before)
        handle = max(table.chains["c"].rules)
        net.nft(f"replace rule inet t c handle {handle} accept")
        catch_up(follower)
        check(follower)
        net.nft("flush chain inet t c")
        after = catch_up(follower)
        check(follower)
        assert table.bound == 0
        assert expressions(follower, before) == rules
        assert not expressions(follower, after)
        assert follower.readings == 1


def test_chains_that_come_and_go_take_no_room(net: Net) -> None:
    net.nft(TABLE)
    with following(net, most=1 << 20) as follower:
        follower.history._most = 10
        for _ in range(60):
            net.nft("add rule inet t c jump { drop; }\nadd rule inet t c jump { accept; }")
            net.nft("flush chain inet t c")
            catch_up(follower)
        assert follower.history.size < 20 * 1000
        assert len(follower.tables[1].chains) == 1


def test_a_table_that_goes_with_its_owner(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells nothing of that; what it held is found out when much has been added."""
    monkeypatch.setattr(follower_module, "_GROWTH", 4000)
    commands = "add table inet o { flags owner; }\nadd chain inet o c\n" + "\n".join(
        f"add rule inet o c tcp dport {port} accept" for port in range(1, 9)
    )
    with following(net) as follower:
        for _ in range(5):
            net.run("nft", "-i", text=f"{commands}\nquit\n")
            catch_up(follower)
        assert len(follower.tables) < 3
        assert follower.readings > 1


def test_tables_that_come_without_end(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_MOST_MADE", 5)
    with following(net) as follower:
        for number in range(4):
            net.nft(f"add table inet t{number}\nadd chain inet t{number} c")
            catch_up(follower)
            check(follower)
        assert follower.readings == 2


def test_a_device_less(net: Net) -> None:
    """The chain stays, with its rules."""
    for name in ("d0", "d1"):
        net.run("ip", "tuntap", "add", name, "mode", "tap")
    net.nft(
        "table netdev t { chain c { type filter hook ingress devices = { d0, d1 } priority 0;"
        " tcp dport 1 accept; }; }"
    )
    with following(net) as follower:
        net.run("ip", "link", "del", "d1")
        net.nft("add rule netdev t c tcp dport 2 accept")
        catch_up(follower)
        check(follower)


def test_changes_that_were_lost(net: Net) -> None:
    net.nft(TABLE)
    with following(net, buffer=4096) as follower:
        before = catch_up(follower)
        first = expressions(follower, before)
        for port in range(200):
            net.nft(f"add rule inet t c tcp dport {port} accept\nflush chain inet t c")
        net.nft("add rule inet t c udp dport 1 accept")
        after = catch_up(follower)
        assert follower.readings > 1
        check(follower)
        assert expressions(follower, before) == first
        assert expressions(follower, after)
        # what nobody saw is not known
        assert not expressions(follower, before + 50)


def test_more_than_is_kept(net: Net) -> None:
    net.nft(TABLE)
    with pytest.raises(TooLargeError), following(net, most=500):
        pass


def test_a_ruleset_that_grows(net: Net) -> None:
    net.nft(TABLE)
    with Follower(Listening(net.fd), Asking(net.fd), most_bytes=5000) as follower:
        follower.read_again()
        net.nft("add rule inet t c tcp dport 3 accept")
        follower.follow()
        net.nft("\n".join(f"add rule inet t c tcp dport {port} accept" for port in range(1, 9)))
        with pytest.raises(TooLargeError):
            follower.follow()


def test_generations_begin_anew(net: Net) -> None:
    """nf_tables was unloaded and loaded: handles mean other rules."""
    net.nft(TABLE)
    history = History()
    history.replace([(1, rule(2)), (9, rule(2))], 1000)
    with Follower(Listening(net.fd), Asking(net.fd), history) as follower:
        follower.read_again()
        assert follower.history is not history
        assert follower.history.find((9, 2), 1000) is None
        check(follower)


# --- a kernel of our own --------------------------------------------------------------------------


class Kernel:
    """The other end of the sockets: answers from a ruleset that a test changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generation = 5
        self.rules = [rule(1)]
        self.asked = 0
        self.before_answer: Callable[[int], None] = lambda _: None
        self.flags = 0
        self.stamp = 0
        self._ends: list[socket.socket] = []

        def open_one(namespace: int) -> socket.socket:
            del namespace
            ours, theirs = support.pair()
            self._ends.append(theirs)
            return _Loop(self, ours) if len(self._ends) == 2 else ours

        monkeypatch.setattr(netlink, "_socket_in", open_one)
        monkeypatch.setattr(netlink.Listening, "__init__", _listen)

    def tell(self, *messages: bytes) -> None:
        """Send changes."""
        for message in messages:
            self._ends[0].send(message)

    def close(self) -> None:
        """Close the sockets."""
        for end in self._ends:
            end.close()

    def answer(self, request: bytes) -> list[bytes]:
        """The datagrams of the answer to a request."""
        kind = request[4]
        sequence = int.from_bytes(request[8:12], "little")
        self.asked += 1
        self.before_answer(self.asked)
        stamp = self.stamp or self.generation
        if kind == 16:
            return [support.generation_message(self.generation, sequence=sequence)]
        body = []
        if kind == 1:
            table = attribute(1, b"t\0") + attribute(4, (1).to_bytes(8, "big"))
            body = [support.message(0, 1, stamp, table, sequence=sequence)]
        elif kind == 4:
            chain = (
                attribute(1, b"t\0") + attribute(3, b"c\0") + attribute(2, (1).to_bytes(8, "big"))
            )
            body = [support.message(3, 1, stamp, chain, sequence=sequence)]
        elif kind == 7:
            body = [
                support.rule_message(6, raw, stamp, sequence=sequence, flags=self.flags)
                for raw in self.rules
            ]
        return [b"".join(body), support.done(sequence)] if body else [support.done(sequence)]


def _listen(self: Listening, namespace: int, buffer: int = 0) -> None:
    del buffer
    sock = netlink._socket_in(namespace)
    sock.setblocking(False)
    self._socket = sock


class _Loop(socket.socket):
    """A socket whose requests are answered at once."""

    def __init__(self, kernel: Kernel, ours: socket.socket) -> None:
        super().__init__(fileno=ours.detach())
        self._kernel = kernel
        self._answers: list[bytes] = []

    def send(self, data: bytes, *_: object) -> int:  # type: ignore[override] # nobody asks for more
        self._answers += self._kernel.answer(data)
        return len(data)

    def recv(self, size: int, *_: object) -> bytes:
        assert size >= 1 << 16
        if not self._answers:
            raise TimeoutError
        return self._answers.pop(0)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def follower(kernel: Kernel) -> Iterator[Follower]:
    del kernel
    with Follower(Listening(0), Asking(0)) as made:
        yield made


def test_a_generation_between(kernel: Kernel, follower: Follower) -> None:
    """A change during a dump: the dump is made again."""

    def change(asked: int) -> None:
        if asked == 3:
            kernel.generation += 1

    kernel.before_answer = change
    follower.read_again()
    assert follower.history.known == 6
    assert kernel.asked > 5


@pytest.mark.parametrize("sign", ["flags", "stamp"])
def test_a_dump_that_is_always_interrupted(kernel: Kernel, follower: Follower, sign: str) -> None:
    setattr(kernel, sign, 0x10)
    with pytest.raises(ChangedError):
        follower.read_again()
    assert follower.history.known is None
    # it is tried again
    setattr(kernel, sign, 0)
    assert follower.follow()
    assert follower.history.known == 5


def test_a_generation_that_is_half_made(kernel: Kernel, follower: Follower) -> None:
    """The kernel counts a generation before it makes it: the dump may show the one before."""

    def commit(asked: int) -> None:
        if asked == 5:
            kernel.rules = [rule(2)]
            kernel.tell(
                support.rule_message(8, rule(1), 5),
                support.rule_message(6, rule(2), 5),
                support.generation_message(5),
            )

    kernel.before_answer = commit
    follower.read_again()
    assert follower.readings == 2
    assert follower.history.find((1, 1), 5) is None
    assert follower.history.find((1, 2), 5) is not None


def test_a_generation_that_was_half_made(kernel: Kernel, follower: Follower) -> None:
    """Its end comes after the dump."""
    follower.read_again()
    kernel.rules = [rule(2)]
    kernel.tell(support.generation_message(5))
    assert follower.follow()
    assert follower.readings == 2
    assert follower.history.find((1, 2), 5) is not None


def test_a_generation_is_missing(kernel: Kernel, follower: Follower) -> None:
    follower.read_again()
    kernel.generation = 7
    kernel.tell(support.rule_message(6, rule(3), 7), support.generation_message(7))
    follower.follow()
    assert follower.readings == 2
    assert follower.history.known == 7
    assert follower.history.find((1, 1), 6) is None
    assert follower.history.find((1, 1), 7) is not None


def test_nf_tables_that_was_loaded_again(kernel: Kernel, follower: Follower) -> None:
    """Its first generation that is read may be later than the last one that was known."""
    follower.read_again()
    before = follower.history
    kernel.generation = 7
    kernel.rules = [rule(1, support.DROP)]
    kernel.tell(support.rule_message(6, rule(1, support.DROP), 2), support.generation_message(2))
    assert follower.follow()
    assert follower.history is not before
    assert follower.history.first == 7
    assert follower.history.find((1, 1), 5) is None
    found = follower.history.find((1, 1), 7)
    assert found is not None
    assert found.rule == rule(1, support.DROP)


def test_changes_of_something_unknown(kernel: Kernel, follower: Follower) -> None:
    follower.read_again()
    kernel.generation = 6
    unknown = rule(3)._replace(table="u")
    kernel.tell(support.rule_message(6, unknown, 6), support.generation_message(6))
    follower.follow()
    assert follower.readings == 2


def test_a_generation_that_nobody_tells_of(kernel: Kernel, follower: Follower) -> None:
    follower.read_again()
    kernel.generation = 6
    assert not follower.follow()
    follower.reach(6)
    assert follower.history.known == 6


def test_no_answer(kernel: Kernel, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "answer", lambda _: [])
    with pytest.raises(KernelError, match="reading the ruleset"):
        follower.read_again()


def test_an_overrun(kernel: Kernel, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    follower.read_again()
    kernel.generation = 9
    overruns = [OverrunError()]
    receive = Listening.receive

    def overrun(listening: Listening) -> object:
        if overruns:
            raise overruns.pop()
        return receive(listening)

    monkeypatch.setattr(Listening, "receive", overrun)
    assert follower.follow()
    assert follower.history.known == 9
    assert [follower.history.find((1, 1), g) is not None for g in (5, 6, 8, 9)] == [
        True,
        False,
        False,
        True,
    ]
