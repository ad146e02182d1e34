# SPDX-License-Identifier: GPL-2.0
"""Findings of ``doctor`` on hosts made by the tests: one directory each, tools included."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from guest import kernel_list
from ipttctl.bpf import tools
from ipttctl.cli import run
from ipttctl.errors import ModuleError, PrivilegeError
from ipttctl.host import doctor, unfinished
from ipttctl.host.doctor import Finding, Health
from ipttctl.host.module import ModuleState
from ipttctl.host.tree import Host
from ipttctl.host.walk import Walks
from ipttctl.link.model import ModuleStatus
from ipttctl.paths import VERSION
from ipttctl.rules.backends import Backends, LegacyTable, NftTable
from ipttctl.rules.netlink import ChangedError
from ipttproto import FINGERPRINT, Layout, Walk, family
from tests.unit.ctl.show.test_render_json import documented

DOCUMENT = Path(__file__).parents[4] / "docs" / "install.md"
RELEASE = "6.12.1-test"
NOBODY = 65534
SIGNED = b"\x7fELF...~Module signature appended~\n"
KEY = b"\x30\x82 a certificate"
MODULE = f"lib/modules/{RELEASE}/updates/dkms/ipttrace.ko"
EFIVARS = "sys/firmware/efi/efivars"
SECURE_BOOT = f"{EFIVARS}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
KEYS = f"{EFIVARS}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
SYMBOLS = (
    "0000000000000000 T nf_log_trace\n"
    "0000000000000000 T ipt_do_table\t[ip_tables]\n"
    "0000000000000000 t ip6t_do_table\t[ip6_tables]\n"
    "0000000000000000 t nft_do_chain\t[nf_tables]\n"
)


NOTHING = Backends((), ())
IPTABLES_NFT = Backends((NftTable(2, "filter", 3, iptables=True),), ())


def works(
    walk: Walk, *, compared: bool = True, layout: Layout = Layout.SAME, refusal: str = ""
) -> ModuleState:
    """The state of a module that works."""
    protocol = (family.VERSION, family.MINOR)
    status = ModuleStatus(
        VERSION, FINGERPRINT, (), walk, compared, layout, refusal, protocol=protocol
    )
    return ModuleState(True, 0, status)


class Tree:
    """A host on which everything is well, for a test to change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.release = RELEASE
        self.machine = "x86_64"
        self.state: ModuleState | Exception = works(Walk.VERIFIED)
        self.kept = Walk.UNVERIFIED
        self.backends: dict[str, Backends | Exception] = {"proc/1/ns/net": IPTABLES_NFT}
        options = [*doctor.REQUIRED, *(names.split("|")[-1] for names in doctor.OPTIONAL)]
        self.write(f"boot/config-{RELEASE}", "".join(f"CONFIG_{name}=y\n" for name in options))
        self.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
        self.write("proc/kallsyms", SYMBOLS)
        self.write("proc/sys/kernel/ftrace_enabled", "1\n")
        self.write("proc/mounts", "bpf /sys/fs/bpf bpf rw 0 0\n")
        self.write("proc/modules", "")
        self.write("sys/kernel/btf/vmlinux", "")
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        self.write(f"lib/modules/{RELEASE}/build/Makefile", "")
        self.write(f"lib/modules/{RELEASE}/modules.dep", "updates/dkms/ipttrace.ko:\n")
        self.write(MODULE, "")
        self.write("usr/lib/python3/dist-packages/bcc/version.py", "__version__ = '0.26.0'\n")
        self.write("usr/lib/python3/dist-packages/bcc/__init__.py", "")
        self.write("usr/lib/x86_64-linux-gnu/libbpf.so.1", "")
        self.write("usr/lib/x86_64-linux-gnu/libpcap.so.0.8", "")
        self.tool("gcc", "echo 12.2.0")
        self.tool("make", "exit 0")
        self.tool("modinfo", f"echo {VERSION}")
        self.tool("iptables-legacy", "echo 'iptables v1.8.9 (legacy)'")
        self.link("usr/sbin/iptables", "iptables-legacy")
        self.process(1, 4026531840, "init")

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink()

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link."""
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).symlink_to(target)

    def tool(self, name: str, script: str) -> None:
        """Make a program."""
        self.write(f"usr/sbin/{name}", f"#!/bin/sh\n{script}\n")
        (self.root / "usr/sbin" / name).chmod(0o755)

    def process(self, pid: int, inode: int, comm: str) -> None:
        """Make a process in a network namespace."""
        self.write(f"proc/{pid}/comm", f"{comm}\n")
        (self.root / f"proc/{pid}/ns").mkdir()
        self.link(f"proc/{pid}/ns/net", f"net:[{inode}]")

    def _module_state(self) -> ModuleState:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def _backends(self, path: Path) -> Backends:
        found = self.backends.get(str(path.relative_to(self.root)), NOTHING)
        if isinstance(found, Exception):
            raise found
        return found

    def host(self) -> Host:
        """The host in doctor's form."""
        return Host(
            self.root,
            self.release,
            self.machine,
            sys.path,
            self._module_state,
            self._backends,
            lambda: Walks(self.kept),
        )

    def find(self, check: str) -> Finding:
        """The finding of a check."""
        (finding,) = (found for found in doctor.examine(self.host()) if found.check == check)
        return finding


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def expect(tree: Tree, check: str, state: Health, *parts: str) -> None:
    """Check a finding's health, its text, and the presence of advice if something can be done."""
    finding = tree.find(check)
    assert finding.state == state, finding
    for part in parts:
        assert part in f"{finding.text}; {finding.remedy}", finding


