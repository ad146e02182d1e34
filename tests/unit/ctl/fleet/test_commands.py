# SPDX-License-Identifier: GPL-2.0
"""Commands to an agent, with a real server: what it does, what it refuses, and how."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.bpf.filters import compile_filter
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.fleet.commands import LONGEST_REPLY, bounded
from ipttctl.fleet.config import TrustOptions
from ipttctl.fleet.filter_words import _WORDS, check_filter
from ipttctl.fleet.grants import Grant, RefusedError, Statement, check, sign
from ipttctl.fleet.host import TrialTerms
from ipttctl.fleet.requests import parse
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    client,
    running_agent,
    until,
)

OBJECT = b"\x7fELF an object"
DIGEST = f"sha256:{hashlib.sha256(OBJECT).hexdigest()}"
HOOK = "nf:inet4/input"
LINK = {"hook": HOOK, "programs": {"packet": {"digest": DIGEST, "function": "limit"}}}


def seed() -> bytes:
    return bytes(nkeys.encode_seed(hashlib.sha256(b"a signer").digest(), nkeys.PREFIX_BYTE_USER))


def statement(**changes: Any) -> Statement:
    values: dict[str, Any] = {
        "digest": DIGEST,
        "hook": HOOK,
        "hosts": ["web1"],
        "expires": int(time.time()) + 60,
    }
    return Statement(**values | changes)


def granted(grant: Grant, **changes: str) -> dict[str, str]:
    return {name: changes.get(name, getattr(grant, name)) for name in grant.__struct_fields__}


KEY = sign(statement(), seed()).key


def test_what_is_not_allowed_is_refused(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """A hub that anybody has taken over can do no more than this."""

    async def run() -> None:
        config = agent_config(leaf, agent_key)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as hub:
            await until(lambda: agent.connection.client)
            grants = [granted(sign(statement(), seed()))]
            requests: list[dict[str, Any]] = [
                {"verb": "detach", "link": 3},
                {"verb": "attach", "name": "evil", "link": LINK, "grants": grants},
                {"verb": "swap", "name": "evil", "link": LINK, "grants": grants},
                {"verb": "apply", "links": {"evil": LINK}, "grants": grants},
                {"verb": "diff", "links": {"evil": LINK}, "grants": grants},
            ]
            for request in requests:
                answer = await ask(hub, **request)
                assert answer == {"ok": False, "error": f"web1 does not allow {request['verb']}"}
            answer = await ask(hub, verb="trace", lease=9, subject="ipttctl.ctl.web1.links")
            assert answer["error"] == "trace is asked for on a subject of its own"
            assert (await ask(hub, verb="links")) == {"ok": True, "links": [{"id": 3}]}
        assert host.done == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"verb": "reboot"}, "invalid value 'reboot'"),
        ({"verb": "trace", "lease": 30, "pid": 1}, "unknown field `pid`"),
        ({"verb": "trace", "lease": 30, "filter": "host example.org"}, "names are not looked up"),
        ({"verb": "trace"}, "missing required field `lease`"),
        ({"verb": "trace", "lease": 1e9}, "<= 86400.0"),
        ({"verb": "trace", "lease": 30, "join": "aa"}, "regex"),
        ({"verb": "trace", "lease": 30, "join": f"{31 * 'a'}g"}, "regex"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "source": "x.c"}}, "unknown field"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "netns": "/proc/1/ns/net"}}, "regex"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "netns": "4711"}}, "regex"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "netns": "a\n"}}, "regex"),
        ({"verb": "attach", "name": "a\n", "link": LINK}, "regex"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "mode": "drop"}}, "enum value 'drop'"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "set": {"most": 2}}}, "unknown field"),
        ({"verb": "attach", "name": "a", "link": {**LINK, "keep-maps": True}}, "unknown field"),
        (
            {"verb": "apply", "links": {"a": {**LINK, "mode": "filter", "hook": "chain:ip/nat"}}},
            "link a: links at chain:ip/nat have no mode, and drop nothing",
        ),
        ({"verb": "attach", "name": "a", "link": {**LINK, "hook": f"{HOOK}\n"}}, "regex"),
        (
            {"verb": "attach", "name": "a", "link": {"hook": HOOK, "programs": {"packet": "/x.o"}}},
            "expected `object`",
        ),
    ],
)
def test_what_has_no_place_in_a_request_is_refused(request_: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(json.dumps(request_).encode())
    assert error in str(caught.value)


def test_an_object_with_a_grant_is_attached(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost, tmp_path: Path
) -> None:
    async def run() -> None:
        more = (
            f"allow: [attach, swap, apply]\ntrust: {{keys: [{KEY}]}}\n"
            f"objects: {{directory: {tmp_path / 'objects'}, largest: 100000}}\n"
        )
        config = agent_config(leaf, agent_key, more)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as hub:
            await until(lambda: agent.connection.client)
            grants = [granted(sign(statement(), seed()))]
            request: dict[str, Any] = {
                "verb": "attach",
                "name": "lim",
                "link": LINK,
                "grants": grants,
            }
            answer = await ask(hub, **request)
            assert "cannot be had from ipttctl-objects" in answer["error"]
            store = await hub.jetstream().create_object_store("ipttctl-objects")
            # what lies there under the name is not what the grant is for
            await store.put(DIGEST, b"another")
            answer = await ask(hub, **request)
            assert "what the store has under this name is another one" in answer["error"]
            await store.put(DIGEST, bytes(200_000))
            answer = await ask(hub, **request)
            assert "is longer than 100000 bytes" in answer["error"]
            assert host.done == []
            await store.put(DIGEST, OBJECT)
            assert (await ask(hub, **request)) == {"ok": True, "link": {"id": 5}}
            answer = await ask(hub, verb="apply", links={"lim": LINK}, rollback_after=30)
            assert "no grant is for it" in answer["error"]
            answer = await ask(
                hub, verb="apply", links={"lim": LINK}, rollback_after=30, grants=grants
            )
            assert answer == {"ok": True, "steps": [{"action": "attach", "name": "lim", "link": 5}]}
        file = f"{DIGEST.removeprefix('sha256:')}.o"
        assert (tmp_path / "objects" / file).read_bytes() == OBJECT
        entry = {"hook": HOOK, "object": {"packet": f"{file}:limit"}}
        assert [verb for verb, _ in host.done] == ["attach", "apply"]
        assert host.done[0][1][0] == {"name": "lim", **entry}
        assert host.done[1][1][0] == {"links": {"lim": entry}}
        assert host.done[1][1][2] == TrialTerms(30)

    asyncio.run(run())


def test_a_grant_is_for_one_object_hook_and_time_and_for_named_hosts() -> None:
    now = 1000.0

    def refused(grant: Grant, keys: tuple[str, ...] = (KEY,), hook: str = HOOK) -> str:
        with pytest.raises(RefusedError) as caught:
            check(DIGEST, hook, "web1", [grant], TrustOptions(keys=[*keys]), now=now)
        return str(caught.value)

    def made(**changes: Any) -> Grant:
        return sign(statement(**{"expires": 1001, **changes}), seed())

    believed = TrustOptions(keys=[KEY])
    check(DIGEST, HOOK, "web1", [made()], believed, now=now)
    check(DIGEST, HOOK, "web1", [made(hosts=["*"])], believed, now=now)
    check(DIGEST, HOOK, "web1", [], TrustOptions(digests=[DIGEST]), now=now)
    assert "is not trusted here" in refused(made(), keys=())
    assert "the grant has expired" in refused(made(expires=1000))
    assert "not for host web1" in refused(made(hosts=["web2"]))
    assert f"the grant is for hook {HOOK}" in refused(made(), hook="nf:inet4/output")
    assert "no grant is for it" in refused(made(digest=f"sha256:{0:064}"))
    forged = Grant(**granted(made(), statement=made(hosts=["*"]).statement))
    assert "the signature of a grant is wrong" in refused(forged)
    # a signature of the statement alone, as another protocol might have asked for
    pair = nkeys.from_seed(seed())
    bare = base64.b64encode(pair.sign(made().statement.encode())).decode()
    assert "signature" in refused(Grant(**granted(made(), signature=bare)))


def test_each_signature_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may have 64 grants and a thousand programs, and the agent goes on meanwhile."""
    keys = [nkeys.encode_seed(bytes([n]) * 32, nkeys.PREFIX_BYTE_USER) for n in (1, 2)]
    statement = Statement(digest=DIGEST, hook=HOOK, hosts=["web1"], expires=1 << 40)
    good, other = (sign(statement, bytes(key)) for key in keys)
    wrong = [msgspec.structs.replace(other, signature=f"{n:086}==", key=good.key) for n in range(9)]
    looked: list[Grant] = []

    def signed(grant: Grant) -> bool:
        looked.append(grant)
        return grant is good

    monkeypatch.setattr("ipttctl.fleet.grants._signed", signed)
    known: dict[Grant, Statement | str] = {}
    trust = TrustOptions(keys=[good.key])
    for _ in range(50):
        check(DIGEST, HOOK, "web1", [*wrong, good], trust, known=known)
    assert looked == [*wrong, good]


