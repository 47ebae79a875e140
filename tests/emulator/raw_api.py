"""Raw HTTP to an emulator, for shapes and codes that the SDK hides."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from fs_dropbox.emulator import Emulator


class ToEmulator(HTTPAdapter):
    """Leads Dropbox's host names to the emulator; the Host header keeps the name that the client meant."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(pool_maxsize=32)
        self._emulator = emulator

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.headers["Host"] = parts.netloc
        request.url = urlunsplit(parts._replace(netloc=self._emulator.host))
        options["verify"] = str(self._emulator.ca_file)
        return super().send(request, *arguments, **options)


class Api:
    """Raw calls, for shapes and codes that the SDK hides."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.http = requests.Session()
        self.http.mount("https://", ToEmulator(emulator))
        self.token: str | None = emulator.access_token()
        self.headers: dict[str, str] = {}

    def rpc(self, route: str, arg: Any = None, **headers: str) -> requests.Response:
        """Call an RPC-style route."""
        host = "notify" if route.endswith("longpoll") else "api"
        return self._send(host, route, {"Content-Type": "application/json", **headers}, json.dumps(arg).encode())

    def upload(self, route: str, arg: Any, body: Any = b"", **headers: str) -> requests.Response:
        """Call an upload-style route."""
        sent = {"Content-Type": "application/octet-stream", "Dropbox-API-Arg": json.dumps(arg), **headers}
        return self._send("content", route, sent, body)

    def download(self, route: str, arg: Any, **headers: str) -> requests.Response:
        """Call a download-style route."""
        return self._send("content", route, {"Dropbox-API-Arg": json.dumps(arg), **headers}, b"")

    def _send(self, host: str, route: str, headers: dict[str, str], body: Any) -> requests.Response:
        if self.token is not None and host != "notify":
            headers.setdefault("Authorization", f"Bearer {self.token}")
        url = f"https://{host}.dropboxapi.com/2/{route}"
        return self.http.post(url, data=body, headers={**self.headers, **headers}, timeout=60)

    def ok(self, response: requests.Response) -> Any:
        """Return the JSON of an answer that must be good."""
        assert response.status_code == 200, response.text
        return response.json()

    def put(self, path: str, body: bytes, mode: Any = "add", **fields: Any) -> Any:
        """Upload a file and return its metadata."""
        return self.ok(self.upload("files/upload", {"path": path, "mode": mode, **fields}, body))

    def entries(self, path: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Return all pages of a listing."""
        page = self.ok(self.rpc("files/list_folder", {"path": path, **fields}))
        found = list(page["entries"])
        while page["has_more"]:
            page = self.ok(self.rpc("files/list_folder/continue", {"cursor": page["cursor"]}))
            found.extend(page["entries"])
        return found

    def news(self, cursor: str) -> tuple[list[dict[str, Any]], str]:
        """Return what changed since a cursor, and the next one."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.ok(self.rpc("files/list_folder/continue", {"cursor": cursor}))
            found.extend(page["entries"])
            cursor = page["cursor"]
            if not page["has_more"]:
                return found, cursor


def error_of(response: requests.Response, status: int = 409) -> Any:
    """Return the error of an answer that must have this status, after checking its summary."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["error_summary"].startswith(body["error"][".tag"] + "/")
    return body["error"]


def bare(error: Any) -> str:
    """Return the tag path of an error, such as path/conflict/file."""
    tag = error[".tag"]
    inner = error.get(tag, error.get("reason"))
    return f"{tag}/{bare(inner)}" if isinstance(inner, dict) and ".tag" in inner else str(tag)