def test_all_is_well(tree: Tree) -> None:
    found = list(doctor.examine(tree.host()))
    assert len({finding.check for finding in found}) == len(found) == len(doctor.CHECKS)
    assert [finding for finding in found if finding.state != Health.OK] == []
    assert not any(finding.remedy or "\n" in finding.text for finding in found)


def test_a_host_with_nothing_on_it(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").touch()
    host = Host(tmp_path, RELEASE, "x86_64", [], lambda: ModuleState(loaded=False))
    assert len(list(doctor.examine(host))) == len(doctor.CHECKS)


def test_privilege(tree: Tree) -> None:
    tree.write("proc/self/status", "CapEff:\t0000000000000000\n")
    expect(tree, "privilege", Health.FAILURE, "CAP_NET_ADMIN", "run it as root")


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("5.10.0-30-amd64", Health.FAILURE),
        ("6.0.9", Health.FAILURE),
        ("6.1.0-56-amd64", Health.OK),
        ("6.12.117+deb12-amd64", Health.OK),
        ("6.18.15", Health.OK),
        ("7.4-rc1", Health.WARNING),
        ("8.0", Health.WARNING),
        *((listed.passed, Health.OK) for listed in kernel_list.load() if listed.passed),
    ],
)
def test_kernel(tree: Tree, release: str, state: Health) -> None:
    tree.release = release
    expect(tree, "kernel", state, release)


def test_kernel_of_another_architecture(tree: Tree) -> None:
    tree.machine = "aarch64"
    expect(tree, "kernel", Health.FAILURE, "aarch64", "x86_64")


@pytest.mark.parametrize("option", doctor.REQUIRED)
def test_configuration_lacks_what_is_needed(tree: Tree, option: str) -> None:
    text = (tree.root / f"boot/config-{RELEASE}").read_text()
    tree.write(f"boot/config-{RELEASE}", text.replace(f"CONFIG_{option}=y\n", ""))
    expect(tree, "configuration", Health.FAILURE, f"CONFIG_{option} (", "boot a kernel")


def test_configuration_lacks_what_something_needs(tree: Tree) -> None:
    text = (tree.root / f"boot/config-{RELEASE}").read_text()
    tree.write(f"boot/config-{RELEASE}", text.replace("CONFIG_NETFILTER_INGRESS=y\n", ""))
    expect(tree, "configuration", Health.WARNING, "CONFIG_NETFILTER_INGRESS (nf:netdev/ingress")


