# SPDX-License-Identifier: GPL-2.0
"""Containers and units by the paths of cgroups, and names from engines' own files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ipttctl.system import containers
from ipttctl.system.cgroups import Meaning, place
from ipttctl.system.containers import Container, Containers

ID = "4f" * 32
OTHER = "5e" * 32
UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
UID_ = UID.replace("-", "_")
POD_SLICE = f"kubepods-burstable-pod{UID_}.slice"
KUBEPODS = f"/kubepods.slice/kubepods-burstable.slice/{POD_SLICE}"
USER = "/user.slice/user-1000.slice/user@1000.service"

ANNOTATIONS = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-name": "web-0",
    "io.kubernetes.cri.sandbox-namespace": "prod",
}
KUBERNETES = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "prod",
}
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
PODMAN = "var/lib/containers/storage/overlay-containers"
TASKS = "run/containerd/io.containerd.runtime.v2.task"
CRIO = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"


def write(root: Path, path: str, content: Any) -> Path:
    """A file of an engine, readable by others as some are, in directories that only we write."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    file.chmod(0o644)
    for directory in [*file.parents][: len(Path(path).parts) - 1]:
        directory.chmod(0o755)
    return file


def make_cgroup(root: Path, path: str, hierarchy: str = "") -> Path:
    directory = root / "sys/fs/cgroup" / hierarchy / path.lstrip("/")
    directory.mkdir(parents=True)
    for each in [directory, *directory.parents][: len(directory.relative_to(root).parts)]:
        each.chmod(0o755)
    return directory


def docker(root: Path, name: str = "/web", path: str = DOCKER, **more: Any) -> Path:
    content = {"ID": ID, "Name": name, "State": {"Running": True}, "Config": {"Labels": {}}, **more}
    return write(root, path, content)


@pytest.mark.parametrize(
    ("path", "unit", "user_unit"),
    [
        ("/system.slice/ssh.service", "ssh.service", ""),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""),
        ("/system.slice/a.service/inner.service", "a.service", ""),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope", ""),
        ("/init.scope", "init.scope", ""),
        (f"{USER}/app.slice/foo.service", "user@1000.service", "foo.service"),
        (f"{USER}/init.scope", "user@1000.service", "init.scope"),
        ("/user.slice/user-1000.slice", "user-1000.slice", ""),
        ("/system.slice/_cpu.service", "cpu.service", ""),
        ("/lxc/a.service", "", ""),
        ("/", "", ""),
        ("", "", ""),
        ("/../../system.slice/ssh.service", "", ""),
        ("nonsense", "", ""),
    ],
)
def test_units(path: str, unit: str, user_unit: str) -> None:
    found = place(path)
    assert (found.unit, found.user_unit, found.engine) == (unit, user_unit, "")


@pytest.mark.parametrize(
    ("path", "engine", "identifier", "pod"),
    [
        (f"/system.slice/docker-{ID}.scope", "docker", ID, ""),
        (f"/docker/{ID}", "docker", ID, ""),
        (f"/docker/{ID}/init", "docker", ID, ""),
        (f"/docker/{ID}/system.slice/docker-{OTHER}.scope", "docker", ID, ""),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman", ID, ""),
        (f"/system.slice/web.service/libpod-payload-{ID}", "podman", ID, ""),
        (f"/libpod_parent/libpod-{ID}", "podman", ID, ""),
        (f"{USER}/user.slice/libpod-{ID}.scope", "podman", ID, ""),
        (f"{KUBEPODS}/cri-containerd-{ID}.scope", "containerd", ID, UID),
        (
            f"/system.slice/containerd.service/{POD_SLICE}:cri-containerd:{ID}",
            "containerd",
            ID,
            UID,
        ),
        (f"/system.slice/nerdctl-{ID}.scope", "containerd", ID, ""),
        (f"{KUBEPODS}/crio-{ID}.scope", "cri-o", ID, UID),
        (f"{KUBEPODS}/crio-{ID}", "cri-o", ID, UID),
        (f"{KUBEPODS}/docker-{ID}.scope", "docker", ID, UID),
        (f"/kubepods/besteffort/pod{UID}/{ID}", "kubelet", ID, UID),
        (f"/kubepods.slice/kubepods-pod{'a' * 32}.slice/crio-{ID}.scope", "cri-o", ID, "a" * 32),
        (KUBEPODS, "kubelet", "", UID),
        (f"/machine.slice/libpod-conmon-{ID}.scope", "", "", ""),
        (f"{KUBEPODS}/crio-conmon-{ID}.scope", "kubelet", "", UID),
        (f"/system.slice/docker-{ID[1:]}.scope", "", "", ""),
        (f"/system.slice/docker-{ID.upper()}.scope", "", "", ""),
        (f"/system.slice/docker-{ID}.scope\n", "", "", ""),
        (f"/other/{ID}", "", "", ""),
        (f"/other/pod{UID}/{ID}", "", "", ""),
        ("/system.slice/docker.service", "", "", ""),
        (f"/../docker-{ID}.scope", "", "", ""),
    ],
)
def test_containers_by_cgroup(path: str, engine: str, identifier: str, pod: str) -> None:
    found = place(path)
    assert (found.engine, found.container_id, found.pod_uid) == (engine, identifier, pod)


