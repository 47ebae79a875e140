"""Where settings come from, and everything that is wrong with them at once, each with its place.

A value is taken from a flag, else the environment (SFTP_GATEWAY_…), else the TOML file, else its default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from fs.errors import IllegalBackReference
from fs.path import normpath

from sftp_gateway.config import (
    GATEWAY_FIELDS,
    TABLES,
    ConfigError,
    GatewayConfig,
    HookConfig,
    UserConfig,
    description,
    parse_address,
    read_text,
)
from sftp_gateway.passwords import begins_as_hash

ENVIRONMENT_PREFIX: Final = "SFTP_GATEWAY_"
_PATHS: Final = (
    "state_folder",
    "control_folder",
    "log_file",
    "public_keys_file",
    "url_file",
    "password_hash_file",
    "secret_file",
)
_HEADER = re.compile(r"\s*\[\[?\s*([\w-]+)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*=(.*)""")
_QUOTES = re.compile(r"\"\"\"|'''")
_SHOWN_MISTAKES: Final = 1
_WORDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it is (a line of a file, a flag, a variable), and what to do about it."""

    where: str
    text: str
    field: str = ""
    about: str = ""
    """The user or hook that it is about, such as "user ann"."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class Source:
    """The text of a settings file, to find the line of a setting in it."""

    def __init__(self, file: Path | None, text: str = "") -> None:
        self._file = file
        self._lines: dict[tuple[str, int, str], int] = {}
        table, tables, quoted = "", dict.fromkeys(TABLES, -1), ""
        for number, line in enumerate(text.splitlines(), 1):
            if not quoted:
                header, key = _HEADER.fullmatch(line), _KEY.match(line)
                if header:
                    table = header[1]
                    if table in tables:
                        tables[table] += 1
                    self._lines.setdefault((table, tables.get(table, 0), ""), number)
                elif key:
                    self._lines.setdefault((table, tables.get(table, 0), key[1]), number)
            for mark in _QUOTES.findall(line):
                quoted = "" if quoted == mark else quoted or mark

    def place(self, key: str = "", table: str = "", index: int = 0) -> str:
        """Return "file:line" of a setting, of its table where it is not there, or the file alone."""
        if self._file is None:
            return table or key
        line = (
            self._lines.get((table, index, key)) or self._lines.get((table, index, "")) or self._lines.get((key, 0, ""))
        )
        return f"{self._file}:{line}" if line else str(self._file)