def test_a_filter_needs_a_grant_or_a_list_for_it() -> None:
    observe, filtering = (sign(statement(mode=mode), seed()) for mode in ("observe", "filter"))

    def refused(*grants: Grant, **trust: list[str]) -> str:
        with pytest.raises(RefusedError) as caught:
            check(DIGEST, HOOK, "web1", grants, TrustOptions(**trust), mode="filter")
        assert str(caught.value).startswith(f"object {DIGEST} at {HOOK}, mode filter: ")
        assert str(caught.value).endswith("or listed in trust.filters")
        return str(caught.value)

    assert "the grant is for mode observe" in refused(observe, keys=[KEY])
    assert "listed in trust.digests, to observe only" in refused(digests=[DIGEST])
    assert "it is not listed here, and no grant" in refused()
    both = refused(observe, keys=[KEY], digests=[DIGEST])
    assert "observe only; the grant is for mode observe" in both
    assert "is not trusted here" in refused(filtering)
    for mode in ("observe", "filter"):
        for grants, trust in (
            ([filtering], TrustOptions(keys=[KEY])),
            ([observe, filtering], TrustOptions(keys=[KEY])),
            ([], TrustOptions(filters=[DIGEST])),
            ([], TrustOptions(digests=[DIGEST], filters=[DIGEST])),
        ):
            check(DIGEST, HOOK, "web1", grants, trust, mode=mode)


