# SPDX-License-Identifier: GPL-2.0
"""The agent's configuration: defaults, and mistakes told with key and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.errors import UsageError
from ipttctl.fleet.config import AgentConfig, HubConfig
from ipttctl.fleet.config_file import parse_config, seconds
from ipttctl.fleet.requests import Declared
from ipttctl.fleet.spellings import SENTENCES
from tests.unit.ctl.support import LAUGHS

LEAF = "leaf:\n  url: nats://127.0.0.1:4222\n  nkey: /etc/ipttctl/agent.nk\n"


def test_only_traces_and_links_are_allowed_unless_said() -> None:
    config = parse_config(LEAF, "agent.yaml")
    assert config.allow == ["trace", "links"]
    assert config.publish.events == "traces"
    assert config.trust.keys == config.trust.digests == config.trust.filters == []
    assert config.metrics is None


def test_a_host_with_dots_is_one_token() -> None:
    config = parse_config(f"{LEAF}host: web1.example.org\n", "agent.yaml")
    assert config.token == "web1_example_org"
    assert config.stream_name == "ipttctl-web1_example_org"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("hots: web1\n", "agent.yaml, line 4: hots: there is no such key"),
        ("stream:\n  size: 4\n", "agent.yaml, line 5: stream.size: there is no such key"),
        ("stream:\n  bytes: lots\n", "agent.yaml, line 5: stream.bytes: expected `int`, got `str`"),
        ("stream:\n  bytes: 5\n", "agent.yaml, line 5: stream.bytes: expected `int` >= 4194304"),
        (
            "allow:\n- links\n- reboot\n",
            "agent.yaml, line 6: allow[1]: there is no 'reboot'; there are: apply, attach, ",
        ),
        ("watch: []\nhost: a\nwatch: []\n", "line 6, column 1: the key 'watch' is there twice"),
        ("watch: &a [*a]\n", "agent.yaml, line 4, column 8: an alias in this names this itself"),
        ("watch:\n" + LAUGHS, "agent.yaml: its aliases repeat more than"),
        ("allow: [links, links]\n", "agent.yaml, line 4: allow: a verb is there twice"),
        ("publish: {events: some}\n", "events: there is no 'some'; there are: all, none, traces"),
        (
            "labels:\n  zone: a\n  role: a b\n",
            "agent.yaml, line 6: labels.role: this is no label: write letters, digits, '_', '.',",
        ),
        ("labels:\n  a: b\n  a.b: 7\n", "line 6: labels.a.b: expected `str`, got `int`"),
        ("labels:\n  zone: a\n  a b: c\n", "line 6: labels.a b: this is no label"),
        ("labels: {7: c}\n", "line 4: labels.7: expected `str`, got `int`"),
        ("stream:\n  age: 1d\n", "line 5: stream.age: this is no time: write it as 500ms, 30s, 2m"),
        ("stream:\n  name: a.b\n", "line 5: stream.name: this is no name: write letters, digits,"),
        ("metrics: {address: web1}\n", "line 4: metrics.address: this is no IP address"),
        (
            "otlp: {url: web1}\n",
            "line 4: otlp.url: this is no collector: write http://",
        ),
        ("metrics: {address: '1:2'}\n", "line 4: metrics.address: this is no IP address"),
        ("otlp: {url: 'http://a:0'}\n", "line 4: otlp.url: the port is none from 1 to 65535"),
        ("otlp: {url: http://a, ca: b}\n", "line 4: otlp.ca: this is no whole path"),
        ("heartbeat: 1h\n", "line 4: heartbeat: 1h is not between 100ms and 5m"),
        ("stream: {age: 3000h}\n", "line 4: stream.age: 3000h is not between 1m and 90 days"),
        ("drain: 2m\n", "line 4: drain: 2m is not between 0s and 1m"),
        ("heartbeat: 5\n", "line 4: heartbeat: expected `str`, got `int`"),
        ("traces:\n  governor: 3 apples\n", "line 5: traces.governor: '3 apples' is not N/s"),
        ("trust:\n  filters: [x]\n", "line 5: trust.filters[0]: this is no digest: write sha256:"),
        ("trust:\n  keys: [SUA]\n", "line 5: trust.keys[0]: this is no public key of a user"),
        ("host: ''\n", "line 4: host: this is no name of a host"),
        ("watch: {name: a}\n", "line 4: watch: expected `array`, got `object`"),
        ("watch:\n- filter: ip\n", "line 5: watch[0].name: the key is missing"),
        ("watch:\n- name: a b\n", "line 5: watch[0].name: this is no name of a watch"),
        (
            "watch:\n- name: a\n- name: b\n- name: a\n",
            "line 7: watch[2].name: there is another watch a",
        ),
        (
            "watch:\n- name: a\n- name: b\n  filter: tcp port port\n",
            "agent.yaml, line 7: watch[1].filter: filter 'tcp port port': can't parse",
        ),
        (
            "watch:\n- name: a\n  filter: host web2\n",
            "line 6: watch[0].filter: 'web2' in the filter is neither a word of filters",
        ),
        ("watch:\n- name: a\n  governer: off\n", "line 6: watch[0].governer: there is no such key"),
        (
            "watch:\n- name: a\n  governor: 3 apples\n",
            "line 6: watch[0].governor: '3 apples' is not N/s",
        ),
        ("watch:\n- name: a\n  sample: 2/3\n", "line 6: watch[0].sample: '2/3' is not 1/N"),
        (
            "watch:\n- name: a\n  limit-rate: 5%\n",
            "line 6: watch[0].limit-rate: '5%' is not N/s",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key_and_line(more: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(LEAF + more, "agent.yaml")
    assert message in str(caught.value)


def patterns_in(kind: Any) -> set[str]:
    """The patterns of texts that a type has somewhere in it."""
    if isinstance(kind, (list, tuple)):
        return {pattern for one in kind for pattern in patterns_in(one)}
    if not isinstance(kind, (msgspec.inspect.Type, msgspec.inspect.Field)):
        return set()
    own: str | None = getattr(kind, "pattern", None)
    found = {own} if own else set()
    for name in kind.__struct_fields__:
        found |= patterns_in(getattr(kind, name))
    return found


@pytest.mark.parametrize("kind", [AgentConfig, HubConfig, Declared])
def test_each_pattern_has_a_sentence(kind: type) -> None:
    found = patterns_in(msgspec.inspect.type_info(kind))
    assert len(found) > 2
    assert found <= SENTENCES.keys()


def test_the_agent_has_to_say_who_it_is() -> None:
    with pytest.raises(UsageError, match="line 1: leaf: the agent has to say who it is"):
        parse_config("leaf:\n  url: nats://127.0.0.1:4222\n", "agent.yaml")


def test_a_user_in_the_url_is_no_way_to_say_it() -> None:
    with pytest.raises(
        UsageError, match=r"line 2: leaf\.url: this is no server: write nats://HOST:PORT"
    ):
        parse_config("leaf:\n  url: nats://me:secret@127.0.0.1:4222\n", "agent.yaml")


def test_a_missing_key_is_told() -> None:
    with pytest.raises(UsageError, match="leaf: the key is missing"):
        parse_config("host: web1\n", "agent.yaml")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nats://127.0.0.1:99999", "the port is none from 1 to 65535"),
        ("nats://127.0.0.1:0", "the port is none from 1 to 65535"),
        ("nats://web1:x", "the port is none from 1 to 65535"),
        ("nats://web1:1,web2:2", "the port is none from 1 to 65535"),
        ("tls://:4222", "there is no host in it"),
        ("tls://[::1:4222", "there is no host in it"),
    ],
)
def test_an_address_that_cannot_be_is_told(url: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(f"leaf:\n  url: '{url}'\n  nkey: /a\n", "agent.yaml")
    assert f"agent.yaml, line 2: leaf.url: {sentence}" in str(caught.value)


def test_times_are_seconds() -> None:
    assert seconds("1.5m") == 90


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_sentence(text: str) -> None:
    for whole in (text, LEAF + text):
        try:
            parse_config(whole, "agent.yaml")
        except UsageError as error:
            assert str(error)  # noqa: PT017  # some are no errors


def test_the_example_is_a_configuration() -> None:
    file = Path(__file__).parents[4] / "docs/examples/fleet/agent.yaml"
    assert [one.name for one in parse_config(file.read_text(), str(file)).watch] == ["drops", "dns"]


def test_a_namespace_is_a_name_and_no_path() -> None:
    assert parse_config(f"{LEAF}netns: web\n", "agent.yaml").netns == "web"
    assert parse_config(LEAF, "agent.yaml").netns is None
    with pytest.raises(UsageError, match="line 4: netns: this is no name of a network namespace"):
        parse_config(f"{LEAF}netns: /proc/1/ns/net\n", "agent.yaml")
