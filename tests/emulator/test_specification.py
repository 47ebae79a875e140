"""Arguments are refused as the official SDK's own decoder refuses them, which is what the service is built with."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from stone.backends.python_rsrc import stone_validators as bv

from fs_dropbox.emulator.model.errors import BadArgumentError
from fs_dropbox.emulator.web.registry import load_attributes
from fs_dropbox.emulator.web.specification import check_argument

from .specification import TYPES_FILE, argument_types, decode, example, sdk_route

ROUTES = sorted(load_attributes())
JUNK: list[Any] = [None, True, -1, 10**30, 1.5, float("nan"), "", "x", "a" * 2000, [], ["x", 5], {}, {".tag": "x"}]
BY_PATTERN = ("/a", "/a/b", "id:x", "0123456789abcdef", "ptid:x", "name", "ann@example.com", "a" * 40, "a" * 64)


def test_the_types_are_those_of_the_sdk() -> None:
    assert json.loads(TYPES_FILE.read_text("utf-8")) == argument_types(load_attributes())


def text(name: str, kind: Any) -> str:
    """Return a string of a type."""
    for candidate in BY_PATTERN:
        try:
            return str(kind.validate(candidate))
        except bv.ValidationError:
            continue
    raise AssertionError(f"{name}: {kind.pattern}")


def changed(value: Any, chance: random.Random) -> Any:
    """Return a value with one thing in it replaced, added or removed."""
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        return [*value[:index], changed(value[index], chance), *value[index + 1 :]]
    if isinstance(value, dict) and chance.random() < 0.8:
        name = chance.choice([*value, "no_such_field"])
        if chance.random() < 0.2:
            return {known: inner for known, inner in value.items() if known != name}
        return {**value, name: changed(value.get(name), chance)}
    return chance.choice(JUNK)


def told(route: str, value: Any) -> str | None:
    try:
        check_argument(route, value)
    except BadArgumentError as error:
        return error.detail
    return None


def expected(route: str, value: Any) -> str | None:
    try:
        decode(sdk_route(route).arg_type, value)
    except bv.ValidationError as error:
        return str(error)
    return None


def comparable(text: str | None) -> str | None:
    """Return a text without what differs by Python's hashes and objects: which of two fields is missing, the items."""
    if text is None:
        return None
    text = re.sub(r"missing required field '.*", "missing required field", text)
    return re.sub(r"(: ).* has (more|fewer)", r"\1has \2", text).replace(".filter_some", "").replace("builtins.", "")


@pytest.mark.parametrize("route", ROUTES)
def test_texts_of_refusals(route: str) -> None:
    chance = random.Random(route)
    for _ in range(50):
        value = example(sdk_route(route).arg_type, chance, text)
        assert (told(route, value), expected(route, value)) == (None, None), value
        value = changed(value, chance)
        mine, theirs = told(route, value), expected(route, value)
        assert comparable(mine) == comparable(theirs), value
