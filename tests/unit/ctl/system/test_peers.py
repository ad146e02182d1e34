# SPDX-License-Identifier: GPL-2.0
"""The other ends of veth devices, as the kernel of this machine tells them.

near: here --- far: eth0, and blue --- twin, both of near.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ipttctl.errors import PrivilegeError
from ipttctl.system import netns
from ipttctl.system.containers import Container, Containers
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.netns import Namespace
from ipttctl.system.peers import Device, Peer, Peers
from ipttctl.system.processes import Processes

HERE, BLUE, TWIN, FAR = 11, 13, 14, 21
S = 1_000_000_000


class Place:
    """Two namespaces that have names in a directory, as `ip netns` keeps them."""

    def __init__(self, directory: Path, near: Namespace, far: Namespace) -> None:
        self.directory = directory
        self.near = near
        self.far = far

    def ip(self, where: Namespace, command: str) -> None:
        """Run `ip` in a namespace."""
        with netns.entered(where.fileno()):
            fds = [self.near.fileno(), self.far.fileno()]
            subprocess.run(["ip", *command.split()], check=True, pass_fds=fds)

    def device(self, index: int, name: str, where: Namespace | None = None) -> Device:
        """A device, of near if not said otherwise."""
        inside = (where or self.near).identity
        return Device(inside.cookie, inside.inode, index, name.encode())

    def peers(self, containers: Containers | None = None) -> Peers:
        """Peers that know these names."""
        return Peers(NamespaceNames([self.directory]), [self.directory], containers)

    def far_end(self, name: str = "eth0") -> Peer:
        """The peer of here."""
        inside = self.far.identity
        return Peer(name.encode(), FAR, inside.inode, inside.cookie, "far", elsewhere=True)


def now() -> int:
    return time.monotonic_ns()


class Clock:
    """The time by which looks are due."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ahead = 0
        real = time.monotonic_ns
        patch.setattr("time.monotonic_ns", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def initial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take our own namespace for the host's: that of process 1 may be hidden here."""
    monkeypatch.setattr("ipttctl.system.inhabitants._INIT", os.getpid())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        try:
            near, far = (stack.enter_context(netns.create()) for _ in range(2))
        except PrivilegeError:
            pytest.skip("only root can make network namespaces")
        made = Place(tmp_path, near, far)
        for name, where in (("near", near), ("far", far)):
            (tmp_path / name).symlink_to(f"/proc/{os.getpid()}/fd/{where.fileno()}")
        veth = f"type veth peer name eth0 index {FAR} netns /proc/self/fd/{far.fileno()}"
        made.ip(near, f"link add here index {HERE} {veth}")
        made.ip(near, f"link add blue index {BLUE} type veth peer name twin index {TWIN}")
        yield made


@contextmanager
def inside(where: Namespace, count: int, *wrapped: str) -> Iterator[list[int]]:
    """Processes in a namespace, ours or, ``wrapped`` in another command, children of ours."""
    command = ["nsenter", f"--net=/proc/self/fd/{where.fileno()}", *wrapped, "sleep", "60"]
    started = [subprocess.Popen(command, pass_fds=[where.fileno()]) for _ in range(count)]
    try:
        yield [_begun(where, one.pid, is_child=bool(wrapped)) for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()


def _begun(where: Namespace, pid: int, *, is_child: bool) -> int:
    """Wait until a process, or its child, is known to have begun in a namespace."""
    processes = Processes()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text() if is_child else str(pid)
        for one in map(int, found.split()):
            if processes.network(one) == where.inode and processes.at(one, now()):
                return one
    raise AssertionError("it does not begin")


def containers(where: Namespace, count: int = 1) -> AbstractContextManager[list[int]]:
    """First processes of pid namespaces."""
    return inside(where, count, "unshare", "--pid", "--fork", "--kill-child")


def test_the_peer_in_another_namespace_and_back(place: Place) -> None:
    peers = place.peers()
    found = peers.of(place.device(HERE, "here"), now())
    assert found == place.far_end()
    assert str(found) == "peer of eth0, namespace far"
    inside = place.near.identity
    back = peers.of(place.device(FAR, "eth0", place.far), now())
    assert back == Peer(b"here", HERE, inside.inode, inside.cookie, "near", elsewhere=True)
    assert back.is_of(place.device(HERE, "here"))
    assert not back.is_of(place.device(HERE, "here", place.far))


def test_the_peer_in_the_same_namespace(place: Place) -> None:
    peers = place.peers()
    inside = place.near.identity
    found = peers.of(place.device(BLUE, "blue"), now())
    assert found == Peer(b"twin", TWIN, inside.inode, inside.cookie, "near", elsewhere=False)
    assert str(found) == "peer of twin"


def test_a_namespace_without_a_name_has_its_number(place: Place) -> None:
    (place.directory / "far").unlink()
    with inside(place.far, 1):
        found = place.peers().of(place.device(HERE, "here"), now())
    assert str(found) == f"peer of eth0, namespace {place.far.inode}"


class Engine(Containers):
    """Gives the processes of a namespace containers, in the order in which they are looked at."""

    def __init__(self, *found: Container | None) -> None:
        super().__init__()
        self._found = list(found)

    def of(self, cgroup: str) -> Container | None:
        """The next one, for any process that has a cgroup."""
        return self._found.pop(0) if cgroup and self._found else None


WEB = Container("docker", "ab" * 32, "web\n")
POD = Container("containerd", "cd" * 32, "app", "cart-1", "shop", "u1")
PAUSE = Container("containerd", "ef" * 32, pod_uid="u1")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((WEB,), r"container web\n"),
        ((WEB, WEB), r"container web\n"),
        ((None, WEB), r"container web\n"),
        ((POD,), "container app, pod shop/cart-1"),
        ((POD, PAUSE), "pod shop/cart-1"),
        ((PAUSE,), f"container {'ef' * 6}, pod u1"),
        # two of one namespace: neither
        ((WEB, POD), "namespace far"),
        ((WEB, replace(WEB, id="12" * 32)), "namespace far"),
        ((None,), "namespace far"),
    ],
)
def test_the_container_that_is_in_the_namespace(
    place: Place, found: tuple[Container | None, ...], text: str
) -> None:
    with containers(place.far, len(found)):
        peers = place.peers(Engine(*found))
        peer = peers.of(place.device(HERE, "here"), now())
    assert str(peer) == f"peer of eth0, {text}"


