"""Limits, rates and bans that several processes share in one file, also where its disk is full."""

from __future__ import annotations

import hashlib
import resource
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sftp_gateway.serving import gatekeeper
from sftp_gateway.serving.gatekeeper import Gatekeeper, Register
from tests.sftp_gateway.serving.gatekeeping import Clock, connections, keeper, limits


@pytest.fixture
def two(clock: Clock, tmp_path: Path) -> tuple[Gatekeeper, Gatekeeper]:
    register = Register(tmp_path / "gate.sqlite", processes=2)
    register.prepare()
    first, second = (keeper(clock, register=replace(register, process=number)) for number in range(2))
    return first, second


def test_processes_share_limits_and_bans(two: tuple[Gatekeeper, Gatekeeper]) -> None:
    first, second = two
    assert [gate.connect("10.0.0.1") for gate in (first, second, first)] == [None] * 3
    assert second.connect("10.0.0.1") == "too many connections from one address"
    first.disconnect("10.0.0.1")
    assert second.connect("10.0.0.1") is None
    assert first.sign_in("ann", "10.0.0.1")
    assert second.sign_in("ann", "10.0.0.1")
    assert not first.sign_in("ann", "10.0.0.1")
    assert [gate.fail("ann", "10.0.0.2", attempt) for gate, attempt in ((first, b"a"), (second, b"b"), (first, b"c"))][
        2
    ]
    assert second.connect("10.0.0.2") == "banned after failed logins"


def test_processes_share_rates_and_room_for_strangers(two: tuple[Gatekeeper, Gatekeeper]) -> None:
    for gate in two:
        many = {"max_connections": 50, "max_connections_per_address": 50, "max_sessions_per_user": 50}
        gate.configure(
            limits(**many, ban_failures=0, max_unauthenticated=8, connections_per_minute=6.0, connection_burst=6)
        )
    first, second = two
    assert [gate.connect("10.0.0.1") for gate in (first, second, first, second)] == [None] * 4
    assert first.connect("10.0.0.1") == second.connect("10.0.0.1") == "too many connections that have not signed in"
    second.disconnect("10.0.0.1")
    second.disconnect("10.0.0.1")
    assert [connections(gate, "10.0.0.1", 1) for gate in (first, second, first, second)] == [1, 1, 0, 0]
    assert first.sign_in("ann", "10.0.0.1")
    assert connections(second, "10.0.0.1", 5) == 1


def test_what_a_dead_process_counted_goes_with_its_successor(
    two: tuple[Gatekeeper, Gatekeeper], clock: Clock, tmp_path: Path
) -> None:
    first, second = two
    for _ in range(3):
        assert first.connect("10.0.0.1") is None
    assert second.connect("10.0.0.1") is not None
    keeper(clock, register=Register(tmp_path / "gate.sqlite", 0, 2)).close()
    assert second.connect("10.0.0.1") is None


def test_who_has_more_connections_leaves_the_next_to_others(two: tuple[Gatekeeper, Gatekeeper]) -> None:
    first, second = two
    assert not first.is_ahead()
    first.connect("10.0.0.1")
    assert first.is_ahead()
    assert not second.is_ahead()
    second.connect("10.0.0.1")
    assert not first.is_ahead()


def test_who_cannot_look_what_others_have_takes_the_next_himself(two: tuple[Gatekeeper, Gatekeeper]) -> None:
    """It is asked in the thread that accepts, which must not end."""
    first, _ = two
    first.connect("10.0.0.1")
    first._table.execute("ALTER TABLE connections RENAME TO elsewhere")
    assert not first.is_ahead()
    first._table.execute("ALTER TABLE elsewhere RENAME TO connections")


def test_the_shared_file_is_private_and_holds_no_secret(two: tuple[Gatekeeper, Gatekeeper], tmp_path: Path) -> None:
    first, _ = two
    first.sign_in("key~the-secret", "10.0.0.1")
    first.fail("ann", "10.0.0.1", hashlib.sha256(b"ann\0the-password").digest())
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert b"the-secret" not in path.read_bytes()
        assert hashlib.sha256(b"ann\0the-password").digest() not in path.read_bytes()


def test_a_disk_that_fills_up_refuses_nobody(clock: Clock, tmp_path: Path) -> None:
    """The counts of several processes have their room on it from the start, and so do those of one that is replaced."""
    register = Register(tmp_path / "gate.sqlite", processes=2)
    register.prepare()
    many = {"max_connections": 5000, "max_unauthenticated": 5000, "ban_failures": 2}
    gates = [keeper(clock, register=replace(register, process=number), **many) for number in range(2)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        gates.append(keeper(clock, register=replace(register, process=1), **many))
        for number in range(200):
            address, gate = f"10.0.{number // 250}.{number % 250}", gates[number % 3]
            assert gate.connect(address) is None
            assert gate.sign_in(f"user{number}", address)
            gate.fail("ann", f"10.1.{number // 250}.{number % 250}", b"%d" % number)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_and_is_over_when_there_is_room(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeper, "_ROOM_BYTES", 0)
    register = Register(tmp_path / "gate.sqlite")
    register.prepare()
    gate = keeper(clock, register=register, max_connections_per_address=1, ban_failures=1000)
    assert gate.connect("10.0.0.1") is None
    gate._table.execute("PRAGMA max_page_count = 1").fetchone()  # no more than there are
    attempts = (bytes(100) + number.to_bytes(2, "big") for number in range(1000))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        any(gate.fail("ann", "10.0.0.2", attempt) for attempt in attempts)
    gate._table.execute("PRAGMA max_page_count = 1000000").fetchone()
    assert gate.connect("10.0.0.1") == "too many connections from one address"
    gate.disconnect("10.0.0.1")
    assert gate.connect("10.0.0.1") is None


def test_who_leaves_while_nothing_can_be_written_is_not_counted_for_ever(clock: Clock, tmp_path: Path) -> None:
    register = Register(tmp_path / "gate.sqlite")
    register.prepare()
    gate = keeper(clock, register=register, max_connections_per_address=2, max_sessions_per_user=1)
    for _ in range(2):
        assert gate.connect("10.0.0.1") is None
    assert gate.sign_in("ann", "10.0.0.1")
    gate._table.execute("PRAGMA query_only = 1")
    gate.sign_out("ann")
    gate.disconnect("10.0.0.1", signed_in=True)
    with pytest.raises(sqlite3.OperationalError):
        gate.connect("10.0.0.2")
    gate._table.execute("PRAGMA query_only = 0")
    assert gate.connect("10.0.0.1") is None
    assert gate.connect("10.0.0.1") == "too many connections from one address"
    assert gate.sign_in("ann", "10.0.0.1")
    assert not gate.sign_in("ann", "10.0.0.1")


def test_processes_that_begin_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """SQLite does not wait where a file gets its log; a process that could not count ended its gateway."""
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            register = Register(tmp_path / f"gate-{number}", processes=8)
            register.prepare()
            start = threading.Barrier(8)

            def begin(process: int, register: Register = register, start: threading.Barrier = start) -> None:
                start.wait(20)
                Gatekeeper(limits(), register=replace(register, process=process)).close()

            list(threads.map(begin, range(8)))
