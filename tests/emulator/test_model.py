"""Random changes: whoever applies the deltas in order has the tree, page size and restarts notwithstanding."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fs_dropbox.emulator import Emulator

from .raw_api import Api

NAMES = ("a", "B", "c", "\u00e4")


class Mirror:
    """What a client knows that applies list_folder's entries by the rules of the documentation."""

    def __init__(self) -> None:
        self.tree: dict[str, int | None] = {}

    def apply(self, entry: dict[str, Any]) -> None:
        path = entry["path_lower"]
        if entry[".tag"] == "deleted":
            self._drop(path)
            self.tree.pop(path, None)
            return
        parent = path.rpartition("/")[0]
        while parent and self.tree.get(parent, 0) is not None:
            self.tree[parent] = None
            parent = parent.rpartition("/")[0]
        if entry[".tag"] == "file":
            self._drop(path)
        self.tree[path] = entry.get("size")

    def _drop(self, path: str) -> None:
        for below in [known for known in self.tree if known.startswith(path + "/")]:
            del self.tree[below]


class Never(random.Random):
    """A chance that never strikes."""

    def random(self) -> float:
        return 1.0


def change_something(api: Api, chance: random.Random) -> None:
    """Do one random thing; half of them are refused, which is fine."""

    def path() -> str:
        return "".join("/" + chance.choice(NAMES) for _ in range(chance.randint(1, 3)))

    what = chance.randrange(10)
    if what < 4:
        body = bytes(chance.randrange(5))
        api.upload("files/upload", {"path": path(), "mode": "overwrite", "autorename": chance.random() < 0.2}, body)
    elif what < 5:
        api.rpc("files/create_folder_v2", {"path": path()})
    elif what < 7:
        api.rpc("files/delete_v2", {"path": path()})
    elif what < 9:
        route = chance.choice(("files/move_v2", "files/copy_v2"))
        api.rpc(route, {"from_path": path(), "to_path": path(), "autorename": chance.random() < 0.2})
    else:
        file = path()
        revisions = api.rpc("files/list_revisions", {"path": file})
        if revisions.status_code == 200:
            rev = chance.choice(revisions.json()["entries"])["rev"]
            api.rpc("files/restore", {"path": file, "rev": rev})


def truth(emulator: Emulator) -> dict[str, int | None]:
    return {path.lower(): size for path, size in emulator.control.tree().items()}


def read_on(api: Api, mirror: Mirror, page: dict[str, Any], chance: random.Random) -> str:
    """Apply all pages, with more changes in between, and return the cursor at the end."""
    while True:
        for entry in page["entries"]:
            mirror.apply(entry)
        if not page["has_more"]:
            return str(page["cursor"])
        if chance.random() < 0.3:
            change_something(api, chance)
        page = api.ok(api.rpc("files/list_folder/continue", {"cursor": page["cursor"]}))


@pytest.mark.parametrize("seed", range(12))
def test_deltas_reproduce_the_tree(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    mirror = Mirror()
    cursor = None
    for _ in range(3):  # each time after a restart
        with Emulator(tmp_path) as emulator:
            emulator.options.uneven_pages = seed % 2 == 0
            emulator.options.delete_lists_children = seed % 3 == 0
            api = Api(emulator)
            assert mirror.tree == truth(emulator)
            for _ in range(8):
                for _ in range(chance.randrange(12)):
                    change_something(api, chance)
                if cursor is None:
                    arg = {"path": "", "recursive": True, "limit": chance.randint(1, 7)}
                    page = api.ok(api.rpc("files/list_folder", arg))
                else:
                    page = api.ok(api.rpc("files/list_folder/continue", {"cursor": cursor}))
                cursor = read_on(api, mirror, page, chance)
                page = api.ok(api.rpc("files/list_folder/continue", {"cursor": cursor}))
                cursor = read_on(api, mirror, page, Never())
                assert mirror.tree == truth(emulator)
            check_accounts(emulator, api)
            api.http.close()


def check_accounts(emulator: Emulator, api: Api) -> None:
    """What is counted and what is kept must agree with what is there."""
    sizes = [size for size in truth(emulator).values() if size is not None]
    assert api.ok(api.rpc("users/get_space_usage"))["used"] == sum(sizes)
    listed = {e["path_lower"]: e for e in api.entries("", recursive=True)}
    for path, entry in listed.items():
        by_id = api.ok(api.rpc("files/get_metadata", {"path": entry["id"]}))
        assert by_id["path_lower"] == path
        if entry[".tag"] == "file":
            assert len(api.download("files/download", {"path": f"rev:{entry['rev']}"}).content) == entry["size"]