def test_configuration_elsewhere(tree: Tree) -> None:
    text = (tree.root / f"boot/config-{RELEASE}").read_bytes()
    tree.remove(f"boot/config-{RELEASE}")
    expect(tree, "configuration", Health.WARNING, "cannot tell", f"/boot/config-{RELEASE}")
    tree.write("proc/config.gz", gzip.compress(text))
    expect(tree, "configuration", Health.OK)
    tree.remove("proc/config.gz")
    tree.write(f"lib/modules/{RELEASE}/config", text)
    expect(tree, "configuration", Health.OK)


def test_symbols(tree: Tree) -> None:
    tree.write("proc/kallsyms", SYMBOLS.replace("nf_log_trace", "nf_log_trace_other"))
    expect(tree, "symbols", Health.FAILURE, "no nf_log_trace")
    tree.write("proc/kallsyms", SYMBOLS.splitlines()[0])
    expect(
        tree, "symbols", Health.WARNING, "ip_tables, ip6_tables, nf_tables", "trace sees nothing"
    )
    path = "kernel/net/ipv4/netfilter/ip_tables.ko: kernel/net/netfilter/x_tables.ko"
    dependencies = f"{path}\n{path.replace('ip_', 'ip6_').replace('ipv4', 'ipv6')}\n"
    dependencies += "kernel/net/netfilter/nf_tables.ko: kernel/net/netfilter/nfnetlink.ko\n"
    tree.write(f"lib/modules/{RELEASE}/modules.dep", dependencies)
    expect(tree, "symbols", Health.OK, "ip_tables, ip6_tables, nf_tables not loaded yet")
    tree.remove("proc/kallsyms")
    expect(tree, "symbols", Health.WARNING, "does not list")


def test_ftrace(tree: Tree) -> None:
    tree.write("proc/sys/kernel/ftrace_enabled", "0\n")
    expect(tree, "ftrace", Health.FAILURE, "switched off", "sysctl kernel.ftrace_enabled=1")
    tree.remove("proc/sys/kernel/ftrace_enabled")
    expect(tree, "ftrace", Health.FAILURE, "CONFIG_DYNAMIC_FTRACE")


def test_btf(tree: Tree) -> None:
    tree.remove("sys/kernel/btf/vmlinux")
    expect(tree, "btf", Health.FAILURE, "CONFIG_DEBUG_INFO_BTF")