def test_a_statement_without_a_mode_is_one_to_observe() -> None:
    until_then = int(time.time()) + 60
    text = f'{{"digest":"{DIGEST}","hook":"{HOOK}","hosts":["web1"],"expires":{until_then}}}'
    # as a new one is written, so that older agents read it
    assert sign(statement(expires=until_then), seed()).statement == text
    pair = nkeys.from_seed(seed())
    signature = base64.b64encode(pair.sign(f"ipttctl grant 1\n{text}".encode())).decode()
    old = Grant(statement=text, key=KEY, signature=signature)
    trust = TrustOptions(keys=[KEY])
    check(DIGEST, HOOK, "web1", [old], trust)
    with pytest.raises(RefusedError, match="the grant is for mode observe"):
        check(DIGEST, HOOK, "web1", [old], trust, mode="filter")
    # nobody makes more of it than was signed
    more = f'{text[:-1]},"mode":"filter"}}'
    forged = Grant(statement=more, key=KEY, signature=signature)
    with pytest.raises(RefusedError, match="the signature of a grant is wrong"):
        check(DIGEST, HOOK, "web1", [forged], trust, mode="filter")


def test_a_filter_runs_with_a_grant_for_it_alone(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost, tmp_path: Path
) -> None:
    async def run() -> None:
        more = (
            f"allow: [attach, swap, apply, diff]\n"
            f"trust: {{keys: [{KEY}], digests: ['{DIGEST}']}}\n"
            f"objects: {{directory: {tmp_path / 'objects'}}}\n"
        )
        config = agent_config(leaf, agent_key, more)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as hub:
            await until(lambda: agent.connection.client)
            store = await hub.jetstream().create_object_store("ipttctl-objects")
            await store.put(DIGEST, OBJECT)
            link = {**LINK, "mode": "filter"}
            requests: list[dict[str, Any]] = [
                {"verb": "attach", "name": "lim", "link": link},
                {"verb": "swap", "name": "lim", "link": link},
                {"verb": "apply", "links": {"lim": link}},
                {"verb": "diff", "links": {"lim": link}},
            ]
            for mode, ok in (("observe", False), ("filter", True)):
                grants = [granted(sign(statement(mode=mode), seed()))]
                for request in requests:
                    answer = await ask(hub, **request, grants=grants)
                    assert answer["ok"] is ok, answer
                    if not ok:
                        assert "to observe only; the grant is for mode observe" in answer["error"]
                assert [verb for verb, _ in host.done] == (
                    ["attach", "swap", "apply", "diff"] if ok else []
                )
            # without a mode it observes, which the host's list is enough for
            assert (await ask(hub, verb="attach", name="lim", link=LINK))["ok"]
        assert host.done[0][1][0]["mode"] == "filter"
        assert host.done[2][1][0]["links"]["lim"]["mode"] == "filter"
        assert "mode" not in host.done[4][1][0]

    asyncio.run(run())


