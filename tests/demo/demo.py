# SPDX-License-Identifier: GPL-2.0
"""A demonstration on a real kernel: trace packets through all rules, swap programs under traffic.

Run it as root where the module is loaded and nothing else depends on it:

    make demo

The exit status is 0 if everything that it shows happened, and 1 otherwise.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final

from ipttctl.bpf.programs import Program
from ipttctl.errors import LinkDetachedError
from ipttctl.link.controller import Controller
from ipttctl.programs.trace import PIN_ROOT, TraceOptions, load_trace_programs, remove_trace_pins
from ipttctl.system import netns
from ipttproto import TABLE_SLOTS, Slot
from tests.command_lines.printed import REPOSITORY
from tests.demo.stage import (
    NotShownError,
    Pair,
    announce,
    check,
    command_line,
    converse,
    heading,
    live,
    pair,
    say,
    show,
    stay_on_one_cpu,
)
from tests.kernel.support.cli import Running, running
from tests.kernel.support.kernel import (
    kernel_log,
    run,
    splats,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.network import event, flood_udp, namespace, send_udp

DROPPED_PORT: Final = 9
#: packets before and after each swap
_BETWEEN_SWAPS: Final = 10
#: seconds between two datagrams while programs are swapped
_PACE: Final = 0.1

RULES: Final = """\
*nat
:PREROUTING ACCEPT
-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080
COMMIT
*filter
:INPUT DROP
:guard -
-A INPUT -j guard
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp --dport 8080 -j ACCEPT
-A guard -p udp --dport 9 -j DROP
-A guard -p icmp -j RETURN
COMMIT
"""

RULES6: Final = """\
*filter
:INPUT DROP
:pings -
-A INPUT -p icmpv6 -j pings
-A pings -j ACCEPT
COMMIT
"""


#: the rules of a host where three programs write them; those of fw come last, by their priority
NFT_RULES: Final = """\
table inet fw {
  chain deep {
    counter comment "deep one"
  }
  chain inp {
    type filter hook input priority 10; policy accept;
    iif lo udp dport 5 jump deep
  }
}
"""
#: the rules of the namespace web in README.md
STORY_RULES: Final = """\
table inet fw {
  chain inp {
    type filter hook input priority 0; policy accept;
    udp dport 9 drop
    counter accept
  }
}
"""
#: the port that NFT_RULES name, and seconds until a datagram's events are looked for
_MIXED_PORT: Final = 5
#: seconds until another datagram is sent
_EVENTS_COME: Final = 2.0


def main() -> int:
    """Run the whole demonstration; return the exit status."""
    try:
        with kernel_log() as log, ExitStack() as stack:
            stack.callback(remove_trace_pins)
            heading("What became of a packet?")
            show_stories()
            heading("A client and a server, each in a network namespace")
            place = stack.enter_context(pair())
            lay_out(place)
            heading("Each rule, each verdict: which rules do packets to the server meet?")
            events = show_trace(place)
            heading("A host where iptables-nft, nft and iptables-legacy have rules")
            show_back_ends()
            heading("New programs for a link, while packets come")
            packets = show_swap(place)
            stack.close()
            nothing_left()
            complaints = splats(log.new_lines())
            check(not complaints, f"the kernel complained: {complaints}")
    except (NotShownError, AssertionError) as problem:
        print(f"\ndemo: FAILED: {problem}", flush=True)
        return 1
    heading("Shown")
    print("1. Stories of two packets, as README.md has them: what they met, and their ends.")
    print(f"2. {events} events of `trace --lines`: each rule that matched, each verdict, its cost.")
    print(
        "3. Rules of iptables-nft, nft and iptables-legacy in one trace, with the rules' own text."
    )
    print(f"4. Two swaps under traffic: {packets} packets, each seen by one generation, none lost.")
    print("5. Links, programs and namespaces are gone; the kernel had nothing to complain of.")
    return 0


def nothing_left() -> None:
    """Check that links, redirects, pins and namespaces are gone."""
    with Controller() as controller:
        check(not controller.links(), "a link is left")
    wait_for_no_redirection()
    check(not list(PIN_ROOT.iterdir()), "a program is still pinned")
    names = run("ip", "netns", "list").split()
    check(not {"client", "server", "host"} & set(names), "a network namespace is left")


def lay_out(place: Pair) -> None:
    """Set up the server's tables and show them."""
    for tool, rules, ipv6 in (("iptables", RULES, False), ("ip6tables", RULES6, True)):
        announce("ip", "netns", "exec", "server", f"{tool}-legacy-restore", rest=" <<EOF")
        show(f"{rules}EOF", indent="")
        place.server.restore(rules, ipv6=ipv6)
    # neighbours learn of each other now, so that no such packet appears among the others
    place.client.ping(place.server_address)
    place.client.ping(place.server_address6)