def test_tools_find_the_systems_tools(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.tool("modinfo", 'echo "$PATH"')
    monkeypatch.setenv("PATH", ".")
    assert Host(root=tree.root).run("modinfo") == f"{tools.search_path()}\n"


@pytest.fixture
def programs(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the compiled programs of trace, which is not there yet."""
    file = tree.root / "trace.o"
    monkeypatch.setattr(doctor, "object_file", lambda _: file)
    return file


def test_headers(tree: Tree, programs: Path) -> None:
    tree.remove(f"lib/modules/{RELEASE}/build/Makefile")
    remedy = f"apt install linux-headers-{RELEASE}"
    expect(tree, "headers", Health.FAILURE, "neither the module nor programs can be", remedy)
    programs.touch()
    expect(tree, "headers", Health.WARNING, "given as --source", "that is loaded works", remedy)
    tree.state = ModuleState(loaded=False)
    expect(tree, "headers", Health.FAILURE, "given as --source", remedy)


def test_compiler(tree: Tree) -> None:
    text = (tree.root / f"boot/config-{RELEASE}").read_text()
    tree.write(f"boot/config-{RELEASE}", f"{text}CONFIG_GCC_VERSION=120200\n")
    expect(tree, "compiler", Health.OK, "gcc 12.2.0")
    tree.write(f"boot/config-{RELEASE}", f"{text}CONFIG_GCC_VERSION=140100\n")
    expect(tree, "compiler", Health.WARNING, "gcc 12.2.0", "built with gcc 14")
    tree.remove("usr/sbin/gcc")
    expect(
        tree, "compiler", Health.WARNING, "no gcc", "the module that is loaded works", "apt install"
    )
    tree.state = ModuleState(loaded=False)
    expect(tree, "compiler", Health.FAILURE, "no gcc", "apt install gcc")
    tree.remove("usr/sbin/make")
    expect(tree, "compiler", Health.FAILURE, "no gcc and no make", "apt install gcc make")


def test_bpfcc(tree: Tree, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    expect(tree, "bpfcc", Health.OK, "0.26.0")
    tree.remove("usr/lib/python3/dist-packages/bcc/__init__.py")
    tree.remove("usr/lib/python3/dist-packages/bcc/version.py")
    (tree.root / "usr/lib/python3/dist-packages/bcc").rmdir()
    expect(tree, "bpfcc", Health.FAILURE, "apt install python3-bpfcc")
    programs.touch()
    expect(tree, "bpfcc", Health.WARNING, "given as --source cannot be compiled; trace needs none")


def test_libraries(tree: Tree) -> None:
    tree.remove("usr/lib/x86_64-linux-gnu/libpcap.so.0.8")
    expect(tree, "libraries", Health.FAILURE, "libpcap (compiles FILTER)", "apt install libpcap0.8")
    tree.write("usr/lib64/libpcap.so.0.8", "")
    expect(tree, "libraries", Health.OK)
    tree.remove("usr/lib/x86_64-linux-gnu/libbpf.so.1")
    expect(tree, "libraries", Health.FAILURE, "apt install libbpf1")


def test_python(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    expect(tree, "python", Health.FAILURE, "construct, numpy, pyroute2, typer, yaml")


def test_lockdown(tree: Tree) -> None:
    tree.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    expect(tree, "lockdown", Health.OK, "signed modules only")
    tree.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n")
    expect(tree, "lockdown", Health.FAILURE, "neither kprobes", "boot without")
    tree.remove("sys/kernel/security/lockdown")
    expect(tree, "lockdown", Health.OK, "none")


def test_secure_boot(tree: Tree) -> None:
    expect(tree, "secure boot", Health.OK, "did not boot by EFI")
    (tree.root / EFIVARS).mkdir(parents=True)
    expect(tree, "secure boot", Health.WARNING, "mount -t efivarfs")
    tree.write(SECURE_BOOT, b"\6\0\0\0\0")
    expect(tree, "secure boot", Health.OK, "off")
    tree.write(SECURE_BOOT, b"\6\0\0\0\1")
    expect(tree, "secure boot", Health.OK, "on: ")


@pytest.mark.parametrize("why", ["secure boot", "lockdown", "sig_enforce"])
def test_signature_that_is_required(tree: Tree, why: str) -> None:
    tree.state = ModuleState(loaded=False)
    expect(tree, "signature", Health.OK, "not required")
    if why == "secure boot":
        tree.write(SECURE_BOOT, b"\6\0\0\0\1")
    elif why == "lockdown":
        tree.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    else:
        tree.write("sys/module/module/parameters/sig_enforce", "Y\n")
    expect(tree, "signature", Health.FAILURE, "is not signed", "DKMS")
    tree.write(MODULE, SIGNED)
    expect(tree, "signature", Health.WARNING, "cannot tell whether the key is trusted")
    tree.write("var/lib/dkms/mok.pub", KEY)
    expect(tree, "signature", Health.FAILURE, "mokutil --import /var/lib/dkms/mok.pub")
    tree.write(KEYS, b"\6\0\0\0" + b"others" + KEY + b"more")
    expect(tree, "signature", Health.OK, "enrolled")
    tree.write(f"lib/modules/{RELEASE}/modules.dep", "")
    expect(tree, "signature", Health.WARNING, "no module yet")


def test_a_signature_is_for_the_next_load(tree: Tree) -> None:
    tree.write("sys/module/module/parameters/sig_enforce", "Y\n")
    works = "the module that is loaded works until the next boot"
    expect(tree, "signature", Health.WARNING, "is not signed", works, "DKMS")
    tree.write(MODULE, SIGNED)
    tree.write("var/lib/dkms/mok.pub", KEY)
    expect(tree, "signature", Health.WARNING, "not enrolled", works, "mokutil --import")


@pytest.mark.parametrize(
    ("suffix", "content", "state"),
    [  # a signature without the key to compare with is a warning
        (".xz", lzma.compress(SIGNED), Health.WARNING),
        (".xz", lzma.compress(b"unsigned"), Health.FAILURE),
        (".xz", b"not xz", Health.WARNING),
        (".gz", gzip.compress(b"unsigned"), Health.FAILURE),
        (".zst", b"no way to tell", Health.WARNING),
    ],
    ids=["signed.xz", "unsigned.xz", "broken.xz", "unsigned.gz", "zst"],
)
def test_signature_of_a_compressed_module(
    tree: Tree, suffix: str, content: bytes, state: Health
) -> None:
    tree.state = ModuleState(loaded=False)
    tree.write("sys/module/module/parameters/sig_enforce", "Y\n")
    tree.write(f"lib/modules/{RELEASE}/modules.dep", f"updates/dkms/ipttrace.ko{suffix}:\n")
    tree.write(f"{MODULE}{suffix}", content)
    expect(tree, "signature", state)


def test_module_file(tree: Tree) -> None:
    expect(tree, "module file", Health.OK, "/updates/dkms/ipttrace.ko")
    tree.write("boot/vmlinuz-6.1.0-other", "")
    expect(tree, "module file", Health.WARNING, "6.1.0-other", "dkms autoinstall -k 6.1.0-other")
    tree.write(f"var/lib/ipttctl/{RELEASE}/ipttrace.ko", "")
    expect(tree, "module file", Health.OK, f"/var/lib/ipttctl/{RELEASE}/ipttrace.ko")
    tree.tool("modinfo", "echo 0.0.1")
    tree.state = ModuleState(loaded=False)
    expect(tree, "module file", Health.FAILURE, "is version 0.0.1", f"ipttctl {VERSION}")
    tree.remove(f"var/lib/ipttctl/{RELEASE}/ipttrace.ko")
    tree.write(f"lib/modules/{RELEASE}/modules.dep", "")
    expect(tree, "module file", Health.FAILURE, "ipttctl module build")


def test_a_module_that_was_loaded_by_hand_works(tree: Tree) -> None:
    tree.write(f"lib/modules/{RELEASE}/modules.dep", "")
    works = "the module that is loaded works until the next boot"
    expect(tree, "module file", Health.WARNING, "not built", works, "ipttctl module build")
    tree.write(f"var/lib/ipttctl/{RELEASE}/ipttrace.ko", "")
    tree.tool("modinfo", "echo 0.0.1")
    expect(tree, "module file", Health.WARNING, "is version 0.0.1", works)
    tree.state = ModuleState(True, problem=ModuleError("of another protocol", "build it"))
    expect(tree, "module file", Health.FAILURE, "is version 0.0.1")
    tree.state = PrivilegeError("no", "run it as root")
    expect(tree, "module file", Health.FAILURE, "is version 0.0.1")


def test_rules_that_are_hidden_are_not_taken_for_none() -> None:
    """The test runs on this machine itself, as a user without privileges."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write, doctor._rules(Host()).text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == (
            "cannot tell: rules of other users' network namespaces are hidden from this user"
        )
    os.waitpid(child, 0)


def test_module(tree: Tree) -> None:
    expect(tree, "module", Health.OK, "loaded, version 0.1.0, protocol 1.0, build ")
    tree.state = ModuleState(loaded=False)
    expect(tree, "module", Health.WARNING, "not loaded", "ipttctl module load")
    tree.state = ModuleState(True, problem=ModuleError("of another protocol", "build it"))
    expect(tree, "module", Health.FAILURE, "of another protocol", "build it")
    tree.state = PrivilegeError("may not ask", "run it as root")
    expect(tree, "module", Health.WARNING, "cannot tell: may not ask", "run it as root")


def test_an_upgrade_that_did_not_end(tree: Tree) -> None:
    journal = str(unfinished.JOURNAL.relative_to("/"))
    tree.write(journal, json.dumps({"boot": "another"}))
    expect(tree, "module", Health.OK, "loaded")
    tree.write(journal, json.dumps({"boot": unfinished.boot()}))
    expect(tree, "module", Health.FAILURE, "stands unfinished", "ipttctl module upgrade")


def test_bpffs(tree: Tree) -> None:
    tree.write("proc/mounts", "none /sys/fs/bpf-other bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n")
    expect(tree, "bpffs", Health.WARNING, "mount -t bpf")


def test_rules_of_every_namespace_and_back_end(tree: Tree) -> None:
    tree.process(70, 4026531840, "same")
    tree.process(71, 4026532222, "container")
    tree.write("run/netns/named", "")
    tree.backends["proc/71/ns/net"] = Backends(
        (NftTable(1, "fw\n", 1, iptables=False),), (LegacyTable(10, "raw", 4, 2),)
    )
    tree.backends["run/netns/named"] = Backends((), (LegacyTable(2, "filter", 4, 3),))
    expect(
        tree,
        "rules",
        Health.OK,
        "initial: iptables-nft ip filter (3 rules); 4026532222 (of container, pid 71): "
        r"iptables-legacy ip6 raw (up to 1 rules), nft inet fw\n (1 rule); "
        "named: iptables-legacy ip filter (no rules). trace sees both back ends",
    )
    tree.backends["run/netns/named"] = Backends((), (LegacyTable(3, "filter", 6, 3),))
    expect(tree, "rules", Health.WARNING, "arp filter", "trace does not see tables of arptables")
    tree.write("proc/modules", "ebtable_filter 16384 1 - Live 0x0\nebtables 45056 1 - Live 0x0\n")
    expect(tree, "rules", Health.WARNING, "does not see tables of ebtables-legacy (ebtable_filter)")


def test_no_rules_at_all(tree: Tree) -> None:
    tree.backends.clear()
    expect(tree, "rules", Health.WARNING, "neither back end holds a rule in any network namespace")
    tree.backends["proc/1/ns/net"] = Backends((NftTable(1, "t", 0, iptables=False),), ())
    expect(tree, "rules", Health.WARNING, "nft inet t (no rules). neither back end holds a rule")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (PermissionError(), "run it as root"),
        (PrivilegeError("no"), "as root"),
        (ChangedError(), ""),
    ],
)
def test_rules_that_cannot_be_read_are_not_taken_for_none(
    tree: Tree, error: Exception, remedy: str
) -> None:
    tree.backends["proc/1/ns/net"] = error
    expect(tree, "rules", Health.WARNING, "cannot tell for initial", remedy)
    assert "neither" not in tree.find("rules").text
    assert bool(tree.find("rules").remedy) == bool(remedy)


