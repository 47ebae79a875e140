"""A second, much smaller stand-in for Dropbox, written apart from the emulator: it answers in every way that the API
leaves open, and fails in ways that servers and what is in front of them have. One folder tree in a dict, no more."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import random
import ssl
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import trustme

BLOCK = 4 * 2**20
CHANGES = {"files/upload", "files/create_folder_v2", "files/delete_v2", "files/move_v2", "files/copy_v2"}
WHEN = "2026-01-02T03:04:05Z"
HTML = b"<html><head><title>503 Service Temporarily Unavailable</title></head></html>"


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


def scrambled(value: Any) -> Any:
    """Return the same JSON with its fields in another order, and with fields that nobody knows."""
    if isinstance(value, list):
        return [scrambled(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        "zzz": [1, {".tag": "?"}],
        **{key: scrambled(value[key]) for key in sorted(value, reverse=True)},
        "new": None,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        odd: OddServer = self.server.odd
        route = self.path.removeprefix("/2/").lstrip("/")
        body = self.body()
        text = self.headers.get("Dropbox-API-Arg") or body.decode()
        with odd.lock:
            odd.routes.append(route)
            number = next(odd.calls)
        if route == "oauth2/token":
            self.reply(200, {"access_token": f"sl.{number}", "expires_in": 14400, "token_type": "bearer"})
            return
        if self.strike(odd, route, number):
            return
        arg = json.loads(text)
        if route == "files/download":
            self.download(odd, arg)
            return
        try:
            result = odd.answer(route, arg, body)
        except Refused as refused:
            self.reply(
                409, {"error": refused.args[0], **({} if "strange" in odd.quirks else {"error_summary": "x/.."})}
            )
            return
        if "lost" in odd.quirks and number % 3 == 0 and odd.may_hit(route):
            self.close_connection = True  # the work is done, and nobody is told
            return
        self.reply(200, result)

    def date_time_string(self, timestamp: float | None = None) -> str:
        odd: OddServer = self.server.odd
        ahead = 7 * 3600 if "429 date" in odd.quirks else 0  # a clock that nobody has set
        return super().date_time_string((time.time() if timestamp is None else timestamp) + ahead)

    def body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client has left")  # as it may when its filesystem is closed
        return body

    def strike(self, odd: OddServer, route: str, number: int) -> bool:
        """Fail now and then, as the quirks say."""
        is_change = "503 changes" in odd.quirks and route in CHANGES
        if "429" in odd.quirks and number in (3, 6):
            self.send(429, b"" if number == 3 else b"Too many requests", {"Content-Type": "text/plain"})
        elif "429 date" in odd.quirks and number in (3, 6):
            self.send(429, b"Too many requests", {"Retry-After": self.date_time_string(time.time() + 1)})
        elif "429 both" in odd.quirks and number in (3, 6, 9):
            reason = {"reason": {".tag": "too_many_write_operations"}, "retry_after": 1}
            self.send(429, json.dumps({"error": reason}).encode(), {"Retry-After": "0"})
        elif (("503" in odd.quirks and number % 4 == 0) or is_change) and odd.may_hit(route):
            self.send(503, HTML, {"Content-Type": "text/html"})
        elif "409 page" in odd.quirks and number % 4 == 0 and odd.may_hit(route):
            self.send(409, HTML, {"Content-Type": "text/html"})
        elif "502 cut" in odd.quirks and number % 4 == 0 and odd.may_hit(route):
            self.send(502, HTML, {"Content-Type": "text/html", "Content-Length": "5000"})
            self.close_connection = True
        else:
            return False
        odd.struck += 1
        return True

    def download(self, odd: OddServer, arg: Any) -> None:
        with odd.lock:
            try:
                file = odd.revs.get(arg["path"]) or odd.tree[odd.found(arg["path"], "path")]
            except Refused as refused:
                self.reply(409, {"error": refused.args[0]})
                return
            content, told = file[2], odd.metadata(odd.key(file[0]), tagged=False, file=file)
        assert content is not None
        headers = {"Dropbox-API-Result": json.dumps(told), "Content-Type": "application/octet-stream"}
        asked = self.headers.get("Range")
        if asked is None:
            self.send(200, content, headers)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        total = "*" if "strange" in odd.quirks else len(content)
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{total}"
        self.send(206, part, headers)

    def reply(self, status: int, result: Any) -> None:
        odd: OddServer = self.server.odd
        if "scrambled" in odd.quirks:
            result = scrambled(result)
        kind = "text/javascript; charset=utf-8" if "strange" in odd.quirks else "application/json"
        indent = 4 if "strange" in odd.quirks else None
        raw = json.dumps(result, indent=indent, ensure_ascii="raw" not in odd.quirks).encode()
        self.send(status, raw, {"Content-Type": kind})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        odd: OddServer = self.server.odd
        number = next(odd.answers)
        if "gzip" in odd.quirks and "gzip" in self.headers.get("Accept-Encoding", ""):
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        if "hints" in odd.quirks:
            for interim in (102, 103, 103):
                self.send_response(interim)
                self.send_header("Link", "</style.css>; rel=preload")
                self.end_headers()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.lower() if "strange" in odd.quirks else name, value)
        length = len(body)
        if "too long" in odd.quirks and number % 5 == 0:
            length += 100  # more is said than comes
            self.close_connection = True
        if "too short" in odd.quirks and number % 5 == 0 and length:
            length -= 1  # more comes than is said
        if "chunked" in odd.quirks:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 7000):
                piece = body[at : at + 7000]
                self.wfile.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        if "Content-Length" not in headers and "unsized" not in odd.quirks:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        if {"closes", "unsized"} & odd.quirks:
            self.close_connection = True  # and nothing has said so

    def log_message(self, *_: object) -> None:
        return None


class _Listening(http.server.ThreadingHTTPServer):
    daemon_threads = True
    odd: OddServer
    tls: ssl.SSLContext
    mistakes: list[BaseException]

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)  # type: ignore[arg-type]

    def handle_error(self, *_: object) -> None:
        """Keep what went wrong here, which a client takes for one more fault; connections may break at any time."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.mistakes.append(error)


@contextmanager
def serving(odd: OddServer, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve an account on a free port; yields the arguments with which DropboxFS finds it."""
    authority = trustme.CA()
    ca_file = folder / "odd-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    listening = _Listening(("127.0.0.1", 0), Handler)
    listening.odd, listening.mistakes = odd, []
    listening.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(listening.tls)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield {
            "app_key": "key",
            "refresh_token": "refresh",
            "api_host": f"127.0.0.1:{listening.server_address[1]}",
            "ca_certs": str(ca_file),
        }
    finally:
        with odd.lock:
            odd.journal.append("")
            odd.changed.notify_all()
        listening.shutdown()
        thread.join()
        listening.server_close()
        if listening.mistakes:
            raise listening.mistakes[0]
