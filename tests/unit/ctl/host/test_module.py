# SPDX-License-Identifier: GPL-2.0
"""The module as a file, with tools and directories made by the test."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ipttctl.bpf import tools
from ipttctl.errors import ModuleError, PrivilegeError
from ipttctl.host import builds, module
from ipttctl.link.wire import Connection
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, link, status

RELEASE = "6.1.0-test"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_fake: FakeModule) -> Path:
    """A machine made by the test: its tools, nothing loaded, nothing built."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "sys").mkdir()
    monkeypatch.setattr(tools, "DIRECTORIES", (str(tmp_path / "bin"),))
    monkeypatch.setattr(module, "_SYSFS", tmp_path / "sys")
    monkeypatch.setattr(module, "BUILT", tmp_path / "built")
    monkeypatch.setattr(builds, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(module, "require_privilege", lambda: None)
    monkeypatch.setattr(module, "running_release", lambda: RELEASE)
    monkeypatch.setattr(Connection, "open", module_fake.connect)
    monkeypatch.delenv(module.FILE_VARIABLE, raising=False)
    monkeypatch.delenv(module.SOURCE_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture(name="module_fake")
def _module_fake(module: FakeModule) -> FakeModule:
    module.handlers[Command.GET] = lambda *_: []
    return module


def tool(place: Path, name: str, script: str) -> None:
    path = place / "bin" / name
    path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{name} $*" >>{place}/calls\n{script}\n')
    path.chmod(0o755)


def calls(place: Path) -> list[str]:
    path = place / "calls"
    return path.read_text().splitlines() if path.exists() else []


def built(place: Path) -> Path:
    path = place / "built" / RELEASE / "ipttrace.ko"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def loaded(place: Path, references: int = 0) -> None:
    (place / "sys" / "ipttrace").mkdir()
    (place / "sys" / "ipttrace" / "refcnt").write_text(f"{references}\n")


@pytest.fixture
def headers(place: Path) -> Path:
    modules = place / "modules"
    (modules / RELEASE / "build").mkdir(parents=True)
    (modules / RELEASE / "build" / "Makefile").touch()
    return modules


@pytest.fixture
def source(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = place / "source"
    (source / "compat").mkdir(parents=True)
    (source / "Kbuild").touch()
    (source / "compat" / "x.h").touch()
    monkeypatch.setenv(module.SOURCE_VARIABLE, str(source))
    return source


def test_build_builds_a_copy_of_the_source(place: Path, headers: Path, source: Path) -> None:
    tool(place, "make", "exit 0")
    path = module.build(RELEASE, headers)
    assert path == place / "built" / RELEASE / "ipttrace.ko"
    assert (path.parent / "compat" / "x.h").is_file()
    assert calls(place) == [f"make -s -C {headers}/{RELEASE}/build M={path.parent} modules"]
    assert sorted(p.name for p in source.iterdir()) == ["Kbuild", "compat"]


def test_build_no_headers(place: Path, source: Path) -> None:
    del source
    with pytest.raises(ModuleError, match=f"run `apt install linux-headers-{RELEASE}`"):
        module.build(RELEASE, place)


def test_build_no_source(place: Path, headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.SOURCE_VARIABLE, str(place / "nowhere"))
    with pytest.raises(ModuleError, match=r"no source .* set IPTTRACE_SOURCE"):
        module.build(RELEASE, headers)


def test_build_no_make(headers: Path, source: Path) -> None:
    del source
    with pytest.raises(ModuleError, match="there is no make here; run `apt install make gcc`"):
        module.build(RELEASE, headers)


def test_build_what_the_compiler_says_is_told(place: Path, headers: Path, source: Path) -> None:
    del source
    tool(place, "make", "echo noise >&2; echo 'x.c:1: error: bad' >&2; exit 2")
    with pytest.raises(ModuleError, match=r"does not build for .*: x\.c:1: error: bad$"):
        module.build(RELEASE, headers)


def test_load_loads_what_is_installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = place / "modules"
    (modules / RELEASE).mkdir(parents=True)
    monkeypatch.setattr(module, "MODULES", modules)
    (modules / RELEASE / "modules.dep").write_text(
        "kernel/net/other_ipttrace.ko: x\nupdates/dkms/ipttrace.ko.xz: kernel/net/y.ko\n"
    )
    path = modules / RELEASE / "updates/dkms/ipttrace.ko.xz"
    assert module.installed_file(RELEASE, modules) == path
    assert module.installed_file("6.0", modules) is None
    own = built(place)
    assert module.built_file(RELEASE) == own, "what was built by hand comes first"


def test_build_the_checkout_is_the_source_by_default(place: Path) -> None:
    del place
    directory = module.source_directory()
    assert directory.name == "kmod_netlink"


def test_load_loads_what_was_built(place: Path) -> None:
    path = built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP preempt mod_unload modversions '")
    tool(place, "insmod", "exit 0")
    assert module.load() == path
    assert calls(place)[-1] == f"insmod {path}"


def test_load_loads_the_file_of_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "other.ko"
    path.touch()
    monkeypatch.setenv(module.FILE_VARIABLE, str(path))
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    tool(place, "insmod", "exit 0")
    assert module.load() == path


@pytest.mark.parametrize("path", ["", ".", "bin:", ":/usr/bin", "elsewhere"])
def test_no_tool_comes_from_where_the_caller_is_or_says(
    place: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    built(place)
    tool(place, "modinfo", "echo 'the other one ran' >&2; exit 1")
    elsewhere = place / "elsewhere"
    (place / "bin").rename(elsewhere)
    (elsewhere / "bin").symlink_to(elsewhere)
    (elsewhere / "elsewhere").symlink_to(elsewhere)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PATH", path)
    with pytest.raises(ModuleError, match="there is no modinfo here; run `apt install kmod`"):
        module.load()
    assert calls(place) == []


def test_tools_start_the_systems_tools(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built(place)
    (place / "bin" / "modinfo").write_text('#!/bin/sh\necho "$PATH"\n')
    (place / "bin" / "modinfo").chmod(0o755)
    monkeypatch.setenv("PATH", ".:/elsewhere")
    assert module.built_for(path) == str(place / "bin")


def test_load_a_module_that_others_can_write(place: Path) -> None:
    path = built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    tool(place, "insmod", "exit 0")
    for writable in (path, path.parent, place / "built", place):
        mode = writable.stat().st_mode
        writable.chmod(0o777)
        said = f"do not trust {path}: {writable} can be written to by others; run: chmod go-w"
        with pytest.raises(ModuleError, match=re.escape(said)):
            module.load()
        writable.chmod(mode)
    assert calls(place) == []
    assert module.load() == path


def test_load_a_module_that_is_linked_to_where_others_can_write(place: Path) -> None:
    path = built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    tool(place, "insmod", "exit 0")
    public, real = place / "public", place / "real.ko"
    path.rename(real)
    public.mkdir()
    path.symlink_to("../../public/link.ko")
    (public / "link.ko").symlink_to(real)
    assert module.load() == path, "links alone do no harm"
    public.chmod(0o777)
    with pytest.raises(ModuleError, match=f"{public} can be written to by others"):
        module.load()
    public.chmod(0o1777)
    assert module.load() == path, "in a sticky directory others cannot replace what is ours"
    real.chmod(0o666)
    with pytest.raises(ModuleError, match=f"{real} can be written to by others"):
        module.load()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which takes root")
def test_load_a_module_of_somebody_else(place: Path) -> None:
    path = built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    os.chown(path, 65534, 65534)
    with pytest.raises(ModuleError, match=f"{path} belongs to uid 65534; run: chown root {path}"):
        module.load()
    real = place / "real.ko"
    path.rename(real)
    os.chown(real, 0, 0)
    path.symlink_to(real)
    os.chown(path, 65534, 65534, follow_symlinks=False)
    with pytest.raises(ModuleError, match=f"{path} belongs to uid 65534; run: chown -h root"):
        module.load()
    assert calls(place) == []


def test_load_not_built(place: Path) -> None:
    del place
    with pytest.raises(ModuleError, match=r"no module for kernel .* run `ipttctl module build`"):
        module.load()


def test_load_built_for_another_kernel(place: Path) -> None:
    built(place)
    tool(place, "modinfo", "echo '6.12.0-other SMP'")
    with pytest.raises(ModuleError, match=f"built for kernel 6.12.0-other, this is {RELEASE}"):
        module.load()


def test_load_not_a_module(place: Path) -> None:
    built(place)
    tool(place, "modinfo", "echo 'not a module' >&2; exit 1")
    with pytest.raises(ModuleError, match="is not a kernel module: not a module"):
        module.load()


def test_load_loaded_already(place: Path) -> None:
    loaded(place)
    with pytest.raises(ModuleError, match="loaded already"):
        module.load()


def test_load_the_kernel_refuses(place: Path) -> None:
    built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    tool(place, "insmod", "echo 'insmod: ERROR: Key was rejected by service' >&2; exit 1")
    with pytest.raises(ModuleError, match="Key was rejected by service; see `dmesg`"):
        module.load()


def test_load_another_protocol_is_told_after_loading(place: Path, module_fake: FakeModule) -> None:
    built(place)
    tool(place, "modinfo", f"echo '{RELEASE} SMP'")
    tool(place, "insmod", "exit 0")
    module_fake.handlers[Command.STATS] = lambda *_: [status(major=2)]
    with pytest.raises(ModuleError, match="do not understand each other"):
        module.load()


def test_unload_without_links(place: Path) -> None:
    loaded(place)
    tool(place, "rmmod", "exit 0")
    assert module.unload() == []
    assert calls(place) == ["rmmod ipttrace"]


def test_unload_refused_while_there_are_links(place: Path, module_fake: FakeModule) -> None:
    loaded(place)
    tool(place, "rmmod", "exit 0")
    module_fake.handlers[Command.GET] = lambda *_: [link(), link(link=4, flags=1)]
    with pytest.raises(
        ModuleError,
        match=r"in use by link 3 \(of ipttctl, pid 1234\), link 4 \(persistent\); run",
    ):
        module.unload()
    assert calls(place) == []


def test_unload_force_detaches_them(place: Path, module_fake: FakeModule) -> None:
    loaded(place)
    tool(place, "rmmod", "exit 0")
    module_fake.handlers[Command.GET] = lambda *_: [link(), link(link=4)]
    module_fake.handlers[Command.DETACH] = lambda _, asked: [link(link=asked["link"])]
    assert [gone.id for gone in module.unload(force=True)] == [3, 4]
    assert calls(place) == ["rmmod ipttrace"]


def test_unload_a_module_of_another_protocol_can_be_unloaded(
    place: Path, module_fake: FakeModule
) -> None:
    loaded(place)
    tool(place, "rmmod", "exit 0")
    module_fake.handlers[Command.STATS] = lambda *_: [status(major=2)]
    module.unload()
    assert calls(place) == ["rmmod ipttrace"]


def test_unload_not_loaded(place: Path) -> None:
    del place
    with pytest.raises(ModuleError, match="is not loaded"):
        module.unload()


def test_unload_the_kernel_keeps_it(place: Path) -> None:
    loaded(place)
    tool(place, "rmmod", "echo 'rmmod: ERROR: Module ipttrace is in use' >&2; exit 1")
    with pytest.raises(ModuleError, match=r"keeps .* Module ipttrace is in use"):
        module.unload()


def test_state_not_loaded(place: Path) -> None:
    del place
    assert not module.state().loaded


def test_state_loaded(place: Path, module_fake: FakeModule) -> None:
    loaded(place, 2)
    module_fake.handlers[Command.GET] = lambda *_: [link()]
    state = module.state()
    assert (state.loaded, state.references, state.problem) == (True, 2, None)
    assert [found.id for found in state.links or ()] == [3]


def test_state_another_protocol_is_a_problem_not_an_error(
    place: Path, module_fake: FakeModule
) -> None:
    loaded(place)
    module_fake.handlers[Command.STATS] = lambda *_: [status(major=2)]
    state = module.state()
    assert state.links is None
    assert "do not understand each other" in str(state.problem)


def test_state_privilege_is_asked_for_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del place

    def refuse() -> None:
        raise PrivilegeError("no")

    monkeypatch.setattr(module, "require_privilege", refuse)
    for verb in (module.state, module.load, module.unload):
        with pytest.raises(PrivilegeError):
            verb()