def test_the_directory_in_which_a_container_was_made() -> None:
    assert place(f"/a/docker-{ID}.scope/b").above == "/a"
    assert place(f"/docker-{ID}.scope").above == ""
    assert place(f"{KUBEPODS}/crio-{ID}").above == KUBEPODS
    assert place("/system.slice") == Meaning("system.slice")


def test_docker(tmp_path: Path) -> None:
    path = f"/system.slice/docker-{ID}.scope"
    make_cgroup(tmp_path, path)
    known = Containers(tmp_path)
    assert known.of(path) == Container("docker", ID)
    docker(tmp_path)
    assert known.of(path) == Container("docker", ID, "web")
    assert known.of("/system.slice/ssh.service") is None


def test_docker_under_kubernetes(tmp_path: Path) -> None:
    path = f"/kubepods/burstable/pod{UID}/{ID}"
    make_cgroup(tmp_path, path)
    docker(tmp_path, "/k8s_app_web-0_prod_0", Config={"Labels": KUBERNETES})
    found = Containers(tmp_path).of(path)
    assert found == Container("docker", ID, "app", "web-0", "prod", UID)


@pytest.mark.parametrize("name", ["containers.json", "volatile-containers.json"])
def test_podman(tmp_path: Path, name: str) -> None:
    path = f"/machine.slice/libpod-{ID}.scope"
    make_cgroup(tmp_path, f"{path}/container")
    entries = [
        {"id": OTHER, "names": ["db"], "image": "i", "layer": "l"},
        {"id": ID, "names": ["web", "alias"], "created": "2026-01-01T00:00:00Z"},
    ]
    write(tmp_path, f"{PODMAN}/{name}", entries)
    known = Containers(tmp_path)
    assert known.of(f"{path}/container") == Container("podman", ID, "web")
    other = f"/machine.slice/libpod-{OTHER}.scope"
    make_cgroup(tmp_path, other)
    assert known.of(other) == Container("podman", OTHER, "db")


@pytest.mark.parametrize("namespace", ["k8s.io", "other"])
def test_containerd(tmp_path: Path, namespace: str) -> None:
    write(tmp_path, f"{TASKS}/{namespace}/{ID}/config.json", {"annotations": ANNOTATIONS})
    write(tmp_path, f"{TASKS}/moby/{OTHER}/config.json", {"annotations": {}})
    known = Containers(tmp_path)
    wanted = Container("containerd", ID, "app", "web-0", "prod", UID)
    for path in (f"{KUBEPODS}/cri-containerd-{ID}.scope", f"/kubepods/pod{UID}/{ID}"):
        make_cgroup(tmp_path, path)
        assert known.of(path) == wanted


def test_containerd_without_kubernetes(tmp_path: Path) -> None:
    path = f"/system.slice/nerdctl-{ID}.scope"
    make_cgroup(tmp_path, path)
    content = {"annotations": {"nerdctl/name": "web"}}
    write(tmp_path, f"{TASKS}/default/{ID}/config.json", content)
    assert Containers(tmp_path).of(path) == Container("containerd", ID, "web")


def test_cri_o(tmp_path: Path) -> None:
    path = f"{KUBEPODS}/crio-{ID}.scope"
    make_cgroup(tmp_path, path)
    write(tmp_path, CRIO, {"ociVersion": "1.1.0", "annotations": KUBERNETES})
    found = Containers(tmp_path).of(path)
    assert found == Container("cri-o", ID, "app", "web-0", "prod", UID)


def test_a_pod_without_a_container(tmp_path: Path) -> None:
    assert Containers(tmp_path).of(KUBEPODS) == Container("kubelet", "", pod_uid=UID)


