# SPDX-License-Identifier: GPL-2.0
"""Cost of a packet under ipttctl and under other ways to watch it, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback and meet one chain, in OUTPUT, of as many rules as said, of which the
last one matches; with iptables-legacy they come to the table in INPUT as well, where it has none.
There are two numbers for each way: what a datagram costs its sender, and what it costs the host,
until whoever reads has read all. The cost without any tracer is taken off both. The first
round warms up and is not counted.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Final, NamedTuple

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot, Walk
from tests.bench.measuring import Setting, linked, returning, sender
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader, perf
from tests.kernel.support.kernel import (
    run,
    wait_for,
)
from tests.kernel.support.network import enter_namespace, namespace

#: numbers of rules, and of datagrams that have to be enough: all rules look at each
SIZES: Final = {1: 1000, 20: 1000, 200: 1000, 2000: 200, 20000: 50}
#: of these datagrams it gets fewer: it ends once its socket overflows
_ENDS: Final = "xtables-monitor"
_FEW: Final = 10
_ROUNDS: Final = 3
_PORT: Final = 61000
#: seconds without work after which all is read: emulated readers pause for half of one
_SETTLED: Final = 1.5
#: instructions in that time that are no work
_IDLE: Final = 3_000_000

_BPFTRACE: Final = """
kprobe:FUNCTION { @packet[tid] = PACKET; @state[tid] = STATE; @begin[tid] = nsecs; }
kretprobe:FUNCTION /@packet[tid]/ {
    $skb = (struct sk_buff *)@packet[tid];
    $state = (struct nf_hook_state *)@state[tid];
    $ip = (struct iphdr *)($skb->head + $skb->network_header);
    $port = (uint16 *)($skb->head + $skb->transport_header);
    printf("%llx %d %d %d %s %s %s %s %d %d %d %d\\n", (uint64)$skb, pid, cpu, $state->hook,
        $state->in->name, $state->out->name,
        ntop($ip->saddr), ntop($ip->daddr), $port[0], $port[1], retval, nsecs - @begin[tid]);
    delete(@packet[tid]); delete(@state[tid]); delete(@begin[tid]);
}
"""


class Cost(NamedTuple):
    """Instructions for a datagram: until it is sent, and of the whole host."""

    sender: float
    host: float


def busy() -> int:
    """Instructions of the processor, but for those of its idle loop.

    Times of tasks are of no use: where time of interrupts is taken off them, an emulated clock is
    not read as exactly as that needs.
    """
    timers = Path("/proc/timer_list").read_text()
    [idle] = re.findall(r"\.idle_sleeptime +: (\d+) nsecs", timers)
    return time.monotonic_ns() - int(idle)


def settled() -> int:
    """The instructions until nothing more was done."""
    now = busy()
    while True:
        before = now
        # nothing tells that a reader has read all
        time.sleep(_SETTLED)
        now = busy()
        if now - before < _IDLE:
            return before


def measure(to: socket.socket, packets: int) -> Cost:
    """The cost of each of so many datagrams."""
    before = settled()
    taken = []
    for _ in range(packets):
        begin = time.perf_counter_ns()
        to.send(b"x")
        taken.append(time.perf_counter_ns() - begin)
    # within some of them a reader ran
    undisturbed, *_ = statistics.quantiles(taken, n=4)
    return Cost(undisturbed, (settled() - before) / packets)


# --- ways ----------------------------------------------------------------------------------------


@contextmanager
def reading(command: list[str], to: socket.socket, ready: str = "") -> Iterator[None]:
    """A command that reads; it is ready once it has printed something, or these words."""
    with tempfile.NamedTemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:

            def is_ready() -> bool:
                assert process.poll() is None, Path(out.name).read_text()
                to.send(b"x")
                return _has(out, ready)

            wait_for(is_ready, timeout=1e6, what=command[0])
            yield
            assert process.poll() is None, Path(out.name).read_text()[-1000:]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _has(out: IO[str], words: str) -> bool:
    text = Path(out.name).read_text()
    return words in text if words else bool(text)


@contextmanager
def bare_redirect(function: str) -> Iterator[None]:
    run("insmod", f"{os.environ['IPTT_TEST_MODULES']}/bare_redirect.ko", f"function={function}")
    yield
    run("rmmod", "bare_redirect")


@contextmanager
def kretprobe(function: str) -> Iterator[None]:
    """A BPF program that does nothing, at the function's return."""
    with (
        loader.loaded(asm.returning(0)) as program,
        perf.program_at_kprobe(program, function, at_return=True),
    ):
        yield


@contextmanager
def ruled(
    add: list[str], remove: list[str], reader: list[str], to: socket.socket
) -> Iterator[None]:
    """A rule that has the kernel trace, and who reads that, if anybody does."""
    run(*add)
    try:
        with reading(reader, to) if reader else nullcontext():
            yield
    finally:
        run(*remove)


