"""Upload sessions in batches: started, appended to and finished many in one call, each with its own outcome."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from fs_dropbox.content_hash import ContentHash

from .raw_api import Api, bare, error_of
from .upload_sessions import BLOCK, append, cursor, start


def started(api: Api, count: int, **arg: Any) -> list[str]:
    answer = api.ok(api.rpc("files/upload_session/start_batch", {"num_sessions": count, **arg}))
    return list(answer["session_ids"])


def piece(session_id: str, length: int, **arg: Any) -> dict[str, Any]:
    return {"cursor": cursor(session_id, 0), "length": length, **arg}


def append_batch(api: Api, pieces: list[dict[str, Any]], body: Any, **arg: Any) -> requests.Response:
    return api.upload("files/upload_session/append_batch", {"entries": pieces, **arg}, body)


def finish_batch(api: Api, commits: list[tuple[str, int, str]]) -> list[Any]:
    entries = [{"cursor": cursor(session, size), "commit": {"path": path}} for session, size, path in commits]
    return list(api.ok(api.rpc("files/upload_session/finish_batch_v2", {"entries": entries}))["entries"])


@pytest.mark.parametrize("kind", ["sequential", "concurrent"])
def test_batches(api: Api, kind: str) -> None:
    ids = started(api, 4, session_type=kind)
    bodies = [b"one", b"", b"three"]
    entries = [piece(session, len(body), close=True) for session, body in zip(ids, bodies, strict=False)]
    entries.insert(1, piece("unknown", 3))
    whole = b"onexxxthree"
    result = api.ok(append_batch(api, entries, whole, content_hash=ContentHash(whole).hexdigest()))
    good = {".tag": "success"}
    bad = {".tag": "failure", "failure": {".tag": "not_found"}}
    assert result == {"entries": [good, bad, good, good]}

    commits = [(session, len(body), f"/batch/{n}") for n, (session, body) in enumerate(zip(ids, bodies, strict=False))]
    done = finish_batch(api, [*commits, (ids[3], 0, "/open"), ("unknown", 0, "/unknown")])
    assert [e[".tag"] for e in done] == ["success"] * 3 + ["failure"] * 2
    assert done[0]["path_display"] == "/batch/0"  # flattened, not nested
    still_open = "concurrent_session_not_closed" if kind == "concurrent" else "lookup_failed/not_closed"
    assert bare(done[3]["failure"]) == still_open
    assert bare(done[4]["failure"]) == "lookup_failed/not_found"
    assert [api.emulator.control.read(f"/batch/{n}") for n in range(3)] == bodies


def test_append_batch_errors_concern_the_whole_call(api: Api) -> None:
    entries = [piece(session, 2) for session in started(api, 2)]
    assert bare(error_of(append_batch(api, entries, b"abc"))) == "length_mismatch"
    wrong = append_batch(api, entries, b"abcd", content_hash=ContentHash(b"abc").hexdigest())
    assert bare(error_of(wrong)) == "content_hash_mismatch"
    done = api.ok(append_batch(api, entries, b"abcd"))["entries"]
    assert [e[".tag"] for e in done] == ["success", "success"]


def test_limits_of_append_batch(api: Api) -> None:
    first, second = started(api, 2)
    api.emulator.options.max_request_bytes = 11
    large = append_batch(api, [piece(first, 6), piece(second, 6)], bytes(12))
    assert bare(error_of(large)) == "payload_too_large"
    assert append_batch(api, [piece(second, 0)] * 501, b"").status_code == 400
    for number in (0, 500):
        assert len(api.ok(append_batch(api, [piece(second, 0)] * number, b""))["entries"]) == number
    for body in ([b"abc", b"defg"], [b"abc"]):  # in chunks
        assert bare(error_of(append_batch(api, [piece(first, 6)], iter(body)))) == "length_mismatch"


def test_finish_batch_checks_each_session(api: Api) -> None:
    good, holes = start(api, b"abc", close=True), start(api, session_type="concurrent")
    api.ok(append(api, holes, BLOCK, b"x", close=True))
    commits = [(good, 2, "/0"), (holes, BLOCK + 1, "/1"), (good, 3, "/2"), (good, 3, "/3")]
    first = finish_batch(api, commits)
    wrong = {".tag": "incorrect_offset", "correct_offset": 3}
    assert first[0]["failure"] == {".tag": "lookup_failed", "lookup_failed": wrong}
    assert bare(first[1]["failure"]) == "concurrent_session_missing_data"
    assert (first[2][".tag"], first[2]["name"]) == ("success", "2")
    assert bare(first[3]["failure"]) == "lookup_failed/not_found"
    api.emulator.options.second_finish = "repeat"
    assert finish_batch(api, commits)[3] == first[2]


def test_finish_batch_as_a_job(api: Api) -> None:
    api.emulator.options.job_polls = 1
    session = start(api, b"abc", close=True)
    entry = {"cursor": cursor(session, 3), "commit": {"path": "/a"}}
    launched = api.ok(api.rpc("files/upload_session/finish_batch", {"entries": [entry]}))
    assert launched[".tag"] == "async_job_id"
    check = {"async_job_id": launched["async_job_id"]}
    route = "files/upload_session/finish_batch/check"
    assert api.ok(api.rpc(route, check)) == {".tag": "in_progress"}
    complete = api.ok(api.rpc(route, check))
    assert complete[".tag"] == "complete"
    assert complete["entries"][0]["name"] == "a"
    unknown = api.rpc(route, {"async_job_id": "dbjid:unknown"})
    assert bare(error_of(unknown)) == "invalid_async_job_id"
