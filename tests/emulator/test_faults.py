"""Declared faults, the latency model and the counters."""

from __future__ import annotations

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

from .raw_api import Api, bare, error_of

GET = "files/get_metadata"


def test_rate_limits(api: Api) -> None:
    control = api.emulator.control
    control.fault("users/get_current_account", "rate_limit", retry_after=7)
    response = api.rpc("users/get_current_account")
    error = response.json()["error"]
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert error == {"reason": {".tag": "too_many_requests"}}  # the wait is in the header only
    assert response.json()["error_summary"].startswith("too_many_requests/")
    control.fault("users/get_current_account", "rate_limit", retry_after=None, form="text")
    response = api.rpc("users/get_current_account")
    assert response.status_code == 429
    assert "Retry-After" not in response.headers
    assert response.headers["Content-Type"].startswith("text/plain")
    assert api.rpc("users/get_current_account").status_code == 200


def test_server_errors_after_and_count(api: Api) -> None:
    api.emulator.control.fault("*", "server_error", status=503, count=2, after=1, text="<html>")
    codes = [api.rpc("users/get_current_account").status_code for _ in range(4)]
    assert codes == [200, 503, 503, 200]
    assert api.emulator.control.faults_struck == 2


def test_a_fault_for_one_path(api: Api) -> None:
    api.put("/a", b"1")
    api.put("/b", b"1")
    api.emulator.control.fault(GET, "server_error", path="/b", status=500)
    assert [api.rpc(GET, {"path": p}).status_code for p in ("/a", "/b", "/b")] == [200, 500, 200]


def test_a_body_may_be_wrong_or_slow(api: Api) -> None:
    content = bytes(range(256)) * 4000
    api.put("/a", content)
    api.emulator.control.fault("files/download", "corrupt_body", at_byte=700_000)
    received = api.download("files/download", {"path": "/a"}).content
    assert [at for at in range(len(content)) if received[at] != content[at]] == [700_000]
    api.emulator.control.fault(GET, "corrupt_body", at_byte=0)
    assert api.rpc(GET, {"path": "/a"}).text[1:].startswith('".tag": "file"')
    for route, call in (
        ("files/download", lambda: api.download("files/download", {"path": "/a"}).content == content),
        (GET, lambda: api.rpc(GET, {"path": "/a"}).json()["size"] == len(content)),
    ):
        api.emulator.control.fault(route, "slow_body", pieces=4, seconds=0.05)
        began = time.monotonic()
        assert call()
        assert time.monotonic() - began >= 0.2
    assert api.emulator.control.faults_struck == 4


def test_a_cut_body_has_the_right_length_header(api: Api) -> None:
    api.put("/a", b"x" * 1000)
    api.emulator.control.fault("files/download", "cut_body")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.download("files/download", {"path": "/a"})
    assert api.emulator.control.bytes_out()["files/download"] == 500
    api.emulator.control.fault("files/download", "cut_body", at_byte=0)
    with pytest.raises(requests.exceptions.RequestException):
        api.download("files/download", {"path": "/a"})
    assert len(api.download("files/download", {"path": "/a"}).content) == 1000


@pytest.mark.parametrize("kind", ["cut_request", "reset"])
def test_a_cut_request_does_nothing(api: Api, kind: str) -> None:
    api.emulator.control.fault("files/upload", kind, at_byte=100)
    with pytest.raises(requests.exceptions.ConnectionError):
        api.upload("files/upload", {"path": "/a"}, b"x" * 1000)
    assert not api.emulator.control.exists("/a")


def test_an_ambiguous_commit_is_done(api: Api) -> None:
    api.emulator.control.fault("files/upload", "ambiguous")
    with pytest.raises(requests.exceptions.ConnectionError):
        api.upload("files/upload", {"path": "/a"}, b"x")
    assert api.emulator.control.read("/a") == b"x"
    api.emulator.control.fault("files/delete_v2", "ambiguous", status=502)
    assert api.rpc("files/delete_v2", {"path": "/a"}).status_code == 502
    assert not api.emulator.control.exists("/a")


