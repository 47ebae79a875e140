"""Two people do random things in shared folders; what each learns from its cursor must match what it can list."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fs_dropbox.emulator import Emulator

from .people import BOB, api_of
from .raw_api import Api

NAMES = ("a", "b", "Sub/c", "sub/D", "X", "x/y", "S1", "S1/f", "S2", "s2/deep/g")


class Follower:
    """A client that knows its Dropbox by a recursive cursor only."""

    def __init__(self, api: Api) -> None:
        self.api = api
        page = api.ok(api.rpc("files/list_folder", {"path": "", "recursive": True}))
        assert not page["has_more"]
        self.state = {entry["path_lower"]: fingerprint(entry) for entry in page["entries"]}
        self.cursor = page["cursor"]

    def catch_up(self) -> None:
        """Apply the news in order, by the rules of the API."""
        news, self.cursor = self.api.news(self.cursor)
        for entry in news:
            path = entry["path_lower"]
            if entry[".tag"] != "folder" or self.state.get(path, ("folder",))[0] != "folder":
                self.state = {p: e for p, e in self.state.items() if p != path and not p.startswith(path + "/")}
            if entry[".tag"] != "deleted":
                self.state[path] = fingerprint(entry)

    def check(self) -> None:
        """Compare with a fresh listing."""
        self.catch_up()
        listed = {entry["path_lower"]: fingerprint(entry) for entry in self.api.entries(recursive=True)}
        assert self.state == listed


def fingerprint(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry[".tag"], entry["name"], entry.get("id"), entry.get("rev")


def step(chance: random.Random, api: Api, folders: set[str]) -> None:
    """Do something; refusals are fine."""
    path, other = (f"/{chance.choice(NAMES)}" for _ in range(2))
    folder = chance.choice(sorted(folders) or ["1"])
    kind = chance.randrange(12)
    if kind <= 3:
        api.upload("files/upload", {"path": path, "mode": "overwrite"}, chance.randbytes(2))
    elif kind == 4:
        api.rpc("files/delete_v2", {"path": path})
    elif kind <= 6:
        api.rpc("files/move_v2", {"from_path": path, "to_path": other, "autorename": chance.random() < 0.5})
    elif kind == 7:
        api.rpc("files/copy_v2", {"from_path": path, "to_path": other})
    elif kind == 8:
        answer = api.rpc("sharing/share_folder", {"path": path})
        if answer.status_code == 200:
            folders.add(answer.json()["shared_folder_id"])
            member = {"member": {".tag": "email", "email": BOB}, "access_level": chance.choice(["editor", "viewer"])}
            arg = {"shared_folder_id": answer.json()["shared_folder_id"], "members": [member]}
            api.rpc("sharing/add_folder_member", arg)
    elif kind == 9:
        api.rpc("sharing/mount_folder", {"shared_folder_id": folder})
    elif kind == 10:
        api.rpc("sharing/unmount_folder", {"shared_folder_id": folder})
    elif chance.random() < 0.3:
        api.rpc("sharing/unshare_folder", {"shared_folder_id": folder, "leave_a_copy": chance.random() < 0.5})


@pytest.mark.parametrize("seed", range(8))
def test_cursors_tell_the_whole_story(emulator: Emulator, api: Api, seed: int) -> None:
    chance = random.Random(seed)
    emulator.control.add_account(BOB, "Bob")
    clients = [api, api_of(api, BOB)]
    followers = [Follower(client) for client in clients]
    folders: set[str] = set()
    for number in range(150):
        step(chance, chance.choice(clients), folders)
        for follower in followers:
            if chance.random() < 0.3:
                follower.catch_up()
        if number % 10 == 9:
            for follower in followers:
                follower.check()
    assert folders
    statuses = {record.status for record in emulator.control.requests()}
    assert 500 not in statuses
