# SPDX-License-Identifier: GPL-2.0
"""Senders and receivers of packets, in words and as values."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.system import processes, who
from ipttctl.system.cgroup_ids import CgroupIds
from ipttctl.system.containers import Container
from ipttctl.system.processes import Process, Processes
from ipttctl.system.users import Users
from ipttctl.system.who import Participant, Receiver, Sending, Who

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
ID = "0123456789ab" * 5 + "cdef"
NGINX = Process(31, 0, "nginx", 0, f"/system.slice/docker-{ID}.scope")
CURL = replace(NGINX, pid=812, comm="curl", cgroup="/user.slice/user-0.slice/session-3.scope")
WEB = Container("docker", ID, "web")


@pytest.fixture(autouse=True)
def _initial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the namespaces of the tests count as the initial ones."""
    ours = {name: (Path("/proc/self/ns") / name).stat().st_ino for name in ("pid", "time")}
    monkeypatch.setattr(processes, "_INITIAL", ours)


@pytest.mark.parametrize(
    ("participant", "text"),
    [
        (Participant(CURL, "session-3.scope"), "curl (pid 812)"),
        (Participant(CURL, "ssh.service"), "curl (pid 812, ssh.service)"),
        (
            Participant(replace(CURL, uid=1000), "session-3.scope", user="alice"),
            "curl (pid 812, user alice)",
        ),
        (Participant(replace(CURL, uid=1000)), "curl (pid 812, uid 1000)"),
        (
            Participant(replace(CURL, uid=7), "user@7.service", "ssh.service", user="bob"),
            "curl (pid 812, user bob, ssh.service of user@7.service)",
        ),
        (Participant(NGINX, container=WEB), "nginx (pid 31, container web)"),
        (
            Participant(replace(NGINX, uid=101), "docker.service", container=WEB),
            "nginx (pid 31, uid 101, container web)",
        ),
        (
            Participant(NGINX, container=replace(WEB, name="")),
            "nginx (pid 31, container 0123456789ab)",
        ),
        (
            Participant(NGINX, container=Container("cri-o", ID, "app", "web-0", "prod", "u")),
            "nginx (pid 31, container app, pod prod/web-0)",
        ),
        (
            Participant(NGINX, container=Container("kubelet", "", pod_uid="u")),
            "nginx (pid 31, pod u)",
        ),
        (Participant(replace(CURL, comm="a (pid 1)\n\x1b")), r"a\x20(pid\x201)\n\x1b (pid 812)"),
        (
            Participant(NGINX, container=replace(WEB, name="a, pod b\u202e")),
            r"nginx (pid 31, container a,\x20pod\x20b\u202e)",
        ),
    ],
)
def test_words(participant: Participant, text: str) -> None:
    assert str(participant) == text


def test_a_role_is_that_of_all_workers() -> None:
    worker = Participant(replace(NGINX, uid=33), "nginx.service", user="www-data")
    assert worker.role == "nginx (user www-data, nginx.service)"
    assert replace(worker, process=replace(worker.process, pid=32)).role == worker.role
    assert Participant(CURL, "session-3.scope").role == "curl"


def test_values() -> None:
    alice = Participant(replace(CURL, uid=1000), "session-3.scope", user="alice")
    assert alice.values() == {
        "text": "curl (pid 812, user alice)",
        "pid": 812,
        "comm": "curl",
        "uid": 1000,
        "user": "alice",
        "cgroup": CURL.cgroup,
        "unit": "session-3.scope",
        **dict.fromkeys(["user_unit", "container", "pod"]),
    }
    values = Participant(NGINX, container=WEB).values()
    assert values["container"] == {"engine": "docker", "id": ID, "name": "web"}
    assert values["pod"] is None
    pod = Container("cri-o", ID, "app", "web-0", "prod", "u")
    values = Participant(NGINX, container=pod).values()
    assert values["container"] == {"engine": "cri-o", "id": ID, "name": "app"}
    assert values["pod"] == {"namespace": "prod", "name": "web-0", "uid": "u"}
    # a process in a pod, in none of its containers
    values = Participant(NGINX, container=Container("kubelet", "", pod_uid="u")).values()
    assert values["container"] is None
    assert values["pod"] == {"namespace": None, "name": None, "uid": "u"}


def test_receivers_in_words() -> None:
    nginx = Participant(NGINX, container=WEB)
    worker = Participant(replace(NGINX, pid=32, uid=33), container=WEB)
    assert str(Receiver(4711, 0)) == "socket 4711"
    assert str(Receiver(4711, 33)) == "socket 4711 (uid 33)"
    assert str(Receiver(4711, 33, (nginx,))) == "nginx (pid 31, container web)"
    assert str(Receiver(4711, 33, (nginx, worker), 2, True)).endswith("web) and 3 more")
    assert str(Receiver(4711, 33, (nginx, worker), 2, False)).endswith("and at least 3 more")


