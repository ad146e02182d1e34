# SPDX-License-Identifier: GPL-2.0
"""A demonstration of many hosts on one: namespaces play them, each with an agent; leaf and hub.

    make fleet-demo

    client 10.77.1.2 --- router (DNAT 8080 > 80) --- server 10.77.2.2
        agent                 agent                      agent
          +-------------------- leaf ----------------------+
                                 |
                                hub --- trace --hosts, fleet, query, show

The exit status is 0 if everything that it shows happened, and 1 otherwise.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.heartbeat import Selector
from ipttctl.link.controller import Controller
from ipttctl.programs.trace import remove_trace_pins
from tests.demo.stage import (
    LiveCommand,
    NotShownError,
    check,
    command_line,
    converse,
    heading,
    live,
    say,
    show,
)
from tests.kernel.support.cli import Running, running
from tests.kernel.support.kernel import kernel_log, splats, trust_walk, wait_for
from tests.kernel.support.network import Network, network, send_udp
from tests.kernel.support.objects import compile_object
from tests.unit.ctl.fleet.fleet_host import TwoServers, keep_leaf, two_servers
from tests.unit.ctl.fleet.support import client, kept

HOSTS: Final = ("client", "router", "server")
VERBS: Final = "[links, trace, attach, swap, apply, diff, detach, confirm, rollback, status]"
PACKETS: Final = 60
#: datagrams to this port are told of, and dropped at the server
PORT: Final = 99
#: parts of the story of a request: its hosts, and the rules that it meets there
WHOLE: Final = (*HOSTS, "tcp dport 8080 accept", "dnat to 10.77.2.2:80", "tcp dport 80 accept")
#: requests, of which one is to be told whole: hosts that are starved tell others late
_ATTEMPTS: Final = 3
_BEGINNING: Final = 900
_LEASE: Final = 300
SOURCE: Final = """
#include "ipttrace.h"
IPTTRACE_LICENSE("GPL");
IPTTRACE_PACKET_PROGRAM
int see(struct __sk_buff *packet) { return %s; }
"""


def main() -> int:
    """Run the whole demonstration; return the exit status."""
    try:
        with kernel_log() as log, ExitStack() as stack:
            stack.callback(remove_trace_pins)
            heading("Three hosts, a leaf and a hub")
            stage = Stage(stack)
            heading("A request from the client to the server: one story across three hosts")
            show_story(stage)
            heading("Programs of the fleet, rolled out and swapped in waves")
            generation = show_waves(stage)
            heading("A hub that is killed while packets come, and comes back")
            asyncio.run(show_hub(stage))
            heading("Questions about what the hub keeps")
            show_questions(stage)
            stack.close()
            complaints = splats(log.new_lines())
            check(not complaints, f"the kernel complained: {complaints}")
            with Controller() as controller:
                check(not controller.links(), "a link is left")
    except (NotShownError, AssertionError) as problem:
        print(f"\nfleet-demo: FAILED: {problem}", flush=True)
        return 1
    heading("Shown")
    print("1. A request through three hosts and a NAT between them: one story.")
    print(f"2. A program rolled out to hosts in waves, and swapped: generation {generation};")
    print("   the hub killed meanwhile.")
    print(f"3. The hub killed under traffic: {PACKETS} packets, none lost, none twice.")
    print("4. Drops by rule and by host, asked from the hub with SQL.")
    print("5. Links, agents and namespaces are gone; the kernel had nothing to complain of.")
    return 0


class Stage:
    """Namespaces, servers and agents, until a stack is closed."""

    def __init__(self, stack: ExitStack, packets: int = PACKETS) -> None:
        self.packets = packets
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/run")))
        # three agents on one kernel would each verify the walks, which `make demo` has done once
        trust_walk()
        self.net = stack.enter_context(network("demo"))
        lay_out(self.net)
        self.servers: TwoServers = stack.enter_context(two_servers(self.directory))
        self.programs = self._programs()
        self.settings = self.directory / "hub.yaml"
        self.settings.write_text(f"url: {self.servers.hub.url}\nnkey: {self.servers.asker.seed}\n")
        agents = [stack.enter_context(self._agent(host)) for host in HOSTS]
        for agent in agents:
            agent.wait_for_text("connected to", 600)
        asyncio.run(keep_leaf(self.servers, HOSTS))
        command_line("fleet", "hosts", "--hub", str(self.settings))

    def _programs(self) -> dict[str, Path]:
        found = {}
        for name, result in (("all", "IPTTRACE_SELECT_PACKET"), ("none", "0")):
            source = self.directory / f"{name}.c"
            source.write_text(SOURCE % result)
            found[name] = compile_object(source, self.directory)
        return found

    @contextmanager
    def _agent(self, host: str) -> Iterator[Running]:
        place = dict(zip(HOSTS, (self.net.left, self.net.router, self.net.right), strict=True))
        file = self.directory / f"{host}.yaml"
        file.write_text(
            f"leaf: {{url: '{self.servers.leaf.url}', nkey: {self.servers.agent.seed}}}\n"
            f"host: {host}\nnetns: {place[host].name}\nlabels: {{role: node}}\n"
            f"allow: {VERBS}\npublish: {{events: none}}\nstream: {{bytes: 16777216}}\n"
            f"traces: {{lease: {_LEASE}s}}\n"
            f"trust: {{keys: [{self.servers.asker.public}]}}\n"
            f"objects: {{directory: {self.directory / host}, domain: hub}}\n"
        )
        with running("agent", "--config", str(file)) as agent:
            yield agent


def lay_out(net: Network) -> None:
    """Give the hosts rules, and their neighbours."""
    own = """\
