"""What the official SDK knows of the API: the types of arguments, results and errors, from its stone specification.

`python -m tests.emulator.specification` writes the emulator's table of argument types anew.
"""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from stone.backends.python_rsrc import stone_base as bb
from stone.backends.python_rsrc import stone_validators as bv
from stone.backends.python_rsrc.stone_serializers import json_compat_obj_decode

TYPES_FILE = resources.files("fs_dropbox.emulator.web") / "types.json"


def sdk_route(name: str) -> Any:
    """Return the SDK's description of a route such as files/copy_v2."""
    namespace, _, rest = name.partition("/")
    versioned = re.fullmatch(r"(.*)_v(\d+)", rest)
    key = f"{versioned[1]}:{versioned[2]}" if versioned is not None else rest
    return importlib.import_module(f"dropbox.{namespace}").ROUTES[key]


def argument_types(routes: Iterable[str]) -> dict[str, Any]:
    """Return the argument type of each route, and every struct and union that these consist of.

    A type is a name, or a list of a kind and what limits it. Names of fields end with "?" where null may stand for
    them, and with "=" where they may be left out only.
    """
    named: dict[str, Any] = {}
    arguments = {route: _encode(sdk_route(route).arg_type, named) for route in routes}
    return {"arguments": arguments, "types": dict(sorted(named.items()))}


def _encode(kind: Any, named: dict[str, Any]) -> Any:
    match kind:
        case bv.Void() | bv.Boolean() | bv.Timestamp():
            return type(kind).__name__
        case bv.String():
            return _limited("String", kind.min_length, kind.max_length, kind.pattern)
        case bv.Integer():
            return ["Integer", kind.minimum, kind.maximum]
        case bv.Real():
            return ["Real", kind.minimum, kind.maximum]
        case bv.Nullable():  # of a union's member
            return ["Nullable", _encode(kind.validator, named)]
        case bv.List():
            return _limited("List", _encode(kind.item_validator, named), kind.min_items, kind.max_items)
        case bv.Struct() | bv.Union():
            name = f"{kind.definition.__module__.rpartition('.')[2]}.{kind.definition.__name__}"
            if name not in named:
                named[name] = {}  # some types contain themselves
                members = _fields if isinstance(kind, bv.Struct) else _members
                named[name] = members(kind.definition, named)
            return name
    raise TypeError(f"no argument has the type {kind!r}")


def _limited(kind: str, *limits: Any) -> Any:
    while limits and limits[-1] is None:
        limits = limits[:-1]
    return [kind, *limits] if limits else kind


def _fields(definition: Any, named: dict[str, Any]) -> dict[str, Any]:
    fields = {}
    for name, kind in definition._all_fields_:
        if isinstance(kind, bv.Nullable):
            fields[f"{name}?"] = _encode(kind.validator, named)
        else:
            has_default = getattr(definition, name).default is not bb.NO_DEFAULT or kind.has_default()
            fields[f"{name}=" if has_default else name] = _encode(kind, named)
    return {"struct": fields}


def _members(definition: Any, named: dict[str, Any]) -> dict[str, Any]:
    members = {tag: kind for tag, kind in definition._tagmap.items() if tag != definition._catch_all}
    return {"union": {tag: _encode(kind, named) for tag, kind in members.items()}}


Texts = Callable[[str, Any], str]  # a string for a field, by its name and its type


def example(kind: Any, chance: random.Random, texts: Texts, name: str = "") -> Any:
    """Return a random value of a type in JSON."""
    match kind:
        case bv.Nullable():
            return example(kind.validator, chance, texts, name)
        case bv.Void():
            return None
        case bv.Boolean():
            return chance.random() < 0.5
        case bv.Timestamp():
            return f"20{chance.randrange(10, 60)}-01-02T03:04:05Z"
        case bv.String():
            return texts(name, kind)
        case bv.Integer():
            smallest, largest = int(kind.minimum), int(kind.maximum)
            return chance.choice((smallest, min(largest, smallest + 10), chance.randrange(smallest, largest)))
        case bv.Real():
            return chance.uniform(kind.minimum, kind.maximum)
        case bv.List():
            fewest = kind.min_items or 0
            return [example(kind.item_validator, chance, texts, name) for _ in range(fewest + chance.randrange(3))]
        case bv.Struct():
            return _example_struct(kind, chance, texts)
    tag = chance.choice([tag for tag in kind.definition._tagmap if tag != kind.definition._catch_all])
    inner = kind.definition._tagmap[tag]
    if isinstance(inner, bv.Void):
        return tag if chance.random() < 0.5 else {".tag": tag}
    value = example(inner, chance, texts, tag)
    is_struct = isinstance(inner.validator if isinstance(inner, bv.Nullable) else inner, bv.Struct)
    return {".tag": tag, **value} if is_struct else {".tag": tag, tag: value}


def _example_struct(kind: Any, chance: random.Random, texts: Texts) -> dict[str, Any]:
    definition, fields = kind.definition, {}
    for name, inner in definition._all_fields_:
        is_required = not (isinstance(inner, bv.Nullable) or getattr(definition, name).default is not bb.NO_DEFAULT)
        if is_required or chance.random() < 0.3:
            fields[name] = example(inner, chance, texts, name)
    return fields


def decode(kind: Any, value: Any) -> None:
    """Raise bv.ValidationError unless a JSON value is of a type, with nothing in it that the type does not have."""
    json_compat_obj_decode(kind, value, strict=True)


if __name__ == "__main__":
    from fs_dropbox.emulator.web.registry import load_attributes

    lines = []
    for part, rows in argument_types(load_attributes()).items():
        listed = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        lines.append(f'"{part}": {{\n{listed}\n}}')
    Path(str(TYPES_FILE)).write_text("{" + ",\n".join(lines) + "}\n")