def ways(
    controller: Controller, keep: ExitStack, to: socket.socket, hook: Hook
) -> dict[str, Setting]:
    """The ways of a back end, by name."""
    no, yes = returning(0, keep), returning(1, keep)
    every = {Slot.ENTRY: yes, Slot.RULE: yes, Slot.EXIT: yes}
    legacy = isinstance(hook, TableHook)
    to_trace = ["-t", "raw", "-A", "OUTPUT", "-p", "udp", "-j", "TRACE"]
    not_to_trace = ["-D" if word == "-A" else word for word in to_trace]
    function = "ipt_do_table" if legacy else "nft_do_chain"
    place = {True: ("arg1", "arg2"), False: ("*(uint64 *)arg0", "*(uint64 *)(arg0 + 8)")}[legacy]
    script = _BPFTRACE.replace("FUNCTION", function)
    for word, text in zip(("PACKET", "STATE"), place, strict=True):
        script = script.replace(word, text, 1)
    backend = "legacy" if legacy else "nft"
    options = ["--lines", "--backend", backend, "--governor", "off"]
    trace = [sys.executable, "-m", "ipttctl", "trace", *options]
    passing = ProgramSet(every, filter=compile_filter("tcp port 9999"))
    found: dict[str, Setting] = {
        "no tracer": nullcontext,
        "a redirect that does nothing": partial(bare_redirect, function),
        "ipttctl: a filter passes it over": partial(linked, controller, hook, passing),
        "ipttctl: exit program": partial(linked, controller, hook, ProgramSet({Slot.EXIT: no})),
        "ipttctl trace, with its reader": partial(reading, [*trace, "udp"], to, "lo"),
        "kretprobe that does nothing": partial(kretprobe, function),
        "bpftrace, with its reader": partial(reading, ["bpftrace", "-e", script], to, "lo"),
    }
    if legacy:
        add, remove = (["iptables-legacy", *rule] for rule in (to_trace, not_to_trace))
        found["TRACE, with the kernel's log"] = partial(ruled, add, remove, [], to)
        return found
    add, remove = (["iptables-nft", *rule] for rule in (to_trace, not_to_trace))
    monitor = ["xtables-monitor", "--trace"]
    found[_ENDS] = partial(ruled, add, remove, monitor, to)
    first = "type filter hook output priority -300; meta nftrace set 1;"
    table = f"table ip trace {{ chain c {{ {first} }}; }}"
    found["nft monitor trace"] = partial(
        ruled,
        ["nft", table],
        ["nft", "delete", "table", "ip", "trace"],
        ["nft", "monitor", "trace"],
        to,
    )
    return found


# --- rules ---------------------------------------------------------------------------------------


def legacy_rules(count: int) -> None:
    middle = "".join(
        f"-A OUTPUT -p udp --dport {1 + n % 60000} -j DROP\n" for n in range(count - 1)
    )
    run("iptables-legacy-restore", text=f"*filter\n{middle}-A OUTPUT -j ACCEPT\nCOMMIT\n")


def nft_rules(count: int) -> None:
    middle = "\n".join(f"udp dport {1 + n % 60000} drop" for n in range(count - 1))
    chain = f"chain c {{ type filter hook output priority 0\n{middle}\naccept\n}}"
    run("nft", "-f", "-", text=f"flush ruleset\ntable ip t {{\n{chain}\n}}\n")


def report(rules: int, backend: str, packets: int, results: dict[str, list[Cost]]) -> None:
    """Print a table."""
    base = results["no tracer"]
    print(f"kernel {os.uname().release}, {rules} {backend} rules, {packets} datagrams")
    print(f"{'way':40}{'sender':>14}{'with readers':>16}")
    for name, costs in results.items():
        added = (
            statistics.median(getattr(c, of) for c in costs[1:])
            - statistics.median(getattr(c, of) for c in base[1:])
            for of in Cost._fields
        )
        sender, host = added
        print(f"{name:40}{sender:14.0f}{host:16.0f}", flush=True)


def main() -> int:
    """Measure and print a table for each back end and number of rules."""
    run("sysctl", "-qw", "net.netfilter.nf_log_all_netns=1", "kernel.printk=1 1 1 1")
    backends = ((TableHook(4), "legacy", legacy_rules), (ChainHook(), "nft", nft_rules))
    with Controller() as controller:
        controller.end_verification(Walk.VERIFIED)
        for hook, backend, rules in backends:
            for size, packets in SIZES.items():
                # of its own: a way may leave a table behind, and packets go through it
                with namespace("bench") as place, ExitStack() as keep:
                    enter_namespace(place.path)
                    to = sender(keep)
                    rules(size)
                    results: dict[str, list[Cost]] = {}
                    for name, way in ways(controller, keep, to, hook).items():
                        with way():
                            count = min(packets, _FEW) if name == _ENDS else packets
                            results[name] = [measure(to, count) for _ in range(_ROUNDS)]
                    report(size, backend, packets, results)
    run("rmmod", "ipttrace")
    return 0


if __name__ == "__main__":
    sys.exit(main())