def test_a_trace_ends_when_nobody_renews_it(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, "traces: {lease: 1500ms, longest: 4s}\n")
        async with running_agent(config, host) as agent, client(leaf, reader_key) as asker:
            await until(lambda: agent.connection.client)
            begun = await ask(asker, verb="trace", lease=60)
            assert begun["lease"] <= 1.5
            begin = time.monotonic()
            while time.monotonic() - begin < 2.2:
                renewed = await ask(asker, verb="renew", trace=begun["trace"], lease=60)
                assert renewed["ok"]
                await asyncio.sleep(0.3)
            assert not host.traces[0].detached
            await until(lambda: host.traces[0].detached, 5)
            assert agent.commands.leases.expired == 1
            answer = await ask(asker, verb="renew", trace=begun["trace"], lease=60)
            assert answer["error"] == "there is no such trace, or it has ended"

            # renewed for ever, it ends as well
            begun = await ask(asker, verb="trace", lease=60)
            begin = time.monotonic()
            while (await ask(asker, verb="renew", trace=begun["trace"], lease=60))["ok"]:
                await asyncio.sleep(0.2)
                assert time.monotonic() - begin < 6
            assert host.traces[1].detached

    asyncio.run(run())


def test_traces_are_only_so_many(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, "traces: {most: 2}\n")
        async with running_agent(config, host) as agent, client(leaf, reader_key) as asker:
            await until(lambda: agent.connection.client)
            answers = [await ask(asker, verb="trace", lease=60) for _ in range(3)]
            assert [one["ok"] for one in answers] == [True, True, False]
            assert "2 traces of others run here" in answers[2]["error"]
            await ask(asker, verb="end", trace=answers[0]["trace"])
            assert host.traces[0].detached
            assert (await ask(asker, verb="trace", lease=60))["ok"]
            assert len({one["trace"] for one in answers[:2]}) == 2

    asyncio.run(run())


