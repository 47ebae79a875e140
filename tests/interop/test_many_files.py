"""Hundreds of small files by one client and by several at once, while Dropbox takes one commit at a time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.waiting import eventually

from .stack import Stack, digests

pytestmark = pytest.mark.interop

FILES = 300
CLIENTS = 4


def make_files(folder: Path, count: int) -> dict[str, str]:
    for number in range(count):
        path = folder / f"folder {number % 5}" / f"file {number:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 7))
    return digests(folder)


def is_followed(stack: Stack) -> None:
    """Wait for the change feed, which begins with the first use: where it begins amid something, that costs more."""
    eventually(lambda: stack.control.peak_concurrency("files/list_folder/longpoll"))


def told(stack: Stack, what: str) -> int:
    """Print the calls that were counted, and return how many there were."""
    feed = ("files/list_folder/longpoll", "files/list_folder/continue")  # more of them the longer it takes
    calls = {route: count for route, count in stack.control.calls().items() if route not in feed}
    print(f"{what}: {sum(calls.values())} calls: {dict(sorted(calls.items()))}")
    return sum(calls.values())


def test_one_client_puts_and_gets_hundreds_of_files(stack: Stack) -> None:
    files = make_files(stack.folder / "tree", FILES)
    stack.control.latency(commit_seconds=0.005)
    stack.sftp("ls")
    is_followed(stack)
    stack.control.reset_counts()
    stack.sftp("put -r tree")
    assert stack.stored("/tree") == files
    # one call for each file and folder, and a few more
    assert told(stack, f"put -r of {FILES} files") <= FILES + 30
    stack.control.reset_counts()
    stack.sftp("get -r tree back")
    assert digests(stack.folder / "back") == files
    assert told(stack, f"get -r of {FILES} files") <= FILES + 30


def test_one_client_puts_files_into_a_folder_that_nobody_has_listed(stack: Stack) -> None:
    """It asks for each name before; that must not cost a call each."""
    make_files(stack.folder / "tree", FILES)
    stack.control.seed("/there/old", b"1")
    stack.sftp("ls")
    is_followed(stack)
    stack.control.reset_counts()
    stack.sftp("put tree/*/* /there/")
    assert len(stack.stored("/there")) == FILES + 1
    assert told(stack, f"put of {FILES} files into an existing folder") <= FILES + 15


def test_several_clients_at_once(stack: Stack) -> None:
    trees = [make_files(stack.folder / f"tree{number}", FILES // CLIENTS) for number in range(CLIENTS)]
    stack.control.latency(commit_seconds=0.03, patience_seconds=0.1)
    stack.sftp("ls")
    stack.control.reset_counts()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: stack.sftp(f"put -r tree{number}"), range(CLIENTS)))
    for number, tree in enumerate(trees):
        assert stack.stored(f"/tree{number}") == tree
    told(stack, f"put -r of {FILES} files by {CLIENTS} clients")
    stack.control.reset_counts()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: stack.sftp(f"get -r tree{number} back{number}"), range(CLIENTS)))
    for number, tree in enumerate(trees):
        assert digests(stack.folder / f"back{number}") == tree
    told(stack, f"get -r of {FILES} files by {CLIENTS} clients")


def test_several_clients_while_dropbox_says_429(stack: Stack) -> None:
    """Every tenth commit is refused for a moment; no client notices."""
    trees = [make_files(stack.folder / f"tree{number}", 40) for number in range(CLIENTS)]
    for after in range(0, 100, 10):
        for route in ("files/upload", "files/upload_session/finish_batch_v2"):
            stack.control.fault(route, "rate_limit", 1, after, retry_after=1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: stack.sftp(f"put -r tree{number}"), range(CLIENTS)))
    for number, tree in enumerate(trees):
        assert stack.stored(f"/tree{number}") == tree
    assert stack.control.faults_struck >= (1 if stack.write_back else 2)  # many files share a commit
