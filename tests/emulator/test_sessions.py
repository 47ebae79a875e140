"""Upload sessions: sequential, concurrent; offsets, hashes, limits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.errors import WriteError

from .people import api_of
from .raw_api import Api, bare, error_of
from .upload_sessions import BLOCK, append, cursor, finish, start


def test_sequential(api: Api) -> None:
    session = start(api, b"abc")
    response = append(api, session, 3, b"def")
    assert (response.status_code, response.text) == (200, "null")
    metadata = api.ok(finish(api, session, 6, "/a", b"ghi"))
    assert ".tag" not in metadata
    assert metadata["content_hash"] == ContentHash(b"abcdefghi").hexdigest()
    assert api.emulator.control.read("/a") == b"abcdefghi"


def test_append_in_its_first_version(api: Api) -> None:
    session = start(api, b"abc")
    arg = {"session_id": session, "offset": 3}
    assert api.upload("files/upload_session/append", arg, b"def").status_code == 200
    assert api.ok(finish(api, session, 6, "/a"))["size"] == 6


def test_an_empty_file(api: Api) -> None:
    metadata = api.ok(finish(api, start(api), 0, "/empty"))
    assert metadata["size"] == 0
    assert metadata["content_hash"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_offsets_must_match(api: Api) -> None:
    session = start(api, b"abc")
    assert error_of(append(api, session, 9, b"x")) == {".tag": "incorrect_offset", "correct_offset": 3}
    api.ok(append(api, session, 3, b"def"))
    assert error_of(append(api, session, 3, b"def")) == {".tag": "incorrect_offset", "correct_offset": 6}
    error = error_of(finish(api, session, 3, "/a"))
    assert error == {
        ".tag": "lookup_failed",
        "lookup_failed": {".tag": "incorrect_offset", "correct_offset": 6},
    }


def test_closed_and_unknown_sessions(api: Api) -> None:
    session = start(api, b"abc", close=True)
    assert bare(error_of(append(api, session, 3, b"x"))) == "closed"
    assert bare(error_of(finish(api, session, 3, "/a", b"x"))) == "lookup_failed/closed"
    wrong = {".tag": "incorrect_offset", "correct_offset": 3}
    assert error_of(finish(api, session, 0, "/a"))["lookup_failed"] == wrong
    assert bare(error_of(append(api, "unknown", 0, b"x"))) == "not_found"
    assert bare(error_of(finish(api, "unknown", 0, "/a"))) == "lookup_failed/not_found"
    api.ok(finish(api, session, 3, "/a"))


def test_sessions_expire(api: Api) -> None:
    session = start(api, b"abc")
    api.emulator.options.session_life_seconds = -1
    assert bare(error_of(append(api, session, 3, b"x"))) == "not_found"


def test_a_second_finish_is_a_switch(api: Api) -> None:
    session = start(api, b"abc")
    first = api.ok(finish(api, session, 3, "/a"))
    assert bare(error_of(finish(api, session, 3, "/a"))) == "lookup_failed/not_found"
    api.emulator.options.second_finish = "closed"
    assert bare(error_of(finish(api, session, 3, "/a"))) == "lookup_failed/closed"
    api.emulator.options.second_finish = "repeat"
    assert api.ok(finish(api, session, 3, "/a")) == first


def test_two_finishes_at_once_commit_once(api: Api) -> None:
    session = start(api, b"abc")
    api.emulator.control.latency(commit_seconds=0.2)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda path: finish(api, session, 3, path), ("/a", "/b")))
    good, bad = sorted(answers, key=lambda answer: answer.status_code)
    assert bare(error_of(bad)) == "lookup_failed/not_found"
    assert api.emulator.control.tree() == {good.json()["path_display"]: 3}
    assert api.emulator.control.read(good.json()["path_display"]) == b"abc"


def test_old_sessions_and_revisions_go(api: Api) -> None:
    session = start(api, bytes(2 << 20))
    old = api.put("/a", bytes(3 << 20))
    api.put("/a", b"new", "overwrite")
    incoming = api.emulator.service.state.contents.incoming
    assert len(list(incoming.iterdir())) == 1
    api.emulator.control.advance(8 * 86400)
    api.token = api.emulator.access_token()
    start(api)
    assert list(incoming.iterdir()) == []
    assert bare(error_of(append(api, session, 0, b"x"))) == "not_found"
    api.emulator.service.state.forget_older(api.emulator.service.state.clock() - 3600)
    gone = api.download("files/download", {"path": f"rev:{old['rev']}"})
    assert bare(error_of(gone)) == "path/not_found"
    assert list(incoming.parent.glob("contents/*/*")) == []
    assert api.download("files/download", {"path": "/a"}).content == b"new"


def test_what_a_foreign_client_stores_twice_goes_too(api: Api) -> None:
    """Where a commit comes to nothing, nobody holds its content."""
    stored = api.emulator.service.state.contents.incoming.parent / "contents"
    api.emulator.control.write("/a", bytes(3 << 20))
    api.emulator.control.write("/a", bytes(3 << 20))
    api.emulator.control.seed("/folder")
    with pytest.raises(WriteError):
        api.emulator.control.write("/folder", bytes(2 << 20))
    assert len(list(stored.glob("*/*"))) == 1
    api.emulator.control.delete("/a")
    api.emulator.service.state.forget_older(api.emulator.service.state.clock() + 1)
    assert list(stored.glob("*/*")) == []


def test_content_hash_covers_the_bytes_of_one_call(api: Api) -> None:
    session = start(api, b"abc", content_hash=ContentHash(b"abc").hexdigest())
    wrong = append(api, session, 3, b"def", content_hash=ContentHash(b"abcdef").hexdigest())
    assert bare(error_of(wrong)) == "content_hash_mismatch"
    api.ok(append(api, session, 3, b"def", content_hash=ContentHash(b"def").hexdigest()))
    stored = api.ok(finish(api, session, 6, "/a"))
    assert stored["content_hash"] == ContentHash(b"abcdef").hexdigest()


@pytest.mark.parametrize("kind", ["sequential", "concurrent"])
def test_the_hash_of_a_call_without_bytes_is_checked(api: Api, kind: str) -> None:
    wrong, right = ContentHash(b"abc").hexdigest(), ContentHash().hexdigest()
    session = start(api, session_type=kind, content_hash=right)
    api.ok(append(api, session, 0, b"abc", close=True))
    arg = {"cursor": cursor(session, 3), "commit": {"path": "/a"}, "content_hash": wrong}
    assert bare(error_of(api.upload("files/upload_session/finish", arg))) == "content_hash_mismatch"
    assert not api.emulator.control.exists("/a")
    api.ok(api.upload("files/upload_session/finish", {**arg, "content_hash": right}))


def test_bytes_that_nothing_became_of_are_not_kept(api: Api) -> None:
    large = bytes(2 << 20)
    wrong = {"content_hash": ContentHash(b"abc").hexdigest()}
    assert bare(error_of(api.upload("files/upload_session/start", wrong, large))) == "content_hash_mismatch"
    assert bare(error_of(api.upload("files/upload", {"path": "/a", **wrong}, large))) == "content_hash_mismatch"
    api.emulator.control.latency(commit_seconds=0.01, patience_seconds=0.0)
    root = api.ok(api.rpc("users/get_current_account"))["root_info"]["root_namespace_id"]
    with api.emulator.service.limits.commit(root):
        assert api.upload("files/upload", {"path": "/a"}, large).status_code == 429
    assert list(api.emulator.service.state.contents.incoming.iterdir()) == []


def test_sessions_belong_to_their_account(api: Api) -> None:
    api.emulator.control.add_account("bob@example.com", "Bob")
    bob = api_of(api, "bob@example.com")
    session = start(api, b"abc", close=True)
    assert bare(error_of(finish(bob, session, 3, "/a"))) == "lookup_failed/not_found"
    api.ok(finish(api, session, 3, "/a"))


class Stuck:
    """An append whose body comes in two parts, the second when it is told to."""

    def __init__(self, api: Api, session: str, first: bytes, rest: bytes) -> None:
        self._begun, self._go_on = threading.Event(), threading.Event()
        self._parts = first, rest
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(lambda: append(api, session, 0, self._body()))
        assert self._begun.wait(20)

    def _body(self) -> Iterator[bytes]:
        yield self._parts[0]
        self._begun.set()
        self._go_on.wait(20)
        if self._parts[1]:
            yield self._parts[1]

    def go_on(self) -> requests.Response:
        self._go_on.set()
        self._pool.shutdown()
        return self._answer.result()


@pytest.mark.parametrize("rest", [b"", b"def"])
def test_a_newer_append_takes_the_place_of_one_that_got_stuck(api: Api, rest: bytes) -> None:
    session = start(api)
    stuck = Stuck(api, session, b"abc", rest)
    api.ok(append(api, session, 0, b"abcdef"))
    assert error_of(stuck.go_on()) == {".tag": "incorrect_offset", "correct_offset": 6}
    api.ok(finish(api, session, 6, "/a"))
    assert api.emulator.control.read("/a") == b"abcdef"


def test_what_comes_after_the_end_of_a_concurrent_session_is_refused(api: Api) -> None:
    session = start(api, session_type="concurrent")
    stuck = Stuck(api, session, bytes(BLOCK), b"")
    api.ok(append(api, session, BLOCK, b"x", close=True))
    assert bare(error_of(stuck.go_on())) == "closed"
    assert bare(error_of(finish(api, session, BLOCK + 1, "/a"))) == "concurrent_session_missing_data"


def test_a_concurrent_session_survives_a_restart(tmp_path: Path) -> None:
    data = os.urandom(BLOCK + 5)
    with Emulator(tmp_path) as first:
        api = Api(first)
        session = start(api, session_type="concurrent")
        api.ok(append(api, session, 0, data[:BLOCK]))
        api.http.close()
    with Emulator(tmp_path) as second:
        api = Api(second)
        api.ok(append(api, session, BLOCK, data[BLOCK:], close=True))
        assert api.ok(finish(api, session, len(data), "/a"))["content_hash"] == ContentHash(data).hexdigest()
        assert second.control.read("/a") == data
        api.http.close()


def test_progress_is_noted_while_no_one_changes_it(tmp_path: Path) -> None:
    """Each append notes all that the session has, to which others are just adding."""
    with Emulator(tmp_path) as emulator:
        session = emulator.service.sessions.new("concurrent", None)

        class Digests(dict[int, bytes]):
            def items(self) -> Any:
                assert session.lock.locked()
                return super().items()

        session.digests = Digests({0: b"x"})
        emulator.service.sessions.register(session)
        assert session.document()["digests"] == {"0": b"x".hex()}


def test_data_of_a_refused_finish_stays(api: Api) -> None:
    api.put("/a", b"old")
    session = start(api, b"abc")
    assert bare(error_of(finish(api, session, 3, "/a", b"def"))) == "path/conflict/file"
    again = finish(api, session, 3, "/b", b"def")
    assert error_of(again)["lookup_failed"] == {".tag": "incorrect_offset", "correct_offset": 6}
    assert api.ok(finish(api, session, 6, "/b"))["size"] == 6


def test_limits_of_one_request_and_of_a_file(api: Api) -> None:
    api.emulator.options.max_request_bytes = 10
    session = start(api, b"0123456789")
    assert bare(error_of(append(api, session, 10, b"0123456789A"))) == "payload_too_large"
    chunked = api.upload("files/upload", {"path": "/a"}, iter([b"012345", b"6789A"]))
    assert bare(error_of(chunked)) == "payload_too_large"
    api.emulator.options.max_file_bytes = 15
    assert bare(error_of(append(api, session, 10, b"012345"))) == "too_large"


def test_concurrent_in_any_order(api: Api) -> None:
    data = os.urandom(2 * BLOCK + 77)
    session = start(api, session_type="concurrent")
    api.ok(append(api, session, BLOCK, data[BLOCK : 2 * BLOCK]))
    assert bare(error_of(finish(api, session, 0, "/a"))) == "concurrent_session_not_closed"
    api.ok(append(api, session, 2 * BLOCK, data[2 * BLOCK :], close=True))
    early = finish(api, session, len(data), "/a")
    assert bare(error_of(early)) == "concurrent_session_missing_data"
    assert bare(error_of(append(api, session, 0, data[:BLOCK]))) == "closed"

    session = start(api, session_type={".tag": "concurrent"})
    api.ok(append(api, session, BLOCK, data[BLOCK : 2 * BLOCK]))
    api.ok(append(api, session, 0, data[:BLOCK]))
    api.ok(append(api, session, 2 * BLOCK, data[2 * BLOCK :], close=True))
    assert bare(error_of(finish(api, session, len(data), "/a", b"x"))) == "concurrent_session_data_not_allowed"
    metadata = api.ok(finish(api, session, len(data), "/a"))
    assert metadata["content_hash"] == ContentHash(data).hexdigest()
    assert api.emulator.control.read("/a") == data


def test_concurrent_rules(api: Api) -> None:
    begin = "files/upload_session/start"
    arg: dict[str, Any] = {"session_type": "concurrent"}
    assert bare(error_of(api.upload(begin, arg, b"x"))) == "concurrent_session_data_not_allowed"
    assert bare(error_of(api.upload(begin, {**arg, "close": True}))) == "concurrent_session_close_not_allowed"
    session = start(api, **arg)
    assert bare(error_of(append(api, session, 5, bytes(BLOCK)))) == "concurrent_session_invalid_offset"
    assert bare(error_of(append(api, session, 0, b"x"))) == "concurrent_session_invalid_data_size"
    api.ok(append(api, session, 0, bytes(BLOCK)))
    api.ok(append(api, session, BLOCK, b"", close=True))
    assert api.ok(finish(api, session, BLOCK, "/a"))["content_hash"].startswith("c7e946d101855255")
    session = start(api, **arg)
    api.ok(append(api, session, BLOCK, bytes(BLOCK)))
    api.ok(append(api, session, 0, bytes(BLOCK), close=True))
    wrong = finish(api, session, BLOCK, "/b")
    assert error_of(wrong)["lookup_failed"] == {".tag": "incorrect_offset", "correct_offset": 2 * BLOCK}
    assert api.ok(finish(api, session, 2 * BLOCK, "/b"))["size"] == 2 * BLOCK
