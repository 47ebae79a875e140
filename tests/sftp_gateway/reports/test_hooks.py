"""Hooks: real receivers and real commands are told what happened, and nobody waits for them."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
import trustme

from sftp_gateway.config import ConfigError, GatewayConfig, HookConfig
from sftp_gateway.reports.hooks import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Hooks, pause_after
from tests.sftp_gateway.conftest import PASSWORD, Connect, LogLines, StartGateway
from tests.sftp_gateway.reports.hooking import UPLOAD, Receiver, command, hooking, written
from tests.waiting import eventually


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def counted() -> list[tuple[str, str]]:
    return []


# Webhooks.


def test_a_webhook_is_signed_over_time_and_body(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the file\n")
    hook = HookConfig(events=("upload",), url=receiver.url, secret_file=str(tmp_path / "secret"))
    with hooking([], hook) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: receiver.requests, "nothing was posted")
    headers, body = receiver.requests[0]
    assert abs(int(headers[TIMESTAMP_HEADER]) - time.time()) < 60
    signed = hmac.new(b"of the file", f"{headers[TIMESTAMP_HEADER]}.".encode() + body, "sha256").hexdigest()
    assert headers[SIGNATURE_HEADER] == f"sha256={signed}"
    told = json.loads(body)
    assert {key: told[key] for key in UPLOAD} == UPLOAD
    assert told["event"] == "upload"
    assert told["id"] == headers[DELIVERY_HEADER]


def test_what_can_pass_is_tried_again_with_the_same_id(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    receiver.statuses = [500, 429]
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "no attempt succeeded")
    assert [result for _, result in counted] == ["delivered"]
    assert len({told["id"] for told in receiver.told}) == 1
    assert len(receiver.told) == 3


@pytest.mark.parametrize("status", [400, 302])
def test_what_cannot_pass_is_not_tried_again(
    receiver: Receiver, counted: list[tuple[str, str]], log_lines: LogLines, status: int
) -> None:
    receiver.statuses = [status]
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "nothing was attempted")
    assert len(receiver.requests) == 1
    (line,) = log_lines("hook_failed")
    assert line["reason"] == f"answered {status}"
    assert "of-the-url" not in str(line)


def test_attempts_are_further_and_further_apart() -> None:
    assert [pause_after(attempt, 1.0) for attempt in range(1, 6)] == [1.0, 4.0, 16.0, 60.0, 60.0]


def test_attempts_end(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    receiver.statuses = [503] * 10
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url, attempts=3)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "it goes on for ever")
    assert (len(receiver.requests), counted[0][1]) == (3, "failed")


def test_an_attempt_has_a_time_limit(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    receiver.hold.clear()
    hook = HookConfig(events=("upload",), url=receiver.url, attempts=1, timeout_seconds=0.2)
    with hooking(counted, hook) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "it waits for ever")
        receiver.hold.set()
    assert counted[0][1] == "failed"


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A system's resolver that does not answer; the names that it was asked for."""
    asked: list[str] = []
    over = threading.Event()

    def look_up(host: str, *_arguments: Any, **_options: Any) -> list[Any]:
        asked.append(host)
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    over.set()
    eventually(lambda: not any(thread.name == "sftp-gateway-hook-names" for thread in threading.enumerate()))


def test_the_time_limit_covers_a_resolver_that_does_not_answer(
    silent_resolver: list[str], counted: list[tuple[str, str]], log_lines: LogLines
) -> None:
    hook = HookConfig(events=("upload",), url="http://hook.example/", attempts=3, timeout_seconds=0.2)
    with hooking(counted, hook) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "it waits for ever")
    assert counted[0][1] == "failed"
    assert [line["reason"] for line in log_lines("hook_failed")] == ["no answer: TimeoutError"]
    assert silent_resolver == ["hook.example"], "each attempt leaves a thread behind"


def test_the_end_waits_for_no_resolver(silent_resolver: list[str], counted: list[tuple[str, str]]) -> None:
    hooks = Hooks(
        [HookConfig(events=("upload",), url="http://hook.example/", timeout_seconds=1000)],
        count=lambda *what: counted.append(what),
    )
    hooks.on_event("upload", UPLOAD)
    eventually(lambda: silent_resolver)
    assert hooks.close(0.1)
    assert counted[0][1] == "failed"