# --- stories --------------------------------------------------------------------------------------


def show_stories() -> None:
    """Tell the stories of two datagrams to another namespace, as README.md shows them.

        this namespace                web
    v0 10.9.0.1 --- veth --- v1 10.9.0.2
    """
    say("""
        The first trace on a kernel compares the module's walk through nftables' chains with the
        kernel's own loop, and compiles its BPF programs: together about a minute and a half where
        the CPU is emulated, seconds elsewhere.
    """)
    with ExitStack() as stack:
        web = stack.enter_context(namespace("web"))
        run("ip", "link", "add", "v0", "type", "veth", "peer", "v1", "netns", web.name)
        stack.callback(run, "ip", "link", "delete", "v0")
        run("ip", "address", "add", "10.9.0.1/24", "dev", "v0")
        run("ip", "link", "set", "v0", "up")
        web.run("ip", "address", "add", "10.9.0.2/24", "dev", "v1")
        web.run("ip", "link", "set", "v1", "up")
        run("ping", "-c", "1", "-W", "10", "10.9.0.2")
        rule = ("OUTPUT", "-p", "udp", "--dport", "9", "-j", "ACCEPT")
        announce("iptables-legacy", "-A", *rule)
        run("iptables-legacy", "-A", *rule)
        stack.callback(run, "iptables-legacy", "-D", *rule)
        announce("ip", "netns", "exec", web.name, "nft", "-f", "-", rest=" <<EOF")
        show(f"{STORY_RULES}EOF", indent="")
        run("ip", "netns", "exec", web.name, "nft", "-f", "-", text=STORY_RULES)
        with live("trace", "-c", "2", "udp") as trace:
            trace.wait_for_line("tracing: link")
            for port in (9, 11):
                send_udp("10.9.0.2", port, [b"hello?"])
            trace.finish()
    shown, printed = _plain(trace.lines), _plain(_readme_story())
    at = next((place for place, line in enumerate(shown) if line == printed[0]), None)
    check(at is not None, f"no story begins as in README.md: {shown}")
    told = shown[at : (at or 0) + len(printed)]
    check(told == printed, f"the stories are not those of README.md: {told}, not {printed}")


def _readme_story() -> list[str]:
    """The stories of README.md: the lines behind those of the links."""
    text = (REPOSITORY / "README.md").read_text()
    block = text.partition("    $ ipttctl trace -c 2 udp\n")[2].partition("\n\n")[0]
    lines = [line.removeprefix("    ") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("tracing: ")]


def _plain(lines: list[str]) -> list[str]:
    """Lines without what differs each time: moments, ports, numbers of processes and of events."""
    return [
        re.sub(r"\d\d:\d\d:\d\d\.\d+|(?<=:)\d{5}|(?<=pid )\d+|[\d.]+ [mu]s(?= after)", "#", line)
        for line in lines
        if "events, lost 0" not in line
    ]


# --- trace ---------------------------------------------------------------------------------------


