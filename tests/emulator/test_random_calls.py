"""Random calls of all routes with arguments as the specification has them: so is each answer, and so is each refusal.

What people see is the same after a restart, and the books of the emulator agree with what is there.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from stone.backends.python_rsrc import stone_validators as bv

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.tree import File
from fs_dropbox.emulator.web.registry import load_attributes

from .people import BOB, api_of, team_api
from .raw_api import Api
from .specification import decode, example, sdk_route

ANN = "ann@example.com"
# Not: what ends the tokens, what waits for half a minute, and what answers nothing but an error.
ROUTES = sorted(load_attributes().keys() - {"auth/token/revoke", "files/list_folder/longpoll", "check/app"})
OFTEN = [route for route in ROUTES if re.match("files/(upload|create_folder|move|copy|delete|upload_session)", route)]
NAMES = ("a", "B.png", "b.PNG", "Sub", "sub/c", "Sub/C/d.paper", "doc.paper", "S")
BODIES = (b"\x89PNG\r\n\x1a\nab", b"0123456789")  # of ten bytes, which is also what numbers often are
TEXTS = {
    "email": [ANN, BOB, "eve@example.com"],
    "query": ["a", "b t", ""],
    "tag_text": ["red", "Blue"],
    "content_hash": [ContentHash(body).hexdigest() for body in BODIES],
}
KNOWN = re.compile("id|rev|cursor|session_ids?|async_job_id|url|shared_folder_id|copy_reference|account_id|link")


class Caller:
    """Makes arguments of what answers have told before."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.told: dict[str, list[str]] = defaultdict(list)
        self.topic = ""  # what routes have in common that go on with each other's cursors and jobs

    def learn(self, value: Any, name: str = "") -> None:
        """Remember the ids, revs, cursors and links in an answer."""
        if isinstance(value, dict):
            for inner_name, inner in value.items():
                self.learn(inner, inner_name)
        elif isinstance(value, list):
            for inner in value:
                self.learn(inner, name)
        elif isinstance(value, str) and KNOWN.fullmatch(name):
            self.told[name.rstrip("s")].append(value)
            self.told[f"{self.topic} {name}"].append(value)

    def text(self, name: str, kind: Any) -> str:
        """Return a string for a field of this name."""
        candidates = [*self._candidates(name), "/a", "0123456789", "x", "ptid:x", "x" * 40, "0" * 64]
        for candidate in candidates:
            try:
                return str(kind.validate(candidate))
            except bv.ValidationError:
                continue
        raise AssertionError(name)

    def _candidates(self, name: str) -> Iterator[str]:
        chance = self.chance
        if "path" in name or name == "destination":
            where = chance.randrange(20)
            if where == 0:
                yield f"ns:{self._known('shared_folder_id')}" + chance.choice(("", "/a"))
            elif where == 1:
                yield f"rev:{self._known('rev')}"
            elif where < 4:
                yield self._known("id") + chance.choice(("", "/x"))
            yield chance.choice(("", "/")) if where == 4 else "/" + chance.choice(NAMES)
        if name in TEXTS:
            yield chance.choice(TEXTS[name])
        same = {"update": "rev", "before_rev": "rev", "parent_rev": "rev", "dropbox_id": "account_id"}
        yield self._known(same.get(name, name.rstrip("s")))

    def _known(self, name: str) -> str:
        told = self.told[f"{self.topic} {name}"] or self.told[name]
        return self.chance.choice((told if self.chance.random() < 0.8 else self.told[name])[-20:] or [""])

    def arguments(self, route: str) -> Any:
        """Return a random argument of a route."""
        self.topic = re.sub("_v2|/(continue|check|append|get_latest|finish|save).*|_finish.*", "", route)
        return example(sdk_route(route).arg_type, self.chance, self.text)


def call(api: Api, route: str, arg: Any, body: bytes) -> requests.Response:
    attributes = load_attributes()[route]
    headers = {"Authorization": f"Bearer {api.token}", **api.headers}
    url = f"https://{attributes.host}.dropboxapi.com/2/{route}"
    if attributes.style == "rpc":
        data = json.dumps(arg).encode()
        return api.http.post(url, data=data, headers={**headers, "Content-Type": "application/json"}, timeout=30)
    headers["Dropbox-API-Arg"] = json.dumps(arg)
    if attributes.style == "download":
        return api.http.post(url, headers=headers, timeout=30)
    headers["Content-Type"] = "application/octet-stream"
    return api.http.post(url, data=body, headers=headers, timeout=30)


