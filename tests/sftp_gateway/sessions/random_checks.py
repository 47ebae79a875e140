"""Checks of single replies, for sessions that do things at random. Each raises AssertionError."""

from __future__ import annotations

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.raw_client import A, C, R, Reply, T, W, X


def ok(reply: Reply) -> None:
    assert reply.ok, "is no success"


def refused(reply: Reply) -> None:
    assert reply.kind == Kind.STATUS, "is no refusal"
    assert reply.code in (Status.FAILURE, Status.NO_SUCH_FILE), "is no refusal"
    assert "internal error" not in reply.text, "is no reason"


def attributes(reply: Reply, size: int, time: int | None) -> None:
    assert reply.kind == Kind.ATTRS, f"has {size} bytes"
    found = reply.attributes
    assert (found.size, found.permissions) == (size, 0o100644), f"has {found.size} instead of {size} bytes"
    assert time is None or found.mtime == time, f"has the time {found.mtime} instead of {time}"


def data(reply: Reply, expected: bytes) -> None:
    if expected:
        assert reply.kind == Kind.DATA, f"has {len(expected)} bytes there"
        assert reply.data == expected, f"has other bytes there ({len(reply.data)}, not {len(expected)})"
    else:
        assert (reply.kind, reply.code) == (Kind.STATUS, Status.EOF), "ends there"


def shown(flags: int) -> str:
    letters = ((R, "R"), (W, "W"), (C, "C"), (T, "T"), (X, "X"), (A, "A"))
    return "".join(letter for flag, letter in letters if flags & flag)