@pytest.mark.parametrize("size", [0, 300_000])
def test_a_late_call_is_carried_out_although_nobody_waits_for_it(api: Api, size: int) -> None:
    control = api.emulator.control
    control.fault("files/upload", "late")
    with pytest.raises(requests.exceptions.ConnectionError):
        api.put("/late", bytes(size))
    assert not control.exists("/late")
    assert control.under_way("files/upload") == control.under_way() == 1
    control.release()
    assert eventually(control.tree) == {"/late": size}
    eventually(lambda: control.under_way() == 0)


def test_a_late_call_may_keep_its_client_waiting(api: Api) -> None:
    api.put("/a", b"1")
    control = api.emulator.control
    control.fault("files/delete_v2", "late", hang_up=False)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(api.rpc, "files/delete_v2", {"path": "/a"})
        eventually(lambda: control.faults_struck)
        assert control.exists("/a")
        control.release()
        assert answer.result(30).status_code == 200
    assert not control.exists("/a")


def test_a_stall_holds_until_released(api: Api) -> None:
    api.emulator.control.fault("users/get_current_account", "stall")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(api.rpc, "users/get_current_account")
        eventually(lambda: api.emulator.control.faults_struck)
        assert not answer.done()
        api.emulator.control.release()
        assert answer.result(30).status_code == 200


@pytest.mark.parametrize("at", ["request", "answer", "body"])
def test_a_stall_ends_with_the_emulator(at: str) -> None:
    with Emulator() as emulator:
        api = Api(emulator)
        emulator.control.fault("users/get_current_account", "stall", at=at)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(api.rpc, "users/get_current_account")
            eventually(lambda: emulator.control.faults_struck)
            emulator.stop()
            assert answer.exception(30) is not None or answer.result().status_code == 200
        api.http.close()


def test_a_stall_for_some_seconds(api: Api) -> None:
    api.emulator.control.fault("users/get_current_account", "stall", at="answer", seconds=0.2)
    begin = time.monotonic()
    api.ok(api.rpc("users/get_current_account"))
    assert time.monotonic() - begin >= 0.2


def test_declared_errors(api: Api) -> None:
    control = api.emulator.control
    control.fault(GET, "expired_token")
    assert bare(error_of(api.rpc(GET, {"path": "/a"}), 401)) == "expired_access_token"
    control.fault("files/list_folder/continue", "cursor_reset")
    assert bare(error_of(api.rpc("files/list_folder/continue", {"cursor": "x"}))) == "reset"
    control.fault(GET, "error", error={".tag": "path", "path": {".tag": "restricted_content"}})
    assert bare(error_of(api.rpc(GET, {"path": "/a"}))) == "path/restricted_content"
    control.fault("files/list_folder", "blank_body")
    blank = api.rpc("files/list_folder", {"path": ""})
    assert (blank.status_code, blank.content) == (200, b"")
    with pytest.raises(ValueError, match="unknown fault"):
        control.fault("*", "no_such_kind")


def test_too_many_write_operations_in_a_409(api: Api) -> None:
    api.put("/a", b"1")
    kind, tag = "too_many_write_operations", "too_many_write_operations"
    control = api.emulator.control
    control.fault("files/upload", kind)
    assert bare(error_of(api.upload("files/upload", {"path": "/b"}, b"x"))) == f"path/{tag}"
    control.fault("files/delete_v2", kind)
    assert bare(error_of(api.rpc("files/delete_v2", {"path": "/a"}))) == tag
    control.fault("files/move_v2", kind)
    assert bare(error_of(api.rpc("files/move_v2", {"from_path": "/a", "to_path": "/c"}))) == tag
    control.fault("files/create_folder_v2", kind)
    assert bare(error_of(api.rpc("files/create_folder_v2", {"path": "/f"}))) == f"path/{tag}"
    control.fault("files/create_folder_batch", kind, entries=2)
    batch = api.ok(api.rpc("files/create_folder_batch", {"paths": ["/1", "/2", "/3"]}))["entries"]
    assert [e[".tag"] for e in batch] == ["failure", "failure", "success"]


