# SPDX-License-Identifier: GPL-2.0
"""Checks of whether this host has all that ipttctl needs, and the remedies.

Each check examines a ``Host`` and returns one finding. None changes or loads anything.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from ipttctl.errors import IpttctlError, PrivilegeError
from ipttctl.escape import word
from ipttctl.families import IP, nft_family_name
from ipttctl.host import unfinished
from ipttctl.host.builds import unpacked
from ipttctl.host.tree import Host
from ipttctl.host.walk import MISFIT_REMEDY, Walks, uncompared
from ipttctl.link.model import ModuleStatus
from ipttctl.link.wire import require_privilege
from ipttctl.paths import VERSION, object_file
from ipttctl.rules.backends import LegacyTable, NftTable
from ipttctl.rules.netlink import ChangedError, TooLargeError
from ipttproto import Layout, Walk

REQUIRED: Final = {
    "MODULES": "the module is one",
    "DYNAMIC_FTRACE_WITH_ARGS": "the module redirects functions with ftrace",
    "KPROBES": "the module finds functions by name",
    "NETFILTER": "there is nothing to run programs in",
    "BPF_SYSCALL": "there are no programs",
    "BPF_EVENTS": "programs of tables are of type kprobe",
    "DEBUG_INFO_BTF": "trace takes offsets from it",
}
"""Kernel options that are required, with the reason."""

OPTIONAL: Final = {
    "IP_NF_IPTABLES": "IPv4 tables to trace",
    "IP6_NF_IPTABLES": "IPv6 tables to trace",
    "NF_TABLES": "nftables to trace",
    "KALLSYMS_ALL": "links at nftables' chains",
    "DEBUG_INFO_BTF_MODULES": "links at nftables' chains",
    "NETFILTER_INGRESS": "nf:netdev/ingress and nf:inet/ingress",
    "BRIDGE_NF_EBTABLES|NF_TABLES_BRIDGE|BRIDGE_NETFILTER": "nf:bridge hooks",
}
"""Kernel options that a feature needs (one of those between bars), with the feature."""

_OLDEST: Final = (6, 1)
_NEWEST: Final = (7, 3)
_LIBRARY_PATH: Final = ("usr/local/lib", "usr/lib64", "usr/lib", "lib64", "lib")
_LIBRARIES: Final = {
    "libbpf": (("libbpf.so.1",), "libbpf1", "loads programs"),
    "libpcap": (("libpcap.so.0.8", "libpcap.so.1"), "libpcap0.8", "compiles FILTER"),
}
_PYTHON_PACKAGES: Final = ("construct", "numpy", "pyroute2", "typer", "yaml")
_EBTABLES: Final = ("ebtable_broute", "ebtable_filter", "ebtable_nat")
_EFI: Final = "sys/firmware/efi"
_SECURE_BOOT: Final = f"{_EFI}/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_MACHINE_OWNER_KEYS: Final = f"{_EFI}/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
_DKMS_KEY: Final = "var/lib/dkms/mok.pub"
_AS_ROOT: Final = "run it as root"
_SIGNED: Final = b"~Module signature appended~\n"


class Health(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """Some feature will not work, or the check cannot tell."""
    FAILURE = "failure"
    """The main job will not work."""


@dataclass(frozen=True)
class Finding:
    """The finding of a check; ``remedy`` says what to do, empty if there is nothing to do."""

    check: str
    state: Health
    text: str
    remedy: str = ""


def examine(host: Host | None = None) -> Iterator[Finding]:
    """Run all checks, in the order in which their subjects are needed."""
    host = host or Host()
    for check in CHECKS:
        yield check(host)


def _privilege(host: Host) -> Finding:
    try:
        require_privilege(host.root / "proc/self/status")
    except PrivilegeError as error:
        return _failure("privilege", error.problem, error.remedy)
    return _ok("privilege", "CAP_NET_ADMIN is there")


def _kernel(host: Host) -> Finding:
    text = f"{host.release} on {host.machine}"
    if host.machine != "x86_64":
        return _failure("kernel", f"{text}: the module is for x86_64")
    numbers = re.match(r"(\d+)\.(\d+)", host.release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if version < _OLDEST:
        return _failure("kernel", f"{text} is older than {_dotted(_OLDEST)}", "boot a newer kernel")
    if version > _NEWEST:
        newest = f"{_dotted(_NEWEST)}, the newest that is tested"
        return _warning("kernel", f"{text} is newer than {newest}")
    return _ok("kernel", text)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _configuration(host: Host) -> Finding:
    options = host.configuration
    if options is None:
        return _warning(
            "configuration",
            "cannot tell how the kernel was configured",
            f"put its configuration at /boot/config-{host.release}",
        )
    missing = [f"CONFIG_{name} ({why})" for name, why in REQUIRED.items() if name not in options]
    if missing:
        text = f"the kernel is built without {', '.join(missing)}"
        return _failure("configuration", text, "boot a kernel that has it, such as Debian's")
    lacking = [
        f"CONFIG_{names.split('|')[0]} ({what})"
        for names, what in OPTIONAL.items()
        if not options.keys() & set(names.split("|"))
    ]
    if lacking:
        return _warning("configuration", f"the kernel is built without {', '.join(lacking)}")
    return _ok("configuration", "the kernel has all options")


def _symbols(host: Host) -> Finding:
    listing = host.read_bytes("proc/kallsyms")
    if not listing:
        return _warning("symbols", "the kernel does not list its functions", "mount /proc")

    def has(name: bytes) -> bool:
        return re.search(rb" [tT] %s(?:\t|$)" % name, listing, re.MULTILINE) is not None

    if not has(b"nf_log_trace"):
        return _failure("symbols", "the kernel has no nf_log_trace", "boot a kernel with netfilter")
    code = {
        "ip_tables": b"ipt_do_table",
        "ip6_tables": b"ip6t_do_table",
        "nf_tables": b"nft_do_chain",
    }
    absent = [name for name, function in code.items() if not has(function)]
    known = (host.read(f"lib/modules/{host.release}/modules.dep") or "") + "\n"
    gone = [
        name for name in absent if not re.search(rf"(^|/){name}\.ko[.\w]*:", known, re.MULTILINE)
    ]
    if gone:
        text = f"neither in the kernel nor a module: {', '.join(gone)}"
        return _warning("symbols", text, "trace sees nothing of these tables")
    if absent:
        text = f"nf_log_trace; {', '.join(absent)} not loaded yet: links wait for it"
        return _ok("symbols", text)
    return _ok("symbols", "nf_log_trace, ipt_do_table, ip6t_do_table, nft_do_chain")


def _headers(host: Host) -> Finding:
    build = f"lib/modules/{host.release}/build"
    if host.has(f"{build}/Makefile"):
        return _ok("headers", f"/{build}")
    absent = f"no headers of kernel {host.release}: neither the module nor programs"
    remedy = f"apt install linux-headers-{host.release}"
    if object_file("trace.o").is_file():
        text = f"{absent} given as --source can be compiled"
        return _of_the_next_load(host, "headers", text, remedy)
    return _failure("headers", f"{absent} can be compiled", remedy)


def _compiler(host: Host) -> Finding:
    missing = [name for name in ("gcc", "make") if host.tool(name) is None]
    if missing:
        text = f"no {' and no '.join(missing)} to build the module with"
        return _of_the_next_load(host, "compiler", text, f"apt install {' '.join(missing)}")
    version = (host.run("gcc", "-dumpfullversion") or "").strip()
    built = (host.configuration or {}).get("GCC_VERSION", "")
    if built.isdecimal() and version.partition(".")[0] != str(int(built) // 10000):
        text = f"gcc {version}, but the kernel was built with gcc {int(built) // 10000}"
        return _warning("compiler", text, "if the module does not build, install that version")
    return _ok("compiler", f"gcc {version}, make")


def _lockdown_mode(host: Host) -> str:
    found = re.search(r"\[(\w+)\]", host.read("sys/kernel/security/lockdown") or "")
    return found[1] if found else "none"


def _lockdown(host: Host) -> Finding:
    mode = _lockdown_mode(host)
    if mode == "none":
        return _ok("lockdown", "none")
    if mode == "integrity":
        return _ok("lockdown", "integrity: the kernel takes signed modules only")
    return _failure(
        "lockdown",
        f"{mode}: the kernel allows neither kprobes nor programs that read its memory",
        "boot without lockdown=confidentiality",
    )


def _secure_boot_is_on(host: Host) -> bool:
    # four bytes of attributes, then the value
    return (host.read_bytes(_SECURE_BOOT) or b"")[4:5] == b"\1"


def _secure_boot(host: Host) -> Finding:
    if not host.has(_EFI):
        return _ok("secure boot", "off: this machine did not boot by EFI")
    if not host.has(f"{_EFI}/efivars") or not any((host.root / _EFI / "efivars").iterdir()):
        return _warning(
            "secure boot",
            "cannot tell: EFI variables are not mounted",
            "mount -t efivarfs efivarfs /sys/firmware/efi/efivars",
        )
    if _secure_boot_is_on(host):
        return _ok("secure boot", "on: the kernel takes modules with a key that it trusts")
    return _ok("secure boot", "off")


def _signature(host: Host) -> Finding:
    forced = (host.read("sys/module/module/parameters/sig_enforce") or "").strip() == "Y"
    if not (forced or _lockdown_mode(host) != "none" or _secure_boot_is_on(host)):
        return _ok("signature", "not required")
    if host.module_file is None:
        return _warning("signature", "required; there is no module yet")
    return _signed(host, host.module_file)


def _signed(host: Host, path: Path) -> Finding:
    """Whether a kernel that takes only signed modules will take this one."""
    content = unpacked(path)
    if content is None:
        return _warning("signature", f"required, but {path} cannot be read")
    if not content.endswith(_SIGNED):
        return _of_the_next_load(
            host,
            "signature",
            f"required, but {path} is not signed",
            "let DKMS build it, which signs, or sign it with a key that is enrolled",
        )
    key = host.read_bytes(_DKMS_KEY)
    if key is None:
        return _warning("signature", f"{path} is signed; cannot tell whether the key is trusted")
    if key in (host.read_bytes(_MACHINE_OWNER_KEYS) or b""):
        return _ok("signature", "the module is signed and DKMS's key is enrolled")
    return _of_the_next_load(
        host,
        "signature",
        f"{path} is signed by DKMS, whose key is not enrolled",
        f"mokutil --import /{_DKMS_KEY}, reboot, and enroll it at the prompt",
    )


def _ftrace(host: Host) -> Finding:
    value = (host.read("proc/sys/kernel/ftrace_enabled") or "").strip()
    if value == "1":
        return _ok("ftrace", "enabled")
    if value == "0":
        return _failure(
            "ftrace",
            "switched off: no function can be redirected",
            "sysctl kernel.ftrace_enabled=1",
        )
    return _failure("ftrace", "the kernel has none", "boot a kernel with CONFIG_DYNAMIC_FTRACE")


def _btf(host: Host) -> Finding:
    if host.has("sys/kernel/btf/vmlinux"):
        return _ok("btf", "/sys/kernel/btf/vmlinux")
    text = "the kernel describes no types: trace finds no field of a packet"
    return _failure("btf", text, "boot a kernel with CONFIG_DEBUG_INFO_BTF")


def _bpffs(host: Host) -> Finding:
    mounts = (line.split() for line in (host.read("proc/mounts") or "").splitlines())
    if any(words[1:3] == ["/sys/fs/bpf", "bpf"] for words in mounts):
        return _ok("bpffs", "/sys/fs/bpf")
    return _warning(
        "bpffs",
        "not mounted: programs cannot be pinned, and are loaded anew by each trace",
        "mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
    )


def _bpfcc(host: Host) -> Finding:
    system = [str(path) for path in host.root.glob("usr/lib/python3*/*-packages")]
    found = PathFinder.find_spec("bcc", [*host.python_path, *system])
    if found is None or found.origin is None:
        if object_file("trace.o").is_file():
            text = "missing: programs given as --source cannot be compiled; trace needs none"
            return _warning("bpfcc", text, "apt install python3-bpfcc")
        text = "missing: the programs of trace cannot be compiled"
        return _failure("bpfcc", text, "apt install python3-bpfcc")
    version = Path(found.origin).with_name("version.py")
    number = re.search(r"[\d.]+", version.read_text()) if version.exists() else None
    return _ok("bpfcc", number[0] if number else "there")


def _libraries(host: Host) -> Finding:
    missing, packages, found = [], [], []
    for library, (files, package, purpose) in _LIBRARIES.items():
        places = (
            place
            for file in files
            for directory in _LIBRARY_PATH
            for pattern in (file, f"*-linux-gnu*/{file}")
            for place in (host.root / directory).glob(pattern)
        )
        if path := next(places, None):
            found.append(path.name)
        else:
            missing.append(f"{library} ({purpose})")
            packages.append(package)
    if missing:
        text = f"missing: {', '.join(missing)}"
        return _failure("libraries", text, f"apt install {' '.join(packages)}")
    return _ok("libraries", ", ".join(found))


def _python(host: Host) -> Finding:
    path = list(host.python_path)
    missing = [name for name in _PYTHON_PACKAGES if PathFinder.find_spec(name, path) is None]
    if missing:
        return _failure(
            "python", f"not importable: {', '.join(missing)}", "install the package ipttctl again"
        )
    return _ok("python", f"{sys.version.split()[0]}, {', '.join(_PYTHON_PACKAGES)}")


class _Sight(enum.Enum):
    """Whether ``trace`` sees rules of nftables."""

    YES = enum.auto()
    NO = enum.auto()
    UNKNOWN = enum.auto()


def _walk(host: Host) -> Finding:
    return _examined_walk(host)[0]


def _examined_walk(host: Host) -> tuple[Finding, _Sight]:
    """The state of the module's walk through nftables' chains, and its consequence."""
    try:
        state = host.module_state()
    except IpttctlError as error:
        found = _warning("walk", f"cannot tell: {error.problem}", error.remedy)
        return found, _Sight.UNKNOWN
    status = state.status
    if not state.loaded or state.problem or status is None or not status.walk:
        found = _warning(
            "walk",
            "cannot tell without a module that works whether rules of nftables are seen",
            "" if state.loaded else "run `ipttctl module load`",
        )
        return found, _Sight.UNKNOWN
    return _judged_walk(status, host.kept_walk)


def _judged_walk(status: ModuleStatus, kept: Callable[[], Walks]) -> tuple[Finding, _Sight]:
    if status.walk_layout == Layout.DIFFERS:
        text = f"rules of nftables are not seen: {status.walk_refusal}"
        return _warning("walk", text, MISFIT_REMEDY), _Sight.NO
    walk, missing = status.walk, uncompared(status)
    if walk == Walk.UNVERIFIED and missing:
        found = _warning(
            "walk",
            f"rules of nftables are not seen: {missing}",
            "`ipttctl module verify --although-not-compared` at your own risk",
        )
        return found, _Sight.NO
    if walk == Walk.UNVERIFIED:
        walk = kept().chains
    if walk == Walk.DIFFERS:
        found = _warning(
            "walk",
            "rules of nftables are not seen: on this kernel the module's walk through chains does "
            "not do what the kernel does",
            "report it, with the output of `ipttctl module verify`",
        )
        return found, _Sight.NO
    if walk == Walk.VERIFIED:
        compared = f", although {missing}" if missing else ""
        return _ok("walk", f"verified on this kernel{compared}"), _Sight.YES
    text = "not verified on this kernel yet: the first trace verifies it"
    return _ok("walk", text), _Sight.YES


def _rules(host: Host) -> Finding:
    listed, hidden, remedy = [], [], ""
    legacy = nft = arp = held = False
    for namespace in host.namespaces():
        try:
            found = host.backends(namespace.path)
        except (FileNotFoundError, ProcessLookupError):
            # it has gone
            continue
        except (PermissionError, PrivilegeError):
            hidden.append(namespace.name)
            remedy = _AS_ROOT
            continue
        except (IpttctlError, OSError, ChangedError, TooLargeError):
            hidden.append(namespace.name)
            continue
        tables = [*map(_legacy_table, found.legacy), *map(_nft_table, found.nft)]
        if tables:
            listed.append(f"{namespace.name}: {', '.join(tables)}")
        arp = arp or any(table.family not in IP.values() for table in found.legacy)
        legacy = legacy or any(table.family in IP.values() for table in found.legacy)
        nft = nft or bool(found.nft)
        held = held or not found.empty
    if not host.shows_namespaces:
        text = "cannot tell: rules of other users' network namespaces are hidden from this user"
        return _warning("rules", text, _AS_ROOT)
    parts = ["; ".join(listed)] if listed else []
    if hidden:
        parts.append(f"cannot tell for {', '.join(hidden)}")
    elif not held:
        parts.append("neither back end holds a rule in any network namespace")
    sight = _examined_walk(host)[1]
    parts += _seen(sight, legacy=legacy, nft=nft)
    if arp:
        parts.append("trace does not see tables of arptables-legacy")
    if bridge := _ebtables(host):
        parts.append(f"trace does not see tables of ebtables-legacy ({bridge})")
    unseen = arp or bridge or (nft and sight is _Sight.NO)
    state = Health.WARNING if hidden or not held or unseen else Health.OK
    return Finding("rules", state, ". ".join(parts), remedy)


def _ebtables(host: Host) -> str:
    """The modules of the tables of ebtables-legacy, loaded since somebody used one."""
    loaded = {line.partition(" ")[0] for line in (host.read("proc/modules") or "").splitlines()}
    return ", ".join(name for name in _EBTABLES if name in loaded)


def _seen(sight: _Sight, *, legacy: bool, nft: bool) -> Iterator[str]:
    """The back ends that ``trace`` sees, of those that there are."""
    if sight is _Sight.UNKNOWN:
        return
    if nft and sight is _Sight.NO:
        yield "trace does not see nftables here"
    elif nft:
        yield "trace sees both back ends" if legacy else "trace sees nftables"
    elif legacy:
        yield "trace sees iptables-legacy"


def _legacy_table(table: LegacyTable) -> str:
    # the kernel counts the ends of chains too
    count = f"up to {table.rules} rules" if table.rules else "no rules"
    return f"iptables-legacy {nft_family_name(table.family)} {word(table.name)} ({count})"


def _nft_table(table: NftTable) -> str:
    tool = "iptables-nft" if table.iptables else "nft"
    count = f"{table.rules or 'no'} rule{'' if table.rules == 1 else 's'}"
    return f"{tool} {nft_family_name(table.family)} {word(table.name)} ({count})"


def _front_end(host: Host) -> Finding:
    command = host.tool("iptables")
    if command is None:
        return _ok("iptables", "not installed")
    target = Path(command).resolve().name
    version = host.run("iptables", "--version") or ""
    if "nft" in target or "nf_tables" in version:
        return _ok("iptables", "is iptables-nft, whose rules are those of nftables")
    return _ok("iptables", "is iptables-legacy")


def _module_file(host: Host) -> Finding:
    path = host.module_file
    if path is None:
        return _of_the_next_load(
            host,
            "module file",
            f"the module is not built for kernel {host.release}",
            "run `ipttctl module build`, or `dkms autoinstall` where DKMS has it",
        )
    version = (host.run("modinfo", "-F", "version", str(path)) or "").strip()
    if version != VERSION:
        text = f"{path} is version {version or 'unknown'}, this is ipttctl {VERSION}"
        return _of_the_next_load(host, "module file", text, "run `ipttctl module build`")
    if path == host.installed_module(host.release):
        lacking = [release for release in _kernels(host) if not host.installed_module(release)]
        if lacking:
            text = f"{path}, but there is none for kernel {', '.join(lacking)}"
            remedy = f"dkms autoinstall -k {lacking[0]}"
            return _warning("module file", text, f"if you mean to boot it: {remedy}")
    return _ok("module file", str(path))


def _kernels(host: Host) -> list[str]:
    images = (host.root / "boot").glob("vmlinuz-*")
    return sorted(image.name.removeprefix("vmlinuz-") for image in images)


def _of_the_next_load(host: Host, check: str, text: str, remedy: str) -> Finding:
    """A finding that prevents the next load: only a warning if a module works already."""
    if host.module_works:
        works = "the module that is loaded works until the next boot"
        return _warning(check, f"{text}; {works}", remedy)
    return _failure(check, text, remedy)


def _module(host: Host) -> Finding:
    try:
        state = host.module_state()
    except IpttctlError as error:
        return _warning("module", f"cannot tell: {error.problem}", error.remedy)
    journal = unfinished.JOURNAL.relative_to("/")
    if unfinished.unfinished(host.root / journal):
        return _failure("module", "an upgrade stands unfinished", unfinished.REMEDY)
    if not state.loaded:
        return _warning("module", "not loaded", "run `ipttctl module load`")
    if state.problem:
        return _failure("module", state.problem.problem, state.problem.remedy)
    status = state.status
    text = f"version {status.version}, {status.protocol_text}" if status else "no answer"
    return _ok("module", f"loaded, {text}")


CHECKS: Final = (
    _privilege,
    _kernel,
    _configuration,
    _symbols,
    _ftrace,
    _btf,
    _headers,
    _compiler,
    _bpfcc,
    _libraries,
    _python,
    _lockdown,
    _secure_boot,
    _signature,
    _module_file,
    _module,
    _bpffs,
    _walk,
    _rules,
    _front_end,
)
"""All checks; each returns one finding."""


def _ok(check: str, text: str) -> Finding:
    return Finding(check, Health.OK, text)


def _warning(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(check, Health.WARNING, text, remedy)


def _failure(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(check, Health.FAILURE, text, remedy)
