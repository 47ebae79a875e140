"""Requests wait for those that they depend on, and for no others."""

from __future__ import annotations

import itertools

import pytest

from sftp_gateway.requests.ordering import READS_AT_ONCE, Claims, Level, Ordering, Task
from sftp_gateway.sftp.parsing import Request

LOOK, WRITE, NAME = Level.LOOK, Level.WRITE, Level.NAME


def task(claims: Claims) -> Task:
    return Task(Request(0, 0), claims)


def done(ordering: Ordering, task: Task) -> list[Task]:
    """End a request; return those that may run then."""
    return ordering.done(task, b"")[1]


def path(key: str, level: Level) -> Claims:
    return Claims(paths=((key, level),))


@pytest.mark.parametrize(
    ("earlier", "later", "waits"),
    [
        (path("/a", LOOK), path("/a", LOOK), False),
        (path("/a", WRITE), path("/a", LOOK), True),
        (path("/a", LOOK), path("/a", WRITE), True),
        (path("/a", WRITE), path("/b", WRITE), False),
        (path("/d/a", WRITE), path("/d", LOOK), False),
        (path("/d/a", WRITE), path("/d/b", LOOK), False),
        (path("/d", NAME), path("/d/a", LOOK), True),
        (path("/d/a", WRITE), path("/d", NAME), True),
        (path("/d", NAME), path("/dd", LOOK), False),
        (path("/d/a", NAME), path("/d", LOOK), False),
        (path("/", NAME), path("/x", LOOK), True),
        (Claims(handles=(b"1",)), Claims(handles=(b"1",)), True),
        (Claims(handles=(b"1",)), Claims(handles=(b"2",)), False),
        (Claims(handles=(b"1",), shared=True), Claims(handles=(b"1",), shared=True), False),
        (Claims(handles=(b"1",), shared=True), Claims(handles=(b"1",)), True),
        (Claims(handles=(b"1", b"2")), Claims(handles=(b"2",), shared=True), True),
        (Claims(handles=(b"1",), paths=(("/a", WRITE),)), Claims(handles=(b"1",), paths=(("/a", WRITE),)), True),
        (Claims(), Claims(), False),
    ],
)
def test_who_waits_for_whom(earlier: Claims, later: Claims, waits: bool) -> None:
    ordering = Ordering()
    first, second = task(earlier), task(later)
    assert ordering.add(first)
    assert ordering.is_free(later) is not (waits or later.shared)  # replies to reads keep their order
    assert ordering.add(second) is not waits
    assert done(ordering, first) == ([second] if waits else [])
    assert done(ordering, second) == []
    assert ordering.is_free(earlier)


def test_a_chain_runs_in_order() -> None:
    ordering = Ordering()
    tasks = [task(path("/a", level)) for level in (WRITE, LOOK, LOOK, NAME, LOOK)]
    assert [ordering.add(one) for one in tasks] == [True, False, False, False, False]
    assert done(ordering, tasks[0]) == tasks[1:3]
    assert done(ordering, tasks[2]) == []
    assert done(ordering, tasks[1]) == [tasks[3]]
    assert done(ordering, tasks[3]) == [tasks[4]]


def test_only_a_few_reads_of_one_handle_run_at_once() -> None:
    ordering = Ordering()
    reads = [task(Claims(handles=(b"1",), shared=True)) for _ in range(20)]
    close = task(Claims(handles=(b"1",)))
    ready = [read for read in reads if ordering.add(read)]
    assert ready == reads[:READS_AT_ONCE]
    assert not ordering.add(close)
    finished = 0
    while ready:
        assert len(ready) <= READS_AT_ONCE
        one = ready.pop()
        assert one is not close or finished == len(reads)
        ready += done(ordering, one)
        finished += 1
    assert finished == len(reads) + 1


def test_what_is_read_behind_a_slow_read_is_a_few_replies() -> None:
    ordering = Ordering()
    reads = [task(Claims(handles=(b"1",), shared=True)) for _ in range(20)]
    slow, *quick = [read for read in reads if ordering.add(read)]
    for read in reversed(quick):
        assert ordering.done(read, b"") == ([], [])
    answered, ready = ordering.done(slow, b"")
    assert answered == [slow, *quick]
    assert set(ready) == set(reads[READS_AT_ONCE : 2 * READS_AT_ONCE])


def test_reads_that_follow_on_each_other_run_in_turn_where_the_file_reads_ahead() -> None:
    claims = Claims(handles=(b"1",), shared=True, in_turn=True)
    ordering = Ordering()
    reads = [Task(Request(0, 0, offset=place, size=10), claims) for place in (0, 10, 20, 500)]
    assert [ordering.add(read) for read in reads] == [True, False, False, True]
    assert done(ordering, reads[3]) == []
    for before, after in itertools.pairwise(reads[:3]):
        assert done(ordering, before) == [after]