def show_trace(place: Pair) -> int:
    """Trace the packets that reach the server; return the number of events."""
    to_server = f"dst host {place.server_address} or dst host {place.server_address6}"
    with live("trace", "--lines", "-N", "server", "-c", "20", to_server) as trace:
        trace.wait_for_line("tracing: link")
        traffic(place)
        trace.finish()
    lines = [line for line in trace.lines if "pf=PF_INET" in line]
    check(len(lines) == 20, f"trace -c 20 printed {len(lines)} events")
    promised = {
        "a ping over IPv4": r"I_request:10\.77\.0\.1",
        "a ping over IPv6": r"I_request:\[fd77::1\].*pf=PF_INET6",
        "the start of a TCP connection": r"T_SYN:.*:80 .*table=nat chain=PREROUTING .*rulenum=1\]",
        "the rule that drops": r"U:.*chain=guard hook=1 rulenum=1\]",
        "the verdict of a drop": r"U:.*table=filter hook=INPUT verdict=DROP",
        "a RETURN": r"I_request:.*chain=guard hook=1 rulenum=2\]",
        "the end of a user chain": r"T_SYN:.*chain=guard .*kind=return\]",
        "a policy": r"kind=policy\]",
    }
    for what, pattern in promised.items():
        check(any(re.search(pattern, line) for line in lines), f"trace did not show {what}")
    check(any(line.endswith(" lost 0") for line in trace.lines), "trace lost events")
    print()
    say("""
        The datagram to port 9 never arrived: rule 1 of chain guard, called from INPUT, ate it. A
        further trace has its programs ready. It asks for such packets only:
    """)
    with live(
        "trace", "--lines", "-N", "server", "-c", "5", "--proto", "udp", "-P", "9", "-t"
    ) as trace:
        trace.wait_for_line("tracing: link")
        place.client.call(send_udp, place.server_address, DROPPED_PORT, [b"hello?"])
        trace.finish()
    check(not any("compiling" in line for line in trace.lines), "the second trace compiled")
    check(any("verdict=DROP" in line for line in trace.lines), "trace -P did not show the drop")
    return len(lines)


def traffic(place: Pair) -> None:
    """Send a ping over IPv4 and IPv6 and a datagram that is dropped; open a TCP connection."""
    place.client.ping(place.server_address)
    place.client.ping(place.server_address6)
    place.client.call(send_udp, place.server_address, DROPPED_PORT, [b"hello?"])
    converse(place.client, place.server, place.server_address, 80, 8080)


# --- back ends ------------------------------------------------------------------------------------


def show_back_ends() -> None:
    """Trace a datagram through the rules of three programs, in one namespace."""
    rule = ("OUTPUT", "-p", "udp", "--dport", str(_MIXED_PORT), "-j", "ACCEPT")
    with namespace("host") as host:
        for tool in ("iptables-legacy", "iptables-nft"):
            announce("ip", "netns", "exec", host.name, tool, "-A", *rule)
            host.run(tool, "-A", *rule)
        announce("ip", "netns", "exec", host.name, "nft", "-f", "-", rest=" <<EOF")
        show(f"{NFT_RULES}EOF", indent="")
        run("ip", "netns", "exec", host.name, "nft", "-f", "-", text=NFT_RULES)
        patterns = {
            "the rule of iptables-nft": (
                r"family=ip table=filter chain=OUTPUT .*rulenum=1 verdict=accept\] "
                r"rule=\[-A OUTPUT -p udp .*-j ACCEPT\]"
            ),
            "the rule of nft": r"table=fw chain=inp .*verdict=jump:deep\] rule=\[.*jump deep\]",
            "a comment": r"table=fw chain=deep .*rule=\[counter .*comment \"deep one\"\]",
            "the verdict of nft's chain": r"nftables=\[.*table=fw chain=inp .*verdict=ACCEPT",
            "the rule of iptables-legacy": (
                r"pf=PF_INET .*table=filter chain=OUTPUT .*rulenum=1\] "
                r"rule=\[-A OUTPUT -p udp .*-j ACCEPT\]"
            ),
            "the verdict of its table": r"iptables=\[pf=PF_INET table=filter .*verdict=ACCEPT",
        }
        selection = ("--proto", "udp", "-P", str(_MIXED_PORT))
        with live("trace", "--lines", "-N", host.name, *selection) as trace:
            trace.wait_for_line("tracing: link")

            def missing() -> list[str]:
                lines = list(trace.lines)
                return [
                    what
                    for what, pattern in patterns.items()
                    if not any(re.search(pattern, line) for line in lines)
                ]

            def all_shown() -> bool:
                # listing the rules takes its time: the first events may be without them
                host.call(send_udp, "127.0.0.1", _MIXED_PORT, [b"hello?"])
                with suppress(AssertionError):
                    wait_for(lambda: not missing(), timeout=_EVENTS_COME)
                return not missing()

            try:
                wait_for(all_shown, timeout=60, what="every rule with its text")
            except AssertionError:
                check(False, f"trace did not show {', '.join(missing())}")
            trace.stop()
    check(any(line.endswith(" lost 0") for line in trace.lines), "trace lost events")