def test_the_time_limit_covers_tls(counted: list[tuple[str, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with hooking(counted, HookConfig(events=("upload",), url=url, attempts=1, timeout_seconds=0.2)) as hooks:
            hooks.on_event("upload", UPLOAD)
            eventually(lambda: counted, "it waits for ever")
    assert counted[0][1] == "failed"


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    receiver: Receiver, counted: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(receiver.url.split(":")[2].split("/")[0])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refuses = closed.getsockname()
    kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*kind, refuses), (*kind, ("127.0.0.1", port))])
    with hooking(counted, HookConfig(events=("upload",), url=f"http://hook.example:{port}/", attempts=1)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "nothing was attempted")
    assert counted[0][1] == "delivered"
    assert receiver.requests[0][0]["Host"] == f"hook.example:{port}"


@pytest.mark.parametrize("trusted", [True, False])
def test_https_is_verified(
    receiver: Receiver,
    counted: list[tuple[str, str]],
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    trusted: bool,
) -> None:
    authority = trustme.CA()
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    receiver.encrypt(context)
    url = receiver.url.replace("http://127.0.0.1", "https://localhost")
    with hooking(counted, HookConfig(events=("upload",), url=url, attempts=1)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "nothing was attempted")
    assert counted[0][1] == ("delivered" if trusted else "failed")
    assert len(receiver.requests) == trusted
    refusals = ["CERTIFICATE_VERIFY_FAILED" in line["reason"] for line in log_lines("hook_failed", not trusted)]
    assert refusals == [True] * (not trusted)


def test_the_queue_is_bounded_and_nobody_waits(
    receiver: Receiver, counted: list[tuple[str, str]], log_lines: LogLines
) -> None:
    receiver.hold.clear()
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url, queue=2)) as hooks:
        hooks.on_event("upload", UPLOAD | {"path": "/0"})
        eventually(lambda: receiver.requests, "nothing was posted")
        started = time.monotonic()
        for number in range(1, 500):
            hooks.on_event("upload", UPLOAD | {"path": f"/{number}"})
        assert time.monotonic() - started < 20
        assert counted == [("http://127.0.0.1:" + receiver.url.split(":")[2].split("/")[0], "dropped")] * 497
        receiver.hold.set()
        eventually(lambda: len(receiver.requests) == 3, "what was queued was not posted")
    assert [told["path"] for told in receiver.told] == ["/0", "/1", "/2"]
    assert len(log_lines("hook_full")) == 1


