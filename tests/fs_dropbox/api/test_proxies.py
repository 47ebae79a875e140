"""Proxies and extra CA bundles: used as the environment and the arguments say; a proxy's password appears nowhere."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

PASSWORD = "pr0xy p@ss/word"
QUOTED = "pr0xy%20p%40ss%2Fword"
ENCODED = "dXNlcjpwcjB4eSBwQHNzL3dvcmQ="  # "user:…" in base64, as it travels
DATA = bytes(range(256)) * 40_000


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def proxy(emulator: Emulator, login: str = "") -> str:
    return f"http://{login}{emulator.host}"


def no_password(text: str) -> bool:
    return not any(secret in text for secret in (PASSWORD, QUOTED, ENCODED, "pr0xy"))


def whole(error: BaseException) -> str:
    """Return all that a log with tracebacks would show of an exception."""
    chain = "".join(traceback.format_exception(error))
    return f"{error} {error!r} {chain}"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_everything_goes_through_the_proxy(
    emulator: Emulator,
    open_dropbox: Callable[..., DropboxFS],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    emulator.control.options(proxy_login=f"user:{PASSWORD}")
    monkeypatch.setenv(variable, proxy(emulator, f"user:{QUOTED}@"))
    account = open_dropbox(api_host=None)  # Dropbox's own names, which lead nowhere but through the proxy
    account.writebytes("small", b"small")
    account.writebytes("large", DATA)
    assert account.readbytes("large") == DATA
    assert sorted(account.listdir("/")) == ["large", "small"]
    eventually(lambda: account.feed_is_live)
    assert no_password(caplog.text)
    assert no_password(repr(account))
    account.close()
    emulator.control.write("/wake", b"")  # ends the longpoll in the emulator


@pytest.mark.parametrize(
    ("login", "why"), [("", "407"), ("user:pr0xy-wrong@", "407")], ids=["no password", "wrong password"]
)
def test_a_proxy_that_refuses_is_named(
    emulator: Emulator,
    open_dropbox: Callable[..., DropboxFS],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    login: str,
    why: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    emulator.control.options(proxy_login=f"user:{PASSWORD}")
    monkeypatch.setenv("HTTPS_PROXY", proxy(emulator, login))
    began = time.monotonic()
    with pytest.raises(fs.errors.RemoteConnectionError) as caught:
        open_dropbox(api_host=None)
    assert time.monotonic() - began < 9.0  # opening tries for ten seconds to reach Dropbox
    text = str(caught.value)
    assert "proxy" in text
    assert emulator.host in text
    assert why in text
    assert "HTTPS_PROXY" in text
    assert no_password(whole(caught.value))
    assert no_password(caplog.text)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:pr0xy-password@127.0.0.1:9",
        "http://user:pr0xy-password@:8080",
        "http://user:pr0xy-password@host:port",
        "http://user:pr0xy-password@[::1",
        "http://user:pr0xy/password@127.0.0.1:9",
        "socks5://user:pr0xy-password@127.0.0.1:9",
        "nonsense://user:pr0xy-password@127.0.0.1:9",
        "http://user:pr0xy-password@no-such-proxy.invalid:3128",
    ],
)
def test_no_mistake_in_the_address_tells_its_password(
    open_dropbox: Callable[..., DropboxFS],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(fs.errors.RemoteConnectionError) as caught:
        open_dropbox(api_host=None)
    assert "HTTPS_PROXY" in str(caught.value)
    assert no_password(whole(caught.value))
    assert no_password(caplog.text)


def test_what_no_proxy_names_is_reached_directly(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
    assert open_dropbox(change_feed=False).listdir("/") == []
    monkeypatch.setenv("NO_PROXY", "example.com")
    with pytest.raises(fs.errors.RemoteConnectionError, match="proxy"):
        open_dropbox()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "ca_certs"])
@pytest.mark.parametrize("form", ["file", "folder"])
def test_extra_authorities_are_trusted(
    emulator: Emulator,
    open_dropbox: Callable[..., DropboxFS],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    form: str,
) -> None:
    bundle = Path(emulator.ca_file)
    if form == "folder":  # OpenSSL finds certificates in a folder by the hash of their subject
        done = subprocess.run(
            ["openssl", "x509", "-subject_hash", "-noout", "-in", str(bundle)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        shutil.copy(bundle, tmp_path / f"{done.stdout.strip()}.0")
        bundle = tmp_path
    if variable != "ca_certs":
        monkeypatch.setenv(variable, str(bundle))
    account = open_dropbox(ca_certs=str(bundle) if variable == "ca_certs" else None, change_feed=False)
    assert account.listdir("/") == []


def test_through_a_proxy_certificates_are_checked_all_the_same(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that inspects connections shows a certificate of its own: only who trusts it lets it."""
    monkeypatch.setenv("HTTPS_PROXY", proxy(emulator))
    with pytest.raises(fs.errors.RemoteConnectionError, match="certificate"):
        open_dropbox(api_host=None, ca_certs=None)
    assert open_dropbox(api_host=None, change_feed=False).listdir("/") == []
