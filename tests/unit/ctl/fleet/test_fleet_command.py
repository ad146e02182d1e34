# SPDX-License-Identifier: GPL-2.0
"""``ipttctl fleet`` as a process, with real servers and agents of hosts that do nothing real."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import nkeys
import pytest

from ipttctl.errors import IpttctlError, ProgramError, UsageError
from ipttctl.fleet import uploads
from ipttctl.fleet.asker import connected
from ipttctl.fleet.bundle import Bundle, Signer, read_bundle
from ipttctl.fleet.config import TrustOptions
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.grants import RefusedError, check
from ipttctl.fleet.rollout import VERBS
from ipttctl.fleet.uploads import upload
from tests.unit.ctl.fleet.fleet_host import (
    FleetHost,
    TwoServers,
    heard,
    programs_of,
    two_servers,
)
from tests.unit.ctl.fleet.support import Key, running_agent

STATE = """
links:
  lim:
    hook: nf:inet4/input
    netns: router
    object: {packet: lim.o:limit}
    label: {team: web}
"""
needs_clang = pytest.mark.skipif(not shutil.which("clang"), reason="clang is not installed")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[TwoServers]:
    with two_servers(tmp_path) as started:
        (tmp_path / "hub.yaml").write_text(f"url: {started.hub.url}\nnkey: {started.asker.seed}\n")
        yield started


@pytest.fixture
def signer(tmp_path: Path) -> Key:
    return Key.make(tmp_path, "signer")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "lim.o").write_bytes(b"\x7fELF limit")
    (tmp_path / "state.yaml").write_text(STATE)
    return tmp_path / "state.yaml"


@asynccontextmanager
async def trusting(
    servers: TwoServers, signer: Key, hosts: list[FleetHost], allow: str = ", ".join(VERBS)
) -> AsyncIterator[None]:
    """Agents web1, web2... that believe a signer's grants."""
    async with AsyncExitStack() as stack:
        for number, host in enumerate(hosts, 1):
            text = (
                f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\n"
                f"host: web{number}\nlabels: {{role: node}}\nallow: [{allow}]\n"
                f"trust: {{keys: [{signer.public}]}}\npublish: {{events: none}}\n"
                f"objects: {{directory: {servers.directory / f'objects{number}'}, domain: hub}}\n"
            )
            agent = await stack.enter_async_context(
                running_agent(parse_config(text, "agent.yaml"), host)
            )
            await agent.connection.wait()
        async with connected(servers.settings) as asker:
            await heard(asker, len(hosts))
        yield


