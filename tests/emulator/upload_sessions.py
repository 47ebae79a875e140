"""The calls of one upload session."""

from __future__ import annotations

from typing import Any

import requests

from .raw_api import Api

BLOCK = 4 * 1024 * 1024


def start(api: Api, body: bytes = b"", **arg: Any) -> str:
    return str(api.ok(api.upload("files/upload_session/start", arg, body))["session_id"])


def cursor(session_id: str, offset: int) -> dict[str, Any]:
    return {"session_id": session_id, "offset": offset}


def append(api: Api, session_id: str, offset: int, body: Any, **arg: Any) -> requests.Response:
    return api.upload("files/upload_session/append_v2", {"cursor": cursor(session_id, offset), **arg}, body)


def finish(api: Api, session_id: str, offset: int, path: str, body: bytes = b"", **commit: Any) -> requests.Response:
    arg = {"cursor": cursor(session_id, offset), "commit": {"path": path, **commit}}
    return api.upload("files/upload_session/finish", arg, body)
