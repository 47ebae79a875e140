"""When to call again, how long to wait, and the account's brake for 429 answers. Knows no route and no HTTP."""

from __future__ import annotations

import copy
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeVar

from fs_dropbox.errors import ApiError, DropboxError, TransportError

_logger = logging.getLogger(__name__)

T = TypeVar("T")

WARN_AFTER_FAILURES: Final = 3

# A 429 without Retry-After has never been seen of Dropbox; a proxy may send one.
DEFAULT_RETRY_AFTER_SECONDS: Final = 1.0
# Dropbox has been seen to ask for up to 300 s. Whatever else answers in its place must not stop an account for days.
LONGEST_FREEZE_SECONDS: Final = 600.0
# Commits in one namespace are serial at about 0.15 s, and those that wait for more than about 1 s are refused.
FIRST_WRITERS: Final = 4
MOST_WRITERS: Final = 8
SUCCESSES_FOR_ANOTHER_WRITER: Final = 16
# Gateways say these of servers behind them from which they have not heard.
_UPSTREAM_LOST: Final = frozenset({502, 504})
# How long a first answer is waited for: Dropbox takes half a second, and a packet may be lost.
OPEN_SECONDS: Final = 10.0


class Traffic(Enum):
    """What a call is to Dropbox's limits."""

    READ = "read"
    DATA = "data"  # brings bytes into an upload session; takes no lock
    WRITE = "write"  # takes the write lock of a namespace


class Clock(Protocol):
    """Time, injected so that tests need none of it."""

    def monotonic(self) -> float: ...

    def wait(self, event: threading.Event, seconds: float) -> object: ...


class SystemClock:
    """The computer's time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> object:
        return event.wait(seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is tried.

    `attempts` bounds the tries that fail, `connect_attempts` those that find nobody there: no address for the name, or
    nothing that listens. Waiting after 429 is bounded by `deadline_seconds` alone, which is the most that a call takes
    in all, except for bodies of downloads.
    """

    attempts: int = 6
    connect_attempts: int = 6
    deadline_seconds: float = 120.0
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 16.0

    def pause_seconds(self, failures: int, chance: float) -> float:
        """Return the pause after so many failures in a row: doubled each time, between half of it and all of it."""
        longest = min(self.first_pause_seconds * 2.0 ** (failures - 1), self.longest_pause_seconds)
        return longest * (0.5 + chance / 2)


def opening_policy(seconds: float = OPEN_SECONDS) -> RetryPolicy:
    """Return the policy of whoever waits for a first answer: soon over, and after one quick retry where nobody is."""
    return RetryPolicy(attempts=4, connect_attempts=2, deadline_seconds=seconds, first_pause_seconds=0.25)