table ip own {
  chain output {
    type filter hook output priority 0;
    tcp dport 8080 accept
  }
}
"""
    rules = """\
table ip nat {
  chain pre {
    type nat hook prerouting priority dstnat;
    tcp dport 8080 dnat to 10.77.2.2:80
  }
}
"""
    drop = f"""\
table ip guard {{
  chain input {{
    type filter hook input priority 0;
    udp dport {PORT} drop
    tcp dport 80 accept
  }}
}}
"""
    places = (net.left, net.router, net.right)
    for place, host, text in zip(places, HOSTS, (own, rules, drop), strict=True):
        print(f"the rules of {host}:")
        show(text)
        path = Path("/run/ipttctl-fleet-demo.nft")
        path.write_text(text)
        place.run("nft", "-f", str(path))
        path.unlink()
    net.left.ping(net.right_address)


# --- one story ------------------------------------------------------------------------------------


def show_story(stage: Stage) -> None:
    """Trace a connection across the hosts."""
    say("""
        Each agent attaches the links of the trace in its own namespace, and compiles programs if
        none did before, a minute where the CPU is emulated. What leaves a host and what comes to
        another are joined by what survives the wire.
    """)
    heard(stage)
    asked = ("trace", "--hosts", "role=node", "--wait", "5", "--hub", str(stage.settings))
    with live(*asked, "tcp[tcpflags] == tcp-syn and (tcp port 8080 or tcp port 80)") as trace:
        trace.wait_for_line("tracing on", _BEGINNING)
        for _ in range(_ATTEMPTS):
            converse(stage.net.left, stage.net.right, stage.net.router_address, 8080, 80)
            with suppress(AssertionError):
                wait_for(partial(is_whole, trace), 60)
                break
        trace.stop(180)
    check("found 3 hosts" in trace.lines, "the trace did not find the hosts")
    check(is_whole(trace), f"no story has all of {', '.join(WHOLE)}")


def is_whole(trace: LiveCommand) -> bool:
    """Whether a story was told that has all of its parts."""
    stories = "\n".join(trace.lines).split("\n\n")
    return any(all(part in one for part in WHOLE) for one in stories)


def heard(stage: Stage) -> None:
    """Wait until all agents answer at once: a guest that is emulated may be busy with others."""

    async def find() -> None:
        end = time.monotonic() + 300
        async with connected(stage.servers.settings) as asker:
            while len(await asker.find(Selector(), 1, some=False)) < len(HOSTS):
                check(time.monotonic() < end, "the hub does not hear of the hosts")

    asyncio.run(find())


# --- waves ----------------------------------------------------------------------------------------


def show_waves(stage: Stage) -> int:
    """Roll a link out, then another program for it; returns the link's generation."""
    say("""
        The hosts share one module here, in which their links have the names of their namespaces
        before them. The objects go to the hub's store, and run because the asker signs a grant for
        each host. During the second roll-out the hub is killed, when the first wave has begun: the
        roll-out waits for it, and goes on.
    """)
    for name, killed in (("all", False), ("none", True)):
        file = stage.directory / "fleet.yaml"
        text = f"links:\n  see:\n    hook: nf:inet4/input\n    object: {{packet: {name}.o:see}}\n"
        file.write_text(text)
        show(text)
        heard(stage)
        asked = (
            *("fleet", "apply", str(file), "--hosts", "role=node", "--wait", "5"),
            *("--waves", "1,100%", "--pause", "2s", "--sign", str(stage.servers.asker.seed)),
            *("--hub", str(stage.settings)),
        )
        with live(*asked) as rolling:
            if killed:
                rolling.wait_for_line("wave 1 of 2", _BEGINNING)
                print("the hub is killed", flush=True)
                stage.servers.hub.kill()
                check(not done(rolling), "the roll-out had ended before the hub was killed")
                stage.servers.hub.start()
                print("the hub is back", flush=True)
            rolling.finish(_BEGINNING)
            check(done(rolling), "the last wave was not kept")
    command_line("fleet", "status", "--hub", str(stage.settings))
    with Controller() as controller:
        found = {one.name: one.generation for one in controller.links()}
        places = (stage.net.left, stage.net.router, stage.net.right)
        wanted = {f"{place.name}.see": 2 for place in places}
        check(found == wanted, f"there are the links {found}, not {wanted}")
        for name in wanted:
            controller.detach(name)
    return min(found.values())


