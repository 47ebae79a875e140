"""`Ordering`: which of a channel's requests may run at once, and which must wait for which."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field

from sftp_gateway.sftp.parsing import Request

READS_AT_ONCE = 4  # of one handle


class Level(enum.IntEnum):
    """What a request does to a path."""

    LOOK = 0
    WRITE = 1  # changes the file of that name
    NAME = 2  # changes the name itself, and with it everything below


@dataclass(frozen=True, slots=True)
class Claims:
    """What a request needs: handles, alone or shared with other reads; paths (folded)."""

    handles: tuple[bytes, ...] = ()
    shared: bool = False
    in_turn: bool = False  # a shared one that continues the last one of its handle waits for that
    paths: tuple[tuple[str, Level], ...] = ()


@dataclass(slots=True, eq=False)
class Task:
    """A request that is not answered yet."""

    request: Request
    claims: Claims
    since: float = 0.0  # when it was taken in
    size: int = 0  # bytes of its packet
    waits_for: int = 0
    followers: list[Task] = field(default_factory=list)
    reply: bytes | None = None


class Ordering:
    """The unanswered requests of a channel that were not answered at once. The channel's lock guards it.

    Requests of one handle run in the order of their arrival. A few of its reads run at once, except consecutive ones if
    the file reads ahead by itself: threads that overtake each other would only disturb that. Requests that change a
    path come before or after all others of that path, as they arrived. Everything else is independent. Replies to reads
    keep their order: one that is done leaves the queue after those before it, and until then holds up later ones, so
    that only a few replies of each handle wait.
    """

    def __init__(self) -> None:
        self._by_handle: dict[bytes, list[Task]] = {}
        self._with_paths: list[Task] = []

    def is_free(self, claims: Claims) -> bool:
        """Tell whether a request with these claims has nothing to wait for, and may be answered before all others."""
        if any(handle in self._by_handle for handle in claims.handles):
            return False
        return not any(_conflict(claims, task.claims) for task in self._with_paths)

    def is_free_handle(self, handle: bytes) -> bool:
        """Tell whether no request of a handle is unanswered."""
        return handle not in self._by_handle

    def add(self, task: Task) -> bool:
        """Add a request; return whether it may run now."""
        claims = task.claims
        blockers: set[Task] = set()
        for handle in claims.handles:
            before = self._by_handle.setdefault(handle, [])
            if not claims.shared:
                blockers.update(before)
            else:
                blockers.update(other for other in before if not other.claims.shared)
                if claims.in_turn and before and _follows(task.request, before[-1].request):
                    blockers.add(before[-1])
                elif len(before) >= READS_AT_ONCE:
                    blockers.add(before[-READS_AT_ONCE])
            before.append(task)
        if claims.paths:
            blockers.update(other for other in self._with_paths if _conflict(claims, other.claims))
            self._with_paths.append(task)
        for blocker in blockers:
            blocker.followers.append(task)
        task.waits_for = len(blockers)
        return not blockers

    def done(self, task: Task, reply: bytes) -> tuple[list[Task], list[Task]]:
        """Record a reply; return the requests whose replies are due now, in order, and those that may run now."""
        task.reply = reply
        answered = [task]
        if task.claims.shared:
            (handle,) = task.claims.handles
            answered = list(itertools.takewhile(lambda one: one.reply is not None, self._by_handle[handle]))
        return answered, [follower for each in answered for follower in self._take_out(each)]

    def _take_out(self, task: Task) -> list[Task]:
        """Return the requests that waited only for this one."""
        for handle in task.claims.handles:
            tasks = self._by_handle[handle]
            tasks.remove(task)
            if not tasks:
                del self._by_handle[handle]
        if task.claims.paths:
            self._with_paths.remove(task)
        for follower in task.followers:
            follower.waits_for -= 1
        return [follower for follower in task.followers if follower.waits_for == 0]


def _follows(request: Request, last: Request) -> bool:
    return request.offset == last.offset + last.size


def _conflict(claims: Claims, others: Claims) -> bool:
    return any(
        _clash(key, level, other, other_level) for key, level in claims.paths for other, other_level in others.paths
    )


def _clash(key: str, level: Level, other: str, other_level: Level) -> bool:
    if key == other:
        return bool(level or other_level)
    if level is Level.NAME and other.startswith(key.rstrip("/") + "/"):
        return True
    return other_level is Level.NAME and key.startswith(other.rstrip("/") + "/")
