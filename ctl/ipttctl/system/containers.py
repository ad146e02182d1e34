# SPDX-License-Identifier: GPL-2.0
"""Containers by the cgroups of their processes, and their names from their engines' own files.

Who may make cgroups somewhere (a user below ``user@UID.service``, a service to which its cgroup is
delegated) can give them the name of anybody's container. So a container has a name only if nobody
but root could have made its cgroup. Likewise a file counts only if nobody but root can have written
it (``check_private``). Anything else, and content that makes no sense, costs the name: the id
remains, which is part of the cgroup's path.

No engine is asked, and none has to run.
"""

from __future__ import annotations

import json
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipttctl.bpf.private_dirs import check_private
from ipttctl.errors import ProgramError
from ipttctl.escape import word
from ipttctl.system.cgroups import KUBELET, Meaning, place

#: most bytes of a file, characters of a name, and files and namespaces of containerd remembered
_LONGEST: Final = 1 << 22
_LONGEST_NAME: Final = 256
_MOST_FILES: Final = 1024
_MOST_NAMESPACES: Final = 64
#: digits of a container's id in texts, as engines show it
_ID_DIGITS: Final = 12
#: where the hierarchy is mounted in which a process's path is: unified, or systemd's beside others
_HIERARCHIES: Final = ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/systemd")

_DOCKER: Final = "var/lib/docker/containers"
_STORAGE: Final = (
    "var/lib/containers/storage/overlay-containers/containers.json",
    "var/lib/containers/storage/overlay-containers/volatile-containers.json",
    "run/containers/storage/overlay-containers/volatile-containers.json",
)
_TASKS: Final = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
)
_CRIO: Final = "run/containers/storage/overlay-containers"

#: the keys of a container's name, its pod's name and the pod's namespace
_KUBERNETES: Final = (
    "io.kubernetes.container.name",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
)
_CRI: Final = (
    "io.kubernetes.cri.container-name",
    "io.kubernetes.cri.sandbox-name",
    "io.kubernetes.cri.sandbox-namespace",
)


@dataclass(frozen=True, slots=True)
class Container:
    """A container: its engine and id, and its names; empty where they are not known.

    ``engine`` is ``docker``, ``podman``, ``containerd``, ``cri-o``, or ``kubelet`` for one in a pod
    of an engine that is not known. A process in a pod, but in no container, has an empty ``id``.
    Names may hold any characters: escape them where they are shown.
    """

    engine: str
    id: str
    name: str = ""
    pod: str = ""
    pod_namespace: str = ""
    pod_uid: str = ""

    def facts(self) -> list[str]:
        """Texts as ``container web`` and ``pod shop/cart-1``, escaped."""
        facts = []
        if called := self.name or self.id[:_ID_DIGITS]:
            facts.append(f"container {word(called)}")
        if self.pod:
            inside = f"{word(self.pod_namespace)}/" if self.pod_namespace else ""
            facts.append(f"pod {inside}{word(self.pod)}")
        elif self.pod_uid:
            facts.append(f"pod {self.pod_uid}")
        return facts


