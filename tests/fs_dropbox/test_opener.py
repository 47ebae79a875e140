"""Dropbox URLs: what they mean, and what is said of malformed ones."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import fs
import fs.errors
import pytest
from fs.opener.errors import OpenerError
from fs.opener.parse import parse_fs_url

from fs_dropbox import DropboxFS, compat
from fs_dropbox.emulator import Emulator
from fs_dropbox.opener import arguments, folder_of

SECRET = "s3cr3tT0ken"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"dropbox://key~{SECRET}:token@/", {"app_key": "key", "app_secret": SECRET, "refresh_token": "token"}),
        ("dropbox://key~:token@/", {"app_key": "key", "app_secret": None, "refresh_token": "token"}),
        ("dropbox://key~secret~ann%40example.com:token@/", {"member": "ann@example.com", "refresh_token": "token"}),
        ("dropbox://ann%40example.com:token@/", {"email": "ann@example.com", "access_token": "token"}),
        ("dropbox://key~:to%2Fk%40en@/", {"refresh_token": "to/k@en"}),
        (
            "dropbox://key~:token@/?root=home&cache=off&timeout_seconds=2.5&api_host=127.0.0.1:8443",
            {"root": "home", "cache": False, "timeout_seconds": 2.5, "api_host": "127.0.0.1:8443"},
        ),
        ("dropbox://key~:token@/?root=12345&change_feed=no", {"root": "12345", "change_feed": False}),
        ("dropbox://key~:token@/?views=on&export=HTML,docx", {"views": True, "export": ("html", "docx")}),
        ("dropbox://key~s~dbmid%3AAA-b_1:token@/?documents=hide", {"member": "dbmid:AA-b_1", "documents": "hide"}),
        ("dropbox://key~s:token@/?admin=boss%40example.com", {"admin": "boss@example.com"}),
    ],
)
def test_what_a_url_means(url: str, expected: dict[str, Any]) -> None:
    found = arguments(parse_fs_url(url))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("dropbox://key~:token@/", ""),
        ("dropbox://key~:token@", ""),
        ("dropbox://key~:token@/Some%20Folder/%C3%9Cnder%2525/?root=home", "Some Folder/Ünder%25"),
    ],
)
def test_the_folder(url: str, folder: str) -> None:
    assert folder_of(parse_fs_url(url)) == folder


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dropbox:///folder", "no credentials"),
        (f"dropbox://key:{SECRET}@/", "APP_KEY~APP_SECRET"),
        (f"dropbox://key~{SECRET}@/", "no refresh token"),
        ("dropbox://ann%40example.com@/", "no access token"),
        (f"dropbox://key~{SECRET}:{SECRET}@folder", "names no host"),
        (f"dropbox://key~:{SECRET}@{SECRET}@/", "%40 for an @"),
        (f"dropbox://key~{SECRET}~a~b:token@/", "too many ~"),
        (f"dropbox://k y~:{SECRET}@/", "app key"),
        (f"dropbox://key~{SECRET}!:token@/", "app secret"),
        (f"dropbox://key~{SECRET}~nobody:token@/", "e-mail address"),
        (f"dropbox://key~:{SECRET}@/?rot=home", "unknown parameter 'rot'"),
        (f"dropbox://key~:{SECRET}@/?root=everything", "auto, home"),
        (f"dropbox://key~:{SECRET}@/?cache=maybe", "on or off"),
        (f"dropbox://key~:{SECRET}@/?timeout_seconds=-1", "above 0"),
        (f"dropbox://key~:{SECRET}@/?timeout_seconds=soon", "number of seconds"),
        (f"dropbox://key~:{SECRET}@/?api_host=ftp://x", "host:port"),
        ("dropbox://key~:token@/?documents=maybe", "one of export, as_is, hide"),
        ("dropbox://key~:token@/?export=a/b", "formats with commas"),
        ("dropbox://key~:token@/?admin=boss", "an e-mail address, or the id"),
        ("dropbox://key~s~bob:token@/", "an e-mail address (with %40 for its @) or an id"),
    ],
)
def test_what_is_said_of_malformed_urls(url: str, says: str) -> None:
    with pytest.raises(OpenerError, match=re.escape(says)) as raised:
        arguments(parse_fs_url(url))
    assert SECRET not in str(raised.value)


def test_a_url_opens_the_account(emulator: Emulator) -> None:
    with fs.open_fs(emulator.fs_url) as opened:
        assert isinstance(opened, DropboxFS)
        opened.writetext("a.txt", "hello")
    assert emulator.control.read("/a.txt") == b"hello"


def test_a_url_with_a_folder_opens_the_folder_and_closes_the_account(emulator: Emulator) -> None:
    emulator.control.seed("/Some Folder/a.txt", b"hello")
    with fs.open_fs(emulator.fs_url.replace("@/", "@/" + quote("some folder"))) as opened:
        assert opened.listdir("/") == ["a.txt"]
        account = opened.delegate_fs()  # type: ignore[attr-defined]
    assert account.isclosed()


def test_a_folder_that_is_missing_is_an_error_or_made(emulator: Emulator) -> None:
    url = emulator.fs_url.replace("@/", "@/new/folder")
    with pytest.raises(fs.errors.ResourceNotFound):
        fs.open_fs(url)
    fs.open_fs(url, create=True).close()
    assert emulator.control.exists("/new/folder")


def test_refused_credentials_and_a_service_out_of_reach_are_told_apart(emulator: Emulator) -> None:
    with pytest.raises(fs.errors.CreateFailed) as refused:
        fs.open_fs(emulator.fs_url.replace(quote(emulator.refresh_token), SECRET))
    assert not isinstance(refused.value, fs.errors.RemoteConnectionError)
    assert SECRET not in str(refused.value)
    with pytest.raises(fs.errors.RemoteConnectionError):
        fs.open_fs(emulator.fs_url.replace(quote(emulator.host), "127.0.0.1:1").replace(emulator.host, "127.0.0.1:1"))


def test_no_secret_is_shown(emulator: Emulator) -> None:
    with fs.open_fs(emulator.fs_url) as opened:
        shown = f"{opened!r} {opened} {opened.desc('/')}"
    assert "ann@example.com" in shown
    for secret in (emulator.app_secret, emulator.refresh_token):
        assert secret not in shown


def test_the_constructor_of_fs_dropboxfs(emulator: Emulator) -> None:
    options: dict[str, Any] = {"api_host": emulator.host, "ca_certs": emulator.ca_file, "change_feed": False}
    app: dict[str, Any] = {"app_key": emulator.app_key, "app_secret": emulator.app_secret}
    for account in (
        compat.DropboxFS(None, emulator.refresh_token, emulator.app_key, emulator.app_secret, **options),
        compat.DropboxFS(accessToken="expired", refreshToken=emulator.refresh_token, **app, **options),
        compat.DropboxFS(emulator.access_token(), **options),
        compat.DropboxFS(accessToken=emulator.access_token(), **options),
    ):
        with account:
            assert account.listdir("/") == []
