# SPDX-License-Identifier: GPL-2.0
"""Paths of cgroups: the systemd unit, the container and the Kubernetes pod that they stand for.

Engines name the cgroup of a container after its id. The outermost such name counts: whoever is in
a container may have cgroups of any names inside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_ID: Final = r"([0-9a-f]{64})"
_POD: Final = (
    r"pod(?P<pod>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?"
)
#: the engine -> the names of its containers' cgroups
_ENGINES: Final = {
    "docker": re.compile(rf"docker-{_ID}\.scope"),
    "podman": re.compile(rf"libpod-(?:payload-)?{_ID}(?:\.scope)?"),
    "containerd": re.compile(
        rf"(?:cri-containerd|nerdctl)-{_ID}\.scope|[^:]*:cri-containerd:{_ID}"
    ),
    "cri-o": re.compile(rf"crio-{_ID}(?:\.scope)?"),
}
_BARE: Final = re.compile(_ID)
_POD_SLICE: Final = re.compile(rf"(?:[a-z]+-)*kubepods(?:-[a-z]+)*-{_POD}(?::.*)?")
_POD_PLAIN: Final = re.compile(_POD)
_KUBEPODS: Final = re.compile(r"(?:[a-z]+-)*kubepods(?:\.slice)?")
_UNIT: Final = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_USERS_MANAGER: Final = re.compile(r"user@[0-9]+\.service")

KUBELET: Final = "kubelet"
"""The engine of a container in a pod whose cgroup does not say which one it is."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a cgroup's path; what it does not say is an empty text.

    ``unit`` is a unit of the system: a service or scope, or else a slice. ``user_unit`` is a unit
    of a user's own manager, whose ``unit`` is ``user@UID.service``. ``above`` is the directory in
    which the container's cgroup, or else the pod's, was made.
    """

    unit: str = ""
    user_unit: str = ""
    engine: str = ""
    container_id: str = ""
    pod_uid: str = ""
    above: str = ""


@lru_cache(maxsize=4096)
def place(path: str) -> Meaning:
    """The meaning of a path; nothing if it leads out of the cgroup namespace that we are in."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or ".." in parts:
        return Meaning()
    parts = [part for part in parts if part]
    unit, rest = _unit(parts)
    user_unit, _ = _unit(rest) if _USERS_MANAGER.fullmatch(unit) else ("", [])
    engine, identifier, pod, depth = _container(parts)
    above = "/".join(["", *parts[:depth]]) if engine else ""
    return Meaning(unit, user_unit, engine, identifier, pod, above)


def _unit(parts: list[str]) -> tuple[str, list[str]]:
    """The first unit that is no slice, else the innermost slice; and the parts after it."""
    unit = ""
    for number, part in enumerate(parts):
        # systemd puts this before names that would look like files of the kernel
        name = part.removeprefix("_")
        if _UNIT.fullmatch(name):
            return name, parts[number + 1 :]
        if not name.endswith(".slice"):
            break
        unit = name
    return unit, []


def _container(parts: list[str]) -> tuple[str, str, str, int]:
    """The engine, a container's id, a pod's uid, and how many parts are above what said it first.

    A pod is above its container.
    """
    pod, pod_depth, in_kubepods = "", 0, False
    for number, part in enumerate(parts):
        above = parts[number - 1] if number else ""
        if not pod and (
            found := _POD_SLICE.fullmatch(part) or (in_kubepods and _POD_PLAIN.fullmatch(part))
        ):
            pod, pod_depth = found["pod"].replace("_", "-"), number
        in_kubepods = in_kubepods or bool(_KUBEPODS.fullmatch(part))
        for engine, pattern in _ENGINES.items():
            if found := pattern.fullmatch(part):
                return engine, next(filter(None, found.groups())), pod, number
        if _BARE.fullmatch(part):
            if above == "docker":
                return "docker", part, pod, number
            if pod:
                return KUBELET, part, pod, number
    return (KUBELET, "", pod, pod_depth) if pod else ("", "", "", 0)