def test_the_end_waits_a_little_for_what_is_queued(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    hooks = Hooks([HookConfig(events=("upload",), url=receiver.url)], count=lambda *what: counted.append(what))
    for _ in range(20):
        hooks.on_event("upload", UPLOAD)
    assert hooks.close(20)
    assert [result for _, result in counted] == ["delivered"] * 20


def test_at_the_end_nothing_is_tried_again_and_again(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    receiver.statuses = [500] * 10
    hook = HookConfig(events=("upload",), url=receiver.url)
    hooks = Hooks([hook], count=lambda *what: counted.append(what), backoff_seconds=1000)
    hooks.on_event("upload", UPLOAD)
    eventually(lambda: receiver.requests, "nothing was posted")
    assert hooks.close(20)
    assert counted[0][1] == "failed"
    assert len(receiver.requests) <= 2


def test_the_end_breaks_off_what_hangs(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    receiver.hold.clear()
    hooks = Hooks([HookConfig(events=("upload",), url=receiver.url)], count=lambda *what: counted.append(what))
    for _ in range(3):
        hooks.on_event("upload", UPLOAD)
    eventually(lambda: receiver.requests, "nothing was posted")
    assert hooks.close(0.1)
    assert sorted(result for _, result in counted) == ["dropped", "dropped", "failed"]


def test_only_what_was_asked_for(receiver: Receiver) -> None:
    hook = HookConfig(events=("upload_failed", "rename"), url=receiver.url, users=("ann",))
    with hooking([], hook) as hooks:
        hooks.on_event("upload", UPLOAD)
        hooks.on_event("rename", UPLOAD | {"user": "bob"})
        hooks.on_event("upload", UPLOAD | {"result": "aborted"})
        hooks.on_event("rename", UPLOAD)
        eventually(lambda: len(receiver.requests) == 2, "too little was posted")
    assert [told["event"] for told in receiver.told] == ["upload_failed", "rename"]


def test_hooks_that_stay_keep_their_queue_and_their_attempts(
    receiver: Receiver, counted: list[tuple[str, str]]
) -> None:
    receiver.hold.clear()
    receiver.statuses = [500]
    stays = HookConfig(events=("upload",), url=receiver.url)
    with hooking(counted, stays, HookConfig(events=("login",), url="http://127.0.0.1:1/")) as hooks:
        for _ in range(3):
            hooks.on_event("upload", UPLOAD)
        hooks.prepare([stays])()
        with pytest.raises(ConfigError, match="No such file"):
            hooks.prepare([HookConfig(events=("upload",), url=receiver.url, secret_file="/nowhere")])
        receiver.hold.set()
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: len(counted) == 4, "queued events were lost")
    assert [result for _, result in counted] == ["delivered"] * 4
    assert len(receiver.requests) == 5


def hook_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sftp-gateway-hook"]


def test_a_hook_that_is_no_more_has_no_thread(receiver: Receiver, counted: list[tuple[str, str]]) -> None:
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "nothing was posted")
        assert hook_threads()
        hooks.prepare([])()
        eventually(lambda: not hook_threads(), "it goes on")
        hooks.on_event("upload", UPLOAD)
    assert len(receiver.requests) == 1


def test_a_hook_that_got_no_thread_gets_one_with_the_next_event(
    receiver: Receiver, counted: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "sftp-gateway-hook" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with hooking(counted, HookConfig(events=("upload",), url=receiver.url)) as hooks:
        hooks.on_event("upload", UPLOAD)
        assert refused
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: len(counted) == 2, "events wait for ever")
    assert len(receiver.requests) == 2


def test_a_reload_that_fails_at_last_keeps_the_hooks(
    start_gateway: StartGateway, connect: Connect, receiver: Receiver
) -> None:
    def fail() -> None:
        raise ConfigError("log_file: cannot be opened")

    gateway = start_gateway(hooks=(HookConfig(events=("login",), url=receiver.url),))
    with pytest.raises(ConfigError):
        gateway.reload(GatewayConfig(), first=fail)
    connect(gateway, "ann", PASSWORD)
    eventually(lambda: receiver.requests, "the hook is gone")


# A gateway with hooks.


def test_a_gateway_tells_what_clients_do(
    start_gateway: StartGateway, connect: Connect, receiver: Receiver, tmp_path: Path
) -> None:
    run, out = command(tmp_path)
    wanted = ("login", "login_failed", "upload", "upload_failed", "remove", "rename")
    hooks = (HookConfig(events=wanted, url=receiver.url), HookConfig(events=("upload",), command=run))  # type: ignore[arg-type]
    gateway = start_gateway(hooks=hooks)
    with contextlib.suppress(paramiko.AuthenticationException):
        connect(gateway, "ann", "wrong password")
    transport = connect(gateway, "ann", PASSWORD)
    sftp = paramiko.SFTPClient.from_transport(transport)
    assert sftp is not None
    with sftp.open("/a", "w") as file:
        file.write(b"12345")
    sftp.rename("/a", "/b")
    sftp.remove("/b")
    unfinished = sftp.open("/cut off", "w")
    transport.close()
    eventually(lambda: len(receiver.requests) == 6 and written(out), "too little was told")
    told = receiver.told
    assert [one["event"] for one in told] == ["login_failed", "login", "upload", "rename", "remove", "upload_failed"]
    assert [told[number].get("path") for number in range(6)] == [None, None, "/a", "/a", "/b", "/cut off"]
    assert (told[2]["bytes"], told[2]["user"], told[2]["from"], told[3]["target"]) == (5, "ann", "127.0.0.1", "/b")
    assert told[5]["result"] == "aborted"
    del unfinished  # would close the file, were it not kept until now
    assert PASSWORD not in str(receiver.requests)
    assert [call["told"]["path"] for call in written(out)] == ["/a"]