# --- swap ----------------------------------------------------------------------------------------


def show_swap(place: Pair) -> int:
    """Swap a link's programs while a process sends to the port that is dropped.

    Returns:
        The number of those packets.
    """
    loaded = load_trace_programs(TraceOptions(netns=netns.resolve(place.server.name).cookie))
    programs = {slot: loaded[slot] for slot in TABLE_SLOTS}
    with ExitStack() as stack:
        for program in loaded.values():
            stack.enter_context(program)
        say(f"""
            The programs of the trace are open here as file descriptors. `attach` takes them over
            and makes a link of them, two observers follow it, one in JSON, and a process sends
            {1 / _PACE:.0f} datagrams a second to the port that is dropped.
        """)
        link, owner = attach(stack, programs)
        follow = ("events", "--link", str(link))
        announce("ipttctl", *follow, rest=" &")
        announce("ipttctl", *follow, "-o", "json", rest=" &")
        text = stack.enter_context(running(*follow))
        stream = stack.enter_context(running(*follow, "-o", "json"))
        for observer in (text, stream):
            observer.wait_for_text("listening")
        place.server.iptables("-Z")
        stop = event()
        sender = place.client.start(flood, place.server_address, stop)
        swap_twice(place, link, programs)
        stop.set()
        sender.join(30)
        check(sender.exitcode == 0, "the sender failed")
        print()
        command_line("detach", str(link))
        # its own status: a supervisor would attach again
        ended = owner.process.wait(30)
        check(ended == LinkDetachedError.exit_code, f"attach ended otherwise: {owner.err()}")
        show(owner.err())
        packets = counted(place)
        for observer in (text, stream):
            seen = partial(all_seen, observer, packets)
            wait_for(seen, what=f"{packets} drops in an observer's stream")
        events = stream.finish()
        check(text.stop() == 0, text.err())
        print()
        show_changes(text.out().splitlines())
        count_generations(events, packets)
        check(stream.err().rstrip().endswith(" lost 0"), f"totals: {stream.err()}")
        say(f"Totals of the observer: {stream.err().splitlines()[-1]}.")
    return packets


def attach(stack: ExitStack, programs: dict[Slot, Program]) -> tuple[int, Running]:
    """Run ``ipttctl attach`` until the link is there; give its id, and the command that owns it."""
    slots = fd_options(programs, *programs)
    announce("ipttctl", "attach", *slots, rest=" &")
    fds = [program.fd for program in programs.values()]
    owner = stack.enter_context(running("attach", *slots, pass_fds=fds))
    owner.wait_for_text("\n")
    show(owner.out())
    found = re.match(r"link=(\d+) gen=1 ", owner.out())
    check(found is not None, f"attach printed {owner.out()!r}")
    assert found is not None
    return int(found[1]), owner


