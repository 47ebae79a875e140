"""What the log of a running gateway says of real clients: one line for each event, with the documented fields."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients import client
from tests.root import ROOT
from tests.sftp_gateway.conftest import PASSWORD_HASH
from tests.sftp_gateway.program import Running, running
from tests.waiting import eventually

SETTINGS = 'log_format = "json"\nlog_level = "debug"\n'


def users(tmp_path: Path) -> str:
    """Two users with one key, over a folder of the disk; the second may only read."""
    if not (tmp_path / "key").exists():
        command = [client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
        subprocess.run(command, check=True, timeout=60)
        (tmp_path / "data").mkdir()
    common = f'public_keys_file = "key.pub"\npassword_hash = "{PASSWORD_HASH}"\nurl = "osfs://{tmp_path}/data"\n'
    return f'[[users]]\nname = "ann"\n{common}[[users]]\nname = "reader"\nrights = "read-only"\n{common}'


def sftp(gateway: Running, user: str, tmp_path: Path, *commands: str, options: tuple[str, ...] = ()) -> None:
    """Run OpenSSH's sftp; failures of commands are part of the play."""
    host = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oIdentitiesOnly=yes"]
    subprocess.run(
        [client("sftp"), *host, f"-oIdentityFile={tmp_path}/key", *options, *_to(gateway, user)],
        input="".join(f"-{command}\n" for command in commands),
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def _to(gateway: Running, user: str) -> list[str]:
    return ["-P", str(gateway.address[1]), "-b", "-", f"{user}@127.0.0.1"]


def lines(gateway: Running, last: str) -> list[dict[str, Any]]:
    """Return the events in the log, once the last expected one is there."""
    gateway.logged(f'"event": "{last}"')
    events = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    return [event for event in events if "session" in event or event["event"] == "refused"]


def test_each_event_of_a_real_client_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        work = ("put big", "get big copy", 'rename big "a b"', "mkdir d", "mkdir d", "rmdir d", 'rm "a b"', "get none")
        sftp(gateway, "ann", tmp_path, *work)
        told = lines(gateway, "logout")
    assert [event["event"] for event in told] == [
        "login",
        "upload",
        "download",
        "rename",
        "mkdir",
        "failure",
        "rmdir",
        "remove",
        "logout",
    ]
    assert all(event["from"] == "127.0.0.1" and event["user"] == "ann" for event in told)
    assert len({event["session"] for event in told}) == 1
    login, upload, download, rename, _, failure, _, remove, logout = told
    assert login["method"].startswith("publickey SHA256:")
    assert login["client"].startswith("OpenSSH")
    assert (login["rights"], login["level"]) == ("read-write", "info")
    for transfer in (upload, download):
        assert (transfer["path"], transfer["bytes"], transfer["result"]) == ("/big", 1_000_000, "ok")
        assert transfer["seconds"] > 0
        assert transfer["rate"] == pytest.approx(1_000_000 / transfer["seconds"], rel=0.6)
    assert (rename["path"], rename["target"]) == ("/big", "/a b")
    # A camera asks for it with each picture: more than debug would bury all else.
    assert (failure["operation"], failure["path"], failure["level"]) == ("mkdir", "/d", "debug")
    assert failure["reason"] == "/d: exists already"
    assert remove["path"] == "/a b"
    assert logout["seconds"] >= 0


def test_what_could_not_be_made_is_told_and_what_was_only_looked_for_is_not(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        work = ("put f scans/f", "mkdir scans/d", "rename none other", "get none", "ls none", "rm none", "df none")
        sftp(gateway, "ann", tmp_path, *work)
        told = [event for event in lines(gateway, "logout") if event["event"] == "failure"]
    assert [(event["operation"], event["path"], event["reason"]) for event in told] == [
        ("open", "/scans/f", "/scans/f: the parent directory does not exist"),
        ("mkdir", "/scans/d", "/scans/d: the parent directory does not exist"),
        ("posix-rename", "/none", "/none: no such file or directory"),
    ]


def test_refusals_are_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        sftp(gateway, "reader", tmp_path, "put f")
        told = lines(gateway, "logout")
        assert [event["event"] for event in told] == ["login", "failure", "logout"]
        assert told[1]["reason"] == "/f: this user may only read"
        sftp(gateway, "nobody", tmp_path, "ls", options=("-oPreferredAuthentications=publickey",))
        failed = lines(gateway, "login_failed")[len(told) :]
        assert [event["event"] for event in failed] == ["login_failed"]
        assert failed[0]["reason"].startswith("no accepted key: SHA256:")
        assert (failed[0]["user"], failed[0]["level"]) == ("nobody", "warning")


def test_what_many_requests_of_a_file_fail_with_is_told_once(tmp_path: Path) -> None:
    """A client has dozens of WRITEs on their way by the time that it hears of the first."""
    (tmp_path / "big").write_bytes(bytes(8_000_000))
    with running(tmp_path, SETTINGS + "spool_quota_bytes = 1000000\n", users(tmp_path)) as gateway:
        sftp(gateway, "ann", tmp_path, "put big", "put big")
        told = [event for event in lines(gateway, "logout") if event["event"] in ("failure", "upload")]
    assert [(event["event"], event.get("operation")) for event in told] == [("failure", "write"), ("upload", None)] * 2
    assert len({event["reason"] for event in told if event["event"] == "upload"}) == 1


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-1.5-scanner\r\n"])
def test_a_port_scan_is_one_debug_line(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        with socket.create_connection(gateway.address, timeout=20) as sock:
            sock.sendall(sent)
        told = lines(gateway, "no_login")
    assert [(event["event"], event["level"]) for event in told] == [("no_login", "debug")]
    assert told[0]["from"] == "127.0.0.1"
    assert "Exception" not in told[0]["reason"]


@pytest.mark.parametrize(
    ("option", "offer"),
    [
        (
            "KexAlgorithms=ecdh-sha2-nistp256",
            "key exchange … ecdh-sha2-nistp256; compatible_algorithms would let it in",
        ),
        ("HostKeyAlgorithms=rsa-sha2-256", "host key … rsa-sha2-256; compatible_algorithms would let it in"),
        ("HostKeyAlgorithms=ssh-rsa", "host key … ssh-rsa; no setting lets it in"),
        ("Ciphers=aes128-cbc,3des-cbc", "cipher … aes128-cbc, 3des-cbc; no setting lets it in"),
    ],
)
def test_a_client_with_no_algorithm_in_common_is_named(tmp_path: Path, option: str, offer: str) -> None:
    """The administrator who is asked why it does not connect finds it at the level that is logged by default."""
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        sftp(gateway, "reader", tmp_path, "ls", options=(f"-o{option}",))
        told = lines(gateway, "no_login")
    assert [(event["event"], event["level"]) for event in told] == [("no_login", "info")]
    assert told[0]["client"].startswith("OpenSSH_")
    assert told[0]["reason"] == "no " + offer.replace("…", "in common with the client, which offers")


def test_a_cut_off_upload_says_so(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    with running(tmp_path, SETTINGS, users(tmp_path)) as gateway:
        command = [client("sftp"), "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-l", "500"]
        command += [f"-oIdentityFile={tmp_path}/key", *_to(gateway, "ann")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
            assert process.stdin is not None
            process.stdin.write(b"put big\n")
            process.stdin.flush()
            gateway.logged('"event": "login"')
            eventually(lambda: list((tmp_path / "state").glob("spool/*/*")), "the upload did not begin")
            process.kill()
        upload = next(event for event in lines(gateway, "upload") if event["event"] == "upload")
    assert (upload["result"], upload["level"], upload["path"]) == ("aborted", "warning", "/big")
    assert 0 <= upload["bytes"] < 3_000_000


def test_a_renamed_log_file_is_made_anew(tmp_path: Path) -> None:
    with running(tmp_path, SETTINGS + 'log_file = "gateway.log"\n', users(tmp_path)) as gateway:
        gateway.log = tmp_path / "gateway.log"
        sftp(gateway, "ann", tmp_path, "ls")
        assert [event["event"] for event in lines(gateway, "logout")] == ["login", "logout"]
        gateway.log.rename(tmp_path / "gateway.log.1")
        sftp(gateway, "ann", tmp_path, "mkdir d")
        eventually(gateway.log.exists)
        assert [event["event"] for event in lines(gateway, "logout")] == ["login", "mkdir", "logout"]
        assert gateway.log.stat().st_mode & 0o777 == 0o640


def test_the_documentation_names_every_event() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    sources = [path.read_text() for path in (ROOT / "sftp_gateway").rglob("*.py") if path.stem != "loading"]
    logged = {
        event for source in sources for event in re.findall(r"""(?:log_event|\.log|_complain)\(\s*"(\w+)\"""", source)
    }
    assert {"login", "refused", "hook_failed", "reload"} < logged
    assert not sorted(event for event in logged if f"`{event}`" not in text)


def test_a_user_who_cannot_sign_in_is_named_at_the_start_and_after_a_reload(tmp_path: Path) -> None:
    """The administrator would hear of it from the user else."""
    users = f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl_env = "NOWHERE_SET"\n'
    more = f'{users}[[users]]\nname = "bob"\npassword_hash_file = "gone"\nurl = "mem://"\n'
    with running(tmp_path, SETTINGS, users) as gateway:
        gateway.logged("url_env: the variable NOWHERE_SET is not set here")
        gateway.write(more, SETTINGS)
        gateway.hang_up("password_hash_file: ")
        told = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    found = [(event["level"], event["reason"].split(":")[0]) for event in told if event["event"] == "misconfigured"]
    assert found == [("warning", f"user {name}") for name in ("ann", "ann", "bob")]