def test_values_of_receivers() -> None:
    nginx = Participant(NGINX, container=WEB)
    worker = Participant(replace(NGINX, pid=32, uid=33), container=WEB)
    assert Receiver(4711, 33, (nginx, worker), 2, False).values() == {
        "holders": [nginx.values(), worker.values()],
        "holders_left_out": 2,
        "holders_complete": False,
    }
    # nobody was found: that says nothing of others
    assert Receiver(4711, None).values() == {
        "holders": [],
        "holders_left_out": 0,
        "holders_complete": None,
    }


def sending(process: Process, **changes: Any) -> Sending:
    """The members of an event that say which process sent the packet."""
    made = Sending(process.start + 7, 0, process.pid, process.uid, process.comm.encode())
    return made._replace(**changes)


def test_a_sender_of_ours() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        there = Processes().read(child.pid)
        child.kill()
        child.wait()
    assert there is not None
    known = Who()
    # it has ended, and is told all the same
    found = known.sender(sending(there, comm=b"curl"))
    assert found is not None
    assert (found.process.comm, found.process.cgroup) == ("curl", "")
    assert known.sender(sending(there, comm=b"curl")) is found


def test_the_cgroup_of_one_that_is_there() -> None:
    there = Processes().read(os.getpid())
    assert there is not None
    found = Who().sender(sending(there))
    assert found is not None
    assert found.process.cgroup == there.cgroup


def test_the_cgroup_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups = CgroupIds(())
    monkeypatch.setattr(cgroups, "path", {77: "/system.slice/cron.service"}.get)
    found = Who(cgroups=cgroups).sender(sending(CURL, cgroup=77))
    assert str(found) == "curl (pid 812, cron.service)"


def test_an_event_without_a_sender() -> None:
    assert Who().sender(sending(CURL, pid=0)) is None


def test_a_number_that_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Processes()
    monkeypatch.setattr(listed, "read", lambda _: replace(NGINX, pid=812))
    known = Who(listed, cgroups=CgroupIds(()))
    # the process of the number is another one
    first = known.sender(sending(CURL, start=NGINX.start - 1))
    second = known.sender(sending(NGINX, pid=812))
    assert first is not None
    assert second is not None
    assert (first.process.cgroup, second.process.cgroup) == ("", NGINX.cgroup)


def test_one_that_executes_another_program() -> None:
    known = Who()
    assert str(known.sender(sending(CURL))) == "curl (pid 812)"
    assert str(known.sender(sending(CURL, comm=b"sh"))) == "sh (pid 812)"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(who, "_MOST_KNOWN", 3)
    known = Who()
    for pid in range(1, 9):
        assert known.sender(sending(CURL, pid=pid))
    assert [one.pid for one in known._known] == [6, 7, 8]


def test_cgroups_by_their_ids(tmp_path: Path) -> None:
    assert CgroupIds((tmp_path,)).path(1) == ""
    ids = CgroupIds()
    assert ids.path(0) == ""
    assert ids.path(1 << 60) == ""
    mount = ids._mount
    if mount is not None and os.geteuid() == 0:
        assert ids.path(mount.stat().st_ino) in {"/", ""}


def test_a_receiver_of_ours() -> None:
    known = Who()
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        found = known.receiver(inode, time.monotonic_ns(), os.geteuid())
        assert found is not None
        assert [one.process.pid for one in found.holders] == [os.getpid()]
    gone = known.receiver(inode, time.monotonic_ns(), os.geteuid())
    assert gone == Receiver(inode, os.geteuid())
    assert known.receiver(0, time.monotonic_ns()) is None


def test_users_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passwd"
    file.write_bytes(b"root:x:0:0::/:\nalice:x:812:\nmallory:x:812:\n+\n:x:5:\nbad:x:-1\n\xff:x:9:")
    users = Users(file)
    assert (users.name(812), users.name(0), users.name(5)) == ("alice", "root", None)
    assert os.fsencode(users.name(9) or "") == b"\xff"
    file.write_text("carol:x:812:\n")
    os.utime(file, (1, 1))
    assert users.name(812) == "carol"
    assert Users(tmp_path / "none").name(0) is None

    there = replace(CURL, uid=812)
    listed = Processes()
    monkeypatch.setattr(listed, "read", lambda _: there)
    known = Who(listed, users=users)
    assert str(known.sender(sending(there))) == "curl (pid 812, user carol)"
    # a number means another user in a container
    there = replace(NGINX, uid=812)
    assert str(known.sender(sending(there))).startswith("nginx (pid 31, uid 812, ")