def swap_twice(place: Pair, link: int, programs: dict[Slot, Program]) -> None:
    """Swap to verdicts only, then to all programs; in between, expect an old generation."""
    fds = [program.fd for program in programs.values()]

    def swap(slots: list[str], expected: int, status: int = 0) -> None:
        wait_for_traffic(place)
        arguments = ("swap", str(link), *slots, "--expect-gen", str(expected))
        command_line(*arguments, pass_fds=fds, status=status)

    everything = fd_options(programs, *programs)
    print()
    say("Generation 2 gives up the rules: verdicts only.")
    swap(fd_options(programs, Slot.ENTRY, Slot.EXIT), expected=1)
    say("Somebody who still takes the link for generation 1 changes nothing (exit status 7).")
    swap(everything, expected=1, status=7)
    say("Generation 3 has them again.")
    swap(everything, expected=2)
    wait_for_traffic(place)


def wait_for_traffic(place: Pair) -> None:
    """Wait for some packets more, so that each generation sees some."""
    wanted = counted(place) + _BETWEEN_SWAPS
    wait_for(lambda: counted(place) >= wanted, what=f"{_BETWEEN_SWAPS} packets more")


def fd_options(programs: dict[Slot, Program], *slots: Slot) -> list[str]:
    """The --fd options for slots."""
    pairs = [f"{slot.name.lower()}={programs[slot].fd}" for slot in slots]
    return [word for pair_ in pairs for word in ("--fd", pair_)]


def flood(address: str, stop: Any) -> None:
    """Send to the port that is dropped until ``stop`` is set, all from one CPU."""
    stay_on_one_cpu()
    flood_udp(address, DROPPED_PORT, stop, _PACE, 1)


def counted(place: Pair) -> int:
    """The number of packets that the dropping rule has counted."""
    table = place.server.iptables("-nvxL", "guard")
    return int(table.splitlines()[2].split()[0])


def all_seen(observer: Running, packets: int) -> bool:
    """Whether an observer has printed the drops of that many packets."""
    return observer.out().count("DROP") >= packets


def show_changes(lines: list[str]) -> None:
    """Print the lines of the stream at which the generation changes."""
    header, *lines = lines
    column = header.split().index("GEN")
    generations = [int(line.split()[column]) for line in lines]
    check({2, 3} <= set(generations), "the stream does not show three generations")
    changes = [generations.index(generation) for generation in (2, 3)]
    say(f"The observer printed {len(lines)} events. Where the generation (GEN) changes:")
    print(header)
    for change in changes:
        print("\n".join(["...", *lines[change - 2 : change + 2]]), flush=True)
    print("...")


def count_generations(events: list[dict[str, Any]], packets: int) -> None:
    """Show that no event is missing and that one generation saw each packet."""
    for cpu in sorted({one["cpu"] for one in events}):
        here = [one for one in events if one["cpu"] == cpu]
        numbers = [one["sequence"] for one in here]
        expected = list(range(numbers[0], numbers[0] + len(numbers)))
        check(numbers == expected, f"a gap in the events of CPU {cpu}")
        generations = [one["generation"] for one in here]
        check(generations == sorted(generations), f"an old generation came back on CPU {cpu}")
        print(f"CPU {cpu}: events {numbers[0]} to {numbers[-1]}, no number is missing", flush=True)
    ends = Counter(one["generation"] for one in events if one["verdict"] == "DROP")
    by_kind = Counter((one["generation"], one["kind"]) for one in events)
    for generation in sorted(ends):
        rules = sum(n for (g, kind), n in by_kind.items() if g == generation and kind != "exit")
        print(f"generation {generation}: {ends[generation]} packets dropped, {rules} rule events")
    total = sum(ends.values())
    print(f"all: {total} packets; the rule's own counter says {packets}", flush=True)
    check(set(ends) == {1, 2, 3}, f"packets met generations {sorted(ends)}")
    check(by_kind[2, "rule"] == 0, "generation 2 has rule events")
    check(total == packets, "the events do not tell of every packet that the rule counted")


if __name__ == "__main__":
    sys.exit(main())
