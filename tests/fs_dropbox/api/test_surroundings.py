"""What a client takes from its surroundings, and what it does not: hosts, certificates, proxies, netrc."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from fs_dropbox.api.client import Client
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import TransportError

SCRIPT = """
import sys
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client
client = Client(Credentials(*sys.argv[1:4]))
print(client.account().email, client.longpoll(client.latest_cursor(""), 30, lambda: False).changes)
client.close()
"""


def run(emulator: Emulator, environment: dict[str, str]) -> str:
    arguments = [emulator.app_key, emulator.app_secret, emulator.refresh_token]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("way", ["hosts", "domain", "proxy"])
def test_the_environment_leads_to_a_stand_in(emulator: Emulator, way: str, bundle: str) -> None:
    hosts = {key: value for key, value in emulator.environment.items() if key.startswith("DROPBOX")}
    ways = {
        "hosts": hosts,
        "domain": {**hosts, "DROPBOX_API_DOMAIN": ".invalid"},
        "proxy": {"HTTPS_PROXY": emulator.proxy_url},
    }
    emulator.service.stopping.set()  # longpolls answer at once
    assert run(emulator, {**ways[way], bundle: str(emulator.ca_file)}) == "ann@example.com False"


def test_a_bundle_that_is_not_there_is_named(make_client: Callable[..., Client], tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="nowhere"):
        make_client(ca_certs=str(tmp_path / "nowhere.pem"))


def test_the_argument_wins_over_the_environment(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert make_client().account().email == "ann@example.com"


def test_a_proxy_that_is_down_is_named(make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(TransportError) as caught:
        make_client().account()
    assert (caught.value.kind, caught.value.was_sent) == ("proxy", False)


def test_the_environment_is_searched_once_for_each_host(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    search = requests.sessions.get_environ_proxies

    def get_environ_proxies(url: str, **others: Any) -> Any:
        searched.append(url)
        return search(url, **others)

    monkeypatch.setattr(requests.sessions, "get_environ_proxies", get_environ_proxies)
    client = make_client()
    for _ in range(5):
        client.account()
        client.space_usage()
    assert len(searched) == 1


def test_netrc_does_not_replace_the_token(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert make_client().account().email == "ann@example.com"