def check_answer(route: str, arg: Any, answer: requests.Response) -> Any:
    """Return the result, or None for a refusal, after checking that it is what the specification says."""
    about = (route, arg, answer.status_code, answer.text[:1000])
    described, style = sdk_route(route), load_attributes()[route].style
    assert answer.status_code in (200, 206, 400, 401, 409), about
    if answer.status_code == 409:
        body = answer.json()
        try:
            decode(described.error_type, body["error"])
        except bv.ValidationError as error:
            raise AssertionError((str(error), *about)) from error
    if answer.status_code == 400:
        assert answer.text.startswith(f'Error in call to API function "{route}": '), about
        assert "expected " not in answer.text, about
    if answer.status_code not in (200, 206):
        return None
    result = json.loads(answer.headers["Dropbox-API-Result"]) if style == "download" else answer.json()
    try:
        decode(described.result_type, result)
    except bv.ValidationError as error:
        raise AssertionError((str(error), route, arg, result)) from error
    return result


def seen(api: Api) -> dict[str, Any]:
    """Return what somebody sees of everything."""
    entries = api.entries("", recursive=True, include_deleted=True)
    files = [entry["path_lower"] for entry in entries if entry[".tag"] == "file"]
    calls: dict[str, Any] = {
        "users/get_space_usage": None,
        "sharing/list_folders": {},
        "sharing/list_mountable_folders": {},
        "sharing/list_received_files": {},
        "sharing/list_shared_links": {},
        "file_requests/list_v2": {},
        "files/tags/get": {"paths": files},
    }
    shown = {route: api.ok(api.rpc(route, arg)) for route, arg in calls.items()}
    for answer in shown.values():
        answer.pop("cursor", None)
        for link in answer.get("links", ()):
            link["url"] = link["url"].partition("/scl/")[2]
        for folder in (*answer.get("entries", ()), *answer.get("file_requests", ())):
            folder.pop("preview_url", None)
            folder.pop("url", None)
    revisions = {path: api.ok(api.rpc("files/list_revisions", {"path": path, "limit": 100})) for path in files}
    return {"entries": entries, "revisions": revisions, **shown}


def check_books(emulator: Emulator) -> None:
    """What is counted and kept must agree with what is there."""
    state = emulator.service.state
    references = Counter(revision.content_hash for revision in state.revisions.values())
    assert {h: content.references for h, content in state.contents._table.items()} == references
    for namespace in state.namespaces.values():
        assert namespace.used_bytes == namespace.root.total_bytes(), namespace
        for node in namespace.root.nodes():
            assert state.entries[node.id] is node
            assert node.namespace is namespace
            assert namespace.tombstone(node.key_path()) is None, node.key_path()
            if isinstance(node, File):
                assert state.path_history[namespace.id, node.key_path()][-1] is node.revision
    assert all(revision.rev in state.revisions for known in state.file_history.values() for revision in known)


def play(folder: Path, seed: int, steps: int) -> Counter[int]:
    """Make random calls as two people and as their team; return how many were answered with which status."""
    chance = random.Random(seed)
    caller, statuses = Caller(chance), Counter[int]()
    with Emulator(folder) as emulator:
        if seed % 3:
            emulator.control.add_team("Acme", team_space=seed % 3 == 1)
            emulator.control.add_member(ANN, admin=True)
            emulator.control.add_member(BOB, "Bob")
        else:
            emulator.control.add_account(BOB, "Bob")
        emulator.options.max_subtree_entries = 40
        emulator.options.case_only_move = chance.choice(("keep", "conflict", "rename"))
        emulator.options.overwrite_name = chance.choice(("keep", "change"))
        emulator.options.batch_answer = chance.choice(("as_recorded", "complete", "job"))
        scanner = emulator.control.add_app("Scanner", app_folder=True)["app_key"]
        ann = Api(emulator)
        people = [ann, api_of(ann, BOB), api_of(ann, ANN, app=scanner)]
        team = team_api(ann, ANN) if seed % 3 else ann
        for _ in range(steps):
            route = chance.choice(OFTEN if chance.random() < 0.5 else ROUTES)
            arg = caller.arguments(route)
            who = team if route.startswith("team/") else chance.choice(people)
            answer = call(who, route, arg, chance.choice(BODIES))
            statuses[answer.status_code] += 1
            caller.learn(check_answer(route, arg, answer))
        check_books(emulator)
        before = [seen(person) for person in people[:2]]
        tokens = [person.token for person in people[:2]]
        ann.http.close()
    with Emulator(folder) as emulator:
        again = Api(emulator)
        check_books(emulator)
        for token, shown in zip(tokens, before, strict=True):
            again.token = token
            assert seen(again) == shown
        again.http.close()
    return statuses


@pytest.mark.parametrize("seed", range(8))
def test_random_calls(tmp_path: Path, seed: int) -> None:
    statuses = play(tmp_path, seed, 200)
    assert statuses[200] > 30
    assert statuses[409] > 10


@pytest.mark.soak
def test_many_random_calls(tmp_path: Path) -> None:
    first = random.SystemRandom().randrange(10**6)
    for seed in range(first, first + 100):
        print(f"seed {seed}")
        play(tmp_path / str(seed), seed, 500)
