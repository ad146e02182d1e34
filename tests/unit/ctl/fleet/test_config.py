# SPDX-License-Identifier: GPL-2.0
"""The agent's configuration: defaults, and mistakes told with key and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.errors import UsageError
from ipttctl.fleet.config_file import check_files, parse_config, read_config, seconds
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
            "agent.yaml, line 6: allow[1]: invalid enum value 'reboot'",
        ),
        ("watch: []\nhost: a\nwatch: []\n", "line 6, column 1: the key 'watch' is there twice"),
        ("watch: &a [*a]\n", "agent.yaml, line 4, column 8: an alias in this names this itself"),
        ("watch:\n" + LAUGHS, "agent.yaml: its aliases repeat more than"),
        ("allow: [links, links]\n", "agent.yaml, line 4: allow: a verb is there twice"),
        (
            "labels:\n  role: a b\n",
            "agent.yaml, line 5: labels[...]: expected `str` matching regex",
        ),
        ("heartbeat: 1h\n", "line 4: heartbeat: 1h is not between 100 ms and 300000 ms"),
        ("heartbeat: 5\n", "line 4: heartbeat: expected `str`, got `int`"),
        ("traces:\n  governor: 3 apples\n", "line 5: traces.governor: '3 apples' is not N/s"),
        ("trust:\n  filters: [x]\n", "line 5: trust.filters[0]: expected `str` matching regex"),
        ("trust:\n  keys: [SUA]\n", "line 5: trust.keys[0]: expected `str` matching regex"),
        ("host: ''\n", "line 4: host: expected `str` matching regex"),
        ("watch: {name: a}\n", "line 4: watch: expected `array`, got `object`"),
        ("watch:\n- filter: ip\n", "line 5: watch[0].name: the key is missing"),
        ("watch:\n- name: a b\n", "line 5: watch[0].name: expected `str` matching regex"),
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


def test_the_agent_has_to_say_who_it_is() -> None:
    with pytest.raises(UsageError, match="line 1: leaf: the agent has to say who it is"):
        parse_config("leaf:\n  url: nats://127.0.0.1:4222\n", "agent.yaml")


def test_a_user_in_the_url_is_no_way_to_say_it() -> None:
    with pytest.raises(UsageError, match=r"line 2: leaf\.url: expected `str` matching"):
        parse_config("leaf:\n  url: nats://me:secret@127.0.0.1:4222\n", "agent.yaml")


def test_a_missing_key_is_told() -> None:
    with pytest.raises(UsageError, match="leaf: the key is missing"):
        parse_config("host: web1\n", "agent.yaml")


def test_a_seed_that_others_can_read_is_refused(tmp_path: Path) -> None:
    seed = tmp_path / "agent.nk"
    seed.write_text("SU...")
    seed.chmod(0o644)
    config = parse_config(f"leaf:\n  url: nats://127.0.0.1:4222\n  nkey: {seed}\n", "agent.yaml")
    with pytest.raises(UsageError, match="others than its owner may read"):
        check_files(config.leaf, "leaf.")
    seed.chmod(0o600)
    check_files(config.leaf, "leaf.")


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
    assert [one.name for one in read_config(str(file)).watch] == ["drops", "dns"]


def test_a_namespace_is_a_name_and_no_path() -> None:
    assert parse_config(f"{LEAF}netns: web\n", "agent.yaml").netns == "web"
    assert parse_config(LEAF, "agent.yaml").netns is None
    with pytest.raises(UsageError, match="line 4: netns: expected `str` matching"):
        parse_config(f"{LEAF}netns: /proc/1/ns/net\n", "agent.yaml")
