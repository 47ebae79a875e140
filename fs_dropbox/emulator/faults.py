"""Faults declared by a test: which route fails next, how, and how often. Knows no route's meaning."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fs_dropbox.emulator.http import ClosableBlocks

KINDS = frozenset(
    {
        "rate_limit",  # 429: retry_after=1 (None: without the header), form="json"|"text", reason=…
        "server_error",  # status=500, text=…, retry_after=None
        "error",  # any answer of the route itself: status=409, error={…}
        "expired_token",  # 401 expired_access_token
        "invalid_token",  # 401 invalid_access_token
        "cursor_reset",  # 409 reset
        "too_many_write_operations",  # 409 with that tag where the route's error has it, per entry in batches
        "blank_body",  # 200 and no body at all
        "cut_request",  # the connection closes before the work is done, at_byte=0 of the request's body
        "reset",  # the same with RST
        "cut_body",  # the answer ends at_byte (or in the middle) though Content-Length says more
        "corrupt_body",  # one byte of the answer, at_byte or in the middle, is another than it was
        "slow_body",  # the answer comes in pieces=8, with seconds=0.1 before each
        "stall",  # at="request"|"answer"|"body": waits until release() or seconds=…
        "ambiguous",  # the work is done, of a batch the first done=… entries, then status=… or the connection drops
        "late",  # the connection closes (hang_up=True) and the work is done after release() or seconds=… all the same
    }
)


@dataclass(slots=True)
class Fault:
    """One declaration. Lets `after` calls pass, then strikes `count` times (None: always)."""

    route: str  # a route name, or "*" for every one
    kind: str
    count: int | None = 1
    after: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    path: str | None = None  # strikes only calls whose argument contains this text

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter."""
        return self.parameters.get(name, default)


class Faults:
    """The faults that are still to strike. Thread-safe; `_lock` is a leaf."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._faults: list[Fault] = []
        self._released = threading.Event()
        self.struck = 0

    def add(self, fault: Fault) -> None:
        """Declare a fault."""
        if fault.kind not in KINDS:
            raise ValueError(f"unknown fault {fault.kind!r}: use one of {', '.join(sorted(KINDS))}")
        with self._lock:
            self._faults.append(fault)
            if self._released.is_set():
                self._released = threading.Event()

    def take(self, route: str, argument: str) -> Fault | None:
        """Return the fault that strikes this call, if any, and count it down."""
        with self._lock:
            for fault in self._faults:
                if fault.route not in (route, "*") or (fault.path is not None and fault.path not in argument):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        self._faults.remove(fault)
                self.struck += 1
                return fault
        return None

    def stall(self, fault: Fault) -> None:
        """Wait until release(), the fault's seconds, or the end of the emulator."""
        self._released.wait(fault.get("seconds"))

    def spoil(self, fault: Fault, body: bytes | ClosableBlocks, length: int) -> ClosableBlocks:
        """Return a body of this length as it arrives: wrong, or slowly."""
        blocks = [body] if isinstance(body, bytes) else body
        if fault.kind == "slow_body":
            return _Spoilt(self._slow(fault, blocks, length), body)
        return _Spoilt(_corrupted(blocks, fault.get("at_byte", length // 2)), body)

    def _slow(self, fault: Fault, blocks: Iterable[bytes], length: int) -> Iterator[bytes]:
        size = max(length // int(fault.get("pieces", 8)), 1)
        for block in blocks:
            for start in range(0, len(block), size):
                self._released.wait(fault.get("seconds", 0.1))
                yield block[start : start + size]

    def release(self) -> None:
        """Let everything that stalls go on."""
        self._released.set()

    def clear(self) -> None:
        """Forget all declarations and let go what stalls."""
        with self._lock:
            self._faults.clear()
        self.release()


class _Spoilt:
    """A body that a fault has changed on its way."""

    def __init__(self, blocks: Iterator[bytes], whole: bytes | ClosableBlocks) -> None:
        self._blocks = blocks
        self._whole = whole

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        if not isinstance(self._whole, bytes):
            self._whole.close()


def _corrupted(blocks: Iterable[bytes], at_byte: int) -> Iterator[bytes]:
    """Yield a body with one bit turned over."""
    start = 0
    for block in blocks:
        at, start = at_byte - start, start + len(block)
        yield block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :] if 0 <= at < len(block) else block