def test_commits_of_a_namespace_are_serial_and_impatient(api: Api) -> None:
    api.emulator.control.latency(commit_seconds=0.4, patience_seconds=0.9)
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: api.upload("files/upload", {"path": f"/{n}"}, b"x").status_code, range(8)))
    assert codes.count(200) + codes.count(429) == 8
    assert 2 <= codes.count(200) <= 7  # three, but not all come at the same time where the machine is busy
    assert time.monotonic() - begin >= 0.4 * codes.count(200)
    assert len(api.emulator.control.tree()) == codes.count(200)
    api.emulator.control.fault("files/upload", "rate_limit", count=0)
    api.emulator.options.rate_limit_retry_after_seconds = 15
    api.emulator.control.clear_faults()


def test_a_batch_holds_the_lock_once(api: Api) -> None:
    sessions = api.ok(api.rpc("files/upload_session/start_batch", {"num_sessions": 20}))["session_ids"]
    entries = [{"cursor": {"session_id": s, "offset": 0}, "length": 1, "close": True} for s in sessions]
    api.ok(api.upload("files/upload_session/append_batch", {"entries": entries}, b"x" * 20))
    api.emulator.control.latency(commit_seconds=0.5)
    commits = [{"cursor": {"session_id": s, "offset": 1}, "commit": {"path": f"/{n}"}} for n, s in enumerate(sessions)]
    begin = time.monotonic()
    done = api.ok(api.rpc("files/upload_session/finish_batch_v2", {"entries": commits}))["entries"]
    assert {e[".tag"] for e in done} == {"success"}
    assert 0.5 <= time.monotonic() - begin < 9.0  # ten where each is alone


def test_reads_do_not_wait_for_commits(api: Api) -> None:
    api.put("/a", b"1")
    api.emulator.control.latency(commit_seconds=30)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(api.put, "/b", b"2")
        eventually(lambda: api.emulator.control.calls()["files/upload"] == 2)
        assert api.rpc(GET, {"path": "/a"}).status_code == 200
        assert api.rpc(GET, {"path": "/b"}).status_code == 409
        assert not upload.done()
        api.emulator.stop()
        assert upload.exception(30) is None or isinstance(upload.exception(), requests.RequestException)


def test_jitter_has_calls_answered_out_of_their_order(api: Api) -> None:
    """Before the work, so that its order is another; and after it, so that an answer may be of long ago."""
    api.emulator.control.latency(jitter_seconds=0.3, chance=random.Random(1))
    answered: list[str] = []

    def ask(path: str) -> int:
        code = api.rpc("files/get_metadata", {"path": path}).status_code
        answered.append(path)
        return code

    paths = [f"/{number}" for number in range(6)]
    begin = time.monotonic()
    with ThreadPoolExecutor(len(paths)) as pool:
        assert set(pool.map(ask, paths)) == {409}
    assert answered != paths
    assert time.monotonic() - begin > 0.1


def test_equal_listings_at_the_same_time_are_a_switch(api: Api) -> None:
    api.emulator.options.refuse_equal_listings = True
    api.emulator.control.latency(delay_seconds=1.0)

    def codes(*paths: str) -> list[int]:
        with ThreadPoolExecutor(len(paths)) as pool:
            return sorted(pool.map(lambda path: api.rpc("files/list_folder", {"path": path}).status_code, paths))

    assert codes("", "") == [200, 429]
    assert codes("", "/none") == [200, 409]