class Waiter:
    """The waits of one call, made for it by its thread; any thread may interrupt it. Thread-safe.

    A flag and an event, no lock: the flag is set before the event, and read after the event is cleared.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wake = threading.Event()
        self.interrupted_by: TransportError | None = None
        self.policy: RetryPolicy | None = None  # instead of the usual one
        self.deadline: float | None = None  # of the outermost call, on the clock's time
        self.on_interrupt: Callable[[], None] | None = None

    def begin(self, seconds: float) -> float:
        """Return the deadline of a call that may take so long: that of the call within which it is made, if any."""
        if self.deadline is None:
            self.deadline = self._clock.monotonic() + seconds
        return self.deadline

    def wait(self, seconds: float) -> None:
        """Wait, or less when woken; raises TransportError when interrupted."""
        self.check()
        self._clock.wait(self._wake, max(seconds, 0.0))
        self._wake.clear()
        self.check()

    def wake(self) -> None:
        """End the wait under way."""
        self._wake.set()

    def interrupt(self, error: TransportError) -> None:
        """End the wait or the request under way, and refuse what follows, with this error."""
        self.interrupted_by = error
        self._wake.set()
        break_off = self.on_interrupt
        if break_off is not None:
            break_off()

    def check(self) -> None:
        """Raise the error of an interruption."""
        if self.interrupted_by is not None:
            raise self.interrupted_by


class Governor:
    """The brake of one account: a 429 stops everyone whom it concerns, at once. Thread-safe; shared by its clients.

    One leaf lock. Who waits does so with the lock released, and is woken or interrupted through its Waiter.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        # guarded by _lock
        self._frozen_until = dict.fromkeys(Traffic, 0.0)
        self._writing: set[Waiter] = set()
        self._most_writers = FIRST_WRITERS
        self._successes = 0
        self._queue: deque[Waiter] = deque()

    @property
    def throttled_until(self) -> float | None:
        """When Dropbox lets writers go on, on the clock's time; None while it does not hold them up."""
        with self._lock:
            until = max(self._frozen_until[Traffic.WRITE], self._frozen_until[Traffic.DATA])
            return until if until > self._clock.monotonic() else None

    @property
    def writers(self) -> int:
        """How many commits may be under way at the same time."""
        with self._lock:
            return self._most_writers

    def admit(self, traffic: Traffic, waiter: Waiter, route: str, deadline: float) -> None:
        """Wait for the call's turn; every return is followed by one `release`.

        Raises ApiError where the turn will not come before the deadline, TransportError when interrupted.
        """
        try:
            while True:
                with self._lock:
                    now = self._clock.monotonic()
                    frozen_seconds = self._frozen_until[traffic] - now
                    if frozen_seconds <= 0 and (traffic is not Traffic.WRITE or self._take_slot_locked(waiter)):
                        return
                if now >= deadline or frozen_seconds > deadline - now:
                    tag = "too_many_requests" if frozen_seconds > 0 else "too_many_write_operations"
                    raise ApiError(route, (tag,), status=429, retry_after=max(frozen_seconds, 0.0))
                waiter.wait(frozen_seconds if frozen_seconds > 0 else deadline - now)
        finally:
            self._leave(waiter)

    def release(self, traffic: Traffic, waiter: Waiter, *, success: bool = False) -> None:
        """End a call that was admitted. Idempotent."""
        with self._lock:
            if traffic is not Traffic.WRITE or waiter not in self._writing:
                return
            self._writing.remove(waiter)
            if success:
                self._successes += 1
                if self._successes >= SUCCESSES_FOR_ANOTHER_WRITER and self._most_writers < MOST_WRITERS:
                    self._successes = 0
                    self._most_writers += 1
            self._wake_locked()

    def throttle(self, traffic: Traffic, seconds: float, *, lock_contention: bool) -> None:
        """Stop the calls that a 429 concerns: of writers their commits, or commits and data, of readers all reads."""
        with self._lock:
            if lock_contention:
                concerned = [Traffic.WRITE]
                self._most_writers = max(1, self._most_writers // 2)
                self._successes = 0
            else:
                concerned = [Traffic.READ] if traffic is Traffic.READ else [Traffic.DATA, Traffic.WRITE]
            until = self._clock.monotonic() + seconds
            for each in concerned:
                self._frozen_until[each] = max(self._frozen_until[each], until)

    def _take_slot_locked(self, waiter: Waiter) -> bool:
        if waiter not in self._queue:
            self._queue.append(waiter)
        if len(self._writing) >= self._most_writers or self._queue[0] is not waiter:
            return False
        self._queue.popleft()
        self._writing.add(waiter)
        self._wake_locked()
        return True

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self._wake_locked()

    def _wake_locked(self) -> None:
        if self._queue and len(self._writing) < self._most_writers:
            self._queue[0].wake()


@dataclass(slots=True)
class _Call:
    """A call under way, and what has become of it so far."""

    route: str
    traffic: Traffic
    waiter: Waiter
    policy: RetryPolicy
    deadline: float
    repeatable: bool
    failures: int = 0
    refusals: int = 0  # for coming too early
    is_doubtful: bool = False  # a try may have been carried out
    is_unanswered: bool = False  # nobody has said what became of a try, which may be carried out even now

    def note(self, problem: DropboxError) -> None:
        """Count a try that has failed."""
        if _is_rate_limit(problem):
            self.refusals += 1
        else:
            self.failures += 1
        self.is_doubtful = self.is_doubtful or problem.is_ambiguous
        self.is_unanswered = self.is_unanswered or _is_unanswered(problem)


class Retry:
    """Carries out calls until they succeed or it makes no sense to go on. Thread-safe; holds no lock."""

    def __init__(
        self,
        policy: RetryPolicy,
        governor: Governor,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.governor = governor
        self._clock = clock or SystemClock()
        self._chance = chance

    def run(
        self,
        attempt: Callable[[float], T],
        *,
        route: str,
        traffic: Traffic,
        waiter: Waiter,
        repeatable: bool,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Return what `attempt(seconds left)` returns; raises ApiError or TransportError.

        A call that is not repeatable is never sent again blindly: where an earlier try may have been carried out,
        `settle` looks whether it was, and returns its result, or None when it was not. Calls that settle makes with the
        same waiter share its deadline. What nobody has answered may be carried out after the last look, too.
        """
        policy = waiter.policy or self.policy
        call = _Call(route, traffic, waiter, policy, waiter.begin(policy.deadline_seconds), repeatable)
        while True:
            self._admit(call)
            try:
                result = self._try(call, attempt)
                if call.failures >= WARN_AFTER_FAILURES:  # who fails in the end tells its caller instead
                    _logger.warning("%s: went well after %d failures", route, call.failures)
                return result
            except DropboxError as error:
                problem = error
            call.note(problem)
            pause, is_last = self._plan(call, problem)
            if call.is_doubtful and not repeatable:
                settled = self._settle(call, problem, settle, pause=0.0 if is_last else pause)
                if settled is not None:
                    return settled
                is_last = is_last or settle is None
            elif not is_last:
                _pause(call, problem, pause)
            if is_last:
                if isinstance(problem, ApiError):
                    problem.was_repeated = call.is_doubtful
                raise problem

    def _admit(self, call: _Call) -> None:
        try:
            self.governor.admit(call.traffic, call.waiter, call.route, call.deadline)
        except DropboxError as error:
            if call.is_unanswered and not call.repeatable:
                error = copy.copy(error)  # the waiter raises one and the same again and again
                error.is_unsettled = True
            raise error from None

    def _plan(self, call: _Call, problem: DropboxError) -> tuple[float, bool]:
        """Return the pause before the next try, without the governor's after a 429, and whether there is to be none."""
        pause = 0.0
        if not _is_rate_limit(problem):
            pause = max(call.policy.pause_seconds(call.failures, self._chance()), problem.retry_after or 0.0)
        attempts = call.policy.connect_attempts if _found_nobody(problem) else call.policy.attempts
        left = call.deadline - self._clock.monotonic()
        return pause, not problem.is_transient or call.failures >= attempts or pause >= left

    def _settle(
        self, call: _Call, problem: DropboxError, settle: Callable[[], T | None] | None, *, pause: float
    ) -> T | None:
        """Look, after a pause, what became of a call that may have been carried out. Return its result, or None where
        it was not; where that is not to be known, raise the problem, or let it say so."""
        problem.is_unsettled = True  # until it is looked up
        try:
            _pause(call, problem, pause)
            call.waiter.check()
            settled = settle() if settle is not None else None
        except DropboxError as error:
            if isinstance(error, TransportError) and error.kind in ("interrupted", "closed"):
                problem = TransportError(error.kind, route=problem.route)
                problem.is_unsettled = True
            raise problem from None  # it must not be done twice
        problem.is_unsettled = settle is None or (call.is_unanswered and not _is_refusal(problem))
        return settled

    def _try(self, call: _Call, attempt: Callable[[float], T]) -> T:
        """Make an attempt that was admitted. A 429 that asks for no pause at all is given one."""
        success = False
        try:
            result = attempt(max(call.deadline - self._clock.monotonic(), 0.1))
            success = True
            return result
        except DropboxError as error:
            if _is_rate_limit(error):
                asked = DEFAULT_RETRY_AFTER_SECONDS if error.retry_after is None else error.retry_after
                asked = asked or call.policy.pause_seconds(call.refusals + 1, self._chance())
                contention = isinstance(error, ApiError) and error.tag[-1:] == ("too_many_write_operations",)
                self.governor.throttle(call.traffic, min(asked, LONGEST_FREEZE_SECONDS), lock_contention=contention)
            raise
        finally:
            self.governor.release(call.traffic, call.waiter, success=success)


def _pause(call: _Call, problem: Exception, seconds: float) -> None:
    if seconds:
        _logger.debug("%s; trying again in %.1f s", problem, seconds)
        call.waiter.wait(seconds)


def _is_unanswered(problem: DropboxError) -> bool:
    """Tell whether a call may be at work yet, as far as anybody knows: Dropbox has not said that it is over."""
    if not isinstance(problem, TransportError) or not problem.was_sent:
        return False
    return problem.kind in ("timeout", "reset") or problem.status in _UPSTREAM_LOST


def _is_refusal(problem: DropboxError) -> bool:
    """Tell whether Dropbox has refused a call as things are: then it refuses the same one that comes late, too."""
    return isinstance(problem, ApiError) and problem.status == 409 and not problem.is_transient


def _is_rate_limit(problem: DropboxError) -> bool:
    return isinstance(problem, ApiError) and problem.is_rate_limit


def _found_nobody(problem: DropboxError) -> bool:
    """Tell whether a call failed before anybody could be asked; who connects to nothing learns that at once."""
    return isinstance(problem, TransportError) and problem.kind in ("connect", "proxy") and not problem.was_sent
