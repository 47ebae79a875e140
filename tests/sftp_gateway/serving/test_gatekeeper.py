"""Limits and bans, with a clock that the test winds."""

from __future__ import annotations

import hashlib
import resource
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftp_gateway.serving import gatekeeper
from sftp_gateway.serving.gatekeeper import Gatekeeper, GateLimits, Register


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.gates: list[Gatekeeper] = []

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    for gate in clock.gates:
        gate.close()


def keeper(clock: Clock, *, register: Register | None = None, **settings: Any) -> Gatekeeper:
    values: dict[str, Any] = {
        "max_connections": 10,
        "max_connections_per_address": 3,
        "max_sessions_per_user": 2,
        "ban_failures": 3,
        "ban_seconds": 60.0,
    }
    clock.gates.append(Gatekeeper(GateLimits(**(values | settings)), register=register, clock=clock))
    return clock.gates[-1]


def test_connections_in_all(clock: Clock) -> None:
    gate = keeper(clock, max_connections=2)
    assert gate.connect("10.0.0.1") is None
    assert gate.connect("10.0.0.2") is None
    assert gate.connect("10.0.0.3") == "too many connections"
    gate.disconnect("10.0.0.1")
    assert gate.connect("10.0.0.3") is None


def test_connections_of_one_address(clock: Clock) -> None:
    gate = keeper(clock)
    assert [gate.connect("10.0.0.1") for _ in range(4)] == [None, None, None, "too many connections from one address"]
    assert gate.connect("10.0.0.2") is None
    gate.disconnect("10.0.0.1")
    assert gate.connect("::ffff:10.0.0.1") is None
    assert gate.connect("10.0.0.1") is not None


def test_a_64_bit_network_counts_as_one_address(clock: Clock) -> None:
    gate = keeper(clock, max_connections_per_address=2)
    assert gate.connect("2001:db8::1") is None
    assert gate.connect("2001:db8::2") is None
    assert gate.connect("2001:db8::3") is not None
    assert gate.connect("2001:db8:0:1::1") is None


def test_sessions_of_one_user(clock: Clock) -> None:
    gate = keeper(clock)
    assert [gate.sign_in("ann", "10.0.0.1") for _ in range(3)] == [True, True, False]
    assert gate.sign_in("bob", "10.0.0.1", maximum=1)
    assert not gate.sign_in("bob", "10.0.0.1", maximum=1)
    gate.sign_out("ann")
    assert gate.sign_in("ann", "10.0.0.1")


def test_different_failures_ban_for_a_while(clock: Clock) -> None:
    gate = keeper(clock)
    assert [gate.fail("ann", "10.0.0.1", attempt) for attempt in (b"a", b"b", b"c")] == [False, False, True]
    assert gate.connect("10.0.0.1") == "banned after failed logins"
    assert gate.connect("10.0.0.2") is None
    clock.now += 61
    assert gate.connect("10.0.0.1") is None


def test_a_device_that_repeats_an_old_password_is_not_banned(clock: Clock) -> None:
    gate = keeper(clock)
    assert not any(gate.fail("ann", "10.0.0.1", b"old") for _ in range(100))


def test_failures_long_apart_do_not_add_up(clock: Clock) -> None:
    gate = keeper(clock)
    for attempt in (b"a", b"b", b"c", b"d"):
        assert not gate.fail("ann", "10.0.0.1", attempt)
        clock.now += 31


def test_a_successful_login_forgives(clock: Clock) -> None:
    gate = keeper(clock)
    gate.fail("ann", "10.0.0.1", b"a")
    gate.fail("ann", "10.0.0.1", b"b")
    gate.sign_in("ann", "10.0.0.1")
    assert not gate.fail("ann", "10.0.0.1", b"c")