def test_a_rate_of_calls_for_each_token(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("fs_dropbox.emulator.limits.time", SimpleNamespace(monotonic=lambda: now[0]))
    api.emulator.options.max_calls_per_second = 5
    other = Api(api.emulator)
    codes = [api.rpc("users/get_space_usage").status_code for _ in range(8)]
    assert codes == [200] * 5 + [429] * 3
    assert other.rpc("users/get_space_usage").status_code == 200
    now[0] += 1.1
    assert api.rpc("users/get_space_usage").status_code == 200
    other.http.close()


def test_stop_does_not_wait_for_who_waits_for_a_commit() -> None:
    with Emulator() as emulator:
        emulator.control.latency(commit_seconds=60, patience_seconds=60)
        api = Api(emulator)
        with ThreadPoolExecutor(2) as pool:
            uploads = [pool.submit(api.upload, "files/upload", {"path": f"/{n}"}, b"x") for n in range(2)]
            eventually(lambda: emulator.control.peak_concurrency("files/upload") == 2)
            begin = time.monotonic()
            emulator.stop()
            assert time.monotonic() - begin < 30
            for upload in uploads:
                upload.exception(30)
        api.http.close()


def test_delays_and_bandwidth(api: Api) -> None:
    api.emulator.control.latency(route_seconds={GET: 0.2}, download_bytes_per_second=1 << 20)
    begin = time.monotonic()
    api.rpc(GET, {"path": "/a"})
    assert time.monotonic() - begin >= 0.2
    api.put("/a", bytes(300_000))
    begin = time.monotonic()
    assert len(api.download("files/download", {"path": "/a"}).content) == 300_000
    assert time.monotonic() - begin >= 0.2
    with pytest.raises(TypeError, match="no_such"):
        api.emulator.control.latency(no_such=1)


def test_latency_as_recorded(api: Api) -> None:
    api.emulator.control.recorded_latency(round_trip_seconds=0.1, scale=0.5)
    begin = time.monotonic()
    api.put("/a", b"x")
    assert 0.5 * (0.1 + 0.86 + 0.16) <= time.monotonic() - begin < 10
    begin = time.monotonic()
    api.ok(api.rpc(GET, {"path": "/a"}))
    assert 0.5 * (0.1 + 0.129) <= time.monotonic() - begin < 10


def test_dropped_connections(api: Api) -> None:
    with socket.create_connection(api.emulator.host.split(":"), timeout=30) as idle:  # type: ignore[arg-type]
        idle.sendall(b"GET /nothing HTTP/1.1\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 404")
        api.emulator.control.drop_connections()
        assert idle.recv(1) == b""
    assert api.rpc("users/get_current_account").status_code == 200


def test_counters(api: Api) -> None:
    control = api.emulator.control
    control.reset_counts()
    api.put("/a", b"12345")
    api.download("files/download", {"path": "/a"})
    api.rpc(GET, {"path": "/none"})
    assert control.calls() == {"files/upload": 1, "files/download": 1, GET: 1}
    assert control.bytes_in()["files/upload"] == 5
    assert control.bytes_out()["files/download"] == 5
    record = control.requests()[-1]
    assert (record.route, record.argument, record.status) == (GET, {"path": "/none"}, 409)
    control.reset_counts()
    control.fault(GET, "stall", count=4)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(api.rpc, GET, {"path": "/a"}) for _ in range(4)]
        try:
            eventually(lambda: control.under_way(GET) == 4)
        finally:
            control.clear_faults()
    assert {each.result().status_code for each in asked} == {200}
    assert control.peak_concurrency(GET) == 4
    assert control.under_way(GET) == 0


def test_control_over_http(api: Api) -> None:
    def control(name: str, **arguments: object) -> requests.Response:
        return api.http.post(f"{api.emulator.url}/_emulator/{name}", json=arguments, timeout=30)

    seeded = control("seed", path="/a/b", data={"base64": "aGVsbG8="})
    assert seeded.json()["size"] == 5
    assert control("tree").json() == {"/a": None, "/a/b": 5}
    assert control("read", path="/a/b").json() == {"base64": "aGVsbG8="}
    control("fault", route=GET, kind="server_error", status=503)
    assert api.rpc(GET, {"path": "/a"}).status_code == 503
    assert control("calls").json()[GET] == 1
    assert control("requests").json()[-1]["status"] == 503
    assert control("no_such").status_code == 404
    assert control("delete", path="/none").status_code == 409
    assert control("seed", wrong=1).status_code == 400
    assert control("tree", path="/a/b").status_code == 400
    assert control("seed_from", folder="/etc").status_code == 404  # whoever reaches the port reads no local files