def load_config(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> GatewayConfig:
    """Put the configuration together and check it; raises `ConfigError` with one line about the first mistake."""
    config, problems = examine(file, environment=environment, flags=flags)
    if config is None or problems:
        more = len(problems) - _SHOWN_MISTAKES
        hint = f" (and {more} more; `sftp-gateway check-config` tells all)" if more else ""
        raise ConfigError(f"{problems[0]}{hint}")
    return config


def examine(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[GatewayConfig | None, list[Problem]]:
    """Return the configuration, of what is right where something is wrong, and all mistakes; None if unreadable."""
    environment = os.environ if environment is None else environment
    try:
        values, source = _read(file) if file is not None else ({}, Source(None))
    except ConfigError as error:
        return None, [Problem(str(file), str(error))]
    examination = _Examination(source, file)
    if file is not None:
        _find_files(values, file.absolute().parent, environment)
    for key, value in values.items():
        examination.take(key, value, source.place(key), lax=False)
    for key in GATEWAY_FIELDS:
        name, _ = _outside(key)
        if name in environment and key not in TABLES:
            examination.take(key, _split(key, environment[name]), name, lax=True)
    for key, value in (flags or {}).items():
        examination.take(key, value, _outside(key)[1], lax=True)
    config = GatewayConfig(**examination.values)
    examination.check(config)
    return config, examination.problems


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each variable that looks like a setting of the gateway and is none."""
    known = {_outside(key)[0] for key in GATEWAY_FIELDS if key not in TABLES} | {f"{ENVIRONMENT_PREFIX}CONFIG"}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            yield f"{name}: is no setting" + (f"; did you mean {near[0]}?" if near else "")


def _outside(key: str) -> tuple[str, str]:
    """Return what a setting is called as a variable, and as a flag."""
    return f"{ENVIRONMENT_PREFIX}{key.upper()}", f"--{key.replace('_', '-')}"


class _Examination:
    """Takes values in, later ones over earlier ones, and collects what is wrong with them."""

    def __init__(self, source: Source, file: Path | None) -> None:
        self.values: dict[str, Any] = {}
        self._source = source
        self._file = file
        self._where: dict[str, str] = {}
        self._places: dict[int, tuple[str, int]] = {}  # of users and hooks: their table and index, by id()
        self._mistakes: dict[str, list[Problem]] = {}  # by setting: a flag mends what the file has wrong
        self._others: list[Problem] = []

    @property
    def problems(self) -> list[Problem]:
        return [problem for problems in self._mistakes.values() for problem in problems] + self._others

    def take(self, key: str, value: Any, where: str, *, lax: bool) -> None:
        """Convert one setting; texts of flags and variables are read as the type of the setting."""
        self._where[key] = where
        self._mistakes[key] = []
        if key not in GATEWAY_FIELDS:
            self._mistakes[key].append(Problem(where, _unknown(key, GATEWAY_FIELDS), key))
        elif key in TABLES and isinstance(value, list) and all(isinstance(table, dict) for table in value):
            tables = [self._table(key, index, table) for index, table in enumerate(value)]
            self.values[key] = tuple(table for table in tables if table is not None)
        else:
            try:
                self.values[key] = msgspec.convert(value, GATEWAY_FIELDS[key].type, strict=not lax)
            except msgspec.ValidationError:
                text = _mistake(value, GATEWAY_FIELDS[key])
                self._mistakes[key].append(Problem(where, text if lax else f"{key}: {text}", key))

    def _table(self, table: str, index: int, given: Mapping[str, Any]) -> Any:
        """Convert one user or hook; None if that cannot be."""
        fields, problems = TABLES[table], []
        name = _table_name(table, index, given)
        values: dict[str, Any] = {}
        for key, value in given.items():
            where = self._source.place(key, table, index)
            if key not in fields:
                problems.append(Problem(where, f"{name}: {_unknown(key, fields)}", f"{table}.{key}", name))
                continue
            try:
                values[key] = msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError:
                text = f"{name}: {key}: {_mistake(value, fields[key])}"
                problems.append(Problem(where, text, f"{table}.{key}", name))
        for key, field in fields.items():
            if field.default is msgspec.NODEFAULT and key not in given:
                where = self._source.place("", table, index)
                text = f"{name}: {key} is missing ({_meaning(field)})"
                problems.append(Problem(where, text, f"{table}.{key}", name))
        self._mistakes[table] += problems
        if any(field.default is msgspec.NODEFAULT and key not in values for key, field in fields.items()):
            return None
        made = UserConfig(**values) if table == "users" else HookConfig(**values)
        if not problems:  # what else is wrong with a broken one is a consequence
            self._places[id(made)] = (table, index)
        return made

    # What types cannot say.

    def check(self, config: GatewayConfig) -> None:
        """Look at what fits its types."""
        for key in ("listen", "metrics"):
            text = getattr(config, key)
            if text or key == "listen":
                try:
                    parse_address(text)
                except ValueError as error:
                    self._complain(key, str(error))
        for key in ("ban_exempt", "rate_exempt", "proxy_protocol"):
            for network in getattr(config, key):
                if not _is_network(network):
                    self._complain(key, f"{network!r} is not an address or network")
        if config.strict_algorithms and config.compatible_algorithms:
            self._complain("strict_algorithms", "this and compatible_algorithms exclude each other; give one of them")
        for placeholder in ("{user}", "{password}"):
            if config.credential_logins and placeholder not in config.credential_url:
                self._complain("credential_url", f"has no {placeholder}: every login would open the same account")
        names: set[str] = set()
        for user in config.users:
            if user.name in names:
                self._complain_of(user, f"user {user.name}", "is there twice; remove one of the two", "name")
            names.add(user.name)
            for text, key in _wrong_with_user(user):
                self._complain_of(user, f"user {user.name}", text, key)
        for hook in config.hooks:
            for text, key in _wrong_with_hook(hook, names, others=config.credential_logins):
                self._complain_of(hook, f"hook {hook.target}", text, key)

    def _complain(self, key: str, text: str) -> None:
        where = self._where.get(key, key)
        self._others.append(Problem(where, text if where in _outside(key) else f"{key}: {text}", key))

    def _complain_of(self, table: UserConfig | HookConfig, name: str, text: str, key: str) -> None:
        place = self._places.get(id(table))
        if place is not None:
            where = self._source.place(key, *place)
            self._others.append(Problem(where, f"{name}: {text}", f"{place[0]}.{key}", name))


def _is_network(name: str) -> bool:
    try:
        ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
    return True


def _wrong_with_user(user: UserConfig) -> Iterator[tuple[str, str]]:
    given = [key for key in ("url", "url_env", "url_file") if getattr(user, key)]
    if len(given) != 1:
        what = " and ".join(given) + " are given" if given else "no url is given"
        yield f"{what}; give one of url, url_env, url_file", given[-1] if given else "name"
    if not (user.password_hash or user.password_hash_file or user.public_keys or user.public_keys_file):
        yield "cannot sign in; give password_hash, public_keys or a file of them", "name"
    if user.password_hash and user.password_hash_file:
        yield "password_hash and password_hash_file are given; give one of them", "password_hash_file"
    if user.password_hash and not begins_as_hash(user.password_hash):
        yield "password_hash: is not a hash; make one with: sftp-gateway hash-password", "password_hash"
    for network in user.networks:
        if not _is_network(network):
            yield f"networks: {network!r} is not an address or network", "networks"
    try:
        normpath(user.root)
    except IllegalBackReference:
        yield f"root: {user.root} leads out of the user's filesystem; it is a path in there, such as /Scans", "root"


def _wrong_with_hook(hook: HookConfig, users: set[str], *, others: bool) -> Iterator[tuple[str, str]]:
    if bool(hook.command) == bool(hook.url):
        yield "give a command or a url", "url" if hook.url else "events"
    if hook.url and not re.match(r"https?://[^/\s]", hook.url):
        yield "url: is not an http:// or https:// address", "url"
    if hook.secret and hook.secret_file:
        yield "secret and secret_file are given; give one of them", "secret_file"
    if hook.command and (hook.secret or hook.secret_file):
        yield "a command gets no signature: secret is for a url", "command"
    if not hook.events:
        yield "events: is empty: it would never be told anything", "events"
    for name in hook.users:
        if name not in users and not others:
            yield f"users: there is no user {name!r}", "users"


def _read(file: Path) -> tuple[dict[str, Any], Source]:
    try:
        text = read_text(file)
        return tomllib.loads(text), Source(file, text)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}") from error


def _find_files(values: dict[str, Any], directory: Path, environment: Mapping[str, str]) -> None:
    """Make the paths of a file absolute: they start in its directory, and may begin with a variable."""

    def found(path: Any) -> Any:
        if not isinstance(path, str) or not path:
            return path
        path = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: environment.get(match[1] or match[2], match[0]), path)
        return str(directory / Path(path).expanduser())

    lists = [tables for key in TABLES if isinstance(tables := values.get(key), list)]
    for table in (values, *(table for tables in lists for table in tables if isinstance(table, dict))):
        for key in _PATHS:
            if key in table:
                table[key] = found(table[key])
    if isinstance(values.get("host_keys"), list):
        values["host_keys"] = [found(path) for path in values["host_keys"]]


def _split(key: str, text: str) -> Any:
    """A value from the environment: lists are separated by commas."""
    if isinstance(GATEWAY_FIELDS[key].default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _table_name(table: str, index: int, given: Mapping[str, Any]) -> str:
    name = given.get("name")
    return f"{table[:-1]} {name}" if isinstance(name, str) and name else f"{table[:-1]} number {index + 1}"


def _mistake(value: Any, field: msgspec.structs.FieldInfo) -> str:
    complaint = _complaint(value, field)
    names_choices = get_origin(_item(field)) is Literal  # these say enough
    return complaint if names_choices else f"{complaint} ({_meaning(field)})"


def _item(field: msgspec.structs.FieldInfo) -> Any:
    """The type of a setting, or of what its list holds."""
    kind = get_args(field.type)[0]
    return get_args(kind)[0] if get_origin(kind) is tuple else kind


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    return description(field).removesuffix(".")


def _complaint(value: Any, field: msgspec.structs.FieldInfo) -> str:
    """Say what a value must be that does not fit its type; shows it only where it cannot be a secret."""
    kind, *bounds = get_args(field.type)
    is_list, item = get_origin(kind) is tuple, _item(field)
    if field.name in TABLES:
        return f"must be one or several tables [[{field.name}]]"
    if is_list and not isinstance(value, list):
        return "must be a list: [ … ]"
    if get_origin(item) is Literal:
        choices = get_args(item)
        wrong = next(each for each in (value if is_list else [value]) if each not in choices)
        return f"{wrong!r} is none of {', '.join(choices)}"
    words = f"{'a list of ' if is_list else ''}{_WORDS[item]}"
    for bound in bounds:
        words += f", {bound.ge} or more" if bound.ge is not None else ""
        words += f" above {bound.gt}" if bound.gt is not None else ""
        words += ", and not empty" if bound.min_length else ""
    return f"must be {words}"


def _unknown(key: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, fields, 1)
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(fields)}")
