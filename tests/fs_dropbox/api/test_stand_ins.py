"""The ways in which people lead programs to a stand-in for Dropbox."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import dropbox.session
import fs.errors
import pytest
import requests
from dropbox import dropbox_client

from fs_dropbox import DropboxFS
from fs_dropbox.api.transport import Transport
from tests.fs_dropbox.api.minimal_server import MinimalServer, serving

CREDENTIALS: dict[str, Any] = {"app_key": "key", "refresh_token": "refresh", "change_feed": False}
VARIABLES = "DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST"
DOMAINS = "DROPBOX_API_DOMAIN", "DROPBOX_DOMAIN"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve a stand-in without TLS, that nothing leads to yet."""
    for variable in (*VARIABLES, *DOMAINS):
        monkeypatch.delenv(variable, raising=False)
    minimal = MinimalServer()
    minimal.put("/File", b"content")
    with serving(minimal) as arguments:
        yield arguments["api_host"]


def test_variables_count_when_a_filesystem_is_opened(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, address)
    with DropboxFS(**CREDENTIALS) as account:
        assert account.readtext("file") == "content"


@pytest.mark.parametrize("module", [dropbox.session, dropbox_client])
def test_constants_of_the_sdk_that_were_patched_count(
    address: str, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    for constant in ("API_HOST", "API_CONTENT_HOST", "API_NOTIFICATION_HOST"):
        monkeypatch.setattr(module, constant, address)
    with DropboxFS(**CREDENTIALS) as account:
        assert account.readtext("file") == "content"


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("variables", "hosts"),
    [
        ({}, ["api.dropboxapi.com", "content.dropboxapi.com", "notify.dropboxapi.com"]),
        ({"DROPBOX_DOMAIN": ".a.example"}, ["api.a.example", "content.a.example", "notify.a.example"]),
        ({"DROPBOX_API_DOMAIN": ".b:1", "DROPBOX_DOMAIN": ".c"}, ["api.b:1", "content.b:1", "notify.b:1"]),
        ({"DROPBOX_DOMAIN": ".d", "DROPBOX_API_CONTENT_HOST": "e:1"}, ["api.d", "e:1", "notify.d"]),
        ({"DROPBOX_API_HOST": "https://f:1/", "DROPBOX_API_DOMAIN": ""}, ["f:1", "content.dropboxapi.com"]),
    ],
)
def test_variables_mean_what_they_mean_to_the_sdk(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], hosts: list[str]
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    transport = Transport(api_host=None, ca_certs=None)
    assert list(transport._sdk._host_map.values())[: len(hosts)] == hosts
    transport.close()


def test_an_adapter_that_answers_in_place_of_the_network(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies are any files then, as requests allows."""
    send = requests.adapters.HTTPAdapter.send

    def answer(adapter: Any, request: Any, **others: Any) -> requests.Response:
        sent = send(adapter, request, **others)
        made = requests.Response()
        made.status_code, made.headers, made.raw = sent.status_code, sent.headers, io.BytesIO(sent.content)
        return made

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
    with DropboxFS(**CREDENTIALS, api_host=address) as account:
        assert account.readtext("file") == "content"


def test_what_to_say_of_a_stand_in_without_tls_is_told(address: str) -> None:
    with pytest.raises(fs.errors.RemoteConnectionError, match=r"speaks no TLS.* begins with http://"):
        DropboxFS(**CREDENTIALS, api_host=address.removeprefix("http://"))
