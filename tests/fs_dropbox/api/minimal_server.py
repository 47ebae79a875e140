"""The least that can stand in for Dropbox: plain HTTP/1.0, the routes that nobody can do without, and answers that hold
what the work needs and no more. Written apart from the emulator and from the odd server; switches add what it lacks."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

WHEN = "2026-02-03T04:05:06Z"
NOT_FOUND = {".tag": "path", "path": {".tag": "not_found"}}


class Refused(Exception):
    """What is answered instead of a result: a status, and an error object or a text."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body


class MinimalServer:
    """One account: a dict. Switches:

    batches      there are upload batches, and batches of changes, all of them jobs that take a while
    longpoll     there is longpoll, which waits for nobody and has nothing to say
    ranges       parts of a file can be asked for
    unknown 400  what it does not know is a bad request instead of a page that is not there
    unknown 501  the same, as what is not implemented
    untyped      there is but one kind of upload session, and no word for it
    no revs      nothing is told of revisions by their rev
    void         what has no result is an empty answer
    narrow       refuses headers of more than 1 KiB: many servers do of more than 8
    vague        does all that a batch asks for, and tells of every third thing neither that nor anything else
    """

    def __init__(self, *switches: str) -> None:
        self.switches = frozenset(switches)
        self.lock = threading.RLock()
        self.numbers = count(1)
        # guarded by lock
        self.files: dict[str, dict[str, Any]] = {}  # key -> name, id, rev, content (None of a folder)
        self.old: dict[str, bytes] = {}  # rev -> content
        self.sessions: dict[str, bytes] = {}
        self.listings: dict[str, list[str]] = {}
        self.jobs: dict[str, tuple[int, list[Any]]] = {}
        self.token = ""
        self.calls: list[str] = []
        self.unknown: list[str] = []
        self.polls: list[float] = []  # when longpolls came

    # What is there

    def put(self, path: str, content: bytes | None) -> dict[str, Any]:
        with self.lock:
            above, _, name = path.rpartition("/")
            if above and above.lower() not in self.files:
                self.put(above, None)
            rev = f"{next(self.numbers):09x}"
            known = self.files.get(path.lower(), {"name": name, "id": f"id:{rev}"})
            self.files[path.lower()] = {**known, "rev": rev, "content": content}
            self.old[rev] = content or b""
            return self.told(path.lower())

    def told(self, key: str) -> dict[str, Any]:
        file = self.files[key]
        told = {"name": file["name"], "path_lower": key, "path_display": key, "id": file["id"], ".tag": "folder"}
        if file["content"] is None:
            return told
        return {**told, ".tag": "file", "rev": file["rev"], "size": len(file["content"]), "server_modified": WHEN}

    def at(self, path: str, error: Any = NOT_FOUND) -> str:
        if path.lower() not in self.files:
            raise Refused(409, {"error": error})
        return path.lower()

    def below(self, key: str) -> list[str]:
        return [each for each in self.files if each.startswith(f"{key}/")]

    # Routes

    def answer(self, route: str, arg: Any, body: bytes) -> Any:
        name = "do_" + route.removeprefix("files/").replace("/", "_")
        do: Callable[[Any, bytes], Any] | None = getattr(self, name, None)
        has_batches, has_longpoll = "batches" in self.switches, "longpoll" in self.switches
        if do is None or ("batch" in name and not has_batches) or ("longpoll" in name and not has_longpoll):
            self.unknown.append(route)
            if "unknown 400" in self.switches:
                raise Refused(400, f'Unknown API function: "{route}"')
            if "unknown 501" in self.switches:
                raise Refused(501, f"{route} is not implemented")
            raise Refused(404, "<html><body><h1>Not Found</h1></body></html>")
        with self.lock:
            return do(arg, body)

    def do_users_get_current_account(self, arg: Any, body: bytes) -> Any:
        return {"account_id": "dbid:1", "email": "min@example.com", "name": {"display_name": "Min"}}

    def do_get_metadata(self, arg: Any, body: bytes) -> Any:
        return self.told(self.at(arg["path"]))

    def do_list_folder(self, arg: Any, body: bytes) -> Any:
        key = self.at(arg["path"]) if arg["path"] else ""
        if key and self.files[key]["content"] is not None:
            raise Refused(409, {"error": {".tag": "path", "path": {".tag": "not_folder"}}})
        inside = [each for each in self.below(key) if arg.get("recursive") or each.rpartition("/")[0] == key]
        self.listings[cursor := f"c{next(self.numbers)}"] = inside[::-1]
        return self.do_list_folder_continue({"cursor": cursor}, body)

    def do_list_folder_continue(self, arg: Any, body: bytes) -> Any:
        """One entry at a time."""
        left = self.listings[arg["cursor"]]
        self.listings[cursor := f"c{next(self.numbers)}"] = left[1:]
        page = [self.told(key) for key in left[:1] if key in self.files]
        return {"entries": page, "cursor": cursor, "has_more": len(left) > 1}

    def do_list_folder_get_latest_cursor(self, arg: Any, body: bytes) -> Any:
        self.listings["now"] = []
        return {"cursor": "now"}

    def do_list_folder_longpoll(self, arg: Any, body: bytes) -> Any:
        self.polls.append(time.monotonic())
        return {"changes": False}

    def do_upload(self, arg: Any, body: bytes) -> Any:
        known, mode = self.files.get(arg["path"].lower()), arg["mode"]
        is_stale = mode[".tag"] == "update" and known is not None and known["rev"] != mode["update"]
        if known is not None and (known["content"] is None or mode[".tag"] == "add" or is_stale):
            kind = "folder" if known["content"] is None else "file"
            refused = {".tag": "conflict", "conflict": {".tag": kind}}
            raise Refused(409, {"error": {".tag": "path", "reason": refused, "path": refused}})
        return self.put(arg["path"], body)

    def do_upload_session_start(self, arg: Any, body: bytes) -> Any:
        """Take bytes in order alone, whatever kind of session is asked for."""
        if "untyped" in self.switches and "session_type" in arg:
            raise Refused(400, 'HTTP header "Dropbox-API-Arg": unknown field "session_type"')
        self.sessions[session := f"s{next(self.numbers)}"] = body
        return {"session_id": session}

    def do_upload_session_append_v2(self, arg: Any, body: bytes) -> Any:
        session, offset = arg["cursor"]["session_id"], arg["cursor"]["offset"]
        if offset != len(self.sessions[session]):
            raise Refused(409, {"error": {".tag": "incorrect_offset", "correct_offset": len(self.sessions[session])}})
        self.sessions[session] += body

    def do_upload_session_finish(self, arg: Any, body: bytes) -> Any:
        return self.do_upload(arg["commit"], self.sessions.pop(arg["cursor"]["session_id"]) + body)

    def do_create_folder_v2(self, arg: Any, body: bytes) -> Any:
        if arg["path"].lower() in self.files:
            raise Refused(
                409, {"error": {".tag": "path", "path": {".tag": "conflict", "conflict": {".tag": "folder"}}}}
            )
        return {"metadata": self.put(arg["path"], None)}

    def do_delete_v2(self, arg: Any, body: bytes) -> Any:
        key = self.at(arg["path"], {".tag": "path_lookup", "path_lookup": {".tag": "not_found"}})
        told = self.told(key)
        for each in [key, *self.below(key)]:
            del self.files[each]
        return {"metadata": told}

    def do_copy_v2(self, arg: Any, body: bytes, moves: bool = False) -> Any:
        source = self.at(arg["from_path"], {".tag": "from_lookup", "from_lookup": {".tag": "not_found"}})
        if arg["to_path"].lower() in self.files:
            raise Refused(409, {"error": {".tag": "to", "to": {".tag": "conflict", "conflict": {".tag": "file"}}}})
        for key in [source, *self.below(source)]:
            file = self.files[key]
            names = arg["to_path"] + key[len(source) :].removesuffix(file["name"].lower())
            self.put(names + file["name"] if key != source else arg["to_path"], file["content"])
            if moves:
                self.files[arg["to_path"].lower() + key[len(source) :]]["id"] = self.files.pop(key)["id"]
        return {"metadata": self.told(arg["to_path"].lower())}

    def do_move_v2(self, arg: Any, body: bytes) -> Any:
        return self.do_copy_v2(arg, body, moves=True)

    # Batches

    def each(self, entries: list[Any], do: Callable[[Any], dict[str, Any]]) -> list[Any]:
        results = []
        for entry in entries:
            try:
                results.append({".tag": "success", **do(entry)})
            except Refused as refused:
                results.append({".tag": "failure", "failure": refused.body["error"]})
        if "vague" in self.switches:
            results[::3] = [{".tag": "other"} for _ in results[::3]]
        return results

    def job(self, results: list[Any]) -> Any:
        self.jobs[job := f"dbjid:{next(self.numbers)}"] = (2, results)
        return {".tag": "async_job_id", "async_job_id": job}

    def check(self, arg: Any, body: bytes) -> Any:
        waits, results = self.jobs[arg["async_job_id"]]
        self.jobs[arg["async_job_id"]] = (waits - 1, results)
        return {".tag": "in_progress"} if waits else {".tag": "complete", "entries": results}

    do_delete_batch_check = do_copy_batch_check_v2 = do_move_batch_check_v2 = check

    def do_delete_batch(self, arg: Any, body: bytes) -> Any:
        return self.job(self.each(arg["entries"], lambda entry: self.do_delete_v2(entry, body)))

    def do_copy_batch_v2(self, arg: Any, body: bytes) -> Any:
        entries = self.each(arg["entries"], lambda entry: {"success": self.do_copy_v2(entry, body)["metadata"]})
        return self.job(entries)

    def do_move_batch_v2(self, arg: Any, body: bytes) -> Any:
        entries = self.each(arg["entries"], lambda entry: {"success": self.do_move_v2(entry, body)["metadata"]})
        return self.job(entries)

    def do_upload_session_start_batch(self, arg: Any, body: bytes) -> Any:
        sessions = [self.do_upload_session_start({}, b"")["session_id"] for _ in range(arg["num_sessions"])]
        return {"session_ids": sessions}

    def do_upload_session_append_batch(self, arg: Any, body: bytes) -> Any:
        results = []
        for entry in arg["entries"]:
            part, body = body[: entry["length"]], body[entry["length"] :]
            results += self.each([entry], lambda entry, part=part: self.do_upload_session_append_v2(entry, part) or {})  # type: ignore[misc]
        return {"entries": results}

    def do_upload_session_finish_batch_v2(self, arg: Any, body: bytes) -> Any:
        def finish(entry: Any) -> dict[str, Any]:
            told = self.do_upload_session_finish(entry, b"")
            return {name: value for name, value in told.items() if name != ".tag"}

        return {"entries": self.each(arg["entries"], finish)}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request: HTTP/1.0 ends its connection."""

    server: Any

    def do_POST(self) -> None:
        minimal: MinimalServer = self.server.minimal
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/oauth2/token":
            with minimal.lock:
                minimal.token = f"token{next(minimal.numbers)}"
                self.send(200, {"access_token": minimal.token, "token_type": "bearer"})
            return
        route = self.path.removeprefix("/2/")
        with minimal.lock:
            minimal.calls.append(route)
            if len(minimal.calls) == 9:
                minimal.token = ""  # every token ends some time
            is_known = "longpoll" in route or self.headers["Authorization"] == f"Bearer {minimal.token}"
        if not is_known:
            self.send(401, "Unauthorized")
            return
        header = self.headers.get("Dropbox-API-Arg")
        if "narrow" in minimal.switches and len(header or "") > 1024:
            self.send(400, "<html><head><title>400 Request Header Or Cookie Too Large</title></head></html>")
            return
        try:
            arg = json.loads(body if header is None else header)
            if route == "files/download":
                self.download(minimal, arg["path"])
            else:
                self.send(200, minimal.answer(route.replace("users/", "users_"), arg, body))
        except Refused as refused:
            self.send(refused.status, refused.body)

    def download(self, minimal: MinimalServer, path: str) -> None:
        if path.startswith("rev:") and "no revs" in minimal.switches:
            raise Refused(409, {"error": NOT_FOUND})
        with minimal.lock:
            rev = path.removeprefix("rev:") if path.startswith("rev:") else minimal.files[minimal.at(path)]["rev"]
            content = minimal.old[rev]
        told = {"name": "x", "id": "id:x", "rev": rev, "size": len(content), "server_modified": WHEN}
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        start, _, end = asked.partition("-")
        part = asked and "ranges" in minimal.switches
        self.send_response(206 if part else 200)
        self.send_header("Dropbox-API-Result", json.dumps(told))
        if part:
            size, content = len(content), content[int(start) : int(end) + 1 if end else None]
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(content) - 1}/{size}")
        self.end_headers()
        self.wfile.write(content)

    def send(self, status: int, answer: Any) -> None:
        """Answer with JSON or a text; neither says what it is, nor how long."""
        self.send_response(status)
        if answer is None and "void" in self.server.minimal.switches:
            self.send_header("Content-Length", "0")
            answer = ""
        self.end_headers()
        self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        return None


class _Listening(http.server.ThreadingHTTPServer):
    daemon_threads = False  # each ends with its request, and is waited for
    minimal: MinimalServer

    def handle_error(self, *_: object) -> None:
        return None  # whoever has heard enough hangs up


@contextmanager
def serving(minimal: MinimalServer) -> Iterator[dict[str, Any]]:
    """Serve an account on a free port; yields the arguments with which DropboxFS finds it."""
    listening = _Listening(("127.0.0.1", 0), Handler)
    listening.minimal = minimal
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    try:
        host = f"http://127.0.0.1:{listening.server_address[1]}"
        yield {"app_key": "key", "refresh_token": "refresh", "api_host": host}
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