def test_a_flood_of_commands_does_not_stop_the_agent(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        host.delay = 0.3
        config = agent_config(leaf, agent_key)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as asker:
            await until(lambda: agent.connection.client)
            request = json.dumps({"verb": "trace", "lease": 60}).encode()
            for _ in range(2000):
                await asker.publish("ipttctl.ctl.web1.trace", request, reply="_INBOX.nobody")
            await asker.flush()
            # an answer anywhere else is not given
            await asker.publish("ipttctl.ctl.web1.trace", request, reply="ipttctl.ev.web1")
            await asyncio.sleep(1.5)
            await until(lambda: len(host.traces) == 4)
            assert agent.reader.alive
            answer = await ask(asker, verb="links", wait=20)
            assert answer["ok"] or "busy" in answer["error"]
            assert len(host.traces) == 4
            info = await asker.jetstream().stream_info("ipttctl-web1")
            assert info.state.messages == 0
            # each is counted once, whatever became of it, and the connection is no worse for it
            await until(lambda: sum(agent.commands.done.values()) >= 2002)
            assert sum(agent.commands.done.values()) == 2002
            assert agent.commands.done["?", "too many"] > 1000
            assert agent.connection.problem == ""

    asyncio.run(run())


def test_answers_are_bounded() -> None:
    links = [{"id": n, "text": "x" * 100} for n in range(10_000)]
    data = bounded({"ok": True, "links": links})
    assert len(data) <= LONGEST_REPLY
    found = json.loads(data)
    assert found["links"] == links[: len(found["links"])]
    assert found["left_out"] == 10_000 - len(found["links"]) > 0
    whole = json.loads(bounded({"ok": True, "text": "x" * LONGEST_REPLY}))
    assert whole == {"ok": False, "error": "the answer is too long"}


def test_bytes_that_are_not_utf_8_are_escaped_in_answers() -> None:
    links = [
        {"id": n, "labels": {"team\udcff": "caf\udce9"}, "text": "x" * 100} for n in range(3000)
    ]
    found = json.loads(bounded({"ok": True, "links": links}))
    assert found["links"][0]["labels"] == {"team\\xff": "caf\\xe9"}
    assert found["left_out"] == 3000 - len(found["links"]) > 0


def test_an_answer_that_is_no_json_does_not_end_the_agent(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        said: list[str] = []
        config = agent_config(leaf, agent_key)
        async with (
            running_agent(config, host, said.append) as agent,
            client(leaf, reader_key) as asker,
        ):
            await until(lambda: agent.connection.client)
            # anybody may label a link of theirs
            host.answer = [{"id": 3, "labels": {"team": "caf\udce9"}}]
            answer = await ask(asker, verb="links")
            assert answer == {"ok": True, "links": [{"id": 3, "labels": {"team": "caf\\xe9"}}]}
            host.answer = [{"id": object()}]
            answer = await ask(asker, verb="links")
            assert answer["error"].startswith("the agent failed: TypeError")
            assert any(one.startswith("links failed by TypeError") for one in said)
            host.answer = [{"id": 4}]
            assert (await ask(asker, verb="links"))["ok"]
            assert agent.commands.done["links", "done"] == 2
            assert agent.commands.done["links", "failed"] == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp port 443",
        "host 10.0.0.1 and not udp portrange 80-90",
        "host 2001:db8::1",
        "net 10.0.0.0/8",
        "tcp[tcpflags] & (tcp-syn|tcp-ack) != 0",
        "icmp[icmptype] == icmp-echo",
        "ip[8] < 0x40",
        "ip[2:2]-20 > 100",
        "src portrange 80-90",
        "ip proto \\tcp",
        "host ::1 or host 1:2:3:4:5:6:7:8 or host ::ffff:10.0.0.1",
        "net 2001:db8::/32",
    ],
)
def test_filters_of_words_and_numbers_pass(text: str) -> None:
    assert check_filter(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "host web1",
        "port https",
        "tcp; ls",
        "host a.b.c",
        "x" * 2000,
        "é",
        # names for libpcap, each made of words, numbers or what looks like an address
        "host ip-10-0-0-1",
        "host 1.2-tcp",
        "host 80-90",
        "portrange 80-90 or ip 80-90",
        "port 80-90",
        "host \\tcp",
        "host dead:beef",
        "host fe:",
        "src a:b",
    ],
)
def test_other_filters_do_not(text: str) -> None:
    with pytest.raises(UsageError):
        check_filter(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)
VERBS = st.sampled_from(
    ["links", "trace", "renew", "end", "detach", "attach", "swap", "apply", "diff"]
)
FIELDS = st.sampled_from(
    ["filter", "lease", "trace", "link", "links", "name", "grants", "hook", "programs"]
)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_a_sentence(data: bytes) -> None:
    try:
        parse(data)
    except UsageError as error:
        assert str(error)  # noqa: PT017  # most are no errors


@given(VERBS, st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_object_is_a_request_or_a_sentence(verb: str, fields: dict[str, Any]) -> None:
    try:
        parse(json.dumps({"verb": verb, **fields}).encode())
    except UsageError as error:
        assert str(error)  # noqa: PT017  # most are no errors


@given(st.text(alphabet="abcdefgh./0123456789:-_ ()[]&|", max_size=60))
def test_a_filter_that_passes_has_no_words_of_others(text: str) -> None:
    try:
        check_filter(text)
    except UsageError:
        return
    for word in text.replace("(", " ").replace(")", " ").split():
        for part in word.split("-"):
            if part.isalpha() and ":" not in part:
                assert part in _WORDS


@given(
    st.sampled_from(["host", "net", "port", "src", "portrange", "ip proto"]),
    st.lists(
        st.sampled_from(["\\", "-", ":", ".", "1", "80-90", "tcp", "ip", "ad", "::", " or ", " "]),
        max_size=5,
    ),
)
def test_what_passes_has_libpcap_look_nothing_up(first: str, parts: list[str]) -> None:
    try:
        compile_filter(check_filter(f"{first} {''.join(parts)}"))
    except IpttctlError as error:
        assert "unknown host" not in str(error)  # noqa: PT017  # most are no errors
        assert "unknown network" not in str(error)  # noqa: PT017  # see above
        assert "unknown port" not in str(error)  # noqa: PT017  # see above