def test_who_guesses_others_passwords_is_not_forgiven_for_an_own_login(clock: Clock) -> None:
    """Anybody may have one, where credentials of the storage let people in."""
    gate = keeper(clock)
    gate.fail("ann", "10.0.0.1", b"a")
    gate.fail("ann", "10.0.0.1", b"b")
    gate.sign_in("key~secret", "10.0.0.1")
    assert gate.fail("ann", "10.0.0.1", b"c")


def test_exempt_networks_and_switched_off_bans(clock: Clock) -> None:
    gate = keeper(clock, ban_failures=1, ban_exempt=["10.0.0.0/8", "::1/128"])
    assert not gate.fail("ann", "10.1.2.3", b"a")
    assert not gate.fail("ann", "::1", b"a")
    assert gate.fail("ann", "192.0.2.1", b"a")
    assert not keeper(clock, ban_failures=0).fail("ann", "192.0.2.1", b"a")


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer addresses are remembered, so that tests need not come from ten thousand."""
    monkeypatch.setattr(gatekeeper, "_MAX_REMEMBERED", 100)


@pytest.mark.usefixtures("forgetful")
def test_memory_of_failures_is_bounded(clock: Clock) -> None:
    gate = keeper(clock)
    for number in range(250):
        clock.now += 0.00001
        gate.fail("ann", f"10.0.0.{number}", b"a")
    (remembered,) = gate._table.execute("SELECT count(*) FROM failures").fetchone()
    assert 50 <= remembered <= 100
    assert [gate.fail("ann", "10.0.0.249", attempt) for attempt in (b"b", b"c")] == [
        False,
        True,
    ]  # the latest are remembered


@pytest.mark.usefixtures("forgetful")
def test_memory_of_bans_is_bounded(clock: Clock) -> None:
    gate = keeper(clock, ban_failures=1)
    for number in range(250):
        clock.now += 0.00001
        assert gate.fail("ann", f"10.0.0.{number}", b"a")
    assert 50 <= gate.bans <= 100
    assert gate.connect("10.0.0.249") == "banned after failed logins"
    clock.now += 600.0
    assert gate.fail("ann", "192.0.2.1", b"a")
    assert gate.bans == 1


# Connections that do not sign in.


def connections(gate: Gatekeeper, address: str, number: int) -> int:
    """Connect so many times and leave at once; return how many times that was possible."""
    answers = [gate.connect(address) for _ in range(number)]
    for answer in answers:
        if answer is None:
            gate.disconnect(address)
    assert {*answers} <= {None, "too many connections in a short time"}
    return answers.count(None)


def unlimited(clock: Clock, **settings: Any) -> Gatekeeper:
    return keeper(clock, max_connections=10_000, max_connections_per_address=10_000, **settings)


def test_a_rate_holds_after_a_burst(clock: Clock) -> None:
    gate = unlimited(clock, connections_per_minute=60, connection_burst=20, max_unauthenticated=1000)
    assert connections(gate, "10.0.0.1", 50) == 20
    assert connections(gate, "10.0.0.2", 50) == 20
    clock.now += 3
    assert connections(gate, "10.0.0.1", 50) == 3
    clock.now += 1000
    assert connections(gate, "10.0.0.1", 50) == 20


def test_a_64_bit_network_has_one_rate(clock: Clock) -> None:
    gate = unlimited(clock, connections_per_minute=60, connection_burst=3, max_unauthenticated=1000)
    assert [connections(gate, f"2001:db8::{number}", 1) for number in range(5)] == [1, 1, 1, 0, 0]
    assert connections(gate, "2001:db8:0:1::1", 1) == 1


def test_who_signs_in_is_not_held_to_the_rate(clock: Clock) -> None:
    """A backup tool: fifty connections at once, then a thousand in a minute."""
    gate = unlimited(clock, connections_per_minute=60, connection_burst=60, max_sessions_per_user=100)
    for _ in range(20):
        for _ in range(50):
            assert gate.connect("10.0.0.1") is None
        for _ in range(50):
            assert gate.sign_in("ann", "10.0.0.1")
        for _ in range(50):
            gate.sign_out("ann")
            gate.disconnect("10.0.0.1", signed_in=True)
        clock.now += 3
    assert connections(gate, "10.0.0.1", 100) == 60


def test_exempt_networks_have_no_rate(clock: Clock) -> None:
    gate = unlimited(clock, connections_per_minute=1, rate_exempt=["10.0.0.0/8"])
    assert connections(gate, "10.1.2.3", 190) == 190
    assert connections(gate, "::ffff:10.1.2.3", 190) == 190
    assert connections(gate, "192.0.2.1", 10) == 1
    assert connections(unlimited(clock, connections_per_minute=0), "192.0.2.1", 90) == 90


@pytest.mark.usefixtures("forgetful")
def test_memory_of_rates_is_bounded(clock: Clock) -> None:
    gate = unlimited(clock, connections_per_minute=60, connection_burst=2)
    assert connections(gate, "192.0.2.1", 5) == 2
    for number in range(250):
        clock.now += 0.00001
        assert connections(gate, f"10.0.0.{number}", 1) == 1
    (remembered,) = gate._table.execute("SELECT count(*) FROM rates").fetchone()
    assert 50 <= remembered <= 100
    assert connections(gate, "192.0.2.1", 5) == 0  # who took most is remembered


def test_connections_that_have_not_signed_in_leave_room_for_others(clock: Clock) -> None:
    gate = unlimited(clock, max_unauthenticated=16)
    taken = {
        address: [gate.connect(address) for _ in range(20)].count(None)
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6")
    }
    assert list(taken.values()) == [8, 4, 2, 1, 1, 0]
    assert gate.connect("10.0.0.7") == "too many connections that have not signed in"
    assert gate.sign_in("ann", "10.0.0.1")
    assert gate.connect("10.0.0.7") is None
    assert gate.connect("10.0.0.8") is not None
    gate.disconnect("10.0.0.1", signed_in=True)
    assert gate.connect("10.0.0.8") is not None
    gate.disconnect("10.0.0.2")
    assert gate.connect("10.0.0.8") is None


def test_whoever_has_many_ipv6_networks_leaves_room_for_others(clock: Clock) -> None:
    gate = unlimited(clock, max_unauthenticated=16)
    one_customers = [f"2001:db8:1:{number:x}::1" for number in range(100)]
    assert [gate.connect(address) for address in one_customers].count(None) == 12
    assert gate.connect("2001:db8:2::1") is None
    assert gate.connect("10.0.0.1") is None
    gate.disconnect(one_customers[0])
    gate.disconnect(one_customers[1])
    gate.disconnect(one_customers[2])
    assert gate.connect(one_customers[3]) is None


def test_an_exempt_address_may_have_all_that_have_not_signed_in(clock: Clock) -> None:
    gate = unlimited(clock, max_unauthenticated=16, rate_exempt=["10.0.0.1"])
    assert [gate.connect("10.0.0.1") for _ in range(20)].count(None) == 16


# Several processes.


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
        gate.limit(GateLimits(50, 50, 50, 0, 1, max_unauthenticated=8, connections_per_minute=6, connection_burst=6))
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
    limits = {"max_connections": 5000, "max_unauthenticated": 5000, "ban_failures": 2}
    gates = [keeper(clock, register=replace(register, process=number), **limits) for number in range(2)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        gates.append(keeper(clock, register=replace(register, process=1), **limits))
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
    limits = GateLimits(10, 3, 2, 3, 60.0)
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            register = Register(tmp_path / f"gate-{number}", processes=8)
            register.prepare()
            start = threading.Barrier(8)

            def begin(process: int, register: Register = register, start: threading.Barrier = start) -> None:
                start.wait(20)
                Gatekeeper(limits, register=replace(register, process=process)).close()

            list(threads.map(begin, range(8)))