def done(rolling: LiveCommand) -> bool:
    """Whether the last wave of a roll-out was kept."""
    return "wave 2 of 2: kept" in rolling.lines


# --- the hub goes ---------------------------------------------------------------------------------


async def show_hub(stage: Stage) -> None:
    """Kill the hub while packets are traced; check what it has in the end."""
    say(f"""
        The hosts trace datagrams to port {PORT}. The hub is killed with SIGKILL between them;
        the agents and their leaf go on. When it is back, it takes from the leaf what it has missed.
    """)
    async with connected(stage.servers.settings) as asker:
        for host in HOSTS:
            request = {"lease": _LEASE, "filter": f"udp port {PORT}"}
            answer = await asker.ask(host, "trace", request, _BEGINNING)
            print(f"{host}: trace {answer['trace']}, links {answer['links']}", flush=True)
        before = await stories(asker)
    part = stage.packets // 3
    send(stage.net, part)
    print("the hub is killed", flush=True)
    stage.servers.hub.kill()
    send(stage.net, part)
    stage.servers.hub.start()
    print("the hub is back", flush=True)
    send(stage.net, stage.packets - 2 * part)
    async with client(stage.servers.leaf, stage.servers.agent) as agent:
        for host in HOSTS:
            end = time.monotonic() + 120
            while True:
                frames = await kept(agent, f"ipttctl-{host}", stage.packets, 120)
                count = sum(head.count for head, _ in frames if head.kind == "stories")
                if count >= stage.packets:
                    break
                check(time.monotonic() < end, f"{host} told {count} stories")
            print(f"the leaf has {count} stories of {host}", flush=True)
    async with connected(stage.servers.settings) as asker:
        end = time.monotonic() + 180
        while (found := await stories(asker)) < before + stage.packets * len(HOSTS):
            check(time.monotonic() < end, f"the hub has {found - before} stories")
            await asyncio.sleep(1)


async def stories(asker: Asker) -> int:
    """The number of messages that the hub's stream keeps, times what is in them."""
    frames = await kept(asker.client, "ipttctl", 0, 120)
    return sum(head.count for head, _ in frames if head.kind == "stories")


def send(net: Network, packets: int) -> None:
    """Send datagrams from the client to the server, which drops them."""
    net.left.call(send_udp, net.right_address, PORT, [b"%d" % one for one in range(packets)])


# --- questions ------------------------------------------------------------------------------------


def show_questions(stage: Stage) -> None:
    """Ask the hub with SQL, and print a story that it keeps."""
    query = ("query", "--hub")
    command_line(*query, "--drops-by-rule", str(stage.settings))
    statement = (
        "SELECT host, count(*) AS stories, count(DISTINCT packet) AS packets, "
        f"count(*) FILTER (WHERE dropped) AS dropped FROM stories "
        f"WHERE destination_port = {PORT} GROUP BY host ORDER BY host"
    )
    out = command_line(*query, "-o", "csv", statement, str(stage.settings))
    rows = [line.split(",") for line in out.splitlines()[1:]]
    count = stage.packets
    wanted = [[host, *[str(count)] * 2, str(count * (host == "server"))] for host in HOSTS]
    check(rows == wanted, f"the hub has {rows}, not {wanted}")
    command_line("show", "--hub", "--drops", "--hosts", "server", "-c", "1", str(stage.settings))


if __name__ == "__main__":
    sys.exit(main())