def test_a_namespace_that_has_gone_meanwhile(tree: Tree) -> None:
    tree.process(71, 4026532222, "container")
    tree.backends["proc/71/ns/net"] = FileNotFoundError()
    expect(tree, "rules", Health.OK, "initial: iptables-nft ip filter (3 rules). trace sees nft")


def test_walk(tree: Tree) -> None:
    expect(tree, "walk", Health.OK, "verified on this kernel")
    expect(tree, "rules", Health.OK, "trace sees nftables")
    tree.state = works(Walk.UNVERIFIED)
    expect(tree, "walk", Health.OK, "the first trace verifies it")
    expect(tree, "rules", Health.OK, "trace sees nftables")
    tree.kept = Walk.VERIFIED
    expect(tree, "walk", Health.OK, "verified on this kernel")
    tree.kept = Walk.DIFFERS
    expect(tree, "walk", Health.WARNING, "are not seen", "report it")
    tree.state = works(Walk.DIFFERS)
    expect(tree, "walk", Health.WARNING, "are not seen", "report it")
    expect(tree, "rules", Health.WARNING, "trace does not see nftables")


def test_walk_on_a_series_that_nobody_compared(tree: Tree) -> None:
    tree.kept = Walk.VERIFIED
    tree.state = works(Walk.UNVERIFIED, compared=False)
    remedy = "`ipttctl module verify --although-not-compared` at your own risk"
    expect(tree, "walk", Health.WARNING, "nobody compared", remedy)
    expect(tree, "rules", Health.WARNING, "trace does not see nftables")
    tree.state = works(Walk.VERIFIED, compared=False)
    expect(tree, "walk", Health.OK, "verified on this kernel, although nobody compared the")


