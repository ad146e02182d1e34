# SPDX-License-Identifier: GPL-2.0
"""Files that configurations name: seeds, credentials, certificates, and who may read them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nkeys
import pytest

from ipttctl.cli import run
from ipttctl.errors import UsageError
from ipttctl.fleet.asker import read_hub
from ipttctl.fleet.config_file import read_config
from tests.unit.ctl.fleet.support import Key

CREDENTIALS = """-----BEGIN NATS USER JWT-----
eyJ0.eyJq.c2ln
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
%s
------END USER NKEY SEED------
"""


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return Key.make(tmp_path, "agent").seed


def agent_file(directory: Path, more: str, url: str = "nats://127.0.0.1:4222") -> str:
    """The file of an agent's configuration whose leaf has more keys, from line 3 on."""
    file = directory / "agent.yaml"
    file.write_text(f"leaf:\n  url: {url}\n{more}host: web1\n")
    return str(file)


def refused(directory: Path, more: str, url: str = "nats://127.0.0.1:4222") -> str:
    """The mistakes in the files of a configuration, as they are said."""
    file = agent_file(directory, more, url)
    with pytest.raises(UsageError) as caught:
        read_config(file)
    return str(caught.value).removeprefix(f"{file}, ")


def certificate(directory: Path, name: str, *options: str) -> None:
    """Make a certificate that signs itself, and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-subj", f"/CN={name}", *options]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run([*command, *files], cwd=directory, check=True, capture_output=True)
    (directory / f"{name}.key").chmod(0o600)


def test_a_seed_that_others_can_read_is_refused(tmp_path: Path, seed: Path) -> None:
    seed.chmod(0o644)
    said = refused(tmp_path, f"  nkey: {seed}\n")
    assert said == (
        f"line 3: leaf.nkey: others than its owner may read {seed}; run: chmod 600 {seed}"
    )
    seed.chmod(0o600)
    assert read_config(agent_file(tmp_path, f"  nkey: {seed}\n")).leaf.nkey == str(seed)
    seed.write_bytes(seed.read_bytes() + b"\n")
    assert read_config(agent_file(tmp_path, f"  nkey: {seed}\n"))


def test_a_file_that_has_no_seed_is_refused(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT))
    good = seed.read_bytes()
    mistyped = good[:20] + (b"B" if good[20:21] == b"A" else b"A") + good[21:]
    for content in (b"", b"garbage", account, mistyped, good * 2, b"SU" + b"A" * 56, b"\xff"):
        seed.write_bytes(content)
        said = refused(tmp_path, f"  nkey: {seed}\n")
        assert said.startswith(f"line 3: leaf.nkey: {seed} has no seed of a user's nkey; make one")
        assert not content or content.decode("latin-1") not in said
    file = agent_file(tmp_path, f"  nkey: {seed}\n")
    assert run(["agent", "--check", "--config", file]) == 2
    assert f"ipttctl: {file}, line 3: leaf.nkey: " in capsys.readouterr().err


def test_commands_check_the_files_of_the_hub(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = tmp_path / "hub.yaml"
    hub.write_text(f"url: nats://127.0.0.1:1\nnkey: {seed}\n")
    assert read_hub(str(hub)).nkey == str(seed)
    seed.write_text("garbage")
    for command in ("fleet hosts --hub", "fleet status --hub", "query --hub --ends", "show --hub"):
        assert run([*command.split(), str(hub)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"ipttctl: {hub}, line 2: nkey: {seed} has no seed of a user's nkey")
    hub.write_text(f"url: nats://127.0.0.1:99999\nnkey: {seed}\n")
    with pytest.raises(UsageError, match=r"hub\.yaml, line 1: url: the port is none from 1 to"):
        read_hub(str(hub))


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, reason in (("fifo", "is no file"), ("", "is no file"), ("none", "No such file")):
        file = f"{tmp_path}/{name}"
        said = refused(tmp_path, f"  nkey: {file}\n")
        assert said.startswith("line 3: leaf.nkey: ")
        assert file in said
        assert reason in said
    assert refused(tmp_path, "  nkey: /dev/zero\n") == "line 3: leaf.nkey: /dev/zero is no file"


def test_credentials_have_a_token_and_a_seed(tmp_path: Path, seed: Path) -> None:
    file = tmp_path / "user.creds"
    more = f"  credentials: {file}\n"
    file.write_text(CREDENTIALS % seed.read_text())
    file.chmod(0o600)
    assert read_config(agent_file(tmp_path, more)).leaf.credentials == str(file)
    for content in (seed.read_text(), CREDENTIALS % "garbage", ""):
        file.write_text(content)
        said = refused(tmp_path, more)
        assert said == f"line 3: leaf.credentials: {file} has no JWT and seed of a user"


def test_certificates_and_keys_can_be_loaded(tmp_path: Path, seed: Path) -> None:
    certificate(tmp_path, "one", "-nodes")
    certificate(tmp_path, "two", "-passout", "pass:secret")
    (tmp_path / "none").write_text("garbage")
    (tmp_path / "none").chmod(0o600)

    def more(**files: str) -> str:
        keys = "".join(f"  {key}: {tmp_path / name}\n" for key, name in files.items())
        return f"{keys}  nkey: {seed}\n"

    good = more(ca="one.pem", certificate="one.pem", key="one.key")
    assert read_config(agent_file(tmp_path, good, "tls://127.0.0.1:4222"))
    for files, said in (
        ({"ca": "none"}, "line 3: leaf.ca: {}/none has no certificate in PEM"),
        (
            {"certificate": "none", "key": "one.key"},
            "line 3: leaf.certificate: {}/none has no certificate in PEM",
        ),
        (
            {"certificate": "one.pem", "key": "none"},
            "line 4: leaf.key: {}/none has no key in PEM that needs no password",
        ),
        (
            {"certificate": "two.pem", "key": "two.key"},
            "line 4: leaf.key: {}/two.key has no key in PEM that needs no password",
        ),
        (
            {"certificate": "two.pem", "key": "one.key"},
            "line 4: leaf.key: {0}/one.key is not the key of {0}/two.pem",
        ),
    ):
        found = refused(tmp_path, more(**files), "tls://127.0.0.1:4222")
        assert found == said.format(tmp_path)
