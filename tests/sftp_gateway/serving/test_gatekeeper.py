"""Limits and bans, with a clock that the test winds."""

from __future__ import annotations

from typing import Any

import pytest

from sftp_gateway.serving import gatekeeper
from sftp_gateway.serving.gatekeeper import Gatekeeper
from tests.sftp_gateway.serving.gatekeeping import Clock, connections, keeper


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
