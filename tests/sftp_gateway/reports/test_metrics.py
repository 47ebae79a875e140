"""What /metrics and /healthz tell of a gateway at work."""

from __future__ import annotations

import contextlib
import errno
import http.client
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from sftp_gateway import GatewayConfig, GatewayError, UserConfig
from sftp_gateway.network.wake_up import WakeUp
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.program import begin
from tests.sftp_gateway.scraping import address, fetch, scraped
from tests.waiting import eventually

Sample = tuple[str, frozenset[tuple[str, str]]]


def test_everything_that_clients_do_is_counted(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(metrics="127.0.0.1:0")
    with contextlib.suppress(paramiko.AuthenticationException):
        connect(gateway, "ann", "wrong password")
    transport = connect(gateway, "ann", PASSWORD)
    client = sftp(transport)
    with client.open("/a", "wb") as file:
        file.write(b"x" * 100_000)
    with client.open("/a", "rb") as file:
        assert len(file.read()) == 100_000
        value = scraped(address(gateway))
        assert value("handles") == 1
    client.rename("/a", "/b")
    client.remove("/b")
    with pytest.raises(OSError, match="directory"):
        client.rename("/missing", "/b")
    value = scraped(address(gateway))
    assert value("connections") >= 1
    assert value("sessions") == 1
    assert value("handles") == 0
    assert value("logins_total", result="ok") == 1
    assert value("logins_total", result="failed") == 1
    assert value("transfers_total", direction="upload", result="ok") == 1
    assert value("transfers_total", direction="download", result="ok") == 1
    assert value("transferred_bytes_total", direction="upload") == 100_000
    assert 100_000 < value("received_bytes_total") < 120_000
    assert 100_000 < value("sent_bytes_total") < 120_000
    assert value("request_seconds_count", type="open") == 2
    assert value("request_seconds_bucket", type="open", le="+Inf") == 2
    assert value("request_seconds_count", type="write") >= 3
    assert value("request_seconds_sum", type="write") > 0
    assert value("changes_total", operation="rename") == 1
    assert value("changes_total", operation="remove") == 1
    assert value("accounts") == 1
    assert value("worker_threads") >= 1
    assert value("draining") == 0


def test_bans_and_refusals_are_counted(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(metrics="127.0.0.1:0", ban_failures=1, ban_exempt=())
    with contextlib.suppress(paramiko.SSHException, EOFError):
        connect(gateway, "ann", "wrong password")
    with socket.create_connection(gateway.address, timeout=20) as sock:
        assert sock.makefile("rb").readline() == b"banned after failed logins\r\n"
    value = scraped(address(gateway))
    assert value("bans_total") == 1
    assert value("banned_addresses") == 1
    assert value("refused_total", reason="banned after failed logins") == 1


def test_users_are_told_apart_only_if_configured_and_asked_for(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(metrics="127.0.0.1:0", metrics_users=True)
    connect(gateway, "ann", PASSWORD)
    for number in range(3):
        with contextlib.suppress(paramiko.AuthenticationException):
            connect(gateway, f"invented{number}", "wrong password")
    value = scraped(address(gateway))
    assert value("logins_total", result="ok", user="ann") == 1
    assert value("logins_total", result="failed", user="other") == 3
    assert "invented" not in fetch(address(gateway), "/metrics")[1]
    new = UserConfig(name="new", password_hash=PASSWORD_HASH, url="mem://")
    gateway.reload(GatewayConfig(users=(new,)))
    connect(gateway, "new", PASSWORD)
    settled(address(gateway), lambda value: value("logins_total", result="ok", user="new") == 1)


def test_metrics_hold_no_secret(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(metrics="127.0.0.1:0", metrics_users=True, credential_url="mem://{user}:{password}@/")
    sftp(connect(gateway, "KEY~SECRET", "TOKEN")).listdir("/")
    text = fetch(address(gateway), "/metrics")[1]
    assert 'result="ok",user="other"} 1.0' in text
    assert not re.search("KEY|SECRET|TOKEN", text)


def test_there_are_no_other_pages(start_gateway: StartGateway) -> None:
    gateway = start_gateway(metrics="127.0.0.1:0")
    assert fetch(address(gateway), "/")[0] == 404
    assert fetch(address(gateway), "/healthz?verbose") == (200, "ok\n")


def test_without_the_setting_there_is_none(start_gateway: StartGateway) -> None:
    assert start_gateway().metrics_address is None


def test_a_page_that_cannot_be_is_one_clear_line_and_leaves_nothing(start_gateway: StartGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GatewayError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
            start_gateway(metrics=f"127.0.0.1:{port}")


def test_a_silent_peer_delays_no_health_check(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftp_gateway.reports.status_page._REQUEST_SECONDS", 10.0)
    gateway = start_gateway(metrics="127.0.0.1:0")
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.create_connection(address(gateway), timeout=20))
        started = time.monotonic()
        assert fetch(address(gateway), "/healthz")[0] == 200
        assert time.monotonic() - started < 8.0


def test_a_peer_that_drips_is_cut_off(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then would keep its place, and the gateway from ending, for days."""
    monkeypatch.setattr("sftp_gateway.reports.status_page._REQUEST_SECONDS", 0.5)
    gateway = start_gateway(metrics="127.0.0.1:0")
    with socket.create_connection(address(gateway), timeout=0.05) as peer:

        def drip() -> bool:
            with contextlib.suppress(TimeoutError):
                peer.sendall(b"x")
                return not peer.recv(1)
            return False

        with contextlib.suppress(ConnectionError):
            eventually(drip, "it is still waited for")


def test_where_there_are_no_threads_left_the_page_is_back_with_them(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many requests found none: each of them gives back its place among those that are answered at once."""
    gateway = start_gateway(metrics="127.0.0.1:0")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "sftp-gateway-page":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(20):
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                fetch(address(gateway), "/healthz")
    assert "a status page cannot be shown: can't start new thread" in caplog.text
    assert fetch(address(gateway), "/healthz")[0] == 200


def test_where_there_are_no_descriptors_left_nobody_looks_for_one_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be taken waits in the queue: the status page and the control socket spun over it."""
    monkeypatch.setattr("sftp_gateway.network.wake_up._FULL_SECONDS", 0.05)
    tries: list[float] = []
    wake_up = WakeUp()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:

        class Full:
            fileno = listener.fileno

            def accept(self) -> Any:
                tries.append(time.monotonic())
                if len(tries) < 4:
                    raise OSError(errno.EMFILE, "Too many open files")
                return listener.accept()

        full: Any = Full()
        taken = wake_up.accept(full)
        assert taken is not None
        assert taken[1] == peer.getsockname()
        taken[0].close()
        assert all(after - before >= 0.04 for before, after in itertools.pairwise(tries))
        wake_up.ring()
        assert wake_up.accept(full) is None
    wake_up.close()


def test_while_it_drains_it_is_not_healthy(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(
        metrics="127.0.0.1:0", users=(UserConfig(name="a", password_hash=PASSWORD_HASH, url="mem://"),)
    )
    assert fetch(address(gateway), "/healthz") == (200, "ok\n")
    client = sftp(connect(gateway, "a", PASSWORD))
    working = threading.Event()
    over = threading.Event()

    def work() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while not over.is_set():
                client.listdir("/")
                working.set()

    busy = threading.Thread(target=work)
    busy.start()
    assert working.wait(20)
    stopping = threading.Thread(target=gateway.stop, args=(20.0,))
    stopping.start()
    try:
        eventually(lambda: fetch(address(gateway), "/healthz") == (503, "draining\n"), seconds=15)
        assert scraped(address(gateway))("draining") == 1
    finally:
        over.set()
        busy.join()
        stopping.join()


# Several processes.


@contextlib.contextmanager
def several(tmp_path: Path) -> Iterator[tuple[int, tuple[str, int], Path]]:
    """Run two processes; give their port, where their status page is, and their log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        page = free.getsockname()
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\nstate_folder = "state"\nprocesses = 2\nmetrics = "127.0.0.1:{page[1]}"\n'
        f'log_level = "debug"\n[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl = "mem://"\n'
    )
    process, port = begin(config)
    with process:
        try:
            yield port, page, tmp_path / "log"
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert not list((tmp_path / "state").glob("metrics-*"))


def settled(page: tuple[str, int], wanted: Callable[[Callable[..., float]], bool]) -> Callable[..., float]:
    """Scrape until it is as wanted: a login is counted just after its client knows, gauges of others each second."""

    def found() -> Callable[..., float] | None:
        with contextlib.suppress(OSError):
            value = scraped(page)
            return value if wanted(value) else None
        return None

    value = eventually(found)
    assert value is not None
    return value


def test_the_metrics_of_several_processes_are_one_and_outlive_one(tmp_path: Path, connect: Connect) -> None:
    with several(tmp_path) as (port, page, log):

        class Gateway:
            address = ("127.0.0.1", port)

        for _ in range(6):
            with sftp(connect(Gateway, "ann", PASSWORD)).open("/a", "wb") as file:
                file.write(b"x" * 1000)
        numbers = [line.partition("session=")[2][0] for line in log.read_text().splitlines() if " login " in line]
        assert set(numbers) == {"0", "1"}, "one process took all connections"
        value = settled(page, lambda value: value("sessions") == 6)
        assert value("logins_total", result="ok") == 6
        assert value("transferred_bytes_total", direction="upload") == 6000
        pid = re.search(r"process_started process=1 pid=(\d+)", log.read_text())
        assert pid is not None
        os.kill(int(pid[1]), signal.SIGKILL)
        value = settled(page, lambda value: value("sessions") == numbers.count("0"))
        assert value("logins_total", result="ok") == 6
        assert value("transferred_bytes_total", direction="upload") == 6000
        assert fetch(page, "/healthz") == (200, "ok\n")


def test_what_a_gateway_that_was_killed_has_counted_is_not_in_the_way_of_its_successor(tmp_path: Path) -> None:
    with several(tmp_path) as (port, _, _):
        pass
    config = tmp_path / "gateway.toml"  # with a port that stays the same, as everybody's does
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    left = tmp_path / "state" / f"metrics-{port}"
    left.mkdir()
    (left / "counter_7.db").write_bytes(b"of another version, perhaps")
    process, _ = begin(config)
    with process:
        page = re.search(r'metrics = "127.0.0.1:(\d+)"', config.read_text())
        assert page is not None
        try:
            settled(("127.0.0.1", int(page[1])), lambda value: value("sessions") == 0)
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert not left.exists()
