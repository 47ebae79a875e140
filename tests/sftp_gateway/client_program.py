"""What programs of many clients, which tests run beside a gateway, have in common: arguments, threads, results."""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol


class Client(Protocol):
    """A client: what it has done, by kind, and what was wrong, if anything was."""

    done: Counter[str]
    problem: str

    def run(self, until: float) -> None:
        """Work until a (monotonic) time; raises nothing."""


def arguments() -> argparse.ArgumentParser:
    """Return what every program has to be told; its clients take their folders and their chances from the seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser


def run(clients: Sequence[Client], seconds: float) -> dict[str, Any]:
    """Let all clients work for some seconds, each in a thread; return what they did and what was wrong."""
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
        time.sleep(0.02)  # a gateway lets only so many in at once that have not signed in yet
    for thread in threads:
        thread.join()
    return {
        "done": sum((client.done for client in clients), Counter()),
        "problems": [client.problem for client in clients if client.problem],
    }