def test_whoever_enters_a_namespace_is_not_the_container_that_it_is_of(place: Place) -> None:
    with inside(place.far, 2):
        assert named(place.peers(Engine(WEB, WEB)), place) is None
        with containers(place.far):
            assert named(place.peers(Engine(POD, WEB, WEB)), place) == POD


def test_processes_are_looked_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    is_first = Processes.is_first

    def looking(processes: Processes, pid: int) -> bool:
        looked.append(pid)
        return is_first(processes, pid)

    monkeypatch.setattr(Processes, "is_first", looking)
    with inside(place.far, 1) as [other], containers(place.far) as [first]:
        peers = place.peers(Engine(WEB, WEB, WEB))
        for _ in range(3):
            assert named(peers, place) == WEB
            peers._spans.clear()
    # the first of a container is looked at again each time: its number may be another's by then
    assert (looked.count(other), looked.count(first)) == (1, 4)


def test_a_container_says_nothing_of_the_namespace_of_the_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with containers(place.far) as [pid]:
        for initial in (pid, 2**22):
            monkeypatch.setattr("ipttctl.system.inhabitants._INIT", initial)
            assert named(place.peers(Engine(WEB)), place) is None


def named(peers: Peers, place: Place, moment: int | None = None) -> Container | None:
    """The container at the other end of here."""
    peer = peers.of(place.device(HERE, "here"), moment or now())
    assert peer is not None
    assert replace(peer, container=None) == place.far_end()
    return peer.container


def test_a_container_is_not_told_of_packets_before_it(place: Place) -> None:
    before = now()
    with containers(place.far):
        peers = place.peers(Engine(WEB, WEB))
        assert named(peers, place, before) is None
    # nor by a first look for a later one
    with containers(place.far):
        peers, at = place.peers(Engine(WEB)), now()
        assert named(peers, place, at) == WEB
        assert named(peers, place, before) is None


