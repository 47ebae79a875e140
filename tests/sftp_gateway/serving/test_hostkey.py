"""The host key is made once, for its owner alone, and refused when others can read it."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from sftp_gateway.ssh.hostkey import HostKeyError, create_private_file, load_or_create_host_key


def test_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "state" / "host_key"
    key = load_or_create_host_key(path)
    assert key.get_name() == "ssh-ed25519"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["host_key"]


@pytest.mark.parametrize(("kind", "name"), [("ecdsa", "ecdsa-sha2-nistp256"), ("rsa", "ssh-rsa")])
def test_keys_for_older_clients(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "host_key"
    key = load_or_create_host_key(path, kind)
    assert key.get_name() == name
    assert load_or_create_host_key(path, kind).fingerprint == key.fingerprint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_second_start_finds_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    assert load_or_create_host_key(path).fingerprint == load_or_create_host_key(path).fingerprint


def test_starts_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(load_or_create_host_key(tmp_path / "host_key").fingerprint)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "host_key"
    load_or_create_host_key(path)
    path.chmod(mode)
    with pytest.raises(HostKeyError, match=f"chmod 600 {path}"):
        load_or_create_host_key(path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    path.touch(0o600)
    path.write_text("not a key")
    with pytest.raises(HostKeyError, match="not a private host key"):
        load_or_create_host_key(path)


def test_a_key_with_a_passphrase_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    create_private_file(
        path,
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"secret")
        ),
    )
    with pytest.raises(HostKeyError, match="a host key must have no passphrase"):
        load_or_create_host_key(path)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostKeyError, match=r"cannot be made.*--state-folder"):
        load_or_create_host_key(tmp_path / "file" / "host_key")
