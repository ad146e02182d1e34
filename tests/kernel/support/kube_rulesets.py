# SPDX-License-Identifier: GPL-2.0
"""Rulesets of kube-proxy and Calico for any number of services, and the fates of packets in them.

kube-proxy's two are what its proxiers write, hashes included. Calico's are what felix writes for
the workloads behind the services, without IP sets; with nftables it dispatches through maps, here
by rules. Loaded in one namespace, kube-proxy's and Calico's do not disturb each other.

    client ── nat: KUBE-SERVICES ── KUBE-SVC-x ── KUBE-SEP-x ── DNAT ── filter: cali-tw-calix ── pod
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

PORT: Final = 80
"""The port of each service."""
TARGET: Final = 8080
"""The port of each endpoint."""

_CLUSTER_IPS: Final = IPv4Address("10.96.0.0")
_PODS: Final = IPv4Address("10.244.0.0")
_POD_NET: Final = "10.244.0.0/16"
_FIRST_NODE_PORT: Final = 30000


class Policy(enum.Enum):
    """Calico's treatment of packets to the workloads of a service."""

    NONE = "no policy: the profile of the namespace accepts"
    ALLOWS = "a policy allows the port"
    DENIES = "a policy allows another port only: dropped"


@dataclass(frozen=True)
class Endpoint:
    """A workload behind a service."""

    address: str
    port: int = TARGET

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def interface(self) -> str:
        """The host's end of its veth pair, as Calico calls it."""
        return "cali" + hashlib.sha1(self.address.encode()).hexdigest()[:11]


@dataclass(frozen=True)
class Service:
    """A service and the fates of TCP packets to its address and port.

    They go to one of its endpoints; without any they are rejected with a port unreachable. At the
    endpoints ``policy`` decides. ``node_port`` is 0 if there is none.
    """

    namespace: str
    name: str
    address: str
    endpoints: tuple[Endpoint, ...] = ()
    node_port: int = 0
    policy: Policy = Policy.NONE
    port: int = PORT
    port_name: str = "http"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port_name}"

    @property
    def path(self) -> str:
        """The name that kube-proxy's nftables chains end with."""
        return f"{self.namespace}/{self.name}/tcp/{self.port_name}"

    def chain(self, kind: str) -> str:
        """The name of a chain in iptables mode: ``SVC``, ``EXT``."""
        return f"KUBE-{kind}-{_hash(f'{self}tcp', 16)}"

    def endpoint_chain(self, endpoint: Endpoint) -> str:
        """The name of an endpoint's chain in iptables mode."""
        return f"KUBE-SEP-{_hash(f'{self}tcp{endpoint}', 16)}"

    def nft_chain(self, kind: str) -> str:
        """The name of a chain in nftables mode: ``service``, ``external``."""
        return f"{kind}-{_hash(self.path, 8)}-{self.path}"

    def nft_endpoint_chain(self, endpoint: Endpoint) -> str:
        """The name of an endpoint's chain in nftables mode."""
        path = f"{self.path}__{endpoint.address}/{endpoint.port}"
        return f"endpoint-{_hash(path, 8)}-{path}"


def services(count: int = 500) -> tuple[Service, ...]:
    """Services of all kinds: each tenth without endpoints, each fourth with a node port."""
    made: list[Service] = []
    pods = 0
    for number in range(count):
        size = 0 if number % 10 == 9 else 1 + number % 3
        endpoints = tuple(Endpoint(str(_PODS + 256 + pods + n)) for n in range(size))
        pods += size
        made.append(
            Service(
                namespace=f"ns{number % 20}",
                name=f"svc{number}",
                address=str(_CLUSTER_IPS + 256 + number),
                endpoints=endpoints,
                node_port=_FIRST_NODE_PORT + number if number % 4 == 0 else 0,
                policy=[*Policy][number % 5 % 3],
            )
        )
    return tuple(made)