async def ipttctl(servers: TwoServers, *arguments: str) -> tuple[int, str, str]:
    """Run a command of ``ipttctl fleet``; returns its status, output and standard error."""
    command = [sys.executable, "-m", "ipttctl", "fleet", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--hub",
        str(servers.directory / "hub.yaml"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_hosts_are_listed(servers: TwoServers, signer: Key) -> None:
    async def run() -> None:
        async with trusting(servers, signer, [FleetHost(), FleetHost()]):
            status, out, _ = await ipttctl(servers, "hosts")
            head, *rows = out.splitlines()
            assert status == 0
            assert head.split() == [
                *("HOST", "KERNEL", "MODULE", "VERSION", "TRACES", "HEARD", "LABELS", "ALLOWS")
            ]
            words = [row.split() for row in rows]
            assert [row[:5] for row in words] == [
                ["web1", "6.12.0", "0.1.0", "0.1.0", "0"],
                ["web2", "6.12.0", "0.1.0", "0.1.0", "0"],
            ]
            assert [row[7:] for row in words] == [["role=node", ",".join(VERBS)]] * 2
            status, out, _ = await ipttctl(servers, "hosts", "host!=web1", "-o", "json")
            [one] = map(json.loads, out.splitlines())
            assert (one["host"], one["labels"]) == ("web2", {"role": "node"})
            assert abs(one["time_ms"] / 1000 - time.time()) < 30
            status, out, err = await ipttctl(servers, "hosts", "web1,web9")
            assert (status, out) == (1, "")
            assert "web9: nothing is heard of it" in err
            status, out, err = await ipttctl(servers, "hosts", "role=gateway")
            assert (status, out, err) == (0, "", "no hosts\n")

    asyncio.run(run())


def test_a_file_is_rolled_out_with_grants_and_undone(
    servers: TwoServers, signer: Key, state: Path
) -> None:
    hosts = [FleetHost(), FleetHost()]
    bundle = read_bundle(str(state))

    async def run() -> None:
        async with trusting(servers, signer, hosts, f"{', '.join(VERBS)}, diff"):
            status, out, err = await ipttctl(servers, "status")
            assert (status, out, err) == (0, "", "there was no roll-out yet\n")
            chosen = (str(state), "--hosts", "role=node")
            signed = ("--sign", str(signer.seed))
            status, out, err = await ipttctl(servers, "diff", *chosen)
            assert status == 1
            assert "no grant is for it" in err
            status, out, _ = await ipttctl(servers, "diff", *chosen, *signed)
            assert (status, out) == (9, "web1 attach lim\nweb2 attach lim\n")
            waves = ("--waves", "1,100%", "--pause", "500ms", "--guard", "drops < 10/s")
            status, out, err = await ipttctl(servers, "apply", *chosen, *waves, *signed)
            assert status == 0, err
            first, second = out.splitlines()
            assert "of state.yaml by " in first
            assert first.endswith(": done")
            assert second == "2 hosts"
            first, *waves_told = err.splitlines()
            assert first.endswith(" of state.yaml to 2 hosts")
            assert waves_told == [
                *("wave 1 of 2: web1", "wave 1 of 2: kept"),
                *("wave 2 of 2: web2", "wave 2 of 2: kept"),
            ]
            assert all(host.programs() == programs_of(bundle) for host in hosts)
            assert [host.links_now["lim"].entry["netns"] for host in hosts] == ["router"] * 2
            status, out, _ = await ipttctl(servers, "diff", *chosen, *signed)
            assert (status, out) == (0, "")
            status, out, _ = await ipttctl(servers, "status")
            assert out.splitlines()[1:] == ["wave 1: web1", "wave 2: web2"]
            status, out, _ = await ipttctl(servers, "status", "-o", "json")
            assert json.loads(out)["waves"] == [["web1"], ["web2"]]
            status, out, err = await ipttctl(servers, "undo")
            assert status == 0, err
            assert out.splitlines()[0].endswith(": undone")
            assert all(host.programs() == {} for host in hosts)
            status, _, err = await ipttctl(servers, "undo")
            assert (status, err) == (1, "ipttctl: there is no roll-out to undo\n")

    asyncio.run(run())


def test_hosts_that_are_not_as_they_were_kept_are_told(
    servers: TwoServers, signer: Key, state: Path
) -> None:
    hosts = [FleetHost() for _ in range(4)]

    async def run() -> None:
        chosen = (str(state), "--hosts", "role=node", "--sign", str(signer.seed))
        async with trusting(servers, signer, hosts):
            status, _, err = await ipttctl(servers, "apply", *chosen, "--pause", "500ms")
            assert status == 0, err
            status, out, _ = await ipttctl(servers, "status")
            assert status == 0
            assert "web2" not in out.replace("wave 2: web2, web3, web4", "")
            hosts[1].reboot()
            del hosts[2].links_now["lim"]
            status, out, err = await ipttctl(servers, "status")
            assert (status, err) == (9, "")
            assert out.splitlines()[1:] == [
                *("wave 1: web1", "wave 2: web2, web3, web4"),
                "changed: web2: it was started again",
                "changed: web3: link lim is not there any more",
            ]
        # those of two hosts, which are not there
        async with trusting(servers, signer, hosts[:2]):
            status, out, err = await ipttctl(servers, "status", "-o", "json")
            assert (status, err) == (1, "")
            found = json.loads(out)
            assert (found["step"], found["changed"]) == ("done", {"web2": "it was started again"})
            silent = "there is no agent that hears status"
            assert found["unknown"] == {"web3": silent, "web4": silent}
            status, out, _ = await ipttctl(servers, "status")
            assert status == 1
            assert out.splitlines()[-2:] == [
                f"unknown: {one}: {silent}" for one in ("web3", "web4")
            ]

    asyncio.run(run())


def test_a_filter_is_signed_as_the_file_declares_it(
    servers: TwoServers, signer: Key, state: Path
) -> None:
    host = FleetHost(drops_a_look=100)

    async def run() -> None:
        async with trusting(servers, signer, [host], f"{', '.join(VERBS)}, diff"):
            chosen = (str(state), "--hosts", "web1", "--sign", str(signer.seed))
            quick = ("--pause", "1500ms", "--guard", "drops < 10/s")
            status, _, err = await ipttctl(servers, "apply", *chosen, *quick)
            assert status == 0, err
            assert host.links_now["lim"].mode == "observe"
            state.write_text(f"{STATE}    mode: filter\n")
            status, _, err = await ipttctl(servers, "apply", *chosen[:3], *quick)
            assert status == 1
            assert "at nf:inet4/input, mode filter: it is not listed here" in err
            assert "have it signed for filter by a key of trust.keys" in err
            status, out, _ = await ipttctl(servers, "diff", *chosen)
            assert (status, out) == (9, "web1 swap lim\n")
            status, _, err = await ipttctl(servers, "apply", *chosen, *quick)
            assert status == 1
            assert "halted: web1: link lim: guard drops < 10/s: " in err
            assert host.links_now["lim"].mode == "observe"
            status, _, err = await ipttctl(servers, "apply", *chosen, "--pause", "500ms")
            assert status == 0, err
            assert host.links_now["lim"].mode == "filter"

    asyncio.run(run())


def test_a_step_is_of_the_host_that_lists_it(
    servers: TwoServers, signer: Key, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"action": "attach", "host": "web9", "name": "lim"}
    monkeypatch.setattr(FleetHost, "diff", lambda *_: [step])

    async def run() -> None:
        async with trusting(servers, signer, [FleetHost()], f"{', '.join(VERBS)}, diff"):
            chosen = (str(state), "--hosts", "web1", "--sign", str(signer.seed))
            _, out, _ = await ipttctl(servers, "diff", *chosen, "-o", "json")
            assert json.loads(out) == {**step, "host": "web1"}

    asyncio.run(run())


def test_a_halted_roll_out_says_why(servers: TwoServers, signer: Key, state: Path) -> None:
    host = FleetHost()

    async def run() -> None:
        async with trusting(servers, signer, [host]):
            status, out, err = await ipttctl(servers, "apply", str(state), "--hosts", "all")
            assert (status, out) == (1, "")
            *_, halted, last = err.splitlines()
            assert halted.startswith("halted: web1: object sha256:")
            assert "no grant is for it" in halted
            assert "undone on 1 of 1 hosts" in last
            assert host.programs() == {}

    asyncio.run(run())


def test_hosts_that_do_not_allow_it_are_not_asked(
    servers: TwoServers, signer: Key, state: Path
) -> None:
    async def run() -> None:
        async with trusting(servers, signer, [FleetHost()], "apply, links"):
            status, _, err = await ipttctl(servers, "apply", str(state), "--hosts", "web1")
            assert status == 1
            assert "web1 does not allow confirm, rollback, status" in err
            status, _, err = await ipttctl(servers, "status")
            assert err == "there was no roll-out yet\n"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--pause", "60s"], "--rollback-after: the time has to be longer than --pause"),
        (["--waves", "1,50%"], "leaves hosts out"),
        (["--waves", "0"], "--waves: '0' is no size of a wave; write it as 1,10%,100%"),
        (["--grant-for", "999h"], "--grant-for: 999h is not between 1ms and 30 days"),
        (["--guard", "drops"], "is not a condition"),
        (["--sign", "/nowhere"], "--sign: cannot read /nowhere"),
        (["--hosts", "a b"], "'a b' chooses no hosts"),
        # as an empty variable of a shell has it
        (["--hosts", ""], "--hosts: nobody is chosen; write all for all hosts"),
        (["--hosts", " , "], "--hosts: nobody is chosen"),
        (["--patience", "soon"], "'soon' is not a time"),
        ([], "none.yaml: No such file or directory"),
        (["--wait", "3601"], "--wait: 3601 is not a time above 0 and up to 3600 s"),
    ],
)
def test_mistakes_are_told_before_anybody_is_asked(
    tmp_path: Path, options: list[str], error: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from ipttctl.cli import run  # noqa: PLC0415  # as the other tests, which start processes

    hub = tmp_path / "none.yaml"
    hosts = [] if "--hosts" in options else ["--hosts", "all"]
    # it is not read either, so nothing is compiled
    state = str(tmp_path / "no-state.yaml")
    arguments = ["fleet", "apply", state, *hosts, *options, "--hub", str(hub)]
    assert run(arguments) == 2
    assert error in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("mode: drop", "link lim: mode is one of observe, filter, not drop"),
        ("hook: chain:ip/nat\n    mode: observe", "link lim: links at chain:ip/nat have no mode"),
        ("report-drops: true", "link lim: report-drops cannot be declared for other hosts"),
        ("set: {most: 2}", "link lim: set cannot be declared for other hosts"),
        ("keep-maps: true", "link lim: keep-maps cannot be declared for other hosts"),
        ("maps: {counts: {1: 2}}", "link lim: maps cannot be declared for other hosts"),
        ("filter: host example.org", "names are not looked up"),
        ("netns: /proc/1/ns/net", "link lim: netns: this is no name of a network namespace"),
        ("object: {packet: none.o:limit}", "cannot read"),
        (
            "object: {packet: 'lim.o:a/b'}",
            "programs.packet.function: this is no name of a function",
        ),
        ("source: {packet: none.c:limit}", "none.c"),
    ],
)
def test_what_is_of_one_host_only_is_not_rolled_out(state: Path, change: str, error: str) -> None:
    key = change.split(":", maxsplit=1)[0]
    kept = [one for one in STATE.splitlines() if not one.strip().startswith(f"{key}:")]
    if key == "source":
        kept = [one for one in kept if "object" not in one]
    state.write_text("\n".join([*kept, f"    {change}"]))
    with pytest.raises(IpttctlError) as caught:
        read_bundle(str(state))
    assert error in str(caught.value)