def test_walk_that_does_not_fit(tree: Tree) -> None:
    said = "this kernel's nft_chain.handle is not as this module was built for"
    tree.state = works(Walk.VERIFIED, layout=Layout.DIFFERS, refusal=said)
    expect(tree, "walk", Health.WARNING, f"are not seen: {said}", "`ipttctl module build`")
    expect(tree, "rules", Health.WARNING, "trace does not see nftables")


def test_walk_where_layouts_are_unknown(tree: Tree) -> None:
    said = "this kernel does not tell the layouts of nf_tables"
    tree.kept = Walk.VERIFIED
    tree.state = works(Walk.UNVERIFIED, layout=Layout.UNKNOWN, refusal=said)
    expect(tree, "walk", Health.WARNING, said, "--although-not-compared` at your own risk")
    tree.state = works(Walk.VERIFIED, layout=Layout.UNKNOWN, refusal=said)
    expect(tree, "walk", Health.OK, f"verified on this kernel, although {said}")


def test_walk_without_a_module(tree: Tree) -> None:
    tree.state = ModuleState(loaded=False)
    expect(tree, "walk", Health.WARNING, "cannot tell", "ipttctl module load")
    assert "trace" not in tree.find("rules").text
    tree.state = PrivilegeError("may not ask", "run it as root")
    expect(tree, "walk", Health.WARNING, "cannot tell: may not ask", "run it as root")