def container_values(container: Container | None) -> dict[str, Any]:
    """The members ``container`` and ``pod`` of JSON objects; None for what there is not."""
    inside = pod = None
    if container and container.id:
        inside = {
            "engine": container.engine,
            "id": container.id,
            "name": container.name or None,
        }
    if container and (container.pod or container.pod_uid):
        pod = {
            "namespace": container.pod_namespace or None,
            "name": container.pod or None,
            "uid": container.pod_uid or None,
        }
    return {"container": inside, "pod": pod}


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of a container that a file holds."""

    name: str = ""
    pod: str = ""
    pod_namespace: str = ""


#: reads the names of containers, by id, in a file's content; it is the file of one, or of many
_Parser = Callable[[Any, str], Mapping[str, _Names]]


@dataclass(frozen=True, slots=True)
class _File:
    """The names that a file held, and its state then: times, size and inode number."""

    state: tuple[int, ...]
    names: Mapping[str, _Names]


class Containers:
    """The containers of the host; not for several threads at once."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Find engines' files and cgroups below ``root``."""
        self._root = root
        self._files: OrderedDict[Path, _File] = OrderedDict()

    def of(self, cgroup: str) -> Container | None:
        """The container whose processes have a cgroup; None if it is no container's."""
        found = place(cgroup)
        if not found.engine:
            return None
        plain = Container(found.engine, found.container_id, pod_uid=found.pod_uid)
        if not found.container_id or not self._is_trusted(found):
            return plain
        for engine, file, parser in self._candidates(found):
            names = self._read(file, parser, found.container_id).get(found.container_id)
            if names is not None:
                return Container(
                    engine,
                    found.container_id,
                    names.name,
                    names.pod,
                    names.pod_namespace,
                    found.pod_uid,
                )
        return plain

    def _is_trusted(self, found: Meaning) -> bool:
        """Whether nobody but root can have made the cgroup, in each hierarchy that has it."""
        seen = False
        for hierarchy in _HIERARCHIES:
            directory = Path(f"{self._root / hierarchy}{found.above}")
            try:
                check_private(directory, follow=True)
            except FileNotFoundError:
                continue
            except (OSError, ProgramError, ValueError):
                return False
            seen = True
        return seen

    def _candidates(self, found: Meaning) -> Iterator[tuple[str, Path, _Parser]]:
        """The files that may have the names of a container."""
        engine, identifier = found.engine, found.container_id
        if engine in {"containerd", KUBELET}:
            for task in self._tasks(identifier):
                yield "containerd", task, _spec
        if engine in {"docker", KUBELET}:
            yield "docker", self._root / _DOCKER / identifier / "config.v2.json", _docker
        if engine == "podman":
            for path in _STORAGE:
                yield "podman", self._root / path, _storage
        if engine == "cri-o":
            yield "cri-o", self._root / _CRIO / identifier / "userdata" / "config.json", _spec

    def _tasks(self, identifier: str) -> Iterator[Path]:
        """The files of a container in each of containerd's namespaces."""
        for path in _TASKS:
            with suppress(OSError):
                namespaces = sorted((self._root / path).iterdir())
                for namespace in namespaces[:_MOST_NAMESPACES]:
                    yield namespace / identifier / "config.json"

    def _read(self, path: Path, parser: _Parser, identifier: str) -> Mapping[str, _Names]:
        """The names in a file, read again only if it has changed."""
        try:
            state = _state(path)
        except OSError:
            self._files.pop(path, None)
            return {}
        known = self._files.get(path)
        if known is None or known.state != state:
            names: Mapping[str, _Names] = {}
            # ValueError: no UTF-8, no JSON; RecursionError: nested too deeply
            with suppress(OSError, ProgramError, ValueError, RecursionError):
                names = parser(_content(path), identifier)
            known = self._files[path] = _File(state, names)
            if len(self._files) > _MOST_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return known.names


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _content(path: Path) -> Any:
    """Content of a file, which is JSON.

    Raises:
        ProgramError: others than root can have written it.
        OSError: it cannot be read.
        ValueError: it is no regular file, is too long, or is no JSON.
    """
    check_private(path, follow=True)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file")
    with path.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"{path} is longer than {_LONGEST} bytes")
    return json.loads(content)


def _docker(content: Any, identifier: str) -> Mapping[str, _Names]:
    """The names in Docker's file of a container, and in the labels that Kubernetes gives it."""
    if _text(content, "ID") != identifier:
        return {}
    found = _annotated(_member(_member(content, "Config"), "Labels"), _KUBERNETES)
    # the name of Docker's own begins with a slash
    own = _Names(_text(content, "Name").removeprefix("/"))
    return {identifier: found if found.pod else own}


def _storage(content: Any, _: str) -> Mapping[str, _Names]:
    """The names in containers/storage's list of containers."""
    found = {}
    for entry in content if isinstance(content, list) else []:
        names = _member(entry, "names")
        first = names[0] if isinstance(names, list) and names else None
        if identifier := _text(entry, "id"):
            found[identifier] = _Names(_checked(first))
    return found


def _spec(content: Any, identifier: str) -> Mapping[str, _Names]:
    """The names in the annotations of a container's OCI specification."""
    annotations = _member(content, "annotations")
    for keys in (_CRI, _KUBERNETES):
        found = _annotated(annotations, keys)
        if found.pod:
            return {identifier: found}
    return {identifier: _Names(_text(annotations, "nerdctl/name"))}


def _annotated(annotations: Any, keys: tuple[str, str, str]) -> _Names:
    return _Names(*(_text(annotations, key) for key in keys))


def _member(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _text(value: Any, key: str) -> str:
    return _checked(_member(value, key))


def _checked(value: Any) -> str:
    """A name; empty if it is none, or too long for one."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_NAME else ""