@needs_clang
def test_sources_are_compiled_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    text = (
        '#include "ipttrace.h"\nIPTTRACE_LICENSE("GPL");\n'
        "IPTTRACE_PACKET_PROGRAM\nint all(struct __sk_buff *packet) { return 1; }\n"
    )
    found: list[Bundle] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.c").write_text(text)
        (tmp_path / name / "state.yaml").write_text(
            "links: {a: {hook: 'nf:inet4/input', source: {packet: 'all.c:all'}}}"
        )
        found.append(read_bundle(str(tmp_path / name / "state.yaml")))
    assert found[0] == found[1]
    [data] = found[0].objects.values()
    assert data.startswith(b"\x7fELF")
    (tmp_path / "one/all.c").write_text("nonsense")
    with pytest.raises(ProgramError, match=r"all\.c does not compile: all\.c:1:1: error"):
        read_bundle(str(tmp_path / "one/state.yaml"))


def test_a_grant_is_for_one_host_and_one_hook(state: Path, signer: Key) -> None:
    bundle = read_bundle(str(state))
    [digest] = bundle.objects
    made = Signer.read(str(signer.seed), 60)
    grants = made.grants("web1", bundle)
    trust = TrustOptions(keys=[signer.public])
    check(digest, "nf:inet4/input", "web1", grants, trust)
    with pytest.raises(RefusedError, match="the grant is for mode observe"):
        check(digest, "nf:inet4/input", "web1", grants, trust, mode="filter")
    for hook, host, later in (
        ("nf:inet4/output", "web1", 0),
        ("nf:inet4/input", "web2", 0),
        ("nf:inet4/input", "web1", 61),
    ):
        with pytest.raises(RefusedError):
            check(digest, hook, host, grants, trust, now=time.time() + later)
    assert Signer.read(None, 60).grants("web1", bundle) == []
    signer.seed.chmod(0o644)
    with pytest.raises(UsageError, match="others than its owner may read"):
        Signer.read(str(signer.seed), 60)
    bad = signer.seed.with_name("bad.nk")
    bad.write_bytes(bytes(nkeys.from_seed(Key.make(bad.parent, "x").seed.read_bytes()).public_key))
    bad.chmod(0o600)
    with pytest.raises(UsageError, match="has no seed of an nkey"):
        Signer.read(str(bad), 60)