def test_which_iptables(tree: Tree) -> None:
    expect(tree, "iptables", Health.OK, "is iptables-legacy")
    tree.tool("xtables-nft-multi", "echo 'iptables v1.8.9 (nf_tables)'")
    tree.link("usr/sbin/iptables", "xtables-nft-multi")
    expect(tree, "iptables", Health.OK, "is iptables-nft, whose rules are those of nftables")
    tree.remove("usr/sbin/iptables")
    expect(tree, "iptables", Health.OK, "not installed")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Finding("one", Health.OK, "well"),
        Finding("two", Health.WARNING, "not so well", "do this"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok      one            well",
        "warning two            not so well; do this",
    ]
    found.append(Finding("three", Health.FAILURE, "bad", "do that"))
    assert run(["doctor", "-o", "json"]) == 8
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(list(shown) == documented("Finding") for shown in objects)
    assert [shown["state"] for shown in objects] == ["ok", "warning", "failure"]
    assert [shown["remedy"] for shown in objects] == [None, "do this", "do that"]


def test_the_document_lists_every_check(tree: Tree) -> None:
    rows = re.findall(r"^\| (`.*?`) \|", DOCUMENT.read_text().split("\n## Doctor")[1], re.MULTILINE)
    listed = [check for row in rows for check in re.findall(r"`(.*?)`", row)]
    assert sorted(listed) == sorted(finding.check for finding in doctor.examine(tree.host()))


def test_this_host_can_be_examined() -> None:
    assert len(list(doctor.examine())) == len(doctor.CHECKS)
    assert Host().release == os.uname().release
