# SPDX-License-Identifier: GPL-2.0
"""Generated rulesets of kube-proxy and Calico: they load, do what they say, and are named.

In a network namespace of their own; nothing outside it changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.rules.owners import Owners, Place
from tests.kernel.support.kube_rulesets import (
    Policy,
    calico_iptables,
    calico_nftables,
    kube_proxy_iptables,
    kube_proxy_nftables,
    policy_chain,
    services,
)

ROOT = Path(__file__).parents[4]
RESTORE = ("/usr/sbin/iptables-nft-restore",)
SAVE = ("/usr/sbin/iptables-nft-save",)
NFT = ("/usr/sbin/nft", "-f", "-")
NFT_LIST = ("/usr/sbin/nft", "list", "ruleset")


def in_namespace(command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/unshare", "--net", "--", *command],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skip where nobody can make namespaces with nftables: without root, in most containers."""
    try:
        tried = in_namespace(RESTORE, "*nat\n-A OUTPUT -m comment --comment x -j ACCEPT\nCOMMIT\n")
    except OSError as error:
        pytest.skip(f"there is no unshare: {error.strerror}")
    if tried.returncode:
        pytest.skip(f"no network namespace with nftables: {tried.stderr.strip()}")


def loaded(
    load: Sequence[str], listed: Sequence[str], rules: str, *, connect: bool
) -> dict[str, Any]:
    """The listing of a ruleset, and the ends of connections to services."""
    command = (sys.executable, "-m", "tests.unit.ctl.rules.in_namespace")
    request = {"load": load, "list": listed, "rules": rules, "connect": connect}
    result = in_namespace(command, json.dumps(request))
    assert not result.returncode, result.stderr
    outcome: dict[str, Any] = json.loads(result.stdout)
    return outcome


def saved_places(listing: str) -> Iterator[Place]:
    """The rules of iptables-save."""
    table = ""
    for line in listing.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            yield Place("iptables-nft", "ip", table, line.split()[1], line)


def nft_places(listing: str) -> Iterator[Place]:
    """The rules of nft list ruleset."""
    family = table = chain = ""
    for line in map(str.strip, listing.splitlines()):
        match line.split():
            case ["table", family, table, "{"]:
                chain = ""
            case ["chain", chain, "{"]:
                pass
            case ["set" | "map", *_, "{"]:
                chain = ""
            case [] | ["}"] | ["type", *_]:
                pass
            case _ if chain:
                yield Place("nft", family, table, chain, line)


def names(places: Iterable[Place]) -> Counter[str]:
    """How often each name is given to rules, ``none`` to those of nobody."""
    rules = [*places]
    owners = Owners.load()
    owners.learn(rules)
    return Counter(str(owners.of(place) or "none") for place in rules)


def test_the_hashes_are_those_of_kube_proxy() -> None:
    """The first service of kube-proxy's own tests has these chains."""
    service = services(1)[0].__class__("ns1", "svc1", "172.30.0.41", port_name="p80")
    endpoint = services(1)[0].endpoints[0].__class__("10.180.0.1", 80)
    assert service.chain("SVC") == "KUBE-SVC-XPGD46QRK7WJZT7O"
    assert service.endpoint_chain(endpoint) == "KUBE-SEP-SXIVWICOYRO3J4NJ"
    assert service.nft_chain("service") == "service-ULMVA6XW-ns1/svc1/tcp/p80"
    path = "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    assert service.nft_endpoint_chain(endpoint) == path


def test_all_kinds_of_services_are_there() -> None:
    of = services()
    assert len(of) == len({service.address for service in of}) == 500
    endpoints = [str(endpoint) for service in of for endpoint in service.endpoints]
    assert len(endpoints) == len({*endpoints}) == 900
    assert sum(not service.endpoints for service in of) == 50
    assert {service.policy for service in of if service.endpoints} == {*Policy}
    assert {len(service.endpoints) for service in of} == {0, 1, 2, 3}


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_kube_proxys_ruleset_does_what_it_says(mode: str) -> None:
    of = services()
    if mode == "iptables":
        outcome = loaded(RESTORE, SAVE, kube_proxy_iptables(of), connect=True)
        named = names(saved_places(outcome["listing"]))
    else:
        outcome = loaded(NFT, NFT_LIST, kube_proxy_nftables(of), connect=True)
        named = names(nft_places(outcome["listing"]))
    for service in of:
        fates = {str(endpoint) for endpoint in service.endpoints} or {"rejected"}
        assert outcome["fates"][service.address] in fates, service
        for endpoint in service.endpoints:
            assert named[f"kube-proxy: service {service}, endpoint {endpoint}"]
    assert {name.split(":")[0] for name in named} == {"kube-proxy"}
    assert sum(named.values()) > 2900


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_calicos_ruleset_loads_and_is_named(mode: str) -> None:
    of = services()
    if mode == "iptables":
        outcome = loaded(RESTORE, SAVE, calico_iptables(of), connect=False)
        named = names(saved_places(outcome["listing"]))
    else:
        outcome = loaded(NFT, NFT_LIST, calico_nftables(of), connect=False)
        named = names(nft_places(outcome["listing"]))
    assert {name.split(":")[0] for name in named} == {"calico"}
    for service in of:
        for endpoint in service.endpoints:
            workload = f"calico: to workload {endpoint.interface}"
            assert named[f"{workload}, Drop if no profiles matched"] == 1
            policed = named[f"{workload}, End of tier default. Drop if no policies passed packet"]
            assert policed == (service.policy is not Policy.NONE)
            assert named[f"calico: from workload {endpoint.interface}"]
        if service.endpoints and service.policy is not Policy.NONE:
            assert policy_chain(service) in outcome["listing"]
