# SPDX-License-Identifier: GPL-2.0
"""Network namespaces by number, name and path, and the identity of each."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ipttctl.errors import UsageError
from ipttctl.system import netns

SO_NETNS_COOKIE = 71
NOBODY = 65534


@pytest.fixture(scope="module")
def own() -> netns.Identity:
    """The current namespace, as identified by a socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        cookie = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return netns.Identity(netns.own(), int.from_bytes(cookie, "little"))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """A directory that names the current namespace blue."""
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")
    return tmp_path


@pytest.mark.parametrize("form", ["{0.inode}", "{0}", "blue", "/proc/self/ns/net"])
def test_whatever_it_is_called(form: str, own: netns.Identity, names: Path) -> None:
    assert netns.resolve(form.format(own), [names / "nowhere", names]) == own


def test_the_number_of_another(own: netns.Identity) -> None:
    with pytest.raises(UsageError, match="is gone: another one has its inode number"):
        netns.resolve(f"{own.inode}@{own.cookie + 1}")


@pytest.mark.parametrize("number", ["1", "1@1", "0" * 30, "9" * 5000])
def test_no_such_number(number: str) -> None:
    with pytest.raises(UsageError, match="network namespace"):
        netns.resolve(number)


@pytest.mark.parametrize("name", ["red", "", "..", "a\0b", "x" * 300, "caf\udce9"])
def test_no_such_name(name: str, names: Path) -> None:
    with pytest.raises(UsageError, match="network namespace"):
        netns.resolve(name, [names])


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/proc/self/ns/uts", "/dev/null", "/etc/"])
def test_path_of_something_else(path: str) -> None:
    with pytest.raises(UsageError, match=r"is not a network namespace; give an inode number"):
        netns.resolve(path)


def test_what_is_found_is_held(names: Path, own: netns.Identity) -> None:
    """The namespace stays the same if its name goes or gets another meaning."""
    with netns.find("blue", [names]) as found:
        (names / "blue").unlink()
        assert os.fstat(found.fileno()).st_ino == own.inode
        assert (found.inode, found.path) == (own.inode, names / "blue")
        descriptor = found.fileno()
    found.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_is_forgotten_is_not_held() -> None:
    descriptor = netns.find("/proc/self/ns/net").fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_name_that_is_a_number(own: netns.Identity, names: Path) -> None:
    """It is one as long as no namespace has the number."""
    (names / "blue").rename(names / "100")
    assert netns.resolve("100", [names]) == own
    with pytest.raises(UsageError, match="no name and no process has network namespace 100"):
        netns.resolve("100@1", [names])
    with pytest.raises(UsageError, match="no name and no process has network namespace 101"):
        netns.resolve("101", [names])
    (names / str(own.inode)).symlink_to("/dev/null")
    assert netns.resolve(str(own.inode), [names]) == own


@pytest.mark.parametrize("text", ["/proc/1/ns/net", "red"])
def test_a_namespace_that_the_caller_may_not_see_is_not_called_missing(
    text: str, tmp_path: Path
) -> None:
    """The test runs in a child process, as a user without privileges."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            netns.find(text, [closed, Path("/nowhere")])
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        path = text if text.startswith("/") else closed / text
        assert answer.read() == (
            f"PrivilegeError: cannot open network namespace {path}: Permission denied; "
            "run it as root"
        )
    os.waitpid(child, 0)