def test_another_container_does_not_cost_the_peer(place: Place, clock: Clock) -> None:
    with containers(place.far):
        peers, first = place.peers(Engine(PAUSE, POD)), now()
        assert named(peers, place, first) == PAUSE
        clock.ahead += 30 * S
        between = now() - 10 * S
        assert named(peers, place, between) is None
        assert named(peers, place) == POD
        assert named(peers, place, first) == PAUSE


def test_nothing_is_said_unless_all_that_the_event_tells_is_so(place: Place) -> None:
    right = place.device(HERE, "here")
    wrong = (
        right._replace(name=b"there"),
        right._replace(ifindex=HERE + 1),
        right._replace(ifindex=BLUE),
        right._replace(netns_cookie=right.netns_cookie + 1),
        right._replace(netns=right.netns + 100_000),
        right._replace(netns=place.far.inode),
        place.device(1, "lo"),
        right._replace(netns_cookie=0),
        right._replace(ifindex=0, name=b""),
    )
    peers = place.peers()
    assert [peers.of(one, now()) for one in wrong] == [None] * len(wrong)
    assert peers.of(right, now()) == place.far_end()


def test_a_peer_whose_namespace_cannot_be_found_is_not_told(place: Place) -> None:
    (place.directory / "far").unlink()
    assert place.peers().of(place.device(HERE, "here"), now()) is None


def test_no_namespace_is_kept(place: Place) -> None:
    """The far one goes with its last descriptor, and its device with it."""
    peers = place.peers()
    device, moment = place.device(HERE, "here"), now()
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert peers.of(device, moment) == place.far_end()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    (place.directory / "far").unlink()
    place.far.close()
    with netns.entered(place.near.fileno()):
        until = time.monotonic() + 60
        while b"here" in subprocess.run(["ip", "link"], check=True, capture_output=True).stdout:
            assert time.monotonic() < until


def test_a_peer_that_was_renamed(place: Place, clock: Clock) -> None:
    peers, device = place.peers(), place.device(HERE, "here")
    first = now()
    assert peers.of(device, first) == place.far_end()
    place.ip(place.far, "link set eth0 name web0")
    # the answer holds for a second
    assert peers.of(device, now()) == place.far_end()
    clock.ahead += 2 * S
    between = now()
    # it may have been renamed after that event
    assert peers.of(device, between) is None
    assert peers.of(device, now()) == place.far_end("web0")
    assert peers.of(device, first) == place.far_end()
    assert peers.of(device, between) is None


def test_a_device_that_is_gone_had_its_peer_before(place: Place, clock: Clock) -> None:
    peers, device = place.peers(), place.device(HERE, "here")
    first = now()
    assert peers.of(device, first) == place.far_end()
    place.ip(place.near, "link delete here")
    clock.ahead += 2 * S
    assert peers.of(device, now()) is None
    assert peers.of(device, now()) is None
    assert peers.of(device, first) == place.far_end()


def test_old_events_are_not_looked_up(place: Place) -> None:
    peers, device = place.peers(), place.device(HERE, "here")
    assert peers.of(device, now() - 61 * S) is None
    assert peers.of(device, now()) == place.far_end()
    assert peers.of(device, now() - 61 * S) is None
    assert peers.of(device, now() - 30 * S) == place.far_end()


def test_looks_take_a_part_of_the_time(
    place: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    inside = netns.within

    def slow(namespace: int, call: Callable[[], object]) -> object:
        looks.append(namespace)
        clock.ahead += S
        return inside(namespace, call)

    peers = place.peers()
    here, blue = place.device(HERE, "here"), place.device(BLUE, "blue")
    monkeypatch.setattr(netns, "within", slow)
    assert peers.of(here, now()) == place.far_end()
    before = len(looks)
    assert peers.of(blue, now()) is None
    assert len(looks) == before
    # for some seconds the old answer has to do
    clock.ahead += 2 * S
    assert peers.of(here, now()) == place.far_end()
    clock.ahead += 4 * S
    assert peers.of(here, now()) is None
    assert len(looks) == before
    clock.ahead += 30 * S
    assert peers.of(blue, now()) is not None
    assert len(looks) > before