def test_objects_are_put_once(servers: TwoServers, state: Path) -> None:
    bundle = read_bundle(str(state))
    [(digest, data)] = bundle.objects.items()

    async def run() -> None:
        async with connected(servers.settings) as asker:
            for _ in range(2):
                await upload(asker, bundle)
            store = await asker.client.jetstream().object_store("ipttctl-objects")
            assert (await store.get(digest)).data == data
            info = await asker.client.jetstream().stream_info("OBJ_ipttctl-objects")
            assert info.state.messages == 2

    asyncio.run(run())


def test_old_objects_make_room(
    servers: TwoServers, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest ones go, and no more than has to; what is needed stays."""
    bundle = read_bundle(str(state))
    settings = msgspec.structs.replace(servers.settings, bucket_bytes=1 << 20)

    async def left() -> list[str]:
        async with connected(settings) as asker:
            await upload(asker, bundle)
            store = await asker.client.jetstream().object_store("ipttctl-objects")
            return sorted(one.name for one in await store.list() if not one.deleted)

    async def put(name: str) -> None:
        async with connected(settings) as asker:
            store = await asker.client.jetstream().object_store("ipttctl-objects")
            await store.put(name, bytes(500_000))

    [needed] = bundle.objects
    assert asyncio.run(left()) == [needed]
    others = [f"sha256:{letter * 64}" for letter in "cab"]
    for name in ("somebody's", *others):
        asyncio.run(put(name))
    # somebody may be about to get them
    assert asyncio.run(left()) == sorted([needed, "somebody's", *others])
    monkeypatch.setattr(uploads, "_IN_USE", timedelta(0))
    assert asyncio.run(left()) == sorted([needed, "somebody's", others[-1]])
