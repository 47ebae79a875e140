"""Opening a Dropbox that is out of reach: soon over, one clear sentence, and Ctrl-C works."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fs
import fs.errors
import pytest
import trustme

from fs_dropbox import DropboxFS
from fs_dropbox.api import dialing
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.api.dead_hosts import certified, nobody, silent, swallowing, unknown, unresolved
from tests.fs_dropbox.commands.command_line import environment, run, start
from tests.fs_dropbox.scarce_threads import allow_threads

SOON_SECONDS = 8.0  # it took eleven
Where = Callable[[], contextlib.AbstractContextManager[str]]


@pytest.mark.parametrize(
    ("where", "seconds", "why"),
    [
        (nobody, SOON_SECONDS, "connection refused"),
        (unknown, SOON_SECONDS, "name"),
        (silent, 1.0 + SOON_SECONDS, "timed out"),
        (swallowing, 1.0 + SOON_SECONDS, "timed out"),
    ],
)
def test_out_of_reach_is_said_soon(
    open_dropbox: Callable[..., DropboxFS], where: Where, seconds: float, why: str
) -> None:
    with where() as host:
        began = time.monotonic()
        with pytest.raises(fs.errors.RemoteConnectionError) as caught:
            open_dropbox(api_host=host, open_seconds=1.0)
        assert time.monotonic() - began < seconds
    text = str(caught.value)
    assert host.removesuffix(":443") in text
    assert why in text
    assert "check the network" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds is a number above 0, not 0"),
        ({"timeout_seconds": -1.5}, "timeout_seconds is a number above 0, not -1.5"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds is a number above 0, not nan"),
        ({"root": 1.5}, "root is 'auto', 'home' or the id of a namespace, not 1.5"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    open_dropbox: Callable[..., DropboxFS], wrong: dict[str, object], why: str
) -> None:
    with pytest.raises(fs.errors.CreateFailed) as caught:
        open_dropbox(**wrong)
    assert str(caught.value) == why


def test_a_root_may_be_given_as_a_number(open_dropbox: Callable[..., DropboxFS], dropbox_fs: DropboxFS) -> None:
    home = dropbox_fs.getmeta("dropbox")["home_namespace_id"]
    dropbox_fs.writetext("/file", "1")
    assert open_dropbox(root=int(str(home))).listdir("/") == ["file"]


def test_without_being_told_opening_gives_up_after_ten_seconds(open_dropbox: Callable[..., DropboxFS]) -> None:
    with silent() as host:
        began = time.monotonic()
        with pytest.raises(fs.errors.RemoteConnectionError):
            open_dropbox(api_host=host)
        assert 8.0 < time.monotonic() - began < 25.0


def test_a_resolver_that_hangs_holds_nobody_up(
    open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with unresolved(monkeypatch, asked) as host:
        began = time.monotonic()
        with pytest.raises(fs.errors.RemoteConnectionError, match=r"dropbox\.invalid.* not resolved in time"):
            open_dropbox(api_host=host, open_seconds=0.5)
        assert time.monotonic() - began < SOON_SECONDS
    assert asked == ["dropbox.invalid"]


def test_a_forgotten_file_may_be_collected_in_the_thread_that_dials_for_it() -> None:
    dial = dialing.Dial(dialing.Resolver(), 1.0)

    def collect() -> None:
        with dial._lock:
            dial.break_off()

    dialling = threading.Thread(target=collect, daemon=True)
    dialling.start()
    dialling.join(10)
    assert not dialling.is_alive()


def test_a_look_up_that_is_broken_off_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made where it is wanted once there is no thread for it: Ctrl-C ends it, and what comes later is asked."""
    allow_threads(monkeypatch, "fs-dropbox-names", 0)
    found: Any = ["address"]
    answers = [socket.gaierror(), KeyboardInterrupt(), socket.gaierror(), found]

    def addresses(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(dialing, "_addresses", addresses)
    resolver = dialing.Resolver()
    with pytest.raises(KeyboardInterrupt):
        resolver.lookup("dropbox.invalid", 443)
    assert resolver.lookup("dropbox.invalid", 443).result(1) is found


def test_a_dead_address_does_not_hide_a_live_one(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where IPv6 leads nowhere: each address of a name has its share of the time."""
    look_up = dialing._addresses
    with swallowing() as dead:

        def both(host: str, port: int, flags: int = 0) -> list[dialing.Address]:
            if flags:
                raise socket.gaierror
            return look_up("127.0.0.1", int(dead.rpartition(":")[2])) + look_up("127.0.0.1", emulator.port)

        monkeypatch.setattr(dialing, "_addresses", both)
        account = open_dropbox(open_seconds=6.0, change_feed=False)
        assert account.listdir("/") == []


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("server_error", {"status": 503}), ("rate_limit", {"retry_after": 60}), ("stall", {}), ("blank_body", {})],
)
@pytest.mark.parametrize("route", ["users/get_current_account", "oauth2/token"])
def test_a_dropbox_in_trouble_is_no_refusal(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], route: str, kind: str, arguments: dict[str, Any]
) -> None:
    """Whoever takes it for one asks people for new credentials, or bans them."""
    emulator.control.fault(route, kind, None, **arguments)
    began = time.monotonic()
    with pytest.raises(fs.errors.RemoteConnectionError):
        open_dropbox(open_seconds=1.0)
    assert time.monotonic() - began < 1.0 + SOON_SECONDS
    emulator.control.clear_faults()


def test_a_short_trouble_goes_unnoticed(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    emulator.control.fault("users/get_current_account", "server_error")
    emulator.control.fault("oauth2/token", "reset")
    open_dropbox().close()
    assert emulator.control.faults_struck == 2


def test_the_url_says_how_long(emulator: Emulator) -> None:
    with silent() as host:
        url = emulator.fs_url.replace(emulator.host, host) + "&open_seconds=0.3"
        began = time.monotonic()
        with pytest.raises(fs.errors.RemoteConnectionError):
            fs.open_fs(url)
        assert time.monotonic() - began < SOON_SECONDS


@pytest.mark.parametrize("content", [None, b"this is no certificate"], ids=["missing", "invalid"])
@pytest.mark.parametrize("named_by", ["ca_certs", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_ca_certificates_that_cannot_be_read_are_named(
    open_dropbox: Callable[..., DropboxFS],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes | None,
    named_by: str,
) -> None:
    bundle = tmp_path / "company-ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    if named_by != "ca_certs":
        monkeypatch.setenv(named_by, str(bundle))
    with pytest.raises(fs.errors.RemoteConnectionError) as caught:  # CreateFailed would blame the credentials
        open_dropbox(ca_certs=str(bundle) if named_by == "ca_certs" else None)
    text = str(caught.value)
    assert str(bundle) in text
    assert ("No such file" if content is None else "no PEM certificate") in text
    assert named_by in text


def test_a_certificate_that_nobody_vouches_for_is_said(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    began = time.monotonic()
    with pytest.raises(fs.errors.RemoteConnectionError, match=r"certificate.*REQUESTS_CA_BUNDLE"):
        open_dropbox(ca_certs=None)
    assert time.monotonic() - began < SOON_SECONDS


@pytest.mark.parametrize(("days", "why"), [(-9, "has expired"), (9, "not yet valid")], ids=["expired", "not yet valid"])
def test_a_clock_that_is_wrong_is_thought_of(
    open_dropbox: Callable[..., DropboxFS], tmp_path: Path, days: int, why: str
) -> None:
    """Small computers without a clock of their own believe it is 1970 until somebody tells them."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    begin = datetime.now(UTC) + timedelta(days)
    certificate = authority.issue_cert("127.0.0.1", not_before=begin, not_after=begin + timedelta(1))
    with certified(certificate) as host, pytest.raises(fs.errors.RemoteConnectionError) as caught:
        open_dropbox(api_host=host, ca_certs=str(tmp_path / "ca.pem"))
    assert why in str(caught.value)
    assert str(caught.value).endswith("check the date and time of this machine")


# The command line

CommandLine = Callable[..., "subprocess.Popen[str]"]


def unreachable(emulator: Emulator, home: Path, host: str) -> dict[str, str]:
    url = emulator.fs_url.replace(f"api_host={emulator.host}&", "")
    hosts = {f"DROPBOX_API{part}_HOST": host for part in ("", "_CONTENT", "_NOTIFY")}
    return environment(emulator, home, DROPBOX_URL=url, **hosts)


@pytest.mark.parametrize(("command", "where"), [("ls", nobody), ("ls", unknown), ("ls", silent), ("check", nobody)])
def test_the_command_line_says_it_in_one_line(emulator: Emulator, tmp_path: Path, command: str, where: Where) -> None:
    with where() as host:
        done = run(command, "--url-env", "DROPBOX_URL", "/", env=unreachable(emulator, tmp_path, host))
    assert done.returncode == 5
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert host.removesuffix(":443") in done.stderr
    assert emulator.refresh_token not in done.stderr


def test_ctrl_c_ends_an_opening_at_once(emulator: Emulator, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        env = unreachable(emulator, tmp_path, host)
        env["DROPBOX_URL"] += "&open_seconds=60"
        process = start("ls", "--url-env", "DROPBOX_URL", "/", env=env)
        server.settimeout(30)
        connection, _ = server.accept()  # now it waits for the answer to its TLS greeting
        with connection:
            assert connection.recv(1)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
            assert time.monotonic() - began < 20.0
    assert process.returncode == 130
    assert said == "fs-dropbox: interrupted\n"