def test_a_new_name_is_read_and_an_old_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path, "systemd")
    file = docker(tmp_path)
    known = Containers(tmp_path)
    assert known.of(path) == Container("docker", ID, "web")
    with monkeypatch.context() as patch:
        patch.setattr(containers, "_content", lambda _: pytest.fail("read again"))
        assert known.of(path) == Container("docker", ID, "web")
    docker(tmp_path, "/renamed")
    os.utime(file, ns=(1, 1))
    assert known.of(path) == Container("docker", ID, "renamed")
    file.unlink()
    assert known.of(path) == Container("docker", ID)


def test_the_files_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_MOST_FILES", 2)
    known = Containers(tmp_path)
    for number in range(5):
        identifier = f"{number:064x}"
        path = f"/docker/{identifier}"
        make_cgroup(tmp_path, path)
        file = DOCKER.replace(ID, identifier)
        docker(tmp_path, f"/c{number}", file, ID=identifier)
        assert known.of(path) == Container("docker", identifier, f"c{number}")
    assert len(known._files) == 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="no JSON"),
        pytest.param("[" * 100_000, id="nested"),
        pytest.param("1" * 5000, id="a large number"),
        pytest.param("null", id="null"),
        pytest.param([1, None, "x"], id="a list"),
        pytest.param({"ID": OTHER, "Name": "/db"}, id="of another container"),
        pytest.param({"ID": ID, "Name": "/" + "x" * 300}, id="too long a name"),
        pytest.param({"ID": ID, "Name": ["web"]}, id="a name that is none"),
        pytest.param({"ID": ID, "Config": {"Labels": 7}}, id="labels that are none"),
        pytest.param({"ID": ID, "Name": "/web", "x": "x" * (1 << 22)}, id="too long"),
    ],
)
def test_content_without_sense_leaves_the_id(tmp_path: Path, content: Any) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path)
    write(tmp_path, DOCKER, content)
    assert Containers(tmp_path).of(path) == Container("docker", ID)


@pytest.mark.parametrize(
    "content", [{}, [], [{"id": ID}], [{"id": ID, "names": {}}], [[ID]], [{"id": [], "names": [1]}]]
)
def test_lists_without_sense_leave_the_id(tmp_path: Path, content: Any) -> None:
    path = f"/libpod_parent/libpod-{ID}"
    make_cgroup(tmp_path, path)
    write(tmp_path, f"{PODMAN}/containers.json", content)
    assert Containers(tmp_path).of(path) == Container("podman", ID)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path)
    docker(tmp_path).write_bytes(b'{"ID": "\xff\xfe"}')
    assert Containers(tmp_path).of(path) == Container("docker", ID)


def test_files_that_others_can_write_are_not_trusted(tmp_path: Path) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path)
    file = docker(tmp_path)
    for place_of in (file, file.parent, file.parents[2]):
        before = place_of.stat().st_mode
        place_of.chmod(before | 0o002)
        assert Containers(tmp_path).of(path) == Container("docker", ID)
        place_of.chmod(before)
    assert Containers(tmp_path).of(path) == Container("docker", ID, "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_and_links_of_others_are_not_trusted(tmp_path: Path) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path)
    file = docker(tmp_path)
    real = file.rename(file.with_name("real"))
    file.symlink_to(real)
    assert Containers(tmp_path).of(path) == Container("docker", ID, "web")
    os.chown(file, 1234, 1234, follow_symlinks=False)
    assert Containers(tmp_path).of(path) == Container("docker", ID)
    file.unlink()
    os.chown(real.rename(file), 1234, 1234)
    assert Containers(tmp_path).of(path) == Container("docker", ID)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = f"/docker/{ID}"
    make_cgroup(tmp_path, path)
    file = docker(tmp_path)
    file.unlink()
    os.mkfifo(file, 0o600)
    assert Containers(tmp_path).of(path) == Container("docker", ID)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
@pytest.mark.parametrize("hierarchy", ["", "unified", "systemd"])
def test_a_cgroup_that_a_user_made_has_no_name(tmp_path: Path, hierarchy: str) -> None:
    """A user below user@UID.service can name a cgroup after somebody's container."""
    docker(tmp_path)
    path = f"{USER}/docker-{ID}.scope"
    own = make_cgroup(tmp_path, path, hierarchy).parent
    assert Containers(tmp_path).of(path) == Container("docker", ID, "web")
    os.chown(own, 1000, 1000)
    assert Containers(tmp_path).of(path) == Container("docker", ID)


def test_a_cgroup_that_is_not_there_has_no_name(tmp_path: Path) -> None:
    docker(tmp_path)
    assert Containers(tmp_path).of(f"/docker/{ID}") == Container("docker", ID)
