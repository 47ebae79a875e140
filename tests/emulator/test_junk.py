"""Whatever arguments a route gets, it answers with an error of the API: the emulator itself never fails."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fs_dropbox.emulator.web.registry import load_attributes

from .raw_api import Api
from .specification import sdk_route

ROUTES = sorted(load_attributes())
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    "",
    "x",
    "/a",
    "/folder",
    "/\ud800",
    "id:unknown",
    "id:unknown/../x",
    "ns:1",
    "ns:99999999999999999999/x",
    "rev:0123456789",
    "2020-13-01T00:00:00Z",
    "a" * 64,
    [],
    [None],
    ["/a", 5],
    [{}],
    [{"path": "/a"}],
    {},
    {".tag": "x"},
    {".tag": "add"},
    {".tag": "update"},
    {".tag": 5},
    {"session_id": "x", "offset": 0},
    {"path": "/a", "mode": {".tag": "update", "update": 5}},
]
HARMLESS = {200, 206, 400, 401, 403, 409, 416, 422}


def call(api: Api, route: str, arg: Any) -> int:
    attributes = load_attributes()[route]
    if attributes.style == "rpc":
        return api.rpc(route, arg).status_code
    if attributes.style == "upload":
        return api.upload(route, arg, b"body").status_code
    return api.download(route, arg).status_code


@pytest.mark.parametrize("route", [route for route in ROUTES if "longpoll" not in route and "revoke" not in route])
def test_junk_arguments(api: Api, route: str) -> None:
    api.emulator.control.seed("/a", b"hello")
    api.emulator.control.seed("/folder/b", b"hello")
    chance = random.Random(route)
    definition = getattr(sdk_route(route).arg_type, "definition", None)  # null has none
    fields = sorted(name for name, _ in definition._all_fields_) if definition is not None else []
    arguments: list[Any] = [None, 5, "x", [], {}]
    for _ in range(20):
        arguments.append({field: chance.choice(VALUES) for field in fields if chance.random() < 0.8})
    for argument in arguments:
        assert call(api, route, argument) in HARMLESS, argument
