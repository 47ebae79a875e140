"""What a second, much smaller stand-in for Dropbox has and answers, in every way that the API leaves open."""

from __future__ import annotations

import hashlib
import random
import threading
import unicodedata
from itertools import count
from typing import Any

BLOCK = 4 * 2**20
WHEN = "2026-01-02T03:04:05Z"


class Refused(Exception):
    """409 with this error."""


class OddServer:
    """The account and the quirks. Thread-safe; `quirks` says how it answers."""

    def __init__(self, *quirks: str) -> None:
        self.quirks = frozenset(quirks)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        # guarded by lock
        self.tree: dict[str, tuple[str, str, bytes | None, str]] = {}  # key -> path, id, content, rev
        self.revs: dict[str, tuple[str, str, bytes | None, str]] = {}  # all that ever were
        self.journal: list[str] = []  # keys
        self.cursors: dict[str, tuple[list[dict[str, Any]], str, int, bool]] = {}
        self.numbers = count(1)
        self.calls = count(1)
        self.answers = count(1)
        self.struck = 0
        self.hit: set[str] = set()  # routes that failed the last time: nobody who tries again is unlucky for ever
        self.routes: list[str] = []
        self.chance = random.Random(5)

    # What is there

    def put(self, path: str, content: bytes | None) -> str:
        path = unicodedata.normalize("NFD" if "nfd" in self.quirks else "NFC", path)
        with self.lock:
            above = path.rpartition("/")[0]
            if above and self.key(above) not in self.tree:
                self.put(above, None)
            key = self.key(path)
            known = self.tree.get(key)
            number = next(self.numbers)
            rev = f"{number:010x}"
            identity = known[1] if known else f"id:{number:022}"
            self.tree[key] = self.revs[f"rev:{rev}"] = (known[0] if known else path, identity, content, rev)
            self.journal.append(key)
            self.changed.notify_all()
            return key

    def drop(self, path: str) -> None:
        with self.lock:
            for key in [each for each in self.tree if f"{each}/".startswith(f"{self.key(path)}/")]:
                del self.tree[key]
            self.journal.append(self.key(path))
            self.changed.notify_all()

    def may_hit(self, route: str) -> bool:
        """Tell whether a call may fail: not twice in a row of a route."""
        with self.lock:
            self.hit ^= {route}
            return route in self.hit

    def key(self, path: str) -> str:
        return unicodedata.normalize("NFC", path).lower()

    def metadata(
        self, key: str, *, tagged: bool = True, file: tuple[str, str, bytes | None, str] | None = None
    ) -> dict[str, Any]:
        """Return what is told of what is at a key, or was."""
        lower = unicodedata.normalize("NFD", key) if "nfd" in self.quirks else key
        if file is None and key not in self.tree:
            return {".tag": "deleted", "name": key.rpartition("/")[2], "path_lower": lower, "path_display": lower}
        path, identity, content, rev = file or self.tree[key]
        told: dict[str, Any] = {
            "name": path.rpartition("/")[2],
            "id": identity,
            "path_lower": lower,
            "path_display": path,
        }
        if content is not None:
            told |= {"rev": rev, "size": len(content), "client_modified": WHEN, "server_modified": WHEN}
            told |= {"content_hash": content_hash(content), "is_downloadable": True}
        if tagged:
            told[".tag"] = "folder" if content is None else "file"
        if "unmounted" in self.quirks:
            del told["path_lower"], told["path_display"]
        if "sparse" in self.quirks:
            for name in ("content_hash", "is_downloadable"):
                told.pop(name, None)
        if "nulls" in self.quirks:
            told |= {"sharing_info": None, "export_info": None, "file_lock_info": None, "symlink_info": None}
            told |= {"is_downloadable": None, "property_groups": None, "media_info": None}
        return told

    # Routes

    def answer(self, route: str, arg: Any, body: bytes) -> Any:
        with self.lock:
            match route:
                case "users/get_current_account":
                    root = {".tag": "user", "root_namespace_id": "1", "home_namespace_id": "1"}
                    name = {"display_name": "Odd"}
                    return {"account_id": "dbid:1", "email": "odd@example.com", "name": name, "root_info": root}
                case "files/get_metadata":
                    return self.metadata(self.found(arg["path"], "path"))
                case "files/list_revisions":
                    return self.list_revisions(arg)
                case "files/list_folder":
                    return self.list_folder(arg)
                case "files/list_folder/continue":
                    return self.next_page(arg["cursor"])
                case "files/list_folder/get_latest_cursor":
                    return {"cursor": self.remember([], "", len(self.journal), True)}
                case "files/list_folder/longpoll":
                    at = self.cursors[arg["cursor"]][2]
                    changes = "hasty" not in self.quirks and self.changed.wait_for(lambda: len(self.journal) > at, 20)
                    return {"changes": changes, **({"backoff": None} if "nulls" in self.quirks else {})}
                case "files/upload":
                    return self.upload(arg, body)
                case "files/create_folder_v2":
                    if self.key(arg["path"]) in self.tree:
                        raise Refused({".tag": "path", "path": {".tag": "conflict", "conflict": {".tag": "folder"}}})
                    return {"metadata": self.metadata(self.put(arg["path"], None), tagged=False)}
                case "files/delete_v2":
                    told = self.metadata(self.found(arg["path"], "path_lookup"))
                    self.drop(arg["path"])
                    return {"metadata": told}
                case "files/move_v2" | "files/copy_v2":
                    return {"metadata": self.relocate(route, arg)}
        raise AssertionError(route)

    def found(self, path: str, what: str) -> str:
        key = self.key(path)
        if key not in self.tree:
            missing: dict[str, Any] = {".tag": "not_found"}
            if "strange" in self.quirks:
                missing |= {"not_found": None, "since": {".tag": "whenever"}}
            raise Refused({".tag": what, what: missing})
        return key

    def upload(self, arg: Any, body: bytes) -> Any:
        key, mode = self.key(arg["path"]), arg["mode"][".tag"]
        known = self.tree.get(key)
        if arg.get("content_hash") not in (None, content_hash(body)):
            raise Refused({".tag": "content_hash_mismatch"})
        stale = mode == "update" and known is not None and known[3] != arg["mode"]["update"]
        if known is not None and (known[2] is None or stale or (mode == "add" and known[2] != body)):
            conflict = {".tag": "conflict", "conflict": {".tag": "folder" if known[2] is None else "file"}}
            raise Refused({".tag": "path", "reason": conflict, "upload_session_id": ""})
        if known is None or known[2] != body:
            self.put(arg["path"], body)
        return self.metadata(key, tagged=False)

    def relocate(self, route: str, arg: Any) -> Any:
        source, target = self.found(arg["from_path"], "from_lookup"), self.key(arg["to_path"])
        if target in self.tree:
            raise Refused({".tag": "to", "to": {".tag": "conflict", "conflict": {".tag": "file"}}})
        below = [key for key in self.tree if f"{key}/".startswith(f"{source}/")]
        for key in below:
            path, identity, content, _ = self.tree[key]
            self.put(arg["to_path"] + unicodedata.normalize("NFC", path)[len(source) :], content)
            if route == "files/move_v2":
                new = target + key[len(source) :]
                self.tree[new] = (self.tree[new][0], identity, *self.tree[new][2:])
        if route == "files/move_v2":
            self.drop(arg["from_path"])
        return self.metadata(target)

    def list_revisions(self, arg: Any) -> Any:
        key = self.found(arg["path"], "path")
        files = [file for file in reversed(self.revs.values()) if self.key(file[0]) == key and file[2] is not None]
        entries = [self.metadata(key, tagged=False, file=file) for file in files[: arg["limit"]]]
        return {"is_deleted": False, "entries": entries}

    def list_folder(self, arg: Any) -> Any:
        folder = self.key(arg["path"])
        if folder and self.tree.get(folder, (0, 0, None, 0))[2] is not None:
            raise Refused({".tag": "path", "path": {".tag": "not_folder"}})
        if folder:
            self.found(arg["path"], "path")
        inside = [key for key in self.tree if key.startswith(f"{folder}/")]
        if not arg.get("recursive"):
            inside = [key for key in inside if key.rpartition("/")[0] == folder]
        self.chance.shuffle(inside)
        entries = [self.metadata(key) for key in inside]
        if "strange" in self.quirks:
            entries.insert(0, {".tag": "hologram", "name": "new", "path_lower": f"{folder}/new", "depth": 3})
        if "gone" in self.quirks:
            gone = [key for key in dict.fromkeys(self.journal) if key not in self.tree]
            entries += [self.metadata(key) for key in gone if key.rpartition("/")[0] == folder]
        if "twice" in self.quirks:
            entries += entries[:2]
        return self.next_page(self.remember(entries, folder, len(self.journal), False), first=True)

    def remember(self, entries: list[dict[str, Any]], folder: str, at: int, follows: bool) -> str:
        cursor = f"AAG{next(self.numbers)}_{'x' * 200}"
        self.cursors[cursor] = (entries, folder, at, follows)
        return cursor

    def next_page(self, cursor: str, *, first: bool = False) -> Any:
        if "reset" in self.quirks and not first and self.struck < 2:
            self.struck += 1
            raise Refused({".tag": "reset"})
        entries, folder, at, follows = self.cursors[cursor]
        if follows:
            entries, at = entries + [self.metadata(key) for key in self.journal[at:]], len(self.journal)
        size = 1 if "pages" in self.quirks else 1000
        page, rest = entries[:size], entries[size:]
        if "pages" in self.quirks and self.chance.random() < 0.5:
            page, rest = [], entries
        return {
            "entries": page,
            "cursor": self.remember(rest, folder, at, follows or not rest),
            "has_more": bool(rest),
        }


def content_hash(content: bytes) -> str:
    blocks = [hashlib.sha256(content[at : at + BLOCK]).digest() for at in range(0, len(content), BLOCK)]
    return hashlib.sha256(b"".join(blocks)).hexdigest()