def _hash(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


# kube-proxy


def kube_proxy_iptables(of: Sequence[Service]) -> str:
    """The tables of kube-proxy's iptables mode, for iptables-restore."""
    return "\n".join([*_kube_filter(of), *_kube_nat(of)]) + "\n"


def _kube_filter(of: Sequence[Service]) -> Iterator[str]:
    yield "*filter"
    chains = ["SERVICES", "EXTERNAL-SERVICES", "FORWARD", "NODEPORTS", "PROXY-FIREWALL"]
    yield from (f":KUBE-{chain} - [0:0]" for chain in chains)
    new = "-m conntrack --ctstate NEW"
    for hook in ("INPUT", "FORWARD", "OUTPUT"):
        comment = _comment("kubernetes load balancer firewall")
        yield f"-A {hook} {new} {comment} -j KUBE-PROXY-FIREWALL"
    yield f"-A INPUT {_comment('kubernetes health check service ports')} -j KUBE-NODEPORTS"
    yield f"-A FORWARD {_comment('kubernetes forwarding rules')} -j KUBE-FORWARD"
    for hook in ("FORWARD", "OUTPUT"):
        yield f"-A {hook} {new} {_comment('kubernetes service portals')} -j KUBE-SERVICES"
    for hook in ("INPUT", "FORWARD"):
        comment = _comment("kubernetes externally-visible service portals")
        yield f"-A {hook} {new} {comment} -j KUBE-EXTERNAL-SERVICES"
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    comment = _comment("kubernetes forwarding rules")
    yield f"-A KUBE-FORWARD {comment} -m mark --mark 0x4000/0x4000 -j ACCEPT"
    comment = _comment("kubernetes forwarding conntrack rule")
    yield f"-A KUBE-FORWARD {comment} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for service in of:
        if not service.endpoints:
            comment = _comment(f"{service} has no endpoints")
            yield (
                f"-A KUBE-SERVICES {comment} -m tcp -p tcp -d {service.address} "
                f"--dport {service.port} -j REJECT"
            )
            if service.node_port:
                yield (
                    f"-A KUBE-EXTERNAL-SERVICES {comment} -m addrtype --dst-type LOCAL -m tcp "
                    f"-p tcp --dport {service.node_port} -j REJECT"
                )
    yield "COMMIT"


def _kube_nat(of: Sequence[Service]) -> Iterator[str]:
    served = [service for service in of if service.endpoints]
    yield "*nat"
    yield from (f":KUBE-{c} - [0:0]" for c in ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ"))
    for service in served:
        kinds = ("SVC", "EXT") if service.node_port else ("SVC",)
        yield from (f":{service.chain(kind)} - [0:0]" for kind in kinds)
        yield from (f":{service.endpoint_chain(e)} - [0:0]" for e in service.endpoints)
    for hook in ("PREROUTING", "OUTPUT"):
        yield f"-A {hook} {_comment('kubernetes service portals')} -j KUBE-SERVICES"
    yield f"-A POSTROUTING {_comment('kubernetes postrouting rules')} -j KUBE-POSTROUTING"
    yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    comment = _comment("kubernetes service traffic requiring SNAT")
    yield f"-A KUBE-POSTROUTING {comment} -j MASQUERADE --random-fully"
    yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
    for service in served:
        yield from _kube_service(service)
    comment = _comment(
        "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    )
    yield f"-A KUBE-SERVICES {comment} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield "COMMIT"


def _kube_service(service: Service) -> Iterator[str]:
    chain = service.chain("SVC")
    to = f"-m tcp -p tcp -d {service.address} --dport {service.port}"
    yield f"-A KUBE-SERVICES {_comment(f'{service} cluster IP')} {to} -j {chain}"
    if service.node_port:
        outside = service.chain("EXT")
        port = f"-m tcp -p tcp --dport {service.node_port}"
        yield f"-A KUBE-NODEPORTS {_comment(str(service))} {port} -j {outside}"
        comment = _comment(f"masquerade traffic for {service} external destinations")
        yield f"-A {outside} {comment} -j KUBE-MARK-MASQ"
        yield f"-A {outside} -j {chain}"
    comment = _comment(f"{service} cluster IP")
    yield f"-A {chain} {comment} {to} ! -s {_POD_NET} -j KUBE-MARK-MASQ"
    for number, endpoint in enumerate(service.endpoints):
        left = len(service.endpoints) - number
        share = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        target = service.endpoint_chain(endpoint)
        yield f"-A {chain} {_comment(f'{service} -> {endpoint}')} {share}-j {target}"
        comment = _comment(str(service))
        yield f"-A {target} {comment} -s {endpoint.address} -j KUBE-MARK-MASQ"
        yield f"-A {target} {comment} -m tcp -p tcp -j DNAT --to-destination {endpoint}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def kube_proxy_nftables(of: Sequence[Service]) -> str:
    """The table of kube-proxy's nftables mode, for nft -f."""
    return "\n".join(_kube_nft(of)) + "\n"


def _kube_nft(of: Sequence[Service]) -> Iterator[str]:
    served = [service for service in of if service.endpoints]
    yield 'add table ip kube-proxy { comment "rules for kube-proxy" ; }'
    for chain, kind, hook, priority in (
        ("filter-prerouting", "filter", "prerouting", -110),
        ("filter-input", "filter", "input", -110),
        ("filter-forward", "filter", "forward", -110),
        ("filter-output", "filter", "output", -110),
        ("filter-output-post-dnat", "filter", "output", -90),
        ("nat-prerouting", "nat", "prerouting", -100),
        ("nat-output", "nat", "output", -100),
        ("nat-postrouting", "nat", "postrouting", 100),
    ):
        yield (
            f"add chain ip kube-proxy {chain} {{ type {kind} hook {hook} priority {priority} ; }}"
        )
    chains = ["services", "service-endpoints-check", "nodeport-endpoints-check", "firewall-check"]
    chains += ["cluster-ips-check", "mark-for-masquerade", "masquerading", "reject-chain"]
    for service in served:
        chains += [service.nft_chain("service")]
        chains += [service.nft_chain("external")] if service.node_port else []
        chains += [service.nft_endpoint_chain(endpoint) for endpoint in service.endpoints]
    yield from (f"add chain ip kube-proxy {chain}" for chain in chains)
    key = "ipv4_addr . inet_proto . inet_service"
    yield "add set ip kube-proxy cluster-ips { type ipv4_addr ; }"
    yield "add set ip kube-proxy nodeport-ips { type ipv4_addr ; }"
    for name in ("firewall-ips", "service-ips", "no-endpoint-services"):
        yield f"add map ip kube-proxy {name} {{ type {key} : verdict ; }}"
    for name in ("service-nodeports", "no-endpoint-nodeports"):
        yield f"add map ip kube-proxy {name} {{ type inet_proto . inet_service : verdict ; }}"
    yield from (f"add rule ip kube-proxy {rule}" for rule in _KUBE_NFT_RULES)
    for service in of:
        yield f"add element ip kube-proxy cluster-ips {{ {service.address} }}"
        yield from _kube_nft_service(service)


_KUBE_NFT_RULES: Final = (
    "filter-prerouting ct state new jump firewall-check",
    "filter-input ct state new jump nodeport-endpoints-check",
    "filter-input ct state new jump service-endpoints-check",
    "filter-forward ct state new jump service-endpoints-check",
    "filter-forward ct state new jump cluster-ips-check",
    "filter-output ct state new jump service-endpoints-check",
    "filter-output ct state new jump firewall-check",
    "filter-output-post-dnat ct state new jump cluster-ips-check",
    "nat-prerouting jump services",
    "nat-output jump services",
    "nat-postrouting jump masquerading",
    "firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips",
    "service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services",
    (
        "nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport "
        "vmap @no-endpoint-nodeports"
    ),
    "services ip daddr . meta l4proto . th dport vmap @service-ips",
    "services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
    (
        "cluster-ips-check ip daddr @cluster-ips reject "
        'comment "Reject traffic to invalid ports of ClusterIPs"'
    ),
    "mark-for-masquerade mark set mark or 0x4000",
    "masquerading mark and 0x4000 == 0 return",
    "masquerading mark set mark xor 0x4000",
    "masquerading masquerade fully-random",
    "reject-chain reject",
)


def _kube_nft_service(service: Service) -> Iterator[str]:
    where = f"{service.address} . tcp . {service.port}"
    port = f"tcp . {service.node_port}"
    element = "add element ip kube-proxy"
    if not service.endpoints:
        comment = f'comment "{service}"'
        yield f"{element} no-endpoint-services {{ {where} {comment} : goto reject-chain }}"
        if service.node_port:
            yield f"{element} no-endpoint-nodeports {{ {port} {comment} : goto reject-chain }}"
        return
    chain = service.nft_chain("service")
    rule = "add rule ip kube-proxy"
    yield (
        f"{rule} {chain} ip daddr {service.address} tcp dport {service.port} "
        f"ip saddr != {_POD_NET} jump mark-for-masquerade"
    )
    shares = " , ".join(
        f"{number} : goto {service.nft_endpoint_chain(endpoint)}"
        for number, endpoint in enumerate(service.endpoints)
    )
    yield f"{rule} {chain} numgen random mod {len(service.endpoints)} vmap {{ {shares} }}"
    for endpoint in service.endpoints:
        target = service.nft_endpoint_chain(endpoint)
        yield f"{rule} {target} ip saddr {endpoint.address} jump mark-for-masquerade"
        yield f"{rule} {target} meta l4proto tcp dnat to {endpoint}"
    yield f"{element} service-ips {{ {where} : goto {chain} }}"
    if service.node_port:
        outside = service.nft_chain("external")
        yield f"{rule} {outside} jump mark-for-masquerade"
        yield f"{rule} {outside} goto {chain}"
        yield f"{element} service-nodeports {{ {port} : goto {outside} }}"


# Calico

_ACCEPTED: Final = "0x10000/0x10000"
_PASSED: Final = "0x0/0x20000"


def policy_chain(service: Service) -> str:
    """The name of the chain of the policy for a service's workloads."""
    return f"cali-pi-_{_hash(f'{service.namespace}/knp.default.{service.name}', 19)}"


def calico_iptables(of: Sequence[Service]) -> str:
    """The filter table of Calico with iptables, for iptables-restore."""
    rules = [*_calico(of)]
    chains = dict.fromkeys(chain for chain, _, _, _ in rules if chain.startswith("cali-"))
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains)]
    for chain, matches, comment, action in rules:
        comments = _comment(_rule_hash(chain, matches, action))
        comments += f" {_comment(comment)}" if comment else ""
        lines.append(" ".join(filter(None, (f"-A {chain}", matches, comments, action))))
    return "\n".join([*lines, "COMMIT", ""])


def _rule_hash(*parts: str) -> str:
    return (
        "cali:"
        + base64.urlsafe_b64encode(hashlib.sha256(repr(parts).encode()).digest()).decode()[:16]
    )


def _calico(of: Sequence[Service]) -> Iterator[tuple[str, str, str, str]]:
    """Calico's rules: chain, matches, comment and action, as iptables writes them."""
    drop = "Drop if no profiles matched"
    yield "FORWARD", "", "", "-j cali-FORWARD"
    accepted = f"-m mark --mark {_ACCEPTED}"
    yield "FORWARD", accepted, "Policy explicitly accepted packet.", "-j ACCEPT"
    yield "cali-FORWARD", "", "", "-j MARK --set-xmark 0x0/0xe0000"
    yield "cali-FORWARD", "-i cali+", "", "-j cali-from-wl-dispatch"
    yield "cali-FORWARD", "-o cali+", "", "-j cali-to-wl-dispatch"
    for _, endpoint in _workloads(of):
        interface = endpoint.interface
        yield "cali-from-wl-dispatch", f"-i {interface}", "", f"-g cali-fw-{interface}"
        yield "cali-to-wl-dispatch", f"-o {interface}", "", f"-g cali-tw-{interface}"
    for way in ("from", "to"):
        yield f"cali-{way}-wl-dispatch", "", "Unknown interface", "-j DROP"
    for service, endpoint in _workloads(of):
        for chain in (f"cali-tw-{endpoint.interface}", f"cali-fw-{endpoint.interface}"):
            inbound = chain.startswith("cali-tw")
            yield chain, "-m conntrack --ctstate RELATED,ESTABLISHED", "", "-j ACCEPT"
            yield chain, "-m conntrack --ctstate INVALID", "", "-j DROP"
            yield chain, "", "", "-j MARK --set-xmark 0x0/0x10000"
            if inbound and service.policy is not Policy.NONE:
                passed = f"-m mark --mark {_PASSED}"
                yield chain, "", "Start of tier default", "-j MARK --set-xmark 0x0/0x20000"
                yield chain, passed, "", f"-j {policy_chain(service)}"
                yield chain, accepted, "Return if policy accepted", "-j RETURN"
                end = "End of tier default. Drop if no policies passed packet"
                yield chain, passed, end, "-j DROP"
            profile = f"cali-{'pri' if inbound else 'pro'}-kns.{service.namespace}"
            yield chain, "", "", f"-j {profile}"
            yield chain, accepted, "Return if profile accepted", "-j RETURN"
            yield chain, "", drop, "-j DROP"
    for namespace in dict.fromkeys(service.namespace for service, _ in _workloads(of)):
        for prefix in ("pri", "pro"):
            chain = f"cali-{prefix}-kns.{namespace}"
            yield chain, "", "", f"-j MARK --set-xmark {_ACCEPTED}"
            yield chain, accepted, "", "-j RETURN"
    for service in of:
        if service.endpoints and service.policy is not Policy.NONE:
            port = TARGET if service.policy is Policy.ALLOWS else 9
            chain = policy_chain(service)
            yield chain, f"-p tcp -m tcp --dport {port}", "", f"-j MARK --set-xmark {_ACCEPTED}"
            yield chain, accepted, "", "-j RETURN"


def _workloads(of: Sequence[Service]) -> Iterator[tuple[Service, Endpoint]]:
    return ((service, endpoint) for service in of for endpoint in service.endpoints)


def calico_nftables(of: Sequence[Service]) -> str:
    """The table of Calico with nftables, for nft -f: only filtering of forwarded packets."""
    rules = [*_calico(of)]
    chains = dict.fromkeys(chain for chain, _, _, _ in rules if chain.startswith("cali-"))
    lines = ["add table ip calico"]
    lines += ["add chain ip calico filter-FORWARD { type filter hook forward priority 0 ; }"]
    lines += [f"add chain ip calico filter-{chain}" for chain in chains]
    for chain, matches, comment, action in rules:
        said = "; ".join(filter(None, (_rule_hash(chain, matches, action), comment)))
        parts = (f"filter-{chain}", _NFT[matches] if matches in _NFT else _nft(matches))
        statement = _NFT[action] if action in _NFT else _nft(action)
        lines.append(
            " ".join(filter(None, ("add rule ip calico", *parts, statement, f'comment "{said}"')))
        )
    return "\n".join(lines) + "\n"


_NFT: Final = {
    "": "",
    "-i cali+": 'iifname "cali*"',
    "-o cali+": 'oifname "cali*"',
    "-m conntrack --ctstate RELATED,ESTABLISHED": "ct state related,established",
    "-m conntrack --ctstate INVALID": "ct state invalid",
    f"-m mark --mark {_ACCEPTED}": "meta mark & 0x10000 == 0x10000",
    f"-m mark --mark {_PASSED}": "meta mark & 0x20000 == 0",
    "-j MARK --set-xmark 0x0/0xe0000": "meta mark set meta mark & 0xfff1ffff",
    "-j MARK --set-xmark 0x0/0x10000": "meta mark set meta mark & 0xfffeffff",
    "-j MARK --set-xmark 0x0/0x20000": "meta mark set meta mark & 0xfffdffff",
    f"-j MARK --set-xmark {_ACCEPTED}": "meta mark set meta mark | 0x10000",
    "-j ACCEPT": "accept",
    "-j DROP": "drop",
    "-j RETURN": "return",
}
"""nft's words for those of iptables."""


def _nft(part: str) -> str:
    """A part of a rule with a name in it, as nft writes it."""
    match part.split():
        case ["-i", name]:
            return f'iifname "{name}"'
        case ["-o", name]:
            return f'oifname "{name}"'
        case ["-j", name]:
            return f"jump filter-{name}"
        case ["-g", name]:
            return f"goto filter-{name}"
        case [*_, "--dport", port]:
            return f"tcp dport {port}"
    raise AssertionError(part)
